"""Where a user's mailbox is, by the path that the configuration says for all."""

from __future__ import annotations

from pop3d.auth import Account, check_user_name
from pop3d.stores import StoreError

__all__ = ["mailbox_path"]


def mailbox_path(template: str, account: Account) -> str:
    """A user's mailbox by the configured path. Raises `StoreError` when the name, or its home, cannot be in a path."""
    try:
        check_user_name(account.name)
    except ValueError as fault:
        raise StoreError("this mailbox cannot be opened", code="SYS/PERM", detail=str(fault)) from None
    if "{home}" in template and not account.home:
        raise StoreError("this mailbox cannot be opened", code="SYS/PERM", detail="the user has no home")
    local, _, domain = account.name.partition("@")
    if "{domain}" in template and domain in ("", ".", ".."):
        raise StoreError("this mailbox cannot be opened", code="SYS/PERM", detail="the user has no domain")
    if "{local}" in template and not local:  # the path would be that of the folder of all mailboxes
        detail = "the user's name has nothing before its @"
        raise StoreError("this mailbox cannot be opened", code="SYS/PERM", detail=detail)
    return template.format(user=account.name, local=local, domain=domain, home=account.home)
