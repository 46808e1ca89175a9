"""Mail in PostgreSQL, for any number of nodes.

May touch `pop3d.postgres`, which users in a database share, and no other store.
"""
