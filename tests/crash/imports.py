"""`python -m tests.crash.imports --kills 100`: pop3d import is killed at random, and every message is accounted for.

Into one Maildir, mail of a Maildir with a list, of an mbox and of a POP3 server is imported, and likewise into a
database when there is one. Each import gets SIGKILL at random instants, most of them while it is writing, and is run
again until it comes to its end. Behind each kill a client may delete a message that it sees, and an MTA delivers. In
the end every message must be

- there, or deleted by the client: else it is *lost*;
- there once: else it is *doubled*; not there when the client has deleted it: else it is *resurrected*;
- under the unique-id that its source tells, and there whole: else it is *renamed* or *torn*;
- in the order of its source: else it is *disordered*.
"""

import argparse
import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pop3d.auth import Account
from pop3d.net.certificates import create_self_signed
from pop3d.store_contract import content
from pop3d.stores import Closes, Store
from pop3d.stores.maildir.store import MaildirStore
from tests.maildirs import make_maildir
from tests.site import Daemon, Site, free_port, site_configuration

if TYPE_CHECKING:
    from tests.postgres import Cluster

MESSAGES_A_KILL = 280  # of each source: a group, and some more


@dataclass
class Tally:
    """What was counted."""

    kills: int = 0
    late: int = 0
    imported: int = 0
    deleted: int = 0
    lost: int = 0
    doubled: int = 0
    resurrected: int = 0
    renamed: int = 0
    torn: int = 0
    disordered: int = 0

    @property
    def faults(self) -> int:
        return self.lost + self.doubled + self.resurrected + self.renamed + self.torn + self.disordered

    def __str__(self) -> str:
        return (
            f"kills {self.kills} ({self.late} came too late), imported {self.imported}, deleted {self.deleted}; "
            f"lost {self.lost}, doubled {self.doubled}, resurrected {self.resurrected}, renamed {self.renamed}, "
            f"torn {self.torn}, disordered {self.disordered}"
        )


def text_of(source: str, number: int) -> bytes:
    return f"Subject: {source} {number}\n\n{'body ' * (number % 50)}\n".encode()


class Sources:
    """A Maildir with Dovecot's list, an mbox with X-UIDL, and a POP3 server: pop3d itself."""

    def __init__(self, root: Path, count: int) -> None:
        """``count``: messages of each."""
        self.count = count
        port = free_port()
        root.mkdir()
        create_self_signed(["localhost"], root)
        (root / "pop3d.toml").write_text(f'{site_configuration(port)}[log]\nlevel = "info"\n')
        (root / "users").write_text("old:{PLAIN}secret\n")
        self.site = Site(root, port)
        names = [f"cur/{1_600_000_000 + number}.M1P1.old:2,S" for number in range(count)]
        self.site.maildir("old", {name: text_of("pop3", number) for number, name in enumerate(names)})
        make_maildir(root / "maildir", {name: text_of("maildir", number) for number, name in enumerate(names)})
        listed = [f"{number + 1} :{name[4:-4]}\n" for number, name in enumerate(names)]
        (root / "maildir" / "dovecot-uidlist").write_text("3 V1600000000 N99999\n" + "".join(listed))
        with (root / "mbox").open("wb") as box:
            for number in range(count):
                box.write(b"From a Fri Jan  2 10:13:52 1970 +0000\nX-UIDL: mbox%d\n" % number)
                box.write(text_of("mbox", number) + b"\n")
        self.words: dict[str, list[str]] = {
            "maildir": [str(root / "maildir")],
            "mbox": [str(root / "mbox"), "--x-uidl"],
            "pop3": [f"pop3s://old@localhost:{port}", "--cacert", str(root / "cert.pem")],
        }

    def uid(self, source: str, number: int) -> bytes:
        if source == "maildir":
            return b"%08x%08x" % (number + 1, 1_600_000_000)
        return b"mbox%d" % number if source == "mbox" else b"%d.M1P1.old" % (1_600_000_000 + number)


class ImportCrash:
    """One destination, from the first kill to the account. ``database``: its conninfo; None: a Maildir."""

    def __init__(self, root: Path, sources: Sources, seed: int, database: str | None) -> None:
        self.root, self.sources, self.database = root, sources, database
        self.random = random.Random(seed)
        self.tally = Tally()
        self.deleted: set[bytes] = set()
        root.mkdir()
        create_self_signed(["localhost"], root)
        text = site_configuration(0)
        if database is not None:
            text = text.partition("[store]")[0] + '[store]\nbackend = "postgres"\n[store.postgres]\n'
            text += f'conninfo = "{database}"\n'
        (root / "pop3d.toml").write_text(text)
        (root / "users").write_text("alice:{PLAIN}secret\n")

    def store(self) -> Store:
        if self.database is None:
            return MaildirStore(str(self.root / "mail" / "{user}"), self.root / "state")
        from pop3d.stores.postgres.store import PostgresStore

        return PostgresStore(self.database)

    def look(self, delete: int = 0) -> list[tuple[bytes, bytes]]:
        """Unique-ids and contents as a client sees them, in order; it then deletes so many."""

        async def looked() -> list[tuple[bytes, bytes]]:
            store = self.store()
            drop = await store.open(Account("alice"), utf8=False)
            try:
                found = [(uid, await content(drop, number)) for number, uid in enumerate(drop.messages.uids, 1)]
                chosen = self.random.sample(range(len(found)), min(delete, len(found)))
                await drop.remove([number + 1 for number in chosen])
                self.deleted.update(found[number][1] for number in chosen)
                return found
            finally:
                await drop.close()
                if isinstance(store, Closes):
                    await store.close()

        return asyncio.run(looked())

    def run(self, source: str, kills: int) -> None:
        """One source, killed so often, and then brought to its end."""
        command = [sys.executable, "-m", "pop3d", "import", "alice", *self.sources.words[source]]
        command += ["--config", str(self.root / "pop3d.toml")]
        environment = {**os.environ, "POP3D_IMPORT_PASSWORD": "secret"}
        for _ in range(kills):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
            self._wait_for_work(process)
            time.sleep(self.random.uniform(0, 0.15))
            self.tally.kills += 1
            self.tally.late += process.poll() is not None
            process.send_signal(signal.SIGKILL)
            process.wait()
            self.look(self.random.randrange(3))
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
        assert done.returncode == 0, done.stderr
        self.account(source)

    def _wait_for_work(self, process: "subprocess.Popen[bytes]") -> None:
        """Until it has begun: most of its time a process starts."""
        journals = self.root / "state" / "keep" / "imports"
        before = self._sizes(journals)
        until = time.monotonic() + 30
        while process.poll() is None and self._sizes(journals) == before and time.monotonic() < until:
            time.sleep(0.002)

    @staticmethod
    def _sizes(folder: Path) -> dict[str, int]:
        with contextlib.suppress(FileNotFoundError):
            return {path.name: path.stat().st_size for path in folder.iterdir()}
        return {}

    def account(self, source: str) -> None:
        """Every message of a source."""
        texts = {text_of(source, number).replace(b"\n", b"\r\n"): number for number in range(self.sources.count)}
        if source == "mbox":
            texts = {b"X-UIDL: mbox%d\r\n%b" % (number, text): number for text, number in texts.items()}
        mark = f"Subject: {source} ".encode()
        found = [(uid, text) for uid, text in self.look() if mark in text]
        counted = Counter(text for _, text in found)
        self.tally.torn += sum(text not in texts for text in counted)
        self.tally.doubled += sum(count - 1 for count in counted.values())
        self.tally.lost += len(texts.keys() - counted.keys() - self.deleted)
        self.tally.resurrected += len(texts.keys() & counted.keys() & self.deleted)
        numbers = [texts[text] for _, text in found if text in texts]
        self.tally.disordered += numbers != sorted(numbers)
        self.tally.renamed += sum(uid != self.sources.uid(source, texts[text]) for uid, text in found if text in texts)
        self.tally.imported += len(found)
        self.tally.deleted = len(self.deleted)


def crashes(kills: int, seed: int, cluster: "Cluster | None" = None) -> Iterator[Tally]:
    """The tally of a Maildir, and then of a database if there is a ``cluster``.

    ``kills``: of the import from each source.
    """
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="import-crash-")))
        sources = Sources(root / "sources", MESSAGES_A_KILL * (kills + 1))
        daemon = Daemon(sources.site)
        stack.callback(daemon.end)
        for name, database in (("maildir", None), ("postgres", None if cluster is None else cluster.database())):
            if name == "maildir" or database is not None:
                crash = ImportCrash(root / name, sources, seed, database)
                for source in sources.words:
                    crash.run(source, kills)
                yield crash.tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    from tests.postgres import Cluster

    cluster = Cluster()
    faults = 0
    try:
        for tally in crashes(options.kills, options.seed, cluster):
            print(tally, flush=True)
            faults += tally.faults
    finally:
        cluster.close()
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
