"""pop3cli.commands."""
