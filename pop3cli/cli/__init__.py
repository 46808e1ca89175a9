"""pop3cli.cli."""
