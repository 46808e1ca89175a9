"""Mail that is on another POP3 server.

The one wing that speaks POP3 as a client: by `pop3cli.net` and `pop3cli.auth`, and nothing else of that program.
"""
