"""The configuration: what is documented is read, what is wrong is named."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tidegauge.server.config import Config, ConfigError, config_of, load_config, with_flags

PAGE = Path(__file__).parent.parent / "docs" / "server.md"


def test_the_documented_file_is_read_and_shows_the_defaults() -> None:
    text = re.search(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert text is not None
    read, plain = config_of(text[1]), Config()
    assert (read.listen, read.storage, read.history) == (
        plain.listen,
        plain.storage,
        plain.history,
    )
    assert read.tls is not None
    assert [token.name for token in read.tokens] == ["flights-service"]
    assert read.models["flights"].retention == {"1h": "7d", "1d": "400d"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("listen = 3", r"\[listen\] is a table, got 3"),
        ("[listen]\nport = 3", r"\[listen\] knows no 'port'; allowed are address, insecure"),
        ("[listen]\naddress = 3", r"\[listen\] address is text, got 3"),
        ("[listen]\ninsecure = 1", r"\[listen\] insecure is true or false, got 1"),
        ("[listen]\nstreams = true", r"\[listen\] streams is a whole number, got True"),
        ("[listen]\nmessage = '1GiB'", "64KiB to 16MiB"),
        ("[listen]\nkeepalive = 'soon'", "soon"),
        ("[storage]\ndurability = 'none'", "power or process, got 'none'"),
        ("[storage]\njournal = 'much'", "'much' is no size"),
        ("[history]\nrows = 0", "at least 1"),
        ("[tls]\nkey = 'a'", r"\[tls\] needs 'certificate'"),
        ("[tokens]\nname = 'a'", r"\[\[tokens\]\]"),
        ("[models.m]\nwindow = '1h'", r"\[models.m\] needs 'reference'"),
        ("[model]\n", r"unknown table \[model\]; allowed are listen"),
        ("[[", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        config_of(text)
    assert "\n" not in str(caught.value)


def test_paths_start_where_the_file_lies(tmp_path: Path) -> None:
    path = tmp_path / "tidegauge.toml"
    path.write_text('[storage]\ndirectory = "data"\n[models.m]\nreference = "/r.tide"\n')
    read = load_config(path)
    assert read.storage.directory == tmp_path / "data"
    assert read.models["m"].reference == Path("/r.tide")
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(path)


def test_flags_go_before_the_file() -> None:
    read = config_of('[listen]\naddress = "127.0.0.1:1"\nstreams = 7')
    changed = with_flags(read, "listen", address="127.0.0.1:2", insecure=None)
    assert changed.listen == replace(read.listen, address="127.0.0.1:2")
