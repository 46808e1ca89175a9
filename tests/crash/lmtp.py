"""`python -m tests.crash.lmtp --kills 100`: pop3d is killed while Postfix hands mail over by LMTP.

Twenty senders give messages to a real Postfix without pause. At random instants pop3d gets SIGKILL and is started
again. In the end Postfix's queue runs empty. Each message that Postfix has accepted must be in the mailbox of each of
its recipients, whole: else it is *lost*, *torn* or *bounced*. It may be there twice only where Postfix's log says that
a connection was lost behind the end of the data, before any answer: the 250 was never heard, so the message had to be
sent again. Any other copy is *doubled*.
"""

import argparse
import contextlib
import hashlib
import itertools
import os
import random
import re
import shutil
import smtplib
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.interop.postfix import Postfix
from tests.site import free_port

USERS = [f"user{number}@example.org" for number in range(5)]
SENDERS = 20
PAUSE = 0.1  # seconds of a sender between two messages
SIZES = (300, 4_000, 4_000, 30_000, 400_000)  # octets: the last one is kept in a file on its way

CONFIGURATION = """
hostname = "localhost"
user = "root"
[[listen]]
protocol = "lmtp"
host = "127.0.0.1"
port = {port}
[store]
path = "mail/{{user}}"
[log]
level = "warning"
"""
MAIN = """
virtual_mailbox_domains = example.org
virtual_transport = lmtp:inet:127.0.0.1:{port}
enable_long_queue_ids = yes
queue_run_delay = 1s
minimal_backoff_time = 1s
maximal_backoff_time = 2s
transport_retry_time = 1s
default_destination_concurrency_limit = 20
default_destination_concurrency_failed_cohort_limit = 100
"""
_SAID = re.compile(r" postfix/lmtp\[\d+\]: (\w+): to=<([^>]+)>, .* status=(\w+) \((.*)\)$", re.MULTILINE)
_UNHEARD = "while sending end of data"


@dataclass
class Tally:
    """What was counted. ``unheard``: copies beyond the first whose 250 Postfix did not hear."""

    kills: int = 0
    accepted: int = 0
    there: int = 0
    unheard: int = 0
    lost: int = 0
    torn: int = 0
    doubled: int = 0
    bounced: int = 0

    @property
    def faults(self) -> int:
        return self.lost + self.torn + self.doubled + self.bounced

    def __str__(self) -> str:
        return (
            f"kills {self.kills}, accepted {self.accepted} for all recipients, there {self.there}; lost {self.lost},"
            f" torn {self.torn}, bounced {self.bounced}, doubled {self.doubled};"
            f" {self.unheard} twice where no 250 was heard"
        )


def message(number: int, octets: int) -> bytes:
    """It says which one it is and what it has to be."""
    body = (f"line of message {number}\n" * (octets // 20)).encode()
    digest = hashlib.sha256(body).hexdigest()
    head = f"Subject: {number}\nX-Number: {number}\nX-Digest: {digest}\n\n".encode()
    return (head + body).replace(b"\n", b"\r\n")


@dataclass
class _Accepted:
    id: str
    recipients: list[str] = field(default_factory=list)


class LmtpCrash:
    """Postfix, its senders, and a pop3d that is killed again and again."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.tally = Tally()
        self._accepted: dict[int, _Accepted] = {}
        self._numbers = itertools.count(1)
        self._ended = threading.Event()
        # not below pytest's folder, which only root can enter
        self.root = Path(tempfile.mkdtemp(prefix="pop3d-lmtp-", dir="/tmp"))
        self.root.chmod(0o755)
        port = free_port()
        (self.root / "mail").mkdir()
        (self.root / "users").write_text("".join(f"{user}:{{PLAIN}}secret\n" for user in USERS))
        (self.root / "users").chmod(0o600)
        (self.root / "pop3d.toml").write_text(CONFIGURATION.format(port=port))
        self._log = (self.root / "log").open("wb")
        self._daemon = self._started(port)
        self._port = port
        (self.root / "postfix").mkdir(mode=0o755)
        self.postfix = Postfix(self.root / "postfix", MAIN.format(port=port), "", "")
        self._senders = [threading.Thread(target=self._send, args=(seed + one,), daemon=True) for one in range(SENDERS)]
        for sender in self._senders:
            sender.start()

    def _started(self, port: int) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "pop3d", "serve", "--config", str(self.root / "pop3d.toml")]
        return subprocess.Popen(command, stderr=self._log, start_new_session=True)

    def _sent(self) -> int:
        """Messages that are in the mailboxes."""
        return sum(len(os.listdir(folder)) for folder in (self.root / "mail").glob("*/new"))

    def _send(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self._ended.is_set():
            server = smtplib.SMTP("127.0.0.1", self.postfix.port, timeout=60)
            with contextlib.suppress(OSError, smtplib.SMTPException), server as smtp:
                for _ in range(20):
                    self._send_one(smtp, chance)
                    if self._ended.wait(PAUSE):
                        return

    def _send_one(self, smtp: smtplib.SMTP, chance: random.Random) -> None:
        number = next(self._numbers)
        recipients = chance.sample(USERS, chance.choice((1, 1, 1, 2)))
        smtp.ehlo_or_helo_if_needed()
        smtp.mail("bob@example.net")
        for recipient in recipients:
            assert smtp.rcpt(recipient)[0] == 250
        code, said = smtp.data(message(number, chance.choice(SIZES)))
        if code == 250:
            self._accepted[number] = _Accepted(said.decode().rpartition(" ")[2], recipients)

    def _until(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not true():
            assert self._daemon.poll() is None and time.monotonic() < deadline, (self.root / "log").read_text()
            time.sleep(0.02)

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1):
            return True
        return False

    def kill(self) -> None:
        """Kill pop3d while mail comes in, and start it again."""
        self._until(self._listens)
        sent = self._sent()
        self._until(lambda: self._sent() > sent + 2)  # Postfix, too, has to notice that it is back
        time.sleep(self._random.uniform(0, 0.5))
        self._daemon.kill()
        self._daemon.wait()
        self.tally.kills += 1
        time.sleep(self._random.choice((0, 0, 0.3)))
        self._daemon = self._started(self._port)

    def account(self) -> Tally:
        """No more messages: all that wait are delivered, and then counted."""
        self._ended.set()
        for sender in self._senders:
            sender.join(90)
        deadline = time.monotonic() + 600
        while self.postfix.run("postqueue", "-j").stdout.strip():
            assert time.monotonic() < deadline, self.postfix.run("postqueue", "-p").stdout
            self.postfix.tried_again()
            time.sleep(1)
        copies, self.tally.torn = self._copies()
        said = [found.groups() for found in _SAID.finditer(self.postfix.log)]
        unheard = Counter((id_, to) for id_, to, status, text in said if status == "deferred" and _UNHEARD in text)
        self.tally.bounced = sum(status == "bounced" for _, _, status, _ in said)
        for number, accepted in self._accepted.items():
            for recipient in accepted.recipients:
                self.tally.accepted += 1
                found = copies[number, recipient]
                may = unheard[accepted.id, recipient]
                self.tally.there += found > 0
                self.tally.lost += found == 0
                self.tally.unheard += min(max(found - 1, 0), may)
                self.tally.doubled += max(found - 1 - may, 0)
        return self.tally

    def _copies(self) -> tuple[Counter[tuple[int, str]], int]:
        """How often each message is in each mailbox, and how many are not what was sent."""
        copies: Counter[tuple[int, str]] = Counter()
        torn = 0
        for user in USERS:
            for path in (self.root / "mail" / user).glob("[nc][eu][wr]/*"):
                head, _, body = path.read_bytes().partition(b"\n\n")
                number = re.search(rb"^X-Number: (\d+)$", head, re.MULTILINE)
                digest = re.search(rb"^X-Digest: (\w+)$", head, re.MULTILINE)
                if number is None or digest is None or hashlib.sha256(body).hexdigest() != digest[1].decode():
                    torn += 1
                else:
                    copies[int(number[1]), user] += 1
        return copies, torn

    def close(self) -> None:
        self._ended.set()
        self.postfix.end()
        self._daemon.kill()
        self._daemon.wait()
        self._log.close()
        shutil.rmtree(self.root)


def crashes(kills: int, seed: int) -> Iterator[Tally]:
    """The tally after each kill, and at last what became of all messages."""
    crash = LmtpCrash(seed)
    try:
        for _ in range(kills):
            crash.kill()
            yield crash.tally
        yield crash.account()
    finally:
        crash.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    tally = Tally()
    for tally in crashes(options.kills, options.seed):
        print(f"\r{tally.kills} / {options.kills} kills", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(tally)
    sys.exit(1 if tally.faults or tally.kills < options.kills else 0)


if __name__ == "__main__":
    main()
