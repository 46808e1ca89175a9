"""Sites for `pop3d check`."""

import pytest

from tests.site import Site


@pytest.fixture
def one_message(site: Site) -> None:
    """alice's, on the site of the test."""
    site.maildir("alice", {"new/1.host": b"Subject: 1\n\n1\n"})
