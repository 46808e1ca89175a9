"""A POP3S daemon in one process: asyncio, TLS, Maildir, driven by the engine of `pop3core`."""
