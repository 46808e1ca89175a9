"""pop3cli.accounts."""
