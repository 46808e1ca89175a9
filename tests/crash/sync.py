"""`python -m tests.crash.sync --kills 100`: pop3cli sync is killed at random, and every message is accounted for.

`pop3cli sync` fetches from a pop3d into a Maildir and into an mbox, with and without deleting, and gets SIGKILL at
random instants, most of them while it is writing. A reader moves what is in the Maildir from new/ to cur/ and into a
subfolder meanwhile. Every message must then be

- on the server or in the destination: else it is *lost*;
- in the destination as it was sent: else it is *torn*;
- there once: else it is *doubled*.

An mbox is looked at when the next run has repaired it, a Maildir behind each kill. Into one mbox another program
delivers behind each kill: its mail must stay (else it is lost), and what is left of ours there counts neither as torn
nor as doubled.
"""

import argparse
import contextlib
import hashlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pop3d.net.certificates import create_self_signed
from tests.site import Site, free_port, site_configuration

SEPARATOR = re.compile(rb"^From (?:pop3cli-[0-9a-f]{16}|eve) .*\n", re.MULTILINE)


@dataclass
class Tally:
    """What was counted."""

    kills: int = 0
    late: int = 0
    delivered: int = 0
    deleted: int = 0
    lost: int = 0
    torn: int = 0
    doubled: int = 0

    @property
    def faults(self) -> int:
        return self.lost + self.torn + self.doubled

    def __str__(self) -> str:
        return (
            f"kills {self.kills} ({self.late} came too late), delivered {self.delivered}, deleted {self.deleted}; "
            f"lost {self.lost}, torn {self.torn}, doubled {self.doubled}"
        )


@dataclass
class Box:
    """A mailbox, and where it is fetched to."""

    user: str
    mbox: bool
    delete: bool
    shared: bool = False  # with another program, whose mail `theirs` is
    theirs: list[bytes] = field(default_factory=list)
    sent: dict[str, str] = field(default_factory=dict)  # unique-id to digest
    counted: int = 0  # of them, as deleted


class SyncCrash:
    """One site, from its first kill to its account."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.tally = Tally()
        self.boxes = [
            Box(f"{kind}-{'deleting' if delete else 'keeping'}", kind == "mbox", delete)
            for kind in ("maildir", "mbox")
            for delete in (True, False)
        ]
        self.boxes.append(Box("mbox-shared", mbox=True, delete=True, shared=True))
        self._stack = contextlib.ExitStack()
        self._ending = threading.Event()

    def __enter__(self) -> "SyncCrash":
        self.root = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="sync-crash-")))
        port = free_port()
        create_self_signed(["localhost"], self.root)
        (self.root / "pop3d.toml").write_text(f'{site_configuration(port)}[log]\nlevel = "error"\n')
        (self.root / "users").write_text("".join(f"{box.user}:{{PLAIN}}secret\n" for box in self.boxes))
        self.site = Site(self.root, port)
        for box in self.boxes:
            self.site.maildir(box.user, {})
        self.daemon = self._serve()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        return self

    def _serve(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "pop3d", "serve", "--config", str(self.site.config)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.site.port), timeout=1):
                return process
            time.sleep(0.01)
        raise AssertionError("pop3d does not start")

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._reader.join()
        self.daemon.terminate()
        self.daemon.wait()
        self._stack.close()

    # --- others ---

    def deliver(self, box: Box, count: int) -> None:
        """As an MTA does; the journal has it before it is there."""
        mail = self.root / "mail" / box.user
        for _ in range(count):
            number = self.tally.delivered
            name = f"{1_700_000_000 + number}.M{number}P1.host"
            lines = self.random.choice((1, 10, 100, 2000))
            text = b"Subject: %d\n\n" % number + b"From %d: a line\n.\n" % number * lines
            (mail / "tmp" / name).write_bytes(text)
            box.sent[name] = hashlib.sha256(text).hexdigest()
            os.rename(mail / "tmp" / name, mail / "new" / name)
            self.tally.delivered += 1

    def _read(self) -> None:
        """A mail reader: seen mail goes to cur/, and some of it into a subfolder."""
        chance = random.Random(0)
        while not self._ending.wait(0.003):
            for box in self.boxes:
                out = self.out(box)
                if box.mbox or not (out / "cur").is_dir():
                    continue
                (out / ".Archive" / "cur").mkdir(parents=True, exist_ok=True)
                for path in sorted((out / "new").iterdir())[:2]:
                    where = out / ".Archive" / "cur" if chance.random() < 0.3 else out / "cur"
                    path.rename(where / f"{path.name}:2,S")

    # --- rounds ---

    def out(self, box: Box) -> Path:
        return self.root / "out" / (f"{box.user}.mbox" if box.mbox else box.user)

    def start(self, box: Box) -> subprocess.Popen[bytes]:
        account = f"pop3s://{box.user}@localhost:{self.site.port}"
        options = ["--cacert", str(self.site.certificate), "--delete" if box.delete else "--keep"]
        environment = {
            **os.environ,
            "POP3CLI_PASSWORD": "secret",
            "XDG_STATE_HOME": str(self.root / "remembered"),
        }
        return subprocess.Popen(
            [sys.executable, "-m", "pop3cli", "sync", account, str(self.out(box)), *options],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def round(self) -> None:
        """Mail arrives, a sync, a kill, a look."""
        box = self.random.choice(self.boxes)
        self.deliver(box, self.random.choice((5, 60, 300)))
        before = self.footprint(box)
        process = self.start(box)
        deadline = time.monotonic() + 20
        if self.random.random() < 0.9:  # most instants within the writing, some before it
            while self.footprint(box) == before and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(self.random.uniform(0, self.random.choice((0.003, 0.03, 0.3))))
        else:
            time.sleep(self.random.uniform(0, 1))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=20)
        self.tally.kills += 1
        self.tally.late += process.returncode == 0
        if box.shared:
            self.share(box)
        if not box.mbox:
            self.look(box)

    def share(self, box: Box) -> None:
        """Another program appends, under no lock but at once: what we had is no more."""
        text = b"From eve Thu Jan  1 00:00:00 1970\nSubject: theirs %d\n\nMessage From eve\n\n" % len(box.theirs)
        self.out(box).parent.mkdir(exist_ok=True)
        with self.out(box).open("ab") as file:
            file.write(text)
        box.theirs.append(text)

    def footprint(self, box: Box) -> object:
        """What changes when something is written."""
        states = self.root / "remembered" / "pop3cli"
        sizes = [path.stat().st_size for path in states.glob(f"{box.user}@*")] if states.is_dir() else []
        out = self.out(box)
        return sum(sizes), len(os.listdir(out / "tmp")) if (out / "tmp").is_dir() else 0

    def repair(self) -> None:
        """A run of each account to its end, and a look at everything."""
        for box in self.boxes:
            process = self.start(box)
            said, _ = process.communicate(timeout=120)
            assert process.returncode == 0, said
            self.look(box)
            there = set(self.on_server(box))
            if box.delete:
                assert not there, f"{len(there)} messages of {box.user} were not deleted"
            self.tally.deleted += sum(name not in there for name in box.sent) - box.counted
            box.counted = sum(name not in there for name in box.sent)

    def on_server(self, box: Box) -> Iterator[str]:
        mail = self.root / "mail" / box.user
        for folder in ("new", "cur"):
            yield from (path.name.partition(":")[0] for path in (mail / folder).iterdir())

    def look(self, box: Box) -> None:
        """Every message against the journal."""
        there = set(self.on_server(box))
        names = {digest: name for name, digest in box.sent.items()}
        found: Counter[str] = Counter()
        for text in self.texts(box):
            name = names.get(hashlib.sha256(text).hexdigest())
            if name is None:
                self.tally.torn += not box.shared
            else:
                found[name] += 1
        if not box.shared:
            self.tally.doubled += sum(count - 1 for count in found.values())
        elif box.theirs:
            content = self.out(box).read_bytes()
            self.tally.lost += sum(text not in content for text in box.theirs)
        self.tally.lost += sum(name not in there and name not in found for name in box.sent)

    def texts(self, box: Box) -> Iterator[bytes]:
        out = self.out(box)
        if not out.exists():
            return
        if box.mbox:
            for text in SEPARATOR.split(out.read_bytes())[1:]:
                yield re.sub(rb"^>(>*From )", rb"\1", text[:-1], flags=re.MULTILINE)
            return
        seen = set()
        for folder in ("new", "cur", ".Archive/cur"):  # a reader moves in this direction
            if (out / folder).is_dir():
                for path in list((out / folder).iterdir()):
                    with contextlib.suppress(FileNotFoundError):
                        if path.name.partition(":")[0] not in seen:
                            yield path.read_bytes()
                            seen.add(path.name.partition(":")[0])


def crashes(kills: int, seed: int, repair_every: int = 5) -> Iterator[Tally]:
    """The tally behind each kill, and at the end."""
    with SyncCrash(seed) as crash:
        for kill in range(1, kills + 1):
            crash.round()
            if kill % repair_every == 0:
                crash.repair()
            yield crash.tally
        crash.repair()
        yield crash.tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    tally = Tally()
    for tally in crashes(options.kills, options.seed):
        print(f"\r{tally}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(tally)
    sys.exit(1 if tally.faults else 0)


if __name__ == "__main__":
    main()
