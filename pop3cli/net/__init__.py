"""pop3cli.net."""
