"""``pop3cli sync``: a mailbox into a Maildir or an mbox; kill -9 at any instant loses nothing and doubles nothing.

Begin at `pop3cli.sync.command`; `run` is one account once, `plan` decides, `writer` brings messages to the disk, and
`state` remembers.
"""
