"""`pop3cli sync` against pop3d: what is fetched, what is deleted, what is remembered."""

import asyncio
import json
import mailbox
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pop3cli.sync.state import SyncState
from tests.line import Line
from tests.pop3cli.conftest import AS_SENT, Ran, Screen, Sync, spawn, there
from tests.site import Site


def fetched(out: Path) -> list[bytes]:
    return sorted(path.read_bytes() for inside in ("new", "cur") for path in (out / inside).iterdir())


def test_a_maildir_gets_what_is_new_and_once(box: Path, sync: Sync, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert sync() == Ran(0, b"alice@localhost: 3 messages fetched, 3.0 KiB\n", "")
    assert fetched(out) == sorted(AS_SENT.values())
    assert not list((out / "tmp").iterdir())
    assert sync().out == b"alice@localhost: nothing new\n"
    (box / "new" / "4.d").write_bytes(b"Subject: four\n\n")
    for path in (out / "new").iterdir():
        path.unlink()  # what was read and deleted here stays so
    assert sync().out == b"alice@localhost: 1 message fetched, 17 B\n"
    assert fetched(out) == [b"Subject: four\n\n"]
    assert there(box) == {"1.a", "2.b", "3.c", "4.d"}


def test_trace_shows_the_wire_without_secrets(box: Path, sync: Sync) -> None:
    ran = sync("--trace")
    assert ran.out == b"alice@localhost: 3 messages fetched, 3.0 KiB\n"
    assert "C: UIDL" in ran.err and "S: +OK" in ran.err
    assert "C: AUTH PLAIN ***\n" in ran.err
    assert "secret" not in ran.err and "AHNlY3JldA" not in ran.err


def test_an_mbox_gets_it_as_programs_read_it(box: Path, sync: Sync, tmp_path: Path) -> None:
    path = tmp_path / "mail.mbox"
    path.write_bytes(b"From somebody Thu Jan  1 00:00:00 1970\nSubject: before\n\nno empty line behind it\n")
    assert sync(to=path).status == 0
    assert sync(to=path).out == b"alice@localhost: nothing new\n"
    found = mailbox.mbox(path)
    assert [message["Subject"] for message in found] == ["before", "one", "two", "three"]
    assert found[1].get_payload() == ">From here on\n>>From there\n.\n..\n"
    found.close()
    assert not Path(f"{path}.lock").exists()


def test_delete_deletes_what_is_recorded(box: Path, sync: Sync) -> None:
    ran = sync("--delete")
    assert ran.out == b"alice@localhost: 3 messages fetched, 3.0 KiB; 3 deleted\n"
    assert there(box) == set()


def test_what_was_kept_before_is_deleted_later(box: Path, sync: Sync) -> None:
    sync()
    assert sync("--delete-after", "1d").out == b"alice@localhost: nothing new\n"
    assert there(box) == {"1.a", "2.b", "3.c"}
    assert sync("--delete").out == b"alice@localhost: nothing new; 3 deleted\n"
    assert there(box) == set()


def test_time_to_delete_counts_from_fetching(box: Path, sync: Sync, tmp_path: Path) -> None:
    sync()
    (state,) = [path for path in (tmp_path / "remembered/pop3cli").iterdir() if not path.name.endswith(".lock")]
    with SyncState.opened(state, state_key(state)) as opened:
        uid, entry = next(iter(opened.entries.items()))
        opened.record([(uid, type(entry)(entry.kind, int(time.time()) - 31 * 86400, entry.octets))])
    assert sync("--delete-after", "30d").out == b"alice@localhost: nothing new; 1 deleted\n"
    assert there(box) == {"1.a", "2.b", "3.c"} - {uid}


def state_key(path: Path) -> str:
    return path.read_text().splitlines()[0].rpartition(" ")[2]


def test_a_dry_run_does_nothing(box: Path, sync: Sync, tmp_path: Path) -> None:
    assert sync("--dry-run", "--delete").out == b"alice@localhost: 3 messages to fetch, 0 to delete\n"
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "remembered").exists()
    sync()
    row = json.loads(sync("--dry-run", "--delete", "--json").out)
    assert (row["fetch"], row["delete"]) == ([], ["1.a", "2.b", "3.c"])
    assert there(box) == {"1.a", "2.b", "3.c"}


def test_large_ones_are_left(box: Path, sync: Sync, tmp_path: Path) -> None:
    ran = sync("--max-size", "1K", "--delete", "--json")
    row = json.loads(ran.out)
    assert (row["fetched"], row["too_large"], row["deleted"], row["status"]) == (2, 1, 2, 0)
    assert there(box) == {"3.c"}
    assert json.loads(sync("--json").out)["fetched"] == 1


def test_headers_alone(box: Path, sync: Sync, tmp_path: Path) -> None:
    assert sync("--headers-only").status == 0
    assert fetched(tmp_path / "out") == [b"Subject: %s\n\n" % word for word in (b"one", b"three", b"two")]
    assert sync("--headers-only").out == b"alice@localhost: nothing new\n"
    assert b"3 messages fetched" in sync("--delete").out  # whole ones are another thing
    assert len(fetched(tmp_path / "out")) == 6
    assert there(box) == set()
    assert sync("--headers-only", "--delete").status == 2


def test_a_filter_decides(box: Path, sync: Sync, tmp_path: Path) -> None:
    program = tmp_path / "filter.py"
    program.write_text(
        "import sys\ntext = sys.stdin.read()\n"
        "sys.exit(100 if 'two' in text else 101 if 'three' in text else 1 if 'four' in text else 0)\n"
    )
    (box / "new" / "4.d").write_bytes(b"Subject: four\n\n")
    command = f"{sys.executable} {program}"
    ran = sync("--filter", command)
    assert ran.status == 1
    assert ran.out == b"alice@localhost: 1 message fetched, 50 B; 1 deleted; 2 refused by the filter; 1 left\n"
    assert "ended with status 1, which is neither 0, 100 nor 101; the message is tried again next time" in ran.err
    assert fetched(tmp_path / "out") == [AS_SENT["1.a"]]
    assert there(box) == {"1.a", "2.b", "4.d"}
    program.write_text("import time\ntime.sleep(60)")
    ran = sync("--filter", command, "--filter-timeout", "0.3", "--delete")
    assert "did not end within 0.3 s" in ran.err
    assert there(box) == {"2.b", "4.d"}  # skipped, and not judged
    assert sync("--filter", "/nowhere/filter").status == 1
    assert sync("--filter", "'").status == 2


def test_the_state_can_be_named_and_is_that_of_one_account(box: Path, sync: Sync, tmp_path: Path) -> None:
    state = tmp_path / "remember"
    sync("--state", state)
    assert not (tmp_path / "remembered").exists()
    assert b"nothing new" in sync("--state", state, to=tmp_path / "moved").out
    state.write_text(state.read_text().replace("alice", "bob", 1))
    ran = sync("--state", state)
    assert ran.status == 65
    assert "it is that of bob@localhost" in ran.err
    assert b"nothing fetched" in ran.out


def test_a_lost_state_is_found_again_in_the_maildir(box: Path, sync: Sync, tmp_path: Path) -> None:
    state, out = tmp_path / "remember", tmp_path / "out"
    sync("--state", state)
    (out / "cur").mkdir(exist_ok=True)
    (out / ".Archive" / "cur").mkdir(parents=True)
    first, second, _ = sorted((out / "new").iterdir())
    first.rename(out / "cur" / f"{first.name}:2,RS")
    second.rename(out / ".Archive" / "cur" / f"{second.name}:2,S")
    state.unlink()
    assert sync("--state", state, "--delete").out == b"alice@localhost: nothing new; 3 deleted\n"
    assert there(box) == set()


def test_a_second_run_at_the_same_time_is_refused(box: Path, sync: Sync, site: Site, tmp_path: Path) -> None:
    state = tmp_path / "remember"
    with SyncState.opened(state, f"alice@localhost:{site.port}"):
        ran = sync("--state", state)
    assert ran.status == 75
    assert "another one is running" in ran.err


def test_what_is_no_destination_is_refused(box: Path, sync: Sync, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").touch()
    ran = sync(to=folder)
    assert ran.status == 78
    assert "a folder, and no Maildir" in ran.err
    assert [path.name for path in folder.iterdir()] == ["file"]
    assert sync(to=f"mbox:{folder}").status == 78
    for path in ("/dev/null", f"maildir:{folder}/file"):
        ran = sync(to=path)
        assert (ran.status, "no folder, and no Maildir; name a new or an empty one" in ran.err) == (78, True)
    assert sync("--delete", "--delete-after", "1d").status == 2
    assert sync("--delete-after", "soon").status == 2
    assert sync("--max-size", "much").status == 2


@pytest.mark.parametrize("text", [b"a letter\n", b"\n\nFrom: a\n", b"\0", b"\n" * 4096 + b"far behind\n"])
def test_a_file_that_is_no_mbox_stays_as_it_is(box: Path, sync: Sync, tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "letter"
    file.write_bytes(text)
    ran = sync(to=file)
    assert ran.status == 78
    assert f"destination {file}: a file, and no mbox; name a new or an empty one" in ran.err
    assert file.read_bytes() == text


@pytest.mark.parametrize("text", [b"", b"\n", b"\nFrom a Thu Jan  1 00:00:00 1970\n\nold\n\n"])
def test_a_file_that_is_an_mbox_or_nothing_yet_grows(box: Path, sync: Sync, tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "letters"
    file.write_bytes(text)
    assert sync(to=file).status == 0
    assert file.read_bytes().startswith(text)
    assert file.read_bytes().count(b"From pop3cli-") == 3


def test_several_accounts_fail_on_their_own(box: Path, sync: Sync, site: Site, tmp_path: Path) -> None:
    other = f"pop3s://bob@localhost:{site.port}"
    ran = sync(tmp_path / "{account}", to=other)
    assert ran.status == 1
    assert b"alice@localhost: 3 messages fetched" in ran.out
    assert "pop3cli: bob@localhost: localhost port" in ran.err
    assert len(fetched(tmp_path / "alice@localhost")) == 3
    assert sync(tmp_path / "one.mbox", to=other).status == 2
    assert sync(tmp_path / "out", "--state", tmp_path / "one", to=other).status == 2


def test_a_password_command_finds_the_account_at_hand(box: Path, sync: Sync, site: Site, tmp_path: Path) -> None:
    command = "sh -c 'test $POP3CLI_ACCOUNT = alice@localhost && echo secret || echo wrong'"
    ran = sync(tmp_path / "{account}", "--password-command", command, to=f"pop3s://bob@localhost:{site.port}")
    assert b"alice@localhost: 3 messages fetched" in ran.out
    assert b"bob@localhost: nothing fetched" in ran.out


def test_json_has_a_line_for_each_account(box: Path, sync: Sync) -> None:
    row = json.loads(sync("--json").out)
    assert row == {
        "account": "alice@localhost",
        "status": 0,
        "fetched": 3,
        "octets": sum(len(text) + text.count(b"\n") for text in AS_SENT.values()),
        "deleted": 0,
        "skipped": 0,
        "too_large": 0,
        "left": 0,
        "problems": [],
        "error": None,
    }
    row = json.loads(sync("--json", "--cacert", "/etc/hostname").out or b"null")
    assert row is None


async def test_a_cut_goes_on_over_another_connection(site: Site, box: Path, tmp_path: Path) -> None:
    for number in range(100, 400):
        (box / "cur" / f"{number}.m:2,").write_bytes(b"Subject: %d\n\n" % number + b"%d\n" % number * 2000)
    async with Line(site.port, cuts=[700_000, 900_000]) as line:
        process = start(site, tmp_path, "--delete", port=line.port)
        out, err = await wait(process)
        assert line.connections == 3, err
    assert process.returncode == 0, err
    assert b"303 messages fetched" in out
    assert b"303 deleted" in out
    assert err.count(b"trying again") == 2
    assert len(fetched(tmp_path / "out")) == 303
    assert len(set(fetched(tmp_path / "out"))) == 303
    assert there(box) == set()


def test_a_person_sees_how_far_it_is(site: Site, box: Path, tmp_path: Path) -> None:
    large = b"Subject: large\n\n" + b"x" * 70 + b"\n"
    for number in range(100, 130):
        (box / "cur" / f"{number}.m:2,").write_bytes(large * 10_000)
    program = tmp_path / "filter.sh"
    program.write_text("sleep 0.1\n")  # so that it lasts
    master, slave = pty.openpty()
    environment = {"POP3CLI_PASSWORD": "secret", "XDG_STATE_HOME": str(tmp_path / "remembered")}
    account = f"pop3s://alice@localhost:{site.port}"
    options = ["--cacert", site.certificate, "--filter", f"sh {program}"]
    process = spawn("sync", account, tmp_path / "out", *options, environment=environment, stdout=slave, stderr=slave)
    os.close(slave)
    screen = Screen(master)
    screen.until(b"sync ")
    screen.until(b"/s")
    screen.until(b"33 messages fetched")
    assert process.wait(60) == 0


def start(site: Site, tmp_path: Path, *options: str, port: int | None = None):
    environment = {"POP3CLI_PASSWORD": "secret", "XDG_STATE_HOME": str(tmp_path / "remembered")}
    command = ["sync", f"pop3s://alice@localhost:{port or site.port}", tmp_path / "out", "--cacert", site.certificate]
    return spawn(*command, *options, environment=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


async def wait(process) -> tuple[bytes, bytes]:
    return await asyncio.to_thread(process.communicate, timeout=60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_watching_goes_on_until_it_is_told_to_end(site: Site, box: Path, tmp_path: Path, number: int) -> None:
    process = start(site, tmp_path, "--watch", "1s", "--delete")
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"alice@localhost: 3 messages fetched, 3.0 KiB; 3 deleted\n"
        (box / "new" / "4.d").write_bytes(b"Subject: four\n\n")
        while (line := process.stdout.readline()) == b"alice@localhost: nothing new\n":
            pass
        assert line == b"alice@localhost: 1 message fetched, 17 B; 1 deleted\n"
    finally:
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")


def test_watching_ends_by_itself_when_trying_again_is_of_no_use(
    box: Path, sync: Sync, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POP3CLI_PASSWORD", "wrong")
    ran = sync("--watch", "1s")
    assert ran.status == 77
    assert "refused the login" in ran.err


def test_an_end_does_not_wait_for_a_filter(site: Site, box: Path, tmp_path: Path) -> None:
    program = tmp_path / "filter.py"
    program.write_text(f"import pathlib, time\npathlib.Path({str(tmp_path / 'runs')!r}).touch()\ntime.sleep(600)\n")
    process = start(site, tmp_path, "--watch", "1s", "--filter", f"{sys.executable} {program}", "--delete")
    while not (tmp_path / "runs").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert there(box) == {"1.a", "2.b", "3.c"}
    assert not list((tmp_path / "out/tmp").iterdir())


def test_an_end_in_the_middle_keeps_what_is_whole(site: Site, box: Path, sync: Sync, tmp_path: Path) -> None:
    for number in range(100, 1600):
        (box / "cur" / f"{number}.m:2,").write_bytes(b"Subject: %d\n\n" % number + b"%d\n" % number * 4000)
    process = start(site, tmp_path, "--delete")
    while not (tmp_path / "out/new").is_dir() or not list((tmp_path / "out/new").iterdir()):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"pop3cli: interrupted\n")
    before = len(fetched(tmp_path / "out"))
    assert 0 < before < 1503
    assert not list((tmp_path / "out/tmp").iterdir())
    assert len(there(box)) == 1503
    assert sync("--delete").status == 0
    assert len(set(fetched(tmp_path / "out"))) == len(fetched(tmp_path / "out")) == 1503
    assert there(box) == set()
