"""pop3d.abuse."""
