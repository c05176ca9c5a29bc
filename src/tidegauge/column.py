"""How one column is counted: its kind, and what was declared of its values."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, Literal

from tidegauge._core import SchemaError

Kind = Literal["numeric", "categorical", "timestamp", "rule"]

KINDS: tuple[Kind, ...] = ("numeric", "categorical", "timestamp", "rule")
GRIDS = ("linear", "log", "symlog", "integer")
UNTYPED = ("absent", "empty", "null")  # says nothing of what a column will hold
INFERRED: dict[str, Kind] = {"text": "categorical", "bool": "categorical", "time": "timestamp"}
MAX_DECLARED = 50_000  # edges or categories of one column; the core's slots are 16-bit numbers
RULE_TEXTS = ("false", "true")  # categories of a rule: false where it does not hold


@dataclass(frozen=True, slots=True)
class Column:
    """How one column is counted; made by `numeric`, `categorical` or `timestamp`.

    A column of kind "rule" is a category too: true where the rule holds, false where it does not.

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
                or any(low >= high for low, high in pairwise(self.edges))
            ):
                raise SchemaError(
                    f"edges must be finite and ascending, got {reprlib.repr(self.edges)}"
                )
        for role, declared in (("edges", self.edges), ("categories", self.categories)):
            if declared is not None and len(declared) > MAX_DECLARED:
                raise SchemaError(
                    f"{role} are {MAX_DECLARED:,} at most, got {len(declared):,}; declare fewer"
                )

    def to_dict(self) -> dict[str, Any]:
        """Return the kind and whatever else was declared."""
        stored = {item.name: getattr(self, item.name) for item in fields(self)}
        defaults = {item.name: item.default for item in fields(self)}
        return {name: value for name, value in stored.items() if value != defaults[name]}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Column:
        """Read such a column back."""
        allowed = [item.name for item in fields(cls)]
        if unknown := set(stored) - set(allowed):
            raise SchemaError(
                f"unknown key {sorted(unknown)[0]!r}; allowed: {', '.join(sorted(allowed))}"
            )
        if "kind" not in stored:
            raise SchemaError(f"`kind` is missing; allowed: {', '.join(KINDS)}")
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in stored.items()
        }
        return cls(**values)


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
        Exact inner bin edges to use instead of bins chosen from the reference, 50,000 at most.
    grid
        "linear", "log", "symlog" or "integer" fine bins, instead of a choice from the reference.

    >>> numeric(missing=[-999], limits=(0, 120)).limits
    (0.0, 120.0)
    """
    return Column(
        "numeric",
        missing=tuple(float(value) for value in listed("missing", missing)),
        limits=None if limits is None else (float(limits[0]), float(limits[1])),
        edges=None if edges is None else tuple(float(edge) for edge in listed("edges", edges)),
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
        The allowed values, 50,000 at most; those of the reference when left out, the first 10,000
        met. What is beyond counts as unseen.

    >>> categorical(categories=["EWR", "JFK", "LGA"]).kind
    'categorical'
    """
    return Column(
        "categorical",
        missing=tuple(text_of(value) for value in listed("missing", missing)),
        categories=None
        if categories is None
        else tuple(text_of(value) for value in listed("categories", categories)),
    )


def timestamp(*, limits: tuple[float, float] | None = None) -> Column:
    """Declare a column of points in time that is a feature; counted in UTC microseconds.

    >>> timestamp().kind
    'timestamp'
    """
    return Column("timestamp", limits=limits)


def kind_of(found: Iterable[str]) -> str:
    """Settle on one of the types that a column was met with: the first that says anything.

    >>> kind_of(["null", "text"])
    'text'
    """
    kinds = list(found)
    return next((kind for kind in kinds if kind not in UNTYPED), kinds[0])


def listed(role: str, given: Iterable[Any]) -> tuple[Any, ...]:
    """Values of a list, which a text is not.

    >>> listed("missing", [-1])
    (-1,)
    """
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise SchemaError(f"{role} is a list of values, got {given!r}")
    return tuple(given)


def text_of(value: object) -> str:
    """Text of a category as the core writes it."""
    if isinstance(value, bool) or type(value).__name__ == "bool_":
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
