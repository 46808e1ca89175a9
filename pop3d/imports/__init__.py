"""Mail of another mailbox into a user's, each message once, however often that is interrupted and taken up again.

`pop3d.stores` has the sources and the destinations; this ties them, and remembers what was done. Nothing here knows a
concrete store, a terminal or the configuration.
"""
