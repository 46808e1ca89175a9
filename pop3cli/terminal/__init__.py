"""pop3cli.terminal."""
