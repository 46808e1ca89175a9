"""HTML as text: with the library of the extra, and without it."""

from __future__ import annotations

import sys

import pytest

from pop3cli.message.html import html_to_text
from pop3cli.message.reading import read_message


@pytest.fixture(params=["inscriptis", "plain"])
def html_reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The library of the extra, and what there is without it."""
    if request.param == "plain":
        monkeypatch.setitem(sys.modules, "inscriptis.html_engine", None)
    else:
        pytest.importorskip("inscriptis", reason="pip install 'pop3core[html]'")
    return str(request.param)


def test_html_alone_is_shown_as_text(html_reader: str) -> None:
    message = read_message(
        b"Content-Type: text/html\r\n\r\n<style>x{}</style><p>Hello&nbsp;<b>you</b></p><ul><li>one</ul>"
        b"<p style='display: none'>hidden</p><script>alert(1)</script>"
    )
    lines = [line for line in message.text.split("\n") if line]
    assert lines[0] == "Hello you"
    assert lines[1] == ("  * one" if html_reader == "inscriptis" else "- one")
    assert "hidden" not in message.text
    assert "alert" not in message.text
    assert message.attachments == ()


@pytest.mark.usefixtures("html_reader")
def test_html_shows_where_links_lead() -> None:
    assert html_to_text('<a href="https://evil.example/">your bank</a>') == "your bank <https://evil.example/>\n"
    assert html_to_text('<a href="https://a.example/">https://a.example/</a>') == "https://a.example/\n"
    assert html_to_text('<a href="https://e.example/">https://a.example/</a>.').endswith(" <https://e.example/>.\n")


def test_tables_stand_in_columns() -> None:
    pytest.importorskip("inscriptis", reason="pip install 'pop3core[html]'")
    rows = "<tr><td>a</td><td>1</td></tr><tr><td>long</td><td>2</td></tr>"
    assert html_to_text(f"<table>{rows}</table>").splitlines() == ["a     1", "long  2"]


@pytest.mark.parametrize(
    "html",
    [
        "<div>" * 200_000 + "x",
        "<table><tr><td>" * 5_000 + "x",
        "<table>" + "<tr><td>" + "y" * 500_000 + "</td></tr>" + "<tr><td>x</td></tr>" * 50_000 + "</table>",
        "<div style='padding-left:99999999em'>x</div>" * 1_000,
        "<ul>" * 250 + "<li>x" * 50_000,
        "<a href='https://a.example'>" * 20_000 + "x",
        "&#0;&#x1b;\x00<p>\ud800x",
        "<!--" * 1000 + "x",
        "x",
    ],
    ids=range(9),
)
@pytest.mark.usefixtures("html_reader")
def test_html_that_means_harm(html: str) -> None:
    assert len(html_to_text(html)) < 3_000_000
