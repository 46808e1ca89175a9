"""pop3d.system."""
