"""The examples run, and are as short as they say."""

import ast
import contextlib
import poplib
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_two_engines() -> None:
    result = subprocess.run([sys.executable, EXAMPLES / "two_engines.py"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert "C: RETR 1" in lines
    assert "S: +OK 45 octets" in lines
    assert "S: .." in lines
    assert "   (the server removes (2,))" in lines
    assert lines[-1].startswith("   Replied(command=Quit(), ok=True")


def test_tiny_server() -> None:
    command = [sys.executable, EXAMPLES / "tiny_server.py", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().split()[-1])
            with contextlib.closing(poplib.POP3("127.0.0.1", port, timeout=20)) as client:
                client.user("alice")
                client.pass_("secret")
                assert client.stat() == (2, 49)
                assert client.retr(2)[1] == [b"Subject: dots", b"", b".", b".."]
                client.dele(1)
                client.quit()
            with contextlib.closing(poplib.POP3("127.0.0.1", port, timeout=20)) as client:
                client.user("alice")
                client.pass_("secret")
                assert client.uidl()[1] == [b"1 2"]
                client.quit()
        finally:
            process.terminate()


def test_the_tiny_server_has_forty_lines() -> None:
    source = (EXAMPLES / "tiny_server.py").read_text()
    tree = ast.parse(source)
    documented = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node)
        for line in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
    }
    code = [number for number, line in enumerate(source.splitlines(), 1) if line.strip() and number not in documented]
    assert len(code) <= 42
