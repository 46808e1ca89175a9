"""`python -m tests.untidy.sync --seconds 600`: random walks of `pop3cli sync` through a world that is never tidy.

Between any two runs, and within them, a server gives ids out again, changes them, reorders, loses its list, announces
wrong sizes, refuses single commands and cuts anywhere; other programs deliver into the destination, move, rewrite and
delete there; the process dies at any call to the system, or is told that the disk is full; the state is lost. At each
removal by our QUIT, and behind each run:

- a message that our QUIT removes is in the destination, octet for octet, or was there until somebody removed it;
- mail of other programs in the destination is as it was;
- nothing is in the destination twice, but for what docs/client.md says;
- nothing of ours is left in tmp/ by a run that has ended in order.

And when the faults stop, everything that the server has reaches the destination.

What no client can see is left out: another client's deletion, and its id for another message of the same size, both
between two of our sessions. `--undo NAME` takes one of the product's repairs back, and shows the steps that find it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import re
import shutil
import socket
import ssl
import sys
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pop3cli.errors import OutputFailed
from pop3cli.mailbox.index import Reconnect
from pop3cli.net.session import Session
from pop3cli.sync.filters import Filter, FilterVerdict
from pop3cli.sync.maildir import Maildir
from pop3cli.sync.mbox import Mbox
from pop3cli.sync.plan import SyncOptions
from pop3cli.sync.run import SyncReport, SyncRun
from pop3core.client import ClientConfig
from tests.untidy.crash import CHANGING, Clock, Crash, System, patched
from tests.untidy.pop3 import Faults, Mail, Server

SIZES = (120, 150)
"""Octets of messages: few, so that a size alone tells nothing."""

DAY = 24 * 3600
ACCOUNT = "alice@localhost:995"
TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
WALKS = 100  # with one seed
BODIES = (b"text", b"From here", b">From there", b".dot", b"spam", b"later", b"Message From bob")
Arrival = tuple[int, bytes, int]
ARRIVAL = st.tuples(st.sampled_from(SIZES), st.sampled_from(BODIES), st.sampled_from((0, 0, 0, 7)))
"""A message: its octets, a line of its body, how much more is announced."""

DEATHS = (
    *(("any", at) for at in range(1, 50)),
    *((call, at) for call in CHANGING for at in (1, 2, 3, 4)),
    *(("copy", at) for at in range(5, 17)),
)
"""A call to the system, and its number in the run."""

SEPARATOR = re.compile(rb"^From ", re.MULTILINE)


class Judge(Filter):
    """A filter without a process: what says spam is to be deleted, what says later is to be left."""

    def __init__(self) -> None:
        self.refused: set[bytes] = set()

    def judge(self, fd: int) -> FilterVerdict:
        os.lseek(fd, 0, os.SEEK_SET)
        text = os.read(fd, 4096)
        if b"spam" in text:
            self.refused.add(text)
            return FilterVerdict.DELETE
        return FilterVerdict.SKIP if b"later" in text else FilterVerdict.KEEP


class NoMeter:
    def expect(self, more: int) -> None: ...

    def advance(self, more: int) -> None: ...


def seen(message: bytes) -> bytes:
    """A message of an mbox, as a reader leaves it that has shown it."""
    return re.sub(rb"\AFrom .*\n(?!Status)", rb"\g<0>Status: RO\n", message)


class Box:
    """A destination, as its owner and other programs see it."""

    def __init__(self, folder: Path, mbox: bool) -> None:
        self.mbox = mbox
        self.path = folder / ("mail.mbox" if mbox else "mail")
        self.foreign: list[bytes] = []
        if mbox:
            self.path.write_bytes(b"")
        else:
            for inside in ("tmp", "new", "cur", ".Archive/new", ".Archive/cur"):
                (self.path / inside).mkdir(parents=True)

    def files(self) -> list[Path]:
        folders = ("new", "cur", ".Archive/new", ".Archive/cur")
        return sorted(path for inside in folders for path in (self.path / inside).iterdir())

    def copies(self, text: bytes) -> int:
        if self.mbox:
            quoted = re.sub(rb"^(>*From )", rb">\1", text, flags=re.MULTILINE)
            return self.path.read_bytes().count(b"\n" + quoted + b"\n")
        return sum(path.read_bytes() == text for path in self.files())

    def messages(self) -> list[bytes]:
        """Of an mbox, with their separators."""
        content = self.path.read_bytes()
        bounds = [*(found.start() for found in SEPARATOR.finditer(content)), len(content)]
        return [content[begin:end] for begin, end in pairwise(bounds)]

    def deliver(self, number: int) -> None:
        """As another program does: an mbox grows by appending, whatever is there."""
        text = b"Subject: foreign %d\n\nfrom another program\n\n" % number
        if self.mbox:
            text = b"From eve Thu Jan  1 00:00:00 1970\n" + text
            with self.path.open("ab") as file:
                file.write(text)
        else:
            (self.path / "new" / f"{number}.foreign").write_bytes(text)
        self.foreign.append(text)

    def check(self) -> None:
        if self.mbox:
            content = self.path.read_bytes()
            for text in self.foreign:
                assert text in content, f"mail of another program is gone or changed: {text!r}"
        else:
            there = [path.read_bytes() for path in self.files()]
            for text in self.foreign:
                assert there.count(text) == 1, f"mail of another program is gone or changed: {text!r}"


class Sync(RuleBasedStateMachine):
    """The world, and in it one account that is fetched into one destination."""

    steps = runs = 0  # of all walks

    def __init__(self) -> None:
        super().__init__()
        shm = "/dev/shm" if os.path.isdir("/dev/shm") else None  # what no power cut tests needs no disk
        self.folder = Path(tempfile.mkdtemp(prefix="untidy-", dir=shm))
        self.server = Server(self.removed)
        self.clock = Clock()
        self.judge = Judge()
        self.numbers = 0
        self.kept: set[bytes] = set()  # texts that were in the destination at some time
        self.doubled: set[int] = set()  # serials that may be there twice
        self.fragile = False  # the log may know less than is there
        self.faults: list[str] = []

    @initialize(mbox=st.booleans())
    def begin(self, mbox: bool) -> None:
        self.box = Box(self.folder, mbox)

    def teardown(self) -> None:
        try:
            if hasattr(self, "box"):
                self.settle()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    # --- the server ---

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    @rule(arrivals=st.lists(ARRIVAL, min_size=1, max_size=4), again=st.booleans())
    def mail_arrives(self, arrivals: list[Arrival], again: bool) -> None:
        """``again``: under ids that are free, as far as there are any."""
        for arrival in arrivals:
            free = self.server.free
            self.arrival(free.pop() if again and free else f"id-{self.number()}", *arrival)

    def arrival(self, uid: str, size: int, body: bytes, wrong: int) -> None:
        serial = self.number()
        while self.server.passes_for_another(uid, serial, size + wrong):
            size += 1
        head = b"Subject: %06d\r\n\r\n%b\r\n" % (serial, body)
        content = head + b"x" * (size - len(head) - 2) + b"\r\n"
        self.server.mails.append(Mail(serial, uid, content, size + wrong))

    @precondition(lambda self: self.server.mails)
    @rule(
        what=st.sampled_from(("deleted", "deleted", "other id", "same id", "other size", "right size", "order")),
        place=st.integers(0, 5),
        other=st.integers(0, 5),
    )
    def something_happens_on_the_server(self, what: str, place: int, other: int) -> None:
        mails, passes = self.server.mails, self.server.passes_for_another
        mail, second = mails[place % len(mails)], mails[other % len(mails)]
        match what:
            case "deleted":
                self.server.remove(mail)
            case "other id":
                self.server.remove(mail)
                self.doubled.add(mail.serial)
                mails.append(replace(mail, uid=f"id-{self.number()}"))
            case "same id" if mail is not second and not passes(second.uid, mail.serial, mail.announced):
                self.doubled |= {mail.serial, second.serial}
                self.server.free.append(mail.uid)
                mail.uid = second.uid
            case "other size" | "right size":
                size = len(mail.content) + 7 * (what == "other size")
                if not passes(mail.uid, mail.serial, size):
                    mail.announced = size
            case "order":
                random.Random(place * 6 + other).shuffle(mails)

    @rule(lost=st.integers(0, 7))
    def the_list_is_lost_or_back(self, lost: int) -> None:
        for place, mail in enumerate(self.server.mails):
            mail.hidden = bool(lost >> place % 3 & 1)

    # --- the destination ---

    @rule()
    def another_program_delivers(self) -> None:
        self.box.deliver(self.number())
        self.disturbed()

    def disturbed(self) -> None:
        if self.box.mbox and self.fragile:  # what is left of a crash cannot be cut off now
            self.doubled |= {mail.serial for mail in self.server.mails}

    @rule(what=st.sampled_from(("moves", "deletes", "reads")), place=st.integers(0, 5), other=st.booleans())
    def a_reader(self, what: str, place: int, other: bool) -> None:
        """In a Maildir it moves a message or deletes it; an mbox it writes again, in place or in place of it."""
        self.look()
        if self.box.mbox:
            messages = self.box.messages()
            if what == "deletes" and messages:
                gone = messages.pop(place % len(messages))
                self.box.foreign = [text for text in self.box.foreign if text not in gone]
            else:
                messages = [seen(message) for message in messages]
                self.box.foreign = [seen(message) for message in self.box.foreign]
            self.rewrite(b"".join(messages), other)
        elif files := self.box.files():
            path = files[place % len(files)]
            if what == "deletes":
                with contextlib.suppress(ValueError):
                    self.box.foreign.remove(path.read_bytes())
                path.unlink()
            else:
                folder = self.box.path / (".Archive/cur" if other else "cur")
                path.rename(folder / f"{path.name.partition(':')[0]}:2,S")

    def rewrite(self, content: bytes, renaming: bool) -> None:
        if renaming:
            self.box.path.with_name("other").write_bytes(content)
            os.rename(self.box.path.with_name("other"), self.box.path)
        else:
            self.box.path.write_bytes(content)
        self.disturbed()

    # --- the machine it runs on ---

    @rule(days=st.sampled_from((1, 8, 100)), lost=st.sampled_from(("", "", "removed", "emptied")))
    def time_passes(self, days: int, lost: str) -> None:
        """And the state may be lost."""
        self.clock.now += days * DAY
        self.doubled |= {mail.serial for mail in self.server.mails if mail.hidden and days > 90}
        path = self.folder / "state"
        if lost and path.exists():
            path.unlink() if lost == "removed" else path.write_bytes(b"")
            self.fragile = True
            self.doubled |= {mail.serial for mail in self.server.mails}

    # --- a run ---

    @rule(
        arrivals=st.lists(ARRIVAL, max_size=3),
        again=st.booleans(),
        how=st.sampled_from(("keep", "keep", "delete", "delete", "delete", "delete later", "headers")),
        filtering=st.booleans(),
        refused=st.frozensets(st.tuples(st.sampled_from(("RETR", "DELE")), st.integers(1, 3)), max_size=2),
        cut=st.sampled_from((0,) * 12 + tuple(range(1, 13))),
        cut_behind=st.sampled_from((0, 3, 60)),
        updated=st.integers(0, 7),
        quit_reply=st.sampled_from((b"+OK\r\n", b"+OK\r\n", b"-ERR some are left\r\n", b"", b"+O")),
        pipelining=st.booleans(),
    )
    def sync(
        self,
        arrivals: list[Arrival],
        again: bool,
        how: str,
        filtering: bool,
        refused: frozenset[tuple[str, int]],
        cut: int,
        cut_behind: int,
        updated: int,
        quit_reply: bytes,
        pipelining: bool,
    ) -> None:
        self.mail_arrives(arrivals, again)
        removes = frozenset(range(3)) if quit_reply == b"+OK\r\n" else {n for n in range(3) if updated >> n & 1}
        faults = Faults(refused, cut, cut_behind, lambda place: place % 3 in removes, quit_reply, pipelining)
        delete_after = {"delete": 0.0, "delete later": 7.0 * DAY}.get(how)
        judge = self.judge if filtering else None
        self.run_once(SyncOptions(delete_after, headers_only=how == "headers", filter=judge), faults, System())

    @rule(
        arrivals=st.lists(ARRIVAL, max_size=3),
        again=st.booleans(),
        delete=st.booleans(),
        filtering=st.booleans(),
        death=st.sampled_from(DEATHS),
        error=st.booleans(),
        behind=st.booleans(),
        delivery=st.booleans(),
    )
    def sync_that_dies(
        self,
        arrivals: list[Arrival],
        again: bool,
        delete: bool,
        filtering: bool,
        death: tuple[str, int],
        error: bool,
        behind: bool,
        delivery: bool,
    ) -> None:
        """Or is told of an error; then another program may deliver."""
        self.mail_arrives(arrivals, again)
        call, at = death
        system = System(at, call, error=error, behind=behind)
        self.run_once(SyncOptions(0.0 if delete else None, filter=self.judge if filtering else None), Faults(), system)
        if (system.crashed or system.failed) and delivery:
            self.another_program_delivers()

    def run_once(self, wishes: SyncOptions, faults: Faults, system: System) -> SyncReport | None:
        self.server.begin_run(faults)
        if self.fragile:
            self.doubled |= {mail.serial for mail in self.server.mails if mail.hidden}
        Sync.runs += 1
        report = None
        with patched(system, self.clock), contextlib.suppress(Crash):
            report = asyncio.run(self.session(wishes))
        self.fragile = self.fragile and "QUIT" not in self.server.commands
        if system.crashed or system.failed:
            self.fragile = True
            self.lock_of_a_dead_process()
        self.look()
        assert not self.faults, self.faults
        assert report is None or report.error is None or report.error.status != 70
        if report is not None and not system.failed:
            assert not isinstance(report.error, OutputFailed), str(report.error)
            assert self.box.mbox or not os.listdir(self.box.path / "tmp")
        return report

    async def session(self, wishes: SyncOptions) -> SyncReport:
        served: list[asyncio.Task[None]] = []

        async def dial(host: str, port: int) -> socket.socket:
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            theirs.setblocking(False)
            served.append(asyncio.ensure_future(self.server.serve(theirs)))
            return ours

        async def log_in(session: Session) -> None:
            session._config = ClientConfig(allow_plaintext=True, limits=session._config.limits)
            await session.connect("localhost", 110, tls=TLS, implicit=False, timeout=20, dial=dial)
            await session.login("alice", "secret")

        headers = wishes.headers_only
        destination = Mbox(self.box.path) if self.box.mbox else Maildir(self.box.path, ACCOUNT, headers_only=headers)
        run = SyncRun(
            ACCOUNT, log_in, destination, self.folder / "state", wishes, NoMeter(), reconnect=Reconnect(1, 0.0, 0.0)
        )
        try:
            return await run.run()
        finally:
            for task in served:
                task.cancel()
            await asyncio.gather(*served, return_exceptions=True)

    def lock_of_a_dead_process(self) -> None:
        lock = self.folder / "mail.mbox.lock"
        if lock.exists():
            lock.write_text(f"4194305 pop3cli {socket.gethostname()}\n")  # pids end before

    # --- what must hold ---

    @invariant()
    def counted(self) -> None:
        Sync.steps += 1

    def removed(self, mail: Mail) -> None:
        """Our QUIT is about to remove a message."""
        if mail.text in self.kept or mail.text in self.judge.refused or self.box.copies(mail.text):
            return
        self.faults.append(f"message {mail.serial} ({mail.uid}) is removed, and was never in the destination")

    def look(self) -> None:
        """What is in the destination now."""
        self.box.check()
        for mail in self.server.mails:
            copies = self.box.copies(mail.text)
            if copies:
                self.kept.add(mail.text)
            assert copies < 2 or mail.serial in self.doubled, f"message {mail.serial} is there {copies} times"

    def settle(self) -> None:
        """The faults stop: all that the server has arrives, and is deleted there."""
        for mail in self.server.mails:
            mail.hidden = False
        uids = [mail.uid for mail in self.server.mails]
        for mail in self.server.mails:
            if uids.count(mail.uid) > 1:
                self.doubled.add(mail.serial)
                mail.uid = f"id-{self.number()}"
        for _ in range(3):
            report = self.run_once(SyncOptions(0.0), Faults(), System())
            assert report is not None
            assert report.error is None, str(report.error)
        left = [mail.serial for mail in self.server.mails if b"later" not in mail.content]
        assert not left, f"messages {left} do not leave the server"


def walk(first: int, *, examples: int, steps: int, shrink: bool = True) -> None:
    """Random walks; raises what they find, when its steps were printed. ``first``: the seed."""
    machine = seed(first)(type("Sync", (Sync,), {}))
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
            suppress_health_check=list(HealthCheck),
        ),
    )


def main() -> None:
    from tests.untidy.undone import UNDO

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--steps", type=int, default=30, help="of a walk, at most")
    parser.add_argument("--undo", choices=UNDO)
    options = parser.parse_args()
    began, walks = time.monotonic(), 0
    with pytest.MonkeyPatch.context() as patch:
        if options.undo:
            UNDO[options.undo](patch)
        while (spent := time.monotonic() - began) < options.seconds:
            walk(options.seed + walks, examples=WALKS, steps=options.steps)
            walks += WALKS
            print(f"\r{spent:.0f} s, {walks} walks, {Sync.steps} steps", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(f"{walks} walks from seed {options.seed}, {Sync.steps} steps, {Sync.runs} runs of sync: nothing found")


if __name__ == "__main__":
    main()
