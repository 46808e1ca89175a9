"""pop3d.stores.maildir."""
