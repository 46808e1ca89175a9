"""``pop3cli shell``: a dialogue with a server, line by line.

May touch all but the command line, and none of its neighbours `commands`, `doctor` and `sync`.
"""
