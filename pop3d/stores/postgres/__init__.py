"""pop3d.stores.postgres."""
