"""A mailbox as a program wants it: by unique-id, over one connection or several.

May touch auth, accounts and net. Part of the library.
"""
