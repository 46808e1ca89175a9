"""What must be true of a release and need not be before. ``python -m tests.release`` lists what is not; exit code 1.

It is no part of continuous integration, which runs on every commit.
"""

import re
import sys
from pathlib import Path

__all__ = ["faults"]

ROOT = Path(__file__).parents[1]
ADDRESS = re.compile(r"<([^<>@\s]+@[^<>@\s]+)>")
NOBODYS = re.compile(r"(?:^|[.@])(?:invalid|test|example|localhost|example\.(?:com|net|org))$", re.IGNORECASE)
"""Domains that nobody can have (RFC 2606 §2, §3)."""


def faults(page: str) -> list[str]:
    """What is wrong with the page of security, a line each. ``page``: its text."""
    where = "docs/security.md, 'Report a vulnerability'"
    section = page.partition("\n## Report a vulnerability\n")[2].partition("\n## ")[0]
    addresses = ADDRESS.findall(section)
    if not addresses:
        return [f"{where}: there is no address; write one that somebody reads, as <name@domain>"]
    found = [
        f"{where}: {address} is a placeholder; write an address that somebody reads, and remove the last paragraph"
        for address in addresses
        if NOBODYS.search(address)
    ]
    if not found and "placeholder" in section:
        found.append(f"{where}: it still says that the address is a placeholder; remove the last paragraph")
    return found


def main() -> int:
    """Print all faults; 1 when there are any."""
    found = faults((ROOT / "docs/security.md").read_text())
    for fault in found:
        print(fault, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
