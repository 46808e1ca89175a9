"""What an administrator asks a daemon that runs: who is connected, to end sessions, how it is.

A Unix socket in the state folder, for `user` and root alone. One request a connection, a line of JSON; the answer is
lines of JSON, the last of which says that it is complete.
"""
