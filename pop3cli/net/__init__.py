"""One connection to one server: sockets, proxies, TLS and certificates, the engine's driver, a trace.

May touch errors and `pop3cli.sanitize` only. Part of the library: no account, no terminal.
"""
