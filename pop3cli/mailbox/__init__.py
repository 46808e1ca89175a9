"""pop3cli.mailbox."""
