"""What a change of each key does while the daemon runs."""

import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from pop3d.config import Config, load
from pop3d.config.reloading import EFFECTS, Change, Effect, change, effect_of

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def keys_of(model: type[BaseModel], *above: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = list(models_in(field.annotation))
        if inner:
            yield from keys_of(inner[0], *above, name)
        else:
            yield ".".join((*above, name))


def models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, BaseModel):
            yield annotation
    else:
        for one in typing.get_args(annotation):
            yield from models_in(one)


def test_every_key_has_an_effect() -> None:
    keys = list(keys_of(Config))
    assert {"hostname", "listen.trusted_proxies", "tls.sni.hosts", "auth.postgres.query", "limits.idle_timeout"} < {
        *keys
    }
    for key in keys:
        try:
            effect_of(key)
        except KeyError:
            pytest.fail(
                f"{key}: say in pop3d/config/reloading.py, and in docs/configuration.md, what a reload does to it"
            )
    assert all(any(key == entry or key.startswith(f"{entry}.") for key in keys) for entry in EFFECTS)


def test_the_page_says_what_the_table_says() -> None:
    section = PAGE.read_text().partition("## What SIGHUP changes")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|$", section, re.MULTILINE)
    told = {key: effect for keys, effect in rows for key in re.findall(r"`([^`]+)`", keys)}
    assert told == {key: effect.value for key, effect in EFFECTS.items()}


BASE = 'hostname = "a"\n[[listen]]\nhost = "127.0.0.1"\nport = 1\ntls = "none"\n'


@pytest.mark.parametrize(
    ("old", "new", "changed", "restart"),
    [
        (BASE, BASE, (), ()),
        (BASE, f"drain_timeout = 10\n{BASE}", (), ()),  # the default, said
        (BASE, f"drain_timeout = 1\n{BASE}", ("drain_timeout",), ()),
        (BASE, f'{BASE}[metrics]\nlisten = "127.0.0.1:1"', (), ("metrics",)),
        (BASE, f'{BASE}[log]\nlevel = "debug"\nfile = "/tmp/x.log"', ("log.level",), ("log.file",)),
        (BASE, BASE.replace("port = 1", "port = 2"), (), ("listen",)),
        (BASE, f'{BASE}insecure = true\n[[listen]]\nport = 2\ntls = "none"\ninsecure = true', (), ("listen",)),
        (BASE, f'{BASE}trusted_proxies = ["192.0.2.1"]', ("listen.trusted_proxies",), ()),
        (BASE, f'user = "x"\ndrain_timeout = 1\n{BASE}', ("drain_timeout",), ("user",)),
        # what fits to what needs a restart only, waits with it
        (
            f'{BASE}[auth]\nbackend = "pam"',
            f'{BASE}[store]\npath = "{{home}}/mail"',
            (),
            ("auth.backend", "store.path"),
        ),
        (
            f'{BASE}[auth]\nbackend = "a:B"\noptions = {{ secret = 1 }}',
            f'{BASE}[auth]\nbackend = "a:B"\ntrusted_networks = ["192.0.2.1"]\noptions = {{ secret = 2 }}',
            ("auth.trusted_networks",),
            ("auth.options",),
        ),
        (
            f'{BASE}[auth]\nbackend = "a:B"\nmechanisms = ["plain"]',
            f'{BASE}[auth]\nbackend = "a:B"\nmechanisms = ["apop"]',
            (),
            ("auth.mechanisms",),
        ),
    ],
)
def test_what_changes(tmp_path: Path, old: str, new: str, changed: tuple[str, ...], restart: tuple[str, ...]) -> None:
    before, after = tmp_path / "old.toml", tmp_path / "new.toml"
    before.write_text(old)
    after.write_text(new)
    found = change(load(before), load(after))
    assert (found.changed, found.restart) == (changed, restart)
    if restart:
        again = change(load(before), found.config)
        assert (again.changed, again.restart) == (changed, ())


def test_a_table_is_touched_by_its_keys(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(BASE)
    one = Change(load(tmp_path / "x.toml"), ("auth.users", "log"))
    assert one.touches("auth") and one.touches("log") and not one.touches("au")
    assert not one.touches("auth", "auth.users")


def test_the_closest_entry_counts() -> None:
    assert (effect_of("auth.backend"), effect_of("auth.oauth.scope")) == (Effect.RESTART, Effect.CONNECTIONS)
    with pytest.raises(KeyError):
        effect_of("nothing")
