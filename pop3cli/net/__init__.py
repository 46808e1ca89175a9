"""One connection to one server: sockets, proxies, TLS and certificates, the engine's driver, a trace.

May touch errors and files only. Part of the library: no account, no terminal.
"""
