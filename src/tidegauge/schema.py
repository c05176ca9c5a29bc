"""What the columns of a model's traffic are: features, ids, scores, labels, segments."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, cast

from tidegauge._core import Batch, SchemaError
from tidegauge.ingest import as_batch

Kind = Literal["numeric", "categorical", "timestamp"]
Task = Literal["binary", "multiclass", "regression"]
Segment = str | tuple[str, ...]

TASKS: tuple[Task, ...] = ("binary", "multiclass", "regression")
KINDS: tuple[Kind, ...] = ("numeric", "categorical", "timestamp")
GRIDS = ("linear", "log", "symlog", "integer")


@dataclass(frozen=True, slots=True)
class Column:
    """How one column is counted; made by `numeric`, `categorical` or `timestamp`.

    >>> numeric(limits=(0, 1)).kind
    'numeric'
    """

    kind: Kind
    missing: tuple[float | str, ...] = ()
    limits: tuple[float, float] | None = None
    edges: tuple[float, ...] | None = None
    grid: str | None = None
    categories: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SchemaError(f"unknown kind {self.kind!r}; allowed: {', '.join(KINDS)}")
        if self.grid is not None and self.grid not in GRIDS:
            raise SchemaError(f"unknown grid {self.grid!r}; allowed: {', '.join(GRIDS)}")
        if self.limits is not None and not (
            isinstance(self.limits, tuple)
            and len(self.limits) == 2
            and all(isinstance(limit, int | float) for limit in self.limits)
            and self.limits[0] <= self.limits[1]
        ):
            raise SchemaError(f"limits are (lowest, highest) allowed value, got {self.limits}")
        if self.edges is not None:
            finite = all(math.isfinite(edge) for edge in self.edges)
            if (
                not self.edges
                or not finite
                or any(low >= high for low, high in zip(self.edges, self.edges[1:], strict=False))
            ):
                raise SchemaError(f"edges must be finite and ascending, got {self.edges}")


def numeric(
    *,
    missing: Sequence[float] = (),
    limits: tuple[float, float] | None = None,
    edges: Sequence[float] | None = None,
    grid: str | None = None,
) -> Column:
    """Declare a column of numbers.

    Parameters
    ----------
    missing
        Values that mean "missing", counted as sentinels and left out of the distribution.
    limits
        Lowest and highest allowed value; those of the reference when left out.
    edges
        Exact inner bin edges to use instead of bins chosen from the reference.
    grid
        "linear", "log", "symlog" or "integer" fine bins, instead of a choice from the reference.

    >>> numeric(missing=[-999], limits=(0, 120)).limits
    (0.0, 120.0)
    """
    return Column(
        "numeric",
        missing=tuple(float(value) for value in _listed("missing", missing)),
        limits=None if limits is None else (float(limits[0]), float(limits[1])),
        edges=None if edges is None else tuple(float(edge) for edge in edges),
        grid=grid,
    )


def categorical(
    *, missing: Sequence[str] = (), categories: Sequence[object] | None = None
) -> Column:
    """Declare a column of categories: text, whole numbers or booleans.

    Parameters
    ----------
    missing
        Texts that mean "missing", counted as sentinels.
    categories
        The allowed values; those of the reference when left out, 10,000 at most. What is beyond
        counts as unseen.

    >>> categorical(categories=["EWR", "JFK", "LGA"]).kind
    'categorical'
    """
    return Column(
        "categorical",
        missing=tuple(_text(value) for value in _listed("missing", missing)),
        categories=None
        if categories is None
        else tuple(_text(value) for value in _listed("categories", categories)),
    )


def timestamp(*, limits: tuple[float, float] | None = None) -> Column:
    """Declare a column of points in time that is a feature; counted in UTC microseconds.

    >>> timestamp().kind
    'timestamp'
    """
    return Column("timestamp", limits=limits)


def _listed(role: str, given: Iterable[Any]) -> tuple[Any, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise SchemaError(f"{role} is a list of values, got {given!r}")
    return tuple(given)


def _text(value: object) -> str:
    """Text of a category as the core writes it."""
    if isinstance(value, bool) or type(value).__name__ == "bool_":
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


@dataclass(frozen=True)
class Schema:
    """The roles of the columns of a model's traffic.

    Parameters
    ----------
    task
        "binary", "multiclass", "regression", or None to watch columns alone.
    features
        Name of each feature with `numeric()`, `categorical()` or `timestamp()`; a list of names,
        or a None, leaves the kind to be inferred from the reference.
    prediction_id
        Column of ids that labels are joined by: integers, text or bytes.
    timestamp
        Column with the event time of a prediction, and of a label where it has one.
    model_version
        Column with the version that made the prediction.
    prediction_score
        Binary: column with the score of the positive class, in [0, 1]. Multiclass: column by class.
    prediction
        Decided class, or the predicted value of a regression.
    threshold
        Binary without a decision column: the decision is score >= threshold.
    label
        Column with the truth; may arrive with the prediction or later.
    positive
        The label that counts as positive where labels are not 0 and 1.
    segments
        Columns, or tuples of columns, whose values are watched apart.
    protected
        Columns whose groups are compared for fairness; each becomes a segment too.
    weight
        Column with the weight of a row in the performance metrics.

    Raises
    ------
    SchemaError
        When a role is unknown, missing for the task, or given to two columns.

    >>> schema = Schema(task="binary", features=["age"], prediction_score="p", label="late")
    >>> Schema.from_toml(schema.to_toml()) == schema
    True
    """

    task: Task | None = None
    features: Mapping[str, Column | None] | Sequence[str] = field(default_factory=dict)
    prediction_id: str | None = None
    timestamp: str | None = None
    model_version: str | None = None
    prediction_score: str | Mapping[str, str] | None = None
    prediction: str | None = None
    threshold: float = 0.5
    label: str | None = None
    positive: str | None = None
    segments: Sequence[Segment] = ()
    protected: Sequence[Segment] = ()
    weight: str | None = None

    def __post_init__(self) -> None:
        features = self.features
        if isinstance(features, str):
            raise SchemaError(f"features is a list or a mapping of column names, got {features!r}")
        if not isinstance(features, Mapping):
            names = _listed("features", features)
            if len(set(names)) < len(names) or not all(isinstance(name, str) for name in names):
                raise SchemaError(f"features names each column once, got {list(names)}")
            features = dict.fromkeys(names)
        for name, column in features.items():
            if column is not None and not isinstance(column, Column):
                raise SchemaError(
                    f"feature {name!r}: got {column!r}; use tg.numeric(), tg.categorical(), "
                    "tg.timestamp() or None"
                )
        object.__setattr__(self, "features", dict(features))
        object.__setattr__(self, "segments", _segments("segments", self.segments))
        object.__setattr__(self, "protected", _segments("protected", self.protected))
        if self.positive is not None:
            object.__setattr__(self, "positive", _text(self.positive))
        if isinstance(self.prediction_score, Mapping):
            scores = {_text(name): column for name, column in self.prediction_score.items()}
            object.__setattr__(self, "prediction_score", scores)
        self._check_roles()

    def _check_roles(self) -> None:
        if self.task is not None and self.task not in TASKS:
            raise SchemaError(f"unknown task {self.task!r}; allowed: {', '.join(TASKS)} or None")
        if self.task == "regression" and self.prediction is None:
            raise SchemaError(
                "a regression needs `prediction`, the column with the predicted value"
            )
        if self.task == "regression" and self.prediction_score is not None:
            raise SchemaError(
                "a regression has no `prediction_score`; name the column `prediction`"
            )
        if self.task in ("binary", "multiclass") and not (self.prediction or self.prediction_score):
            raise SchemaError(f"a {self.task} task needs `prediction_score` or `prediction`")
        if self.task == "binary" and isinstance(self.prediction_score, Mapping):
            raise SchemaError(
                "a binary task has one `prediction_score` column, of the positive class"
            )
        if self.task == "multiclass" and isinstance(self.prediction_score, str):
            raise SchemaError("a multiclass task wants prediction_score={class: column}")
        if self.task is None and (self.prediction or self.prediction_score or self.label):
            raise SchemaError(f"predictions and labels need a task; allowed: {', '.join(TASKS)}")
        if not 0 <= self.threshold <= 1:
            raise SchemaError(f"threshold is a score in [0, 1], got {self.threshold}")
        owners: dict[str, str] = {}
        for role, column in self.roles():
            if column in owners:
                raise SchemaError(
                    f"column {column!r} is given as {owners[column]} and as {role}; it has one role"
                )
            owners[column] = role

    def roles(self) -> list[tuple[str, str]]:
        """Role and column of everything but segments, which may be features too."""
        named = ["prediction_id", "timestamp", "model_version", "prediction", "label", "weight"]
        pairs = [("a feature", name) for name in self.features]
        pairs += [(f"`{role}`", getattr(self, role)) for role in named if getattr(self, role)]
        pairs += [("`prediction_score`", column) for column in self.score_columns]
        return pairs

    @property
    def declared(self) -> dict[str, Column | None]:
        """Features with what was declared of them, None where the kind is left to the data."""
        return cast("dict[str, Column | None]", self.features)

    @property
    def score_columns(self) -> tuple[str, ...]:
        """Columns with scores: none, one, or one a class."""
        if self.prediction_score is None:
            return ()
        if isinstance(self.prediction_score, str):
            return (self.prediction_score,)
        return tuple(self.prediction_score.values())

    @property
    def segment_sets(self) -> tuple[tuple[str, ...], ...]:
        """Every set of columns watched apart, the whole traffic first."""
        named = [*self.segments, *self.protected]
        sets = [(name,) if isinstance(name, str) else tuple(name) for name in named]
        return tuple(dict.fromkeys([(), *sets]))

    @property
    def segment_columns(self) -> tuple[str, ...]:
        """Columns that segments are made of."""
        return tuple(dict.fromkeys(name for names in self.segment_sets for name in names))

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column the schema knows."""
        return tuple(
            dict.fromkeys([*(column for _, column in self.roles()), *self.segment_columns])
        )

    def with_kinds(self, batches: Sequence[Batch]) -> Schema:
        """Return the schema with the kind of every feature settled by the types of its column."""
        batch = batches[0]
        features: dict[str, Column] = {}
        for name, column in self.declared.items():
            found = [each.kind(name) for each in batches]
            kind = next((each for each in found if each not in _UNTYPED), found[0])
            if column is None and kind == "absent":
                known = ", ".join(batch.names)
                raise SchemaError(f"feature {name!r} is not in the table; its columns are: {known}")
            if column is None and kind == "other":
                type_name = batch.types[batch.names.index(name)]
                raise SchemaError(
                    f"feature {name!r} has type {type_name}, which cannot be counted; derive a "
                    "number, a text or a timestamp from it"
                )
            features[name] = column or Column(_INFERRED.get(kind, "numeric"))
        return replace(self, features=features)

    @classmethod
    def infer(cls, table: object, **roles: Any) -> Schema:
        """Propose a schema: the named roles, and every other column a feature by its type.

        Text, dictionaries and booleans become categories, timestamps timestamps, numbers numbers.
        Nested columns, decimals and durations, which cannot be counted, are left out. Leave out
        yourself what names a person: categories are kept as they are written.

        >>> Schema.infer({"age": [31, 45], "plan": ["a", "b"]}).features["plan"].kind
        'categorical'
        """
        batch = as_batch(table)
        unknown = set(roles) - {item.name for item in fields(cls)}
        if unknown:
            allowed = ", ".join(item.name for item in fields(cls))
            raise SchemaError(f"unknown role {sorted(unknown)[0]!r}; allowed: {allowed}")
        taken = {column for _, column in cls(**roles).roles()}
        if "features" not in roles:
            names = [name for name in batch.names if name not in taken]
            roles["features"] = [name for name in names if batch.kind(name) != "other"]
        return cls(**roles).with_kinds([batch])

    def to_toml(self) -> str:
        """Return the schema as TOML, to be edited and read back with `from_toml`.

        >>> print(Schema(features={"age": numeric(limits=(0, 120))}).to_toml().strip())
        [features.age]
        kind = "numeric"
        limits = [0.0, 120.0]
        """
        lines: list[str] = []
        tables: list[str] = []
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name == "features":
                for name, column in value.items():
                    tables += [
                        "",
                        f"[features.{_toml(name)}]" if not _bare(name) else f"[features.{name}]",
                    ]
                    tables += [] if column is None else _column_toml(column)
            elif isinstance(value, Mapping):
                pairs = ", ".join(f"{_toml(key)} = {_toml(entry)}" for key, entry in value.items())
                lines.append(f"{item.name} = {{ {pairs} }}")
            elif value is not None and value != item.default:
                lines.append(f"{item.name} = {_toml(value)}")
        return "\n".join([*lines, *tables]).strip() + "\n"

    @classmethod
    def from_toml(cls, text: str) -> Schema:
        """Read a schema from TOML text.

        Raises
        ------
        SchemaError
            When the text is not TOML or holds a name that is not a role.
        """
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise SchemaError(f"the schema is not valid TOML: {error}") from None
        allowed = {item.name for item in fields(cls)}
        if unknown := set(document) - allowed:
            raise SchemaError(
                f"unknown role {sorted(unknown)[0]!r}; allowed: {', '.join(sorted(allowed))}"
            )
        features = document.get("features", {})
        if isinstance(features, Mapping):
            document["features"] = {
                name: _column_from(name, entry) for name, entry in features.items()
            }
        for role in ("segments", "protected"):
            document[role] = tuple(
                tuple(entry) if isinstance(entry, list) else entry
                for entry in document.get(role, ())
            )
        try:
            return cls(**document)
        except (TypeError, AttributeError) as error:
            raise SchemaError(f"a role has a value of the wrong type: {error}") from None


_UNTYPED = ("absent", "empty", "null")  # says nothing of what the column will hold
_INFERRED: dict[str, Kind] = {"text": "categorical", "bool": "categorical", "time": "timestamp"}


def _segments(role: str, given: Sequence[Segment]) -> tuple[Segment, ...]:
    if isinstance(given, str):
        raise SchemaError(f"{role} is a list of column names or tuples of them, got {given!r}")
    for entry in given:
        names = (entry,) if isinstance(entry, str) else entry
        if (
            not isinstance(names, tuple | list)
            or not names
            or not all(isinstance(name, str) for name in names)
        ):
            raise SchemaError(f"{role} is a list of column names or tuples of them, got {entry!r}")
    return tuple(entry if isinstance(entry, str) else tuple(entry) for entry in given)


def _bare(name: str) -> bool:
    return bool(name) and name.isascii() and name.replace("_", "a").replace("-", "a").isalnum()


def _toml(value: object) -> str:
    if isinstance(value, bool) or type(value).__name__ == "bool_":
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(entry) for entry in value) + "]"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    escaped = "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in text)
    return f'"{escaped}"'


def _column_toml(column: Column) -> list[str]:
    lines = []
    for item in fields(column):
        value = getattr(column, item.name)
        if value is not None and value != item.default:
            lines.append(f"{item.name} = {_toml(value)}")
    return lines


def _column_from(name: str, entry: Mapping[str, Any]) -> Column | None:
    if not isinstance(entry, Mapping):
        raise SchemaError(f"feature {name!r}: a table with `kind` is wanted, got {entry!r}")
    if not entry:
        return None
    allowed = {item.name for item in fields(Column)}
    if unknown := set(entry) - allowed:
        raise SchemaError(
            f"feature {name!r}: unknown key {sorted(unknown)[0]!r}; "
            f"allowed: {', '.join(sorted(allowed))}"
        )
    if "kind" not in entry:
        raise SchemaError(f"feature {name!r}: `kind` is missing; allowed: {', '.join(KINDS)}")
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()
    }
    return Column(**values)
