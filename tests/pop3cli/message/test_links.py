"""Where links lead is told beside every text that is not exactly the target."""

from __future__ import annotations

import sys

import pytest

from pop3cli.message.html import html_to_text
from pop3cli.message.links import beside


@pytest.mark.parametrize(
    ("href", "text"),
    [
        ("https://bank.example/", "https://bank.example/"),
        ("https://bank.example/", "https://bank.example"),
        ("https://bank.example/", "bank.example"),
        ("https://bank.example", " Bank.Example/ "),
        ("HTTPS://BANK.example/a?b#c", "https://bank.example/a?b#c"),
        ("https://bank.example:8443/a", "bank.example:8443/a"),
        (" https://bank\n.example/ ", "bank.example"),
        ("mailto:bob@example.org", "bob@example.org"),
        ("mailto:bob@example.org", "mailto:bob@example.org"),
        ("//bank.example/", "//bank.example"),
        ("#top", "your bank"),
        ("", "your bank"),
        (None, "your bank"),
        ("https://evil.example/", " \n"),
    ],
)
def test_nothing_is_told_where_the_text_is_the_target(href: str | None, text: str) -> None:
    assert beside(href, text) == ""


@pytest.mark.parametrize(
    ("href", "text", "told"),
    [
        ("https://evil.example/", "your bank", "<https://evil.example/>"),
        # the text is a part of the target, or the other way round
        ("https://evil.example/?https://bank.example/", "https://bank.example/", "evil.example"),
        ("https://evil.example/https://bank.example/", "https://bank.example/", "evil.example"),
        ("https://bank.example.evil.example/", "bank.example", "bank.example.evil.example"),
        ("https://evil.example/#https://bank.example/", "https://bank.example/", "evil.example"),
        ("https://evil.example", "https://evil.example.bank.example", "<https://evil.example>"),
        ("https://bank.example/a", "https://bank.example/b", "<https://bank.example/a>"),
        ("https://bank.example/A", "https://bank.example/a", "<https://bank.example/A>"),
        ("http://bank.example/", "https://bank.example/", "<http://bank.example/>"),
        ("https://bank.example:8443/", "https://bank.example/", ":8443"),
        ("https://www.bank.example/", "bank.example", "www."),
        # spellings that browsers follow all the same
        ("HTTPS://evil.example/", "https://bank.example/", "evil.example"),
        (" \t\x01https://evil.example/", "https://bank.example/", "<https://evil.example/>"),
        ("ht\ntps://evil.example/", "https://bank.example/", "<https://evil.example/>"),
        ("//evil.example/", "https://bank.example/", "<//evil.example/>"),
        ("\\\\evil.example/", "bank.example", "evil.example"),
        ("/\\evil.example/", "bank.example", "evil.example"),
        ("https:evil.example/", "bank.example", "evil.example"),
        ("https:/evil.example/", "bank.example", "evil.example"),
        ("https:\\\\evil.example/", "bank.example", "evil.example"),
        ("https:////evil.example/", "bank.example", "evil.example"),
        # the host that is asked stands behind a spelling that hides it, even where the text is the very same
        ("https://bank.example@evil.example/", "https://bank.example@evil.example/", "(leads to evil.example)"),
        ("https://bank.example:x@evil.example:99/", "bank.example", "(leads to evil.example:99)"),
        ("https://bank.example%40evil.example/", "https://bank.example%40evil.example/", "(leads to bank.example@evil"),
        ("https://ev%69l.example/", "bank.example", "(leads to evil.example)"),
        ("https://evil.example\\@bank.example/", "https://bank.example/", "(leads to evil.example)"),
        ("https://evil.example\\.bank.example/", "bank.example", "(leads to evil.example)"),
        ("https://b\u0430nk.example/", "https://b\u0430nk.example/", "(leads to xn--bnk-6cd.example)"),
        ("https://xn--bnk-6cd.example/", "https://xn--bnk-6cd.example/", "(leads to xn--bnk-6cd.example)"),
        ("https://xn--bnk-6cd.example/", "https://b\u0430nk.example/", "(leads to xn--bnk-6cd.example)"),
        ("https://evil\u3002example/", "bank.example", "(leads to evil.example)"),
        ("https://\uff45vil.example/", "bank.example", "(leads to evil.example)"),
        ("https://bank.example\u2044.evil.example/", "bank.example", "leads to"),
        # nothing that looks like another link, or like the end of this one
        (
            "https://evil.example/> <https://bank.example/",
            "bank.example",
            "<https://evil.example/%3E%20%3Chttps://bank.exa",
        ),
        # the text may be anything
        ("https://evil.example/", "https://bank.example\u200b/", "<https://evil.example/>"),
        ("https://evil.example/", "<https://bank.example/>", "<https://evil.example/>"),
        # other schemes, and none
        ("javascript:alert(1)", "https://bank.example/", "<javascript:alert(1)>"),
        ("data:text/html,x", "https://bank.example/", "<data:text/html,x>"),
        ("login.html", "https://bank.example/", "<login.html>"),
        ("mailto:eve@evil.example?subject=x", "bob@example.org", "<mailto:eve@evil.example?subject=x>"),
        ("mailto:eve@evil.example", "https://eve@evil.example", "<mailto:eve@evil.example>"),
    ],
)
def test_each_other_target_is_told(href: str, text: str, told: str) -> None:
    found = beside(href, text)
    assert found.startswith(" <")
    assert told in found


def test_a_base_decides_where_others_lead() -> None:
    assert beside("login", "https://bank.example/", "https://evil.example/x/") == " <https://evil.example/x/login>"
    assert beside("//bank.example/", "bank.example", "https://evil.example/") == ""
    assert beside("login", "bank", "https://[/") == " <login>"


def test_a_long_target_is_cut_and_its_host_is_told() -> None:
    found = beside(f"https://{'bank.example' * 500}@evil.example/", "bank.example")
    assert len(found) < 2100
    assert found.endswith("...> (leads to evil.example)")
    found = beside(f"https://x@{'bank.example.' * 5000}evil.example/", "bank.example")
    assert found.endswith("evil.example)")


@pytest.fixture(params=["inscriptis", "plain"])
def _html_reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "plain":
        monkeypatch.setitem(sys.modules, "inscriptis.html_engine", None)
    else:
        pytest.importorskip("inscriptis", reason="pip install 'pop3core[html]'")


EVIL = "https://evil.example/"


@pytest.mark.parametrize(
    "page",
    [
        f'<a href="{EVIL}">https://bank.example/</a>',
        f"<A HREF={EVIL}>https://bank.example/</A>",
        f'<p><a href="{EVIL}">https://bank.example/</p><p>next</p>',
        f'<p>x <a href="{EVIL}">https://bank.example/',
        f'<a href="{EVIL}">bank<a href="https://good.example/">https://good.example/</a>',
        f'<a = href="{EVIL}">bank</a>',
        f'<a/href="{EVIL}"/>bank</a>',
        f'<a x="1"href="{EVIL}">bank</a>',
        f'<a title=">" href="{EVIL}">bank</a>',
        f'<a href="{EVIL}" href="https://bank.example/">https://bank.example/</a>',
        '<a href="https&#58;//evil.example/">https://bank.example/</a>',
        '<a href="https://evil&#46;example/">https://bank.example/</a>',
        '<svg><a xlink:href="https://evil.example/">https://bank.example/</a></svg>',
        '<base href="https://evil.example/"><a href="login">https://bank.example/</a>',
        # what is not seen is no part of the text
        '<a href="https://bank.example.evil.example/">bank.example<i style="display: none">.evil.example</i></a>',
        '<a href="https://bank.example.evil.example/">bank.example<i hidden>.evil.example</i></a>',
        '<a href="https://bank.example.evil.example/">bank.example<script>.evil.example</script></a>',
        '<a href="https://bank.example.evil.example/">bank.example<!-- .evil.example --></a>',
        f'<a href="{EVIL}"><div>https://bank.example/</div></a>',
        f'<a href="{EVIL}"><img src=x alt="https://bank.example/"></a>',
        '<a href="https://bank.example\u00a0.evil.example/">https://bank.example</a>',
    ],
)
@pytest.mark.usefixtures("_html_reader")
def test_a_page_tells_where_its_links_lead(page: str) -> None:
    text = html_to_text(page)
    assert "evil.example" in text
    assert text.index("<") > text.index("bank" if "bank" in text else "x")


@pytest.mark.usefixtures("_html_reader")
def test_each_link_is_told_once() -> None:
    text = html_to_text(f'<div><a href="{EVIL}"><div>your</div><div>bank</div></a></div><p><a href="{EVIL}">x</a></p>')
    assert text.count("<") == 3  # for each line of the first, and for the second
