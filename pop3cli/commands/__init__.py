"""What each command does, one module a command: from connecting to the last line shown.

A command is plain code (`pop3cli.mailbox.visit`). All that it has to say goes through the `Terminal`; that it went well
is its status, that it failed is an exception. May touch all but the command line, and none of its neighbours `doctor`,
`shell` and `sync`.
"""
