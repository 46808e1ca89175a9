"""pop3cli.message."""
