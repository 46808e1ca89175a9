"""pop3d.observe."""
