"""The machine: whom the process becomes, what it asks of the kernel, systemd, whose files root obeys, files that are
exchanged whole, the state folder.

May touch nothing else of the daemon.
"""
