"""One module per command of the command line. They raise `pop3d.errors.CommandError`; `pop3d.ending` shows it."""
