"""pop3cli.shell."""
