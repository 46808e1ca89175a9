"""pop3cli.auth."""
