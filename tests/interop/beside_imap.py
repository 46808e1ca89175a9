"""Dovecot's IMAP and pop3d on one Maildir, under deliveries by three programs: nothing is lost, no unique-id changes.

``python -m tests.interop.beside_imap --seconds 600`` runs it and prints what happened. `pop3d deliver`, Dovecot's LDA,
and a program that writes Maildirs as Postfix does deliver; an IMAP client sets flags, moves and expunges; a POP3 client
lists, reads and deletes through pop3d, with ``uidl = "dovecot"``. As root, for Dovecot.
"""

import argparse
import contextlib
import imaplib
import os
import poplib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from pop3d.auth.users_file import add_user
from pop3d.net.certificates import create_self_signed
from tests.interop import dovecot
from tests.interop.soak_outcome import SoakOutcome, SoakRecord
from tests.maildirs import make_maildir
from tests.site import Daemon, Site, free_port, site_configuration

LDA = Path("/usr/lib/dovecot/dovecot-lda")
IMAP = Path("/usr/lib/dovecot/imap")
USER, PASSWORD = "alice", "secret"
KEPT = 150
"""Messages in the mailbox from which on both clients remove more than they leave."""
PAUSE = 0.05
"""Seconds between two deliveries of one program."""

EXTRA = """
protocols = pop3 imap
postmaster_address = postmaster@localhost
service imap-login {{
  inet_listener imap {{
    address = 127.0.0.1
    port = {port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
"""
_SUBJECT = re.compile(rb"^Subject: (\S+)", re.MULTILINE | re.IGNORECASE)


def missing() -> str | None:
    """Why it cannot be run here; None when it can."""
    if (why := dovecot.missing()) is not None:
        return why
    return None if IMAP.exists() and LDA.exists() else "Dovecot's IMAP is not installed (Debian: dovecot-imapd)"


def message(subject: str) -> bytes:
    return f"Subject: {subject}\nFrom: a@localhost\nTo: {USER}@localhost\n\n{subject}\n.\nlast\n".encode()


class Soak:
    """``root``: a new folder; ``seconds``: how long programs go on."""

    def __init__(self, root: Path, seconds: float) -> None:
        self._root, self._seconds = root, seconds
        self._box = root / "mail" / USER
        self._site = Site(root / "pop3d", free_port())
        self._imap_port = free_port()
        self._ended = threading.Event()
        self.record = SoakRecord()

    def run(self) -> SoakOutcome:
        self._plant()
        extra = EXTRA.format(port=self._imap_port)
        with dovecot.serving(self._root / "dovecot", f"{self._root}/mail/%u", extra=extra), self._served():
            deliverers = {"pop3d deliver": self._by_pop3d, "dovecot-lda": self._by_lda, "Maildir": self._by_rename}
            work: list[Callable[[], None]] = [self._delivering(name, by) for name, by in deliverers.items()]
            work += [self._by_imap, self._by_pop3]
            threads = [threading.Thread(target=self._guarded(one)) for one in work]
            for thread in threads:
                thread.start()
            self._ended.wait(self._seconds)
            self._ended.set()
            for thread in threads:
                thread.join(60)
            left = self._seen_last()
        listed = (self._box / "dovecot-uidlist").read_bytes()
        validity = int(re.findall(rb" V([0-9]+)", listed.partition(b"\n")[0])[0])
        of_dovecot = {b"%08x%08x" % (int(uid), validity) for uid in re.findall(rb"^([0-9]+) ", listed, re.MULTILINE)}
        later = sum(self.record.uids[subject] not in of_dovecot for subject in left)
        return SoakOutcome(self.record, left, later)

    def _plant(self) -> None:
        self._root.chmod(0o755)
        self._site.root.mkdir()
        make_maildir(self._box, {})
        create_self_signed(["localhost"], self._site.root)
        add_user(self._site.root / "users", USER, PASSWORD, "PLAIN")
        text = site_configuration(self._site.port).replace('"mail/', f'"{self._root}/mail/')
        text = text.replace('user = "root"', 'user = "nobody"\ngroup = "nogroup"')
        self._site.config.write_text(f'{text}uidl = "dovecot"\n')
        for path in (self._site.root, *self._site.root.iterdir(), self._root / "mail", *self._box.parent.rglob("*")):
            shutil.chown(path, "nobody", "nogroup")

    @contextlib.contextmanager
    def _served(self) -> Iterator[None]:
        daemon = Daemon(self._site)
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(daemon.process.stderr or ()))
        reader.start()
        try:
            yield
        finally:
            daemon.process.terminate()
            if daemon.process.wait(30):
                self.record.failed.append(f"pop3d ended with {daemon.process.returncode}")
            reader.join(10)
            assert daemon.process.stderr is not None
            daemon.process.stderr.close()
            told = [line for line in lines if " INFO " not in line]
            gone = sum("removed by another program" in line for line in told)
            self.record.counts["messages that IMAP took away while POP3 wanted them"] += gone
            # nothing else may be worth a warning
            self.record.failed += [line for line in told if "removed by another program" not in line]

    def _guarded(self, work: Callable[[], None]) -> Callable[[], None]:
        def guarded() -> None:
            try:
                work()
            except Exception as fault:
                self.record.failed.append(f"{getattr(work, '__name__', work)}: {type(fault).__name__}: {fault}")
                self._ended.set()

        return guarded

    # --- deliveries ---

    def _delivering(self, name: str, by: Callable[[bytes], None]) -> Callable[[], None]:
        def delivering() -> None:
            number = 0
            while not self._ended.wait(PAUSE):
                number += 1
                subject = f"{name.replace(' ', '-')}-{number}"
                by(message(subject))
                self.record.subjects.add(subject.encode())
                self.record.delivered[name] += 1

        return delivering

    def _by_pop3d(self, octets: bytes) -> None:
        command = [sys.executable, "-m", "pop3d", "deliver", USER, "--config", str(self._site.config)]
        subprocess.run(command, input=octets, check=True, capture_output=True, timeout=60)

    def _by_lda(self, octets: bytes) -> None:
        command = [LDA, "-c", self._root / "dovecot" / "dovecot.conf", "-d", USER]
        subprocess.run(command, input=octets, check=True, capture_output=True, timeout=60)

    def _by_rename(self, octets: bytes) -> None:
        """As Postfix's virtual(8)."""
        name = (
            f"{time.time_ns() // 10**9}.V{os.getpid():x}I{time.time_ns():x}M{time.time_ns() // 1000 % 10**6}.localhost"
        )
        path = self._box / "tmp" / name
        path.write_bytes(octets)
        shutil.chown(path, "nobody", "nogroup")
        path.rename(self._box / "new" / name)

    # --- clients ---

    def _by_imap(self) -> None:
        random, counts = Random(1), self.record.counts
        client = imaplib.IMAP4("127.0.0.1", self._imap_port, timeout=60)
        client.login(USER, PASSWORD)
        client.create("Archive")
        client.select("INBOX")
        while not self._ended.wait(0.1):
            client.noop()
            uids = client.uid("SEARCH", "ALL")[1][0].split()  # type: ignore[union-attr]
            counts["IMAP rounds"] += 1
            for uid in random.sample(uids, min(4, len(uids))):
                flag = random.choice([r"\Seen", r"\Flagged", r"\Answered", "keyword"])
                client.uid("STORE", uid.decode(), random.choice(["+FLAGS", "-FLAGS"]), f"({flag})")
                counts["flags set by IMAP"] += 1
            for what in ("moved by IMAP", "expunged by IMAP"):
                if len(uids) > KEPT or random.random() < 0.2:
                    self._take_away(client, random.choice(uids or [b""]).decode(), what)
        client.logout()

    def _take_away(self, client: imaplib.IMAP4, uid: str, what: str) -> None:
        """Move or expunge a message, and note it once that is done: by the untagged EXPUNGE, or its not being there."""
        if not uid:
            return
        found = client.uid("FETCH", uid, "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1]
        texts = [part[1] for part in found if isinstance(part, tuple)]
        subject = _SUBJECT.search(texts[0]) if texts else None
        if subject is None:
            return  # gone
        if what.startswith("moved"):
            status = client.uid("MOVE", uid, "Archive")[0]
        else:
            client.uid("STORE", uid, "+FLAGS.SILENT", r"(\Deleted)")
            status = client.uid("EXPUNGE", uid)[0]
        if status == "OK":
            self.record.removed.add(subject[1])
            self.record.counts[what] += 1

    def _by_pop3(self) -> None:
        random = Random(2)
        while not self._ended.wait(0.05):
            client = self._logged_in()
            if client is None:
                continue
            listed = self._listed(client)
            here = [number for number, subject in listed.items() if subject]
            chosen = random.sample(here, min(len(here), 3 if len(here) > KEPT else int(random.random() < 0.3)))
            for number in chosen:
                client.dele(number)
            if random.random() < 0.1:
                client.close()  # nothing is deleted
                self.record.counts["POP3 sessions cut"] += 1
                continue
            with contextlib.suppress(poplib.error_proto):
                client.quit()
                self.record.removed.update(listed[number] for number in chosen)
                self.record.counts["deleted by POP3"] += len(chosen)

    def _logged_in(self) -> poplib.POP3_SSL | None:
        context = self._site.context()
        client = poplib.POP3_SSL("localhost", self._site.port, context=context, timeout=60)
        client.user(USER)
        try:
            client.pass_(PASSWORD)
        except poplib.error_proto as fault:
            client.close()
            if b"IN-USE" not in fault.args[0]:
                raise
            self.record.counts["POP3 logins while in use"] += 1
            return None
        self.record.counts["POP3 sessions"] += 1
        return client

    def _listed(self, client: poplib.POP3_SSL) -> dict[int, bytes]:
        """Subjects by number; empty where a message went in the meantime. Each unique-id is compared."""
        listed = {}
        for line in client.uidl()[1]:
            number, uid = line.split(b" ")
            known = self.record.subject_of.get(uid)
            if known is not None and hash(uid) % 8:  # looked at again now and then
                listed[int(number)] = known
                continue
            try:
                text = b"\n".join(client.top(int(number), 0)[1])
            except poplib.error_proto:
                listed[int(number)] = b""  # removed by IMAP
                continue
            found = _SUBJECT.search(text)
            assert found is not None, text
            listed[int(number)] = found[1]
            self.record.told(uid, found[1])
        return listed

    def _seen_last(self) -> set[bytes]:
        for _ in range(100):
            client = self._logged_in()
            if client is not None:
                left = set(self._listed(client).values())
                client.quit()
                return left
            time.sleep(0.1)
        raise AssertionError("the mailbox stays in use")


def soak(root: Path, seconds: float) -> SoakOutcome:
    return Soak(root, seconds).run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="default: %(default)s")
    options = parser.parse_args()
    if (why := missing()) is not None:
        sys.exit(why)
    with tempfile.TemporaryDirectory(prefix="beside-imap-") as root:
        outcome = soak(Path(root), options.seconds)
    print(outcome)
    sys.exit(outcome.wrong)


if __name__ == "__main__":
    main()
