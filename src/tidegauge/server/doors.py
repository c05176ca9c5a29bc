"""The other doors: adapters onto the desk, opened where the configuration has a table for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Protocol

from tidegauge.server.config import Config, ConfigError, Folder, Kafka
from tidegauge.server.desk import Desk
from tidegauge.server.security import Gate


class Door(Protocol):
    """Brings events to the desk from its construction on, through a port if it has one."""

    port: int | None

    def close(self) -> None:
        """Take nothing new, and return once everything taken is written."""


def open_doors(desk: Desk, gate: Gate, config: Config) -> dict[str, Door]:
    """Open the doors of a configuration, by the names of their tables.

    Raises
    ------
    ConfigError
        When one cannot be opened; none is then.
    """
    doors: dict[str, Door] = {}
    with ExitStack() as opened:

        def add(name: str, open_door: Callable[[], Door]) -> None:
            with _extra(name):
                doors[name] = open_door()
            opened.callback(doors[name].close)

        if config.flight is not None:
            add("flight", lambda: _flight(desk, gate, config))
        if config.http is not None:
            add("http", lambda: _http(desk, gate, config))
        for name, folder in config.folders.items():
            add(f"folders.{name}", partial(_folder, desk, name, folder))
        for name, topics in config.kafka.items():
            add(f"kafka.{name}", partial(_kafka, desk, name, topics))
        opened.pop_all()
    return doors


def _http(desk: Desk, gate: Gate, config: Config) -> Door:
    from tidegauge.server.events import EventDoor

    return EventDoor(desk, gate, config)


def _flight(desk: Desk, gate: Gate, config: Config) -> Door:
    from tidegauge.server.flight import FlightDoor

    return FlightDoor(desk, gate, config)


def _kafka(desk: Desk, name: str, topics: Kafka) -> Door:
    from tidegauge.server.kafka import KafkaDoor

    if topics.model not in desk.models:
        raise ConfigError(f"[kafka.{name}] there is no model {topics.model!r}")
    return KafkaDoor(desk, name, topics)


def _folder(desk: Desk, name: str, folder: Folder) -> Door:
    from tidegauge.server.folder import FolderDoor

    if not folder.path.is_dir():
        raise ConfigError(f"[folders.{name}] {folder.path} is no folder")
    if folder.model not in desk.models:
        raise ConfigError(f"[folders.{name}] there is no model {folder.model!r}")
    return FolderDoor(desk, name, folder)


@contextmanager
def _extra(name: str) -> Iterator[None]:
    """Say what has to be installed."""
    table = name.partition(".")[0]
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"[{name}] needs {error.name}, which is not installed: pip install 'tidegauge[{table}]'"
        ) from None
