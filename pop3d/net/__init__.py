"""One connection: its octets, PROXY header, TLS and certificates. Nothing here knows POP3, or time.

May touch `pop3d.system` only.
"""
