"""pop3d.net."""
