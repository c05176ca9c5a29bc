"""What a server is told: a TOML file, checked to the last key, and flags that go before it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from tidegauge.journal import Durability
from tidegauge.window import parse_duration

_SIZES = {"": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}
_SIZES |= {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_WORDS = {str: "text", bool: "true or false", int: "a whole number"}
SCOPES = ("read", "write", "admin")
LARGEST_MESSAGE = 16 << 20

Acknowledge = Literal["durable", "received"]
"""Whether an event is on the disk when its sender is told that it was taken."""

Format = Literal["json", "arrow", "protobuf"]
"""Of a message: rows as JSON, an Arrow IPC stream, or a write request of `tidegauge.v1`."""

Start = Literal["earliest", "latest"]

OWN_OPTIONS = {
    "bootstrap.servers",
    "group.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
}

Names = str | tuple[str, ...]
"""One name for a tensor that is a column, or a vector; one for each of its columns, "" for none."""


class ConfigError(ValueError):
    """A setting that cannot be used; the message names it and what is allowed."""


def size_of(text: str | int) -> int:
    """Read a number of bytes, such as "256MiB".

    >>> size_of("4MiB")
    4194304
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", str(text))
    if isinstance(text, bool) or found is None or found[2].lower() not in _SIZES:
        raise ConfigError(f"{text!r} is no size; write bytes, or such as '256MiB'")
    return int(float(found[1]) * _SIZES[found[2].lower()])


def seconds_of(text: str) -> float:
    """Read a duration, such as "20s".

    >>> seconds_of("30min")
    1800.0
    """
    try:
        return parse_duration(str(text), role="duration") / 1e6
    except ValueError as error:
        raise ConfigError(str(error)) from None


def check_address(address: str) -> None:
    """Refuse what is no address to listen on.

    >>> check_address("[::1]:7433")
    """
    host, _, port = address.rpartition(":")
    if address.startswith("unix:"):
        return
    if not (host and port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise ConfigError(
            f"address is HOST:PORT, such as 127.0.0.1:7433 or [::1]:7433, or unix:PATH, got "
            f"{address!r}"
        )


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the server listens, and to whom.

    >>> Listen().address
    '127.0.0.1:7433'
    """

    address: str = "127.0.0.1:7433"
    insecure: bool = False  # plain text beyond this machine
    reflection: bool = True
    message: str = "4MiB"  # largest request
    streams: int = 256  # StreamWrite calls at once
    keepalive: str = "30s"
    connection_age: str = "30min"
    grace: str = "20s"  # for calls to end when the server stops

    def __post_init__(self) -> None:
        check_address(self.address)
        if not 1 << 16 <= size_of(self.message) <= LARGEST_MESSAGE:
            raise ConfigError(f"message is 64KiB to 16MiB, got {self.message!r}")
        if not 1 <= self.streams <= 4096:
            raise ConfigError(f"streams is 1 to 4096, got {self.streams}")
        for text in (self.keepalive, self.connection_age, self.grace):
            seconds_of(text)


@dataclass(frozen=True, slots=True)
class Front:
    """A port of the compiled front, for callers who send rows one at a time.

    >>> Front("127.0.0.1:7434").waiting
    '64MiB'
    """

    address: str
    waiting: str = "64MiB"  # requests that wait to be read

    def __post_init__(self) -> None:
        check_address(self.address)
        size_of(self.waiting)


@dataclass(frozen=True, slots=True)
class Storage:
    """Where requests are written down, and how much may be.

    >>> Storage().durability
    'power'
    """

    directory: Path = Path("tidegauge-data")
    durability: Durability = "power"
    journal: str = "64GiB"  # largest journal
    min_free: str = "64MiB"  # of its disk
    in_flight: str = "256MiB"
    checkpoint: str = "512MiB"  # of requests from one stored state to the next

    def __post_init__(self) -> None:
        if self.durability not in get_args(Durability):
            raise ConfigError(
                f"durability is {' or '.join(get_args(Durability))}, got {self.durability!r}"
            )
        for text in (self.journal, self.min_free, self.in_flight, self.checkpoint):
            size_of(text)


@dataclass(frozen=True, slots=True)
class History:
    """Parquet files of what was accepted, by model and date.

    >>> History().enabled
    False
    """

    enabled: bool = False
    rows: int = 1_000_000  # of requests that are sealed together,
    every: str = "10min"  # or after so long
    keep_for: str | None = None  # for ever unless given
    keep_bytes: str | None = None

    def __post_init__(self) -> None:
        seconds_of(self.every)
        if self.keep_for is not None:
            seconds_of(self.keep_for)
        if self.keep_bytes is not None:
            size_of(self.keep_bytes)
        if self.rows < 1:
            raise ConfigError(f"rows is at least 1, got {self.rows}")


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificate of the server, and the authority of clients that must show theirs.

    >>> Tls(Path("cert.pem"), Path("key.pem")).client_authority is None
    True
    """

    certificate: Path
    key: Path
    client_authority: Path | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token, by the SHA-256 of its text, and what it may do with which models.

    >>> Token("ci", "0" * 64, {"flights": ("write",)}).name
    'ci'
    """

    name: str
    sha256: str
    models: Mapping[str, tuple[str, ...]]  # "*" stands for every model

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ConfigError(
                f"token {self.name!r}: sha256 is 64 hexadecimal digits; "
                "`tidegauge token` makes a token and its line"
            )
        for model, scopes in self.models.items():
            if wrong := set(scopes) - set(SCOPES):
                raise ConfigError(
                    f"token {self.name!r}: model {model!r} has scope {sorted(wrong)[0]!r}; allowed "
                    f"are {', '.join(SCOPES)}"
                )


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A model that is there from the start.

    >>> ModelConfig(Path("flights.tide")).lateness
    '48h'
    """

    reference: Path
    window: str | None = None
    lateness: str = "48h"
    retention: Mapping[str, str] = field(default_factory=dict)
    sample_rows: int = 0
    onnx: Path | None = None  # the model itself, for explanations


@dataclass(frozen=True, slots=True)
class Http:
    """Where events are taken over HTTP.

    >>> Http().address
    '127.0.0.1:7434'
    """

    address: str = "127.0.0.1:7434"
    connections: int = 1000  # at once

    def __post_init__(self) -> None:
        if not 1 <= self.connections <= 65_536:
            raise ConfigError(f"connections is 1 to 65536, got {self.connections}")


@dataclass(frozen=True, slots=True)
class Source:
    """How the inference events of a model are known, and which column each tensor is.

    >>> Source(outputs={"probabilities": ("", "p_late")}).service
    ''
    """

    service: str = ""  # the extension `inferenceservicename`; the model's own name unless given
    namespace: str = ""  # the extension `namespace`; any unless given
    inputs: Mapping[str, Names] = field(default_factory=dict)
    outputs: Mapping[str, Names] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """Every column that is named."""
        names = [*self.inputs.values(), *self.outputs.values()]
        return [each for name in names for each in ([name] if isinstance(name, str) else name)]


@dataclass(frozen=True, slots=True)
class Events:
    """What events over HTTP mean, and what their acknowledgement promises.

    >>> Events().acknowledge
    'durable'
    """

    acknowledge: Acknowledge = "durable"
    queue: str = "64MiB"  # of events that may wait to be written
    within: str = "10min"  # that a request may wait for its response, or the other way round
    waiting: int = 100_000  # such halves at once,
    waiting_bytes: str = "256MiB"  # and the memory that they take
    models: Mapping[str, Source] = field(default_factory=dict)

    def __post_init__(self) -> None:
        seconds_of(self.within)
        for text in (self.queue, self.waiting_bytes):
            size_of(text)
        if self.waiting < 1:
            raise ConfigError(f"waiting is at least 1, got {self.waiting}")


@dataclass(frozen=True, slots=True)
class Flight:
    """Where the bulk lane is.

    >>> Flight().address
    '127.0.0.1:7435'
    """

    address: str = "127.0.0.1:7435"
    batch: str = "16MiB"  # largest
    streams: int = 64  # at once

    def __post_init__(self) -> None:
        if not 1 << 16 <= size_of(self.batch) <= LARGEST_MESSAGE:
            raise ConfigError(f"batch is 64KiB to 16MiB, got {self.batch!r}")
        if not 1 <= self.streams <= 4096:
            raise ConfigError(f"streams is 1 to 4096, got {self.streams}")


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that Parquet files are moved into.

    >>> Folder(Path("incoming"), "flights").predictions
    'predictions*.parquet'
    """

    path: Path
    model: str
    predictions: str = "predictions*.parquet"  # names of the files that hold them
    outcomes: str = "outcomes*.parquet"
    every: str = "10s"  # it is looked into
    version: str = ""  # of the model, for files that name none

    def __post_init__(self) -> None:
        seconds_of(self.every)
        for pattern in (self.predictions, self.outcomes):
            if not pattern or pattern.startswith("/") or ".." in pattern.split("/"):
                raise ConfigError(f"{pattern!r} is no pattern of names within the folder")


@dataclass(frozen=True, slots=True)
class Kafka:
    """Topics of Kafka that hold the events of a model.

    >>> Kafka("localhost:9092", "flights", predictions="flights").format
    'json'
    """

    servers: str
    model: str
    predictions: str = ""  # topic; none unless given
    outcomes: str = ""
    format: Format = "json"
    version: str = ""  # of the model, for messages that name none
    group: str = "tidegauge"
    partitions: tuple[int, ...] = ()  # those that are read here; shared by the group unless given
    start: Start = "earliest"  # where a partition is begun that nobody has read
    options: Mapping[str, str] = field(default_factory=dict)  # of librdkafka

    def __post_init__(self) -> None:
        if not (self.predictions or self.outcomes) or self.predictions == self.outcomes:
            raise ConfigError("predictions and outcomes are the names of topics: one, or two")
        if taken := [name for name in self.options if name in OWN_OPTIONS]:
            raise ConfigError(f"options: {taken[0]!r} is not yours to choose")


@dataclass(frozen=True, slots=True)
class Config:
    r"""All of it.

    >>> config_of('[listen]\nadress = "x"')
    Traceback (most recent call last):
    tidegauge.server.config.ConfigError: [listen] knows no 'adress'; allowed are address, ...
    """

    listen: Listen = field(default_factory=Listen)
    storage: Storage = field(default_factory=Storage)
    history: History = field(default_factory=History)
    front: Front | None = None
    tls: Tls | None = None
    tokens: tuple[Token, ...] = ()
    models: Mapping[str, ModelConfig] = field(default_factory=dict)
    http: Http | None = None
    events: Events = field(default_factory=Events)
    flight: Flight | None = None
    folders: Mapping[str, Folder] = field(default_factory=dict)
    kafka: Mapping[str, Kafka] = field(default_factory=dict)


_TABLES = {
    "listen": Listen,
    "front": Front,
    "storage": Storage,
    "history": History,
    "tls": Tls,
    "http": Http,
    "events": Events,
    "flight": Flight,
}
_NAMED = {"models": ModelConfig, "folders": Folder, "kafka": Kafka}  # one table for each name


def config_of(text: str, directory: Path = Path()) -> Config:
    """Read a configuration; relative paths start at a directory.

    Raises
    ------
    ConfigError
        When it is not TOML, or a key is unknown or holds what it cannot.
    """
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"not valid TOML: {error}") from None
    parts: dict[str, Any] = {}
    known = [entry.name for entry in fields(Config)]
    for name, value in document.items():
        if name not in known:
            raise ConfigError(f"unknown table [{name}]; allowed are {', '.join(known)}")
        if name == "tokens":
            if not isinstance(value, list):
                raise ConfigError("tokens are written as [[tokens]], one table a token")
            parts[name] = tuple(_part(Token, "tokens", entry, directory) for entry in value)
        elif name in _NAMED:
            parts[name] = {
                entry: _part(_NAMED[name], f"{name}.{entry}", given, directory)
                for entry, given in _table(name, value).items()
            }
        else:
            parts[name] = _part(_TABLES[name], name, value, directory)
    config = Config(**parts)
    names = [token.name for token in config.tokens]
    if len(set(names)) < len(names):
        raise ConfigError("two [[tokens]] have the same name")
    return config


def load_config(path: Path) -> Config:
    """Read a configuration file; relative paths in it start where it lies."""
    try:
        return config_of(path.read_text(encoding="utf-8"), path.parent)
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def with_flags(config: Config, table: str, **given: Any) -> Config:
    """Put flags that were given in the place of what a table says.

    >>> with_flags(Config(), "listen", address="[::1]:0", streams=None).listen.address
    '[::1]:0'
    """
    wanted = {name: value for name, value in given.items() if value is not None}
    return replace(config, **{table: replace(getattr(config, table), **wanted)})


def with_models(config: Config, given: Sequence[str]) -> Config:
    """Add models that were given as NAME=REF.tide.

    >>> list(with_models(Config(), ["flights=flights.tide"]).models)
    ['flights']
    """
    models = dict(config.models)
    for text in given:
        name, _, path = text.partition("=")
        if not (name and path):
            raise ConfigError(f"--model is NAME=REF.tide, got {text!r}")
        models[name] = ModelConfig(Path(path))
    return replace(config, models=models)


def _table(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"[{name}] is a table, got {value!r}")
    return value


def _part(made: type, name: str, value: Any, directory: Path) -> Any:
    table = _table(name, value)
    assert is_dataclass(made)
    hints = get_type_hints(made)
    known = [entry.name for entry in fields(made)]
    settings: dict[str, Any] = {}
    for key, given in table.items():
        if key not in known:
            raise ConfigError(f"[{name}] knows no {key!r}; allowed are {', '.join(known)}")
        settings[key] = _value(name, key, hints[key], given, directory)
    required = [
        entry.name
        for entry in fields(made)
        if entry.default is entry.default_factory and entry.name not in settings
    ]
    if required:
        raise ConfigError(f"[{name}] needs {required[0]!r}")
    try:
        return cast("Any", made)(**settings)
    except ConfigError as error:
        raise ConfigError(f"[{name}] {error}") from None


def _value(table: str, key: str, hint: Any, given: Any, directory: Path) -> Any:
    place = f"[{table}] {key}"
    kinds = [each for each in get_args(hint) if each is not type(None)]
    if get_origin(hint) in (Union, UnionType):
        hint = next(
            (kind for kind in kinds if (get_origin(kind) is tuple) == _is_list(given)), hint
        )
        kinds = list(get_args(hint))
    if hint is Path:
        if not isinstance(given, str):
            raise ConfigError(f"{place} is a path, got {given!r}")
        return directory / given
    if hint in _WORDS:
        if type(given) is not hint:
            raise ConfigError(f"{place} is {_WORDS[hint]}, got {given!r}")
        return given
    if get_origin(hint) is Literal:
        if given not in kinds:
            raise ConfigError(f"{place} is {' or '.join(kinds)}, got {given!r}")
        return given
    if get_origin(hint) is tuple:
        if not _is_list(given):
            raise ConfigError(f"{place} is a list, got {given!r}")
        return tuple(_value(table, key, kinds[0], each, directory) for each in given)
    if not isinstance(given, dict):
        raise ConfigError(f"{place} is a table, got {given!r}")
    if isinstance(kinds[1], type) and is_dataclass(kinds[1]):
        parts = {name: (f"{table}.{key}.{name}", each) for name, each in given.items()}
        return {name: _part(kinds[1], *part, directory) for name, part in parts.items()}
    return {
        name: _value(table, f"{key}.{name}", kinds[1], each, directory)
        for name, each in given.items()
    }


def _is_list(given: Any) -> bool:
    return isinstance(given, list)
