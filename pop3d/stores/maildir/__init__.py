"""Mail in Maildirs that other programs deliver to, read and change at the same time.

`store` is the `Store`; each other module is one thing that it does, or remembers. May touch `pop3d.auth` for an
account, `pop3d.system`, and no other store.
"""
