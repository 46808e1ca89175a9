"""Mail from a mail transfer agent, by LMTP (RFC 2033), into the mailboxes of users.

`grammar` and `replies` are the words of the protocol; `engine`, with its `events`, is the protocol without I/O.
`session` drives it over one connection, and `listener` holds all connections. `addressees` says whose an address is;
`spool` keeps a message while it arrives; `delivery` brings it into each mailbox, in threads. It may touch users,
stores, the network and the log, and knows nothing of POP3 sessions.
"""
