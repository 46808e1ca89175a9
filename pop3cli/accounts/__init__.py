"""Whose mailbox, and where: account URLs, named accounts, finding a server, connecting to it.

May touch `pop3cli.net` and what stands below it. Part of the library: no terminal, no command line.
"""
