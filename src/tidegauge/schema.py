"""What the columns of a model's traffic are: features, ids, scores, labels, segments."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, cast

from tidegauge._core import Batch, SchemaError
from tidegauge.column import INFERRED, Column, Kind, kind_of, listed, text_of
from tidegauge.derived import (
    DERIVATIONS,
    ArrayFunction,
    Derivation,
    Function,
    FunctionsWanted,
    inputs_of,
)
from tidegauge.ingest import as_batch

Task = Literal["binary", "multiclass", "regression"]
Segment = str | tuple[str, ...]

TASKS: tuple[Task, ...] = ("binary", "multiclass", "regression")
NESTED = ("vector", "other")  # types that are no feature as they stand
NO_FUNCTIONS: Mapping[str, ArrayFunction] = MappingProxyType({})


@dataclass(frozen=True)
class Schema:
    """The roles of the columns of a model's traffic.

    Parameters
    ----------
    task
        "binary", "multiclass", "regression", or None to watch columns alone.
    features
        Name of each feature with `numeric()`, `categorical()` or `timestamp()`; a list of names,
        or a None, leaves the kind to be inferred from the reference. `derived()`, `matches()` and
        `embedding()` make features out of other columns.
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
    features: Mapping[str, Column | Derivation | None] | Sequence[str] = field(default_factory=dict)
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
            names = listed("features", features)
            if len(set(names)) < len(names) or not all(isinstance(name, str) for name in names):
                raise SchemaError(f"features names each column once, got {list(names)}")
            features = dict.fromkeys(names)
        for name, column in features.items():
            if column is not None and not isinstance(column, Column | Derivation):
                raise SchemaError(
                    f"feature {name!r}: got {column!r}; use tg.numeric(), tg.categorical(), "
                    "tg.timestamp(), tg.derived(), tg.matches(), tg.embedding() or None"
                )
        object.__setattr__(self, "features", dict(features))
        object.__setattr__(self, "segments", _segments("segments", self.segments))
        object.__setattr__(self, "protected", _segments("protected", self.protected))
        if self.positive is not None:
            object.__setattr__(self, "positive", text_of(self.positive))
        if isinstance(self.prediction_score, Mapping):
            scores = {text_of(name): column for name, column in self.prediction_score.items()}
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
        self._check_derived()

    def _check_derived(self) -> None:
        taken = set(self.columns)
        made = [
            (name, output) for name, d in self.derivations.items() for output in d.outputs(name)
        ]
        owners: dict[str, str] = {}
        readers = {column: name for name, d in self.derivations.items() for column in d.inputs}
        for name, output in made:
            other = owners.setdefault(output, name)
            if other != name:
                raise SchemaError(f"features {other!r} and {name!r} both derive {output!r}")
            if output in readers:
                raise SchemaError(
                    f"feature {readers[output]!r} is derived from {output!r}, which is derived "
                    "itself; derive it in one step from columns of the traffic"
                )
            if output in taken:
                raise SchemaError(
                    f"feature {name!r} derives {output!r}, which is a column of the traffic with a "
                    "role of its own; choose another name"
                )

    def roles(self) -> list[tuple[str, str]]:
        """Role and column of everything but segments and inputs, which may be features too."""
        named = ["prediction_id", "timestamp", "model_version", "prediction", "label", "weight"]
        pairs = [("a feature", name) for name in self.declared]
        pairs += [(f"`{role}`", getattr(self, role)) for role in named if getattr(self, role)]
        pairs += [("`prediction_score`", column) for column in self.score_columns]
        return pairs

    @cached_property
    def declared(self) -> dict[str, Column | None]:
        """Columns that are features, None where the kind is left to the data."""
        return {
            name: column
            for name, column in self._features.items()
            if column is None or isinstance(column, Column)
        }

    @cached_property
    def times(self) -> frozenset[str]:
        """Columns that are known to hold times."""
        return self._declared_as("timestamp") | ({self.timestamp} if self.timestamp else set())

    @cached_property
    def reals(self) -> frozenset[str]:
        """Columns of which an integer is a number like any other, not the name of something."""
        weight = {self.weight} if self.weight else set()
        return self._declared_as("numeric") | weight | set(self.score_columns)

    def _declared_as(self, kind: Kind) -> frozenset[str]:
        return frozenset(n for n, column in self.declared.items() if column and column.kind == kind)

    @cached_property
    def derivations(self) -> dict[str, Derivation]:
        """Features that are made out of other columns."""
        apart = self.declared
        return {
            name: cast("Derivation", made)
            for name, made in self._features.items()
            if name not in apart
        }

    @cached_property
    def makers(self) -> dict[str, str]:
        """Feature that derives each derived column."""
        return {output: name for name, d in self.derivations.items() for output in d.outputs(name)}

    @property
    def functions(self) -> dict[str, ArrayFunction]:
        """Functions of the features that are derived by one: what a file does not hold."""
        found = {name: d for name, d in self.derivations.items() if isinstance(d, Function)}
        return {name: derivation.function for name, derivation in found.items()}

    @property
    def counted_features(self) -> dict[str, Column | None]:
        """Features as they are counted, those that a derivation makes in its place."""
        counted: dict[str, Column | None] = {}
        for name in self._features:
            made = self.derivations.get(name)
            counted |= {name: self.declared[name]} if made is None else made.outputs(name)
        return counted

    @property
    def _features(self) -> dict[str, Column | Derivation | None]:
        assert isinstance(self.features, dict)
        return self.features

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

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Every column of the traffic that the schema knows."""
        inputs = [column for each in self.derivations.values() for column in each.inputs]
        roles = [column for _, column in self.roles()]
        return tuple(dict.fromkeys([*roles, *self.segment_columns, *inputs]))

    @property
    def role_columns(self) -> tuple[str, ...]:
        """Columns that are read and not only counted: roles, segments, inputs of derivations."""
        counted = set(self.declared)
        inputs = [column for each in self.derivations.values() for column in each.inputs]
        roles = [column for _, column in self.roles() if column not in counted]
        return tuple(dict.fromkeys([*roles, *self.segment_columns, *inputs]))

    def with_kinds(self, batches: Sequence[Batch]) -> Schema:
        """Return the schema with the kind of every column settled by its type."""
        batch = batches[0]
        features: dict[str, Column | Derivation] = {}
        for name in self._features:
            if name in self.derivations:
                features[name] = self.derivations[name]
                continue
            column = self.declared[name]
            kind = kind_of(each.kind(name) for each in batches)
            if column is None and kind == "absent":
                known = ", ".join(batch.names)
                raise SchemaError(f"feature {name!r} is not in the table; its columns are: {known}")
            if column is None and kind == "vector":
                raise SchemaError(
                    f"feature {name!r} holds vectors; declare them by tg.embedding({name!r})"
                )
            if column is None and kind == "other":
                type_name = batch.types[batch.names.index(name)]
                raise SchemaError(
                    f"feature {name!r} has type {type_name}, which cannot be counted; derive a "
                    "number, a text or a timestamp from it"
                )
            features[name] = column or Column(INFERRED.get(kind, "numeric"))
        return replace(self, features=features)

    def with_derivations(self, derivations: Mapping[str, Derivation]) -> Schema:
        """Return the schema with more derived features, or others in the place of some.

        >>> import tidegauge as tg
        >>> plain = Schema.infer({"paid": [4.0, 9.0], "items": [2, 3]})
        >>> price = tg.derived(lambda paid, items: paid / items, ["paid", "items"])
        >>> list(plain.with_derivations({"price": price}).features)
        ['paid', 'items', 'price']
        """
        return replace(self, features={**self._features, **derivations})

    @classmethod
    def infer(cls, table: object, **roles: Any) -> Schema:
        """Propose a schema: the named roles, and every other column a feature by its type.

        Text, dictionaries and booleans become categories, timestamps timestamps, numbers numbers.
        Vectors, which `embedding` declares, and other nested columns, decimals and durations, which
        cannot be counted, are left out. Leave out yourself what names a person: categories are kept
        as they are written.

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
            roles["features"] = [name for name in names if batch.kind(name) not in NESTED]
        return cls(**roles).with_kinds([batch])

    def to_toml(self) -> str:
        """Return the schema as TOML, to be edited and read back with `from_toml`.

        >>> schema = Schema(features={"age": Column("numeric", limits=(0.0, 120.0))})
        >>> print(schema.to_toml().strip())
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
                    tables += ["", f"[features.{name if _bare(name) else _toml(name)}]"]
                    entry = {} if column is None else column.to_dict()
                    tables += [f"{key} = {_toml(setting)}" for key, setting in entry.items()]
            elif isinstance(value, Mapping):
                pairs = ", ".join(f"{_toml(key)} = {_toml(entry)}" for key, entry in value.items())
                lines.append(f"{item.name} = {{ {pairs} }}")
            elif value is not None and value != item.default:
                lines.append(f"{item.name} = {_toml(value)}")
        return "\n".join([*lines, *tables]).strip() + "\n"

    @classmethod
    def from_toml(cls, text: str, *, derived: Mapping[str, ArrayFunction] = NO_FUNCTIONS) -> Schema:
        """Read a schema from TOML text.

        Parameters
        ----------
        text
            What `to_toml` gave.
        derived
            Functions of the features that are derived by one, by name: text does not hold them.

        Raises
        ------
        SchemaError
            When the text is not TOML, holds a name that is not a role, or wants other functions
            than those given.
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
            _check_functions(features, derived)
            document["features"] = {
                name: _feature(name, entry, derived.get(name)) for name, entry in features.items()
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


def _check_functions(features: Mapping[str, Any], functions: Mapping[str, ArrayFunction]) -> None:
    """Every feature derived by a function gets it handed back, and no other one does."""
    wanted = {
        name: ", ".join(inputs_of(entry))
        for name, entry in features.items()
        if isinstance(entry, Mapping) and entry.get("derived") == Function.NAME
    }
    if missing := [name for name in wanted if name not in functions]:
        told = ", ".join(f"{name!r} (of {wanted[name]})" for name in missing)
        raise FunctionsWanted(
            f"derived by functions, which are never stored: {told}; hand them back by "
            f"derived={{{missing[0]!r}: function}}"
        )
    if unknown := [name for name in functions if name not in wanted]:
        raise FunctionsWanted(
            f"no feature {unknown[0]!r} is derived by a function; those that are: "
            f"{', '.join(wanted) or 'none'}"
        )


def _feature(
    name: str, entry: Mapping[str, Any], function: ArrayFunction | None
) -> Column | Derivation | None:
    if not isinstance(entry, Mapping):
        raise SchemaError(f"feature {name!r}: a table with `kind` is wanted, got {entry!r}")
    if not entry:
        return None
    try:
        if "derived" not in entry:
            return Column.from_dict(entry)
        known = entry["derived"]
        if known not in DERIVATIONS:
            raise SchemaError(f"unknown `derived` {known!r}; allowed: {', '.join(DERIVATIONS)}")
        if function is not None:
            entry = {**entry, "function": function}
        return DERIVATIONS[known].from_dict({k: v for k, v in entry.items() if k != "derived"})
    except (SchemaError, TypeError) as error:
        raise SchemaError(f"feature {name!r}: {error}") from None
