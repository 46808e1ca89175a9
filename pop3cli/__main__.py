"""``python -m pop3cli``."""

from pop3cli.app import main

if __name__ == "__main__":
    main()
