"""The command that installs an extra here: what an error about a missing one ends with.

`pop3d.extras` has the same, since neither program imports the other; a test keeps them equal.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from importlib import metadata

__all__ = ["install_line"]


def install_line(extra: str) -> str:
    """The command that adds ``extra`` the way pop3core was installed: from an index, an archive or a checkout.

    Where that archive or checkout is gone, it names what the extra consists of.
    """
    return shlex.join([sys.executable, "-m", "pip", "install", *_what(extra)])


def _what(extra: str) -> list[str]:
    from importlib import metadata  # it takes 10 ms, which only an error has to pay

    try:
        found = metadata.distribution("pop3core")
    except metadata.PackageNotFoundError:  # run from a folder, without having been installed
        return [f"{Path(__file__).parents[1]}[{extra}]"]
    origin = json.loads(found.read_text("direct_url.json") or "{}")  # PEP 610
    url = origin.get("url", "")
    if not url:
        return [f"pop3core[{extra}]"]
    if (vcs := origin.get("vcs_info")) is not None:
        return [f"pop3core[{extra}] @ {vcs['vcs']}+{url}@{vcs['commit_id']}"]
    if not url.startswith("file:"):
        return [f"pop3core[{extra}] @ {url}"]
    path = unquote(urlsplit(url).path)
    if not Path(path).exists():
        return _parts(found, extra)
    return [*(["-e"] if origin.get("dir_info", {}).get("editable") else []), f"{path}[{extra}]"]


def _parts(found: metadata.Distribution, extra: str) -> list[str]:
    marker = re.compile(rf"extra == ['\"]{re.escape(extra)}['\"]")
    return [line.partition(";")[0].strip() for line in found.requires or () if marker.search(line.partition(";")[2])]
