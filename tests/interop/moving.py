"""A site moves here: what the real Dovecot and the real Courier told their clients, and what pop3d tells them then.

``python -m tests.interop.moving`` prints a table: a line for each way in which a site made its unique-ids, and
whether UIDL, LIST and the contents are the same, message by message; also once the other server's list is lost. Then
one of the users of a passwd-file, and who gets in at both servers.
"""

import asyncio
import json
import os
import poplib
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pop3d.auth.users_file import add_user
from pop3d.net.certificates import create_self_signed
from tests.interop import courier, dovecot, moving_users
from tests.maildirs import make_maildir
from tests.site import Site, free_port, served, site_configuration

FORMATS = (
    "%08Xu%08Xv",
    "%u",
    "%v.%u",
    "UID%u-%v",
    "%08Xv%08Xu",
    "%f",
    "%g",
    "%Mf",
    "%LRf",
    "%5.20Mf-%u",
    "%u-%12Nf",
    "%-30.25f%Xv",
    "%010u%%%Hf",
    "%0.-4g",
)
MAILS = {
    "new/1700000001.M1P1.host": b"Subject: 1\n\nbody\n",
    "new/1700000002.M2P1.Host,S=17,W=20": b"Subject: 2\n\nbody\n",
    "cur/1700000003.M3P1.host:2,S": b"Subject: 3\n\n.\n..dots\n.\n",
    "cur/1700000004.M4P1.host,S=20:2,RS": b"Subject: 4\r\n\r\nCRLF\r\n",
    "cur/1700000005.M5P1." + "long" * 20 + ",S=16:2,": b"Subject: 5\n\n5\n\n\n",
    "cur/1700000006.M6P1.host:2,ST": b"Subject: 6\n\n" + (b"A" * 76 + b"\n") * 1000,
    "new/1700000007.M7P1.host": b"Subject: 7\n\nto be deleted\n",
}
LATE = {"new/1700000009.M9P1.host": b"Subject: 9\n\nlate\n"}
AFTER = {"new/1800000000.M1P1.host": b"Subject: after\n\nx\n"}
DELETED = b"to be deleted"

Seen = list[tuple[bytes, int, bytes]]
"""Unique-id, size and content of each message, by the unique-id."""


@dataclass(frozen=True)
class Case:
    """A mailbox of a site. ``uidl``, ``control``: of pop3d; ``settings``: of Dovecot."""

    name: str
    uidl: str
    settings: dict[str, str] = field(default_factory=dict)
    control: str = ""
    list_before: bytes = b""
    saved: bool = False
    """Its messages are written by Dovecot itself."""

    @property
    def user(self) -> str:
        return "u" + "".join(f"{octet:02x}" for octet in self.name.encode())[:60]

    @property
    def is_courier(self) -> bool:
        return self.uidl == "courier"

    @property
    def mails(self) -> dict[str, bytes]:
        if self.is_courier:  # which sends CR CR LF where a file has CR LF
            return {name: octets.replace(b"\r", b"") for name, octets in MAILS.items()}
        return MAILS


def dovecot_cases(root: Path) -> Iterator[Case]:
    for text in FORMATS:
        yield Case(text, f"dovecot:{text}", {"pop3_uidl_format": text})
    yield Case("%f, saved", "dovecot", {"pop3_uidl_format": "%f", "pop3_save_uidl": "yes"})
    yield Case("%Mf, saved", "dovecot:%u", {"pop3_uidl_format": "%Mf", "pop3_save_uidl": "yes"})
    lines = b"".join(b"%d %b\n" % (3 * n, name[4:].encode()) for n, name in enumerate(MAILS, 1))
    yield Case("list of version 1", "dovecot", list_before=b"1 1600000000 99\n" + lines)
    lines = b"".join(b"%d :%b\n" % (7 * n, name[4:].encode()) for n, name in enumerate(MAILS, 1))
    yield Case("list with holes", "dovecot:%v-%u", {"pop3_uidl_format": "%v-%u"}, list_before=b"3 V1 N99\n" + lines)
    for layout in ("maildir++", "fs"):
        name = f"CONTROL=, LAYOUT={layout}"
        control = str(root / f"control-{layout}")
        mail = f"maildir:{root}/mail/%u:LAYOUT={layout}:CONTROL={control}/%u"
        yield Case(name, "dovecot", {"mail": mail.replace("%u", Case(name, "").user)}, control + "/{user}")
    for packer in ("gz", "zstd"):
        yield Case(f"compressed by {packer}", "dovecot", {"mail_plugins": "zlib", "zlib_save": packer}, saved=True)


def courier_cases() -> Iterator[Case]:
    yield Case("Courier", "courier")
    mails = Case("", "courier").mails
    listed = [f"{name[4:]} {len(octets) + octets.count(bytes([10]))}" for name, octets in mails.items()]
    lines = [f"{line} {n}:{1600000000 + n % 2}\n" for n, line in enumerate(listed[:4], 1)]
    yield Case("Courier, version 2", "courier", list_before=f"/2 5 1600000000\n{''.join(lines)}".encode())
    lines = [f"{line} {n % 3}:0:0\n" for n, line in enumerate(listed[:5])]
    yield Case("Courier, ids of older versions", "courier", list_before=f"/3 5 1600000000\n{''.join(lines)}".encode())


def by_pop3(client: poplib.POP3, user: str, password: str = "secret", delete: bytes = b"\0") -> Seen:
    """What a client sees, and what it deletes: the messages with these octets."""
    client.user(user)
    client.pass_(password)
    sizes = [int(line.split()[1]) for line in client.list()[1]]
    uids = [line.split()[1] for line in client.uidl()[1]]
    seen = []
    for number, (uid, size) in enumerate(zip(uids, sizes, strict=True), 1):
        text = b"".join(line + b"\r\n" for line in client.retr(number)[1])
        if delete in text:
            client.dele(number)
        else:
            seen.append((uid, size, text))
    client.quit()
    return sorted(seen)


def by_courier(box: Path, delete: bytes = b"\0") -> Seen:
    uidl, sizes = courier.said(box, "UIDL", "LIST")
    uids = [line.split(b" ")[1] for line in uidl.split(b"\r\n")[1:]]
    octets = [int(line.split(b" ")[1]) for line in sizes.split(b"\r\n")[1:]]
    replies = courier.said(box, *(f"RETR {number}" for number in range(1, len(uids) + 1)))
    texts = [(reply + b"\r\n").partition(b"\r\n")[2].replace(b"\r\n..", b"\r\n.") for reply in replies]
    gone = [number for number, text in enumerate(texts, 1) if delete in text]
    courier.said(box, *(f"DELE {number}" for number in gone))
    seen = zip(uids, octets, texts, strict=True)
    return sorted(one for number, one in enumerate(seen, 1) if number not in gone)


def changed(box: Path, late: dict[str, bytes]) -> None:
    """What other programs do meanwhile: flags, and a delivery."""
    for path in sorted((box / "cur").iterdir())[:2]:
        path.rename(path.with_name(f"{path.name.partition(':')[0]}:2,RS"))
    for name, octets in late.items():
        (box / name).write_bytes(octets)
        given(box / name)


def given(*paths: Path) -> None:
    """To the user of mail. Dovecot and pop3d both serve as that."""
    for path in paths:
        if os.geteuid() == 0:
            shutil.chown(path, "nobody", "nogroup")


@dataclass(frozen=True)
class Result:
    """``before``: as the other server told it; ``moved``: pop3d; ``lost``: pop3d without the other server's list."""

    case: Case
    before: Seen
    moved: Seen
    lost: Seen

    def differences(self, column: int) -> int:
        """Messages whose unique-id (0), size (1) or content (2) is another one now, or that are lost or new."""
        expected = {text: (uid, size, text)[column] for uid, size, text in self.before}
        found = {text: (uid, size, text)[column] for uid, size, text in self.moved}
        return sum(expected.get(text) != found.get(text) for text in expected | found)

    @property
    def changed_by_loss(self) -> int:
        """Messages that are gone, or have another unique-id, once the list is lost; and what came is not told."""
        later = {text: uid for uid, _, text in self.lost}
        told = sum(later.get(text) != uid for uid, _, text in self.moved)
        return told + (len(self.lost) != len(self.moved) + 1)

    @property
    def wrong(self) -> bool:
        return not self.before or any(map(self.differences, range(3))) or bool(self.changed_by_loss)


def results(root: Path, cases: list[Case]) -> list[Result]:
    """``root``: a new folder."""
    root.chmod(0o755)
    (root / "mail").mkdir()
    for folder in {Path(case.control).parent for case in cases if case.control} | {root / "mail"}:
        folder.mkdir(exist_ok=True)
        given(folder)
    for case in cases:
        make_maildir(root / "mail" / case.user, {} if case.saved else case.mails)
        if case.list_before:
            name = "courierpop3dsizelist" if case.is_courier else "dovecot-uidlist"
            (root / "mail" / case.user / name).write_bytes(case.list_before)
    given(*(root / "mail").rglob("*"))
    before = {case.user: seen for case, seen in _by_others(root, cases)}
    create_self_signed(["localhost"], root)
    return [_moved(root, case, before[case.user]) for case in cases]


def _by_others(root: Path, cases: list[Case]) -> Iterator[tuple[Case, Seen]]:
    """What clients saw last, after a message was deleted and another has come."""
    with ExitStack() as running:
        users = {case.user: case.settings for case in cases if not case.is_courier}
        port = running.enter_context(dovecot.serving(root / "dovecot", f"{root}/mail/%u", users=users)) if users else 0
        for case in cases:
            box = root / "mail" / case.user
            if case.is_courier:
                by_courier(box, DELETED)
                changed(box, LATE)
                yield case, by_courier(box)
                continue
            if case.saved:
                command = ["doveadm", "-c", root / "dovecot" / "dovecot.conf", "save", "-u", case.user]
                for octets in MAILS.values():
                    subprocess.run(command, input=octets, check=True, timeout=30)
            by_pop3(poplib.POP3("127.0.0.1", port, timeout=20), case.user, delete=DELETED)
            changed(box, LATE)
            yield case, by_pop3(poplib.POP3("127.0.0.1", port, timeout=20), case.user)


def _moved(root: Path, case: Case, before: Seen) -> Result:
    folder = root / "pop3d" / case.user
    folder.mkdir(parents=True)
    for name in ("cert.pem", "key.pem"):
        shutil.copy(root / name, folder)
    site = Site(folder, free_port())
    control = f"control = {json.dumps(case.control)}\n" if case.control else ""
    text = site_configuration(site.port).replace('"mail/', f'"{root}/mail/')
    site.config.write_text(f"{text}uidl = {json.dumps(case.uidl)}\n{control}")
    add_user(folder / "users", case.user, "secret", "PLAIN")
    box = root / "mail" / case.user
    seen = []
    for lost in (False, True):
        if lost:
            for path in _lists(case, box):
                path.unlink()
            changed(box, AFTER)
        with served(site):
            client = poplib.POP3_SSL("127.0.0.1", site.port, context=_trusting(site), timeout=20)
            seen.append(by_pop3(client, case.user))
    return Result(case, before, *seen)


def _lists(case: Case, box: Path) -> list[Path]:
    if case.control:
        return list(Path(case.control.replace("{user}", case.user)).rglob("dovecot-uidlist"))
    return [box / ("courierpop3dsizelist" if case.is_courier else "dovecot-uidlist")]


def _trusting(site: Site) -> ssl.SSLContext:
    context = site.context()
    context.check_hostname = False
    return context


def table(found: list[Result]) -> Table:
    shown = Table("site", "messages", "UIDL", "LIST", "contents", "UIDL, list lost")
    for result in found:
        cells = [_same(result.differences(column)) for column in range(3)]
        case = result.case
        shown.add_row(case.name, str(len(result.before)), *cells, _same(result.changed_by_loss))
    return shown


def _same(differences: int) -> str:
    return f"{differences} DIFFER" if differences else "same"


def main() -> None:
    console = Console()
    for words in filter(None, (dovecot.missing(), courier.missing())):
        console.print(words, style="dim")
    with tempfile.TemporaryDirectory(prefix="moving-") as root:
        cases = list(dovecot_cases(Path(root))) if dovecot.missing() is None else []
        cases += courier_cases() if courier.missing() is None else []
        found = results(Path(root), cases)
    console.print(table(found))
    if dovecot.missing() is None:
        console.print(moving_users.table(asyncio.run(moving_users.logins(moving_users.all_lines()))))
    sys.exit(any(result.wrong for result in found))


if __name__ == "__main__":
    main()
