"""A mailbox as a program wants it: by unique-id, over one connection or several.

May touch auth, accounts, message and net, and `pop3cli.options`. Part of the library.
"""
