"""Derived columns: what is made of a batch's columns, a tile at a time, and counted like any other.

A derivation is declared as a feature. What it is may be a function, which is never stored, or data.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, NoReturn, Protocol, cast, get_args, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tidegauge._core import (
    INVALID,
    Batch,
    DataError,
    SchemaError,
    Vocabulary,
    intern_codes,
    read_instants,
    read_numbers,
)
from tidegauge.column import INFERRED, KINDS, UNTYPED, Column, Kind, kind_of, listed
from tidegauge.embedding import Embedding
from tidegauge.ingest import tiles

Reading = Literal["numbers", "texts", "times"]
Engine = Literal["numpy", "numba"]
ArrayFunction = Callable[..., Any]

ENGINES: tuple[Engine, ...] = get_args(Engine)
_READINGS: dict[str, Reading] = {
    "bool": "numbers",
    "integer": "numbers",
    "float": "numbers",
    "text": "texts",
    "time": "times",
}
_ACCEPTED: dict[Kind, tuple[str, ...]] = {  # types of the values that count as of a kind
    "numeric": ("bool", "integer", "float"),
    "categorical": ("bool", "integer", "float", "text"),
    "timestamp": ("time",),
    "rule": ("bool",),
}


class FunctionsWanted(SchemaError):
    """A file was read without the functions that its features are derived by."""


@runtime_checkable
class Derivation(Protocol):
    """What makes counted columns out of the columns of a batch."""

    NAME: str  # as `derived` in a stored schema

    @property
    def inputs(self) -> tuple[str, ...]:
        """Columns of the batch that it reads."""

    def outputs(self, name: str) -> dict[str, Column | None]:
        """Columns that it makes for the feature `name`; None where the kind is not known yet."""

    def fit(self, name: str, batches: Sequence[Batch]) -> Derivation:
        """Return the derivation with what it learns from a reference; kinds are settled then."""

    def derive(
        self, name: str, batch: Batch, start: int, stop: int, *, threads: int = 1
    ) -> Mapping[str, Any]:
        """One NumPy or Arrow array for each output, of the rows [start, stop)."""

    def to_dict(self) -> dict[str, Any]:
        """Return what was declared: `derived`, and numbers, texts or lists of them."""

    @classmethod
    def from_dict(cls, declared: Mapping[str, Any]) -> Derivation:
        """Read such a declaration, without its `derived`."""

    def learned(self) -> dict[str, Any]:
        """Return what `fit` has found, as JSON-ready values."""

    def with_learned(self, learned: Mapping[str, Any]) -> Derivation:
        """Return the derivation as it was fitted."""


def derived(
    function: ArrayFunction,
    columns: Sequence[str],
    *,
    kind: Kind | Column | None = None,
    engine: Engine | None = None,
) -> Function:
    """Declare a feature that a function makes of other columns.

    Parameters
    ----------
    function
        Gets an array for each column and returns one with a value a row. Numbers and booleans come
        as float64 with NaN where missing; texts as an object array of str, None where missing;
        times as datetime64[us] in UTC, NaT where missing. It sees the rows of a batch a piece at a
        time, so a value may depend on its own row alone.
    columns
        Columns of the traffic that the function reads; they need not be features.
    kind
        "numeric", "categorical" or "timestamp", as for any feature, or `numeric()` and the like
        to declare more; inferred from what the function returns for the reference when left out.
        "rule" for a predicate that should hold: it gets the metric `violation_rate`, and rows with
        a missing input are not judged.
    engine
        "numpy" calls the function with arrays. "numba" takes a function of single numbers, compiles
        it, and runs it over the rows without holding the interpreter's lock. A function made by
        `numba.njit` runs on "numba" unless told otherwise, every other one on "numpy".

    Notes
    -----
    When the function raises or returns what cannot be counted, `Reference.fit` raises; a monitor
    counts the rows as invalid and logs one warning. Functions are never stored: whatever is loaded
    wants them back.

    >>> import numpy as np
    >>> import tidegauge as tg
    >>> table = {"paid": np.array([4.0, 9.0]), "items": np.array([2, 3])}
    >>> each = tg.derived(lambda paid, items: paid / items, ["paid", "items"])
    >>> reference = tg.Reference.fit(table, tg.Schema(features={"price": each}))
    >>> reference.schema.counted_features["price"].kind
    'numeric'
    """
    chosen = Column(kind) if isinstance(kind, str) else kind
    if chosen is not None and not isinstance(chosen, Column):
        raise SchemaError(
            f"kind is one of {', '.join(KINDS)}, or made by tg.numeric() and the like, got {kind!r}"
        )
    inputs = listed("columns", columns)
    return Function(function, inputs, chosen, engine or _engine_of(function))


def matches(column: str, pattern: str) -> Matches:
    """Declare a rule: the whole text of a column should match a regular expression.

    The share of the rows that do not is the metric `violation_rate`; missing values are not judged.
    Numbers and booleans are matched as categories are written: "12", "true".

    Parameters
    ----------
    column
        Column of the traffic; it need not be a feature.
    pattern
        Regular expression in the syntax of RE2, which takes linear time whatever the text; it has
        no look-around and no back-references.

    Raises
    ------
    SchemaError
        When the pattern is not a regular expression.

    >>> import tidegauge as tg
    >>> schema = tg.Schema(features={"tail_ok": tg.matches("tail", "N[0-9]{1,5}[A-Z]{0,2}")})
    >>> reference = tg.Reference.fit({"tail": ["N14228", "N24211"]}, schema)
    >>> report = tg.compare(reference, {"tail": ["N14228", "unknown"]})
    >>> report.to_pandas().query("metric == 'violation_rate'")["value"].item()
    0.5
    """
    return Matches(column, pattern)


@dataclass(frozen=True)
class Function:
    """A column that a function makes of others; made by `derived`."""

    function: ArrayFunction
    inputs: tuple[str, ...]
    column: Column | None = None
    engine: Engine = "numpy"
    readings: tuple[Reading | None, ...] = ()  # how the reference's columns were read

    NAME = "function"

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise SchemaError(f"a function is wanted, got {self.function!r}")
        if not self.inputs or not all(isinstance(name, str) for name in self.inputs):
            raise SchemaError(f"columns are the names of those to read, got {list(self.inputs)}")
        if self.engine not in ENGINES:
            raise SchemaError(f"unknown engine {self.engine!r}; allowed: {', '.join(ENGINES)}")
        if self.engine == "numba" and importlib.util.find_spec("numba") is None:
            raise SchemaError("engine 'numba' needs numba: pip install 'tidegauge[numba]'")

    def outputs(self, name: str) -> dict[str, Column | None]:
        """One column, named like the feature."""
        return {name: self.column}

    def fit(self, name: str, batches: Sequence[Batch]) -> Function:
        """Learn how its inputs are read, and the kind of what it returns."""
        kinds = [kind_of(batch.kind(column) for batch in batches) for column in self.inputs]
        fitted = replace(self, readings=tuple(_READINGS.get(kind) for kind in kinds))
        if self.column is not None:
            return fitted
        returned = "null"
        pieces = ((batch, *tile) for batch in batches for tile in tiles(batch))
        while returned in UNTYPED and (piece := next(pieces, None)) is not None:
            batch, start, stop = piece
            if all(batch.kind(column) != "absent" for column in self.inputs):
                made = fitted.derive(name, batch, start, stop)[name]
                returned = _type_of(as_arrow(made, stop - start))
        return replace(fitted, column=Column(INFERRED.get(returned, "numeric")))

    def derive(
        self, name: str, batch: Batch, start: int, stop: int, *, threads: int = 1
    ) -> dict[str, Any]:
        """Call the function with the rows of its inputs."""
        readings = self.readings or (None,) * len(self.inputs)
        inputs = [
            read_column(batch, column, reading, start, stop)
            for column, reading in zip(self.inputs, readings, strict=True)
        ]
        missing = None
        if self.column is not None and self.column.kind == "rule":
            missing = np.logical_or.reduce([_is_missing(values) for values in inputs])
        function = self.function
        if self.engine == "numba":
            _check_numbers(self.inputs, inputs)
            function = _compiled(function)
        with np.errstate(all="ignore"):  # a quotient of zeros is NaN, and counted as such
            made = function(*inputs)
        if missing is None or not missing.any():
            return {name: made}
        return {name: pc.if_else(pa.array(missing), None, as_arrow(made, stop - start))}

    def to_dict(self) -> dict[str, Any]:
        """Return all but the function."""
        declared: dict[str, Any] = {"derived": self.NAME, "inputs": self.inputs}
        if self.engine != "numpy":
            declared["engine"] = self.engine
        return declared | ({} if self.column is None else self.column.to_dict())

    @classmethod
    def from_dict(cls, declared: Mapping[str, Any]) -> Function:
        """Read such a declaration; `function` is the one handed back."""
        own = {"function", "inputs", "engine"}
        column = {key: value for key, value in declared.items() if key not in own}
        return cls(
            declared["function"],
            inputs_of(declared),
            Column.from_dict(column) if column else None,
            declared.get("engine", "numpy"),
        )

    def learned(self) -> dict[str, Any]:
        """How the inputs are read."""
        return {"readings": list(self.readings)}

    def with_learned(self, learned: Mapping[str, Any]) -> Function:
        """Return the function as it was fitted."""
        return replace(self, readings=tuple(learned["readings"]))


@dataclass(frozen=True)
class Matches:
    """A rule that a text matches a pattern; made by `matches`."""

    source: str
    pattern: str

    NAME = "matches"

    def __post_init__(self) -> None:
        if not isinstance(self.source, str):
            raise SchemaError(f"one column is matched, got {self.source!r}")
        try:
            pc.match_substring_regex(pa.array([""]), self.pattern)
        except (pa.ArrowException, TypeError) as error:
            raise SchemaError(
                f"column {self.source!r}: {self.pattern!r} is not a regular expression ({error})"
            ) from None

    @property
    def inputs(self) -> tuple[str, ...]:
        """The column that is matched."""
        return (self.source,)

    def outputs(self, name: str) -> dict[str, Column | None]:
        """One rule, named like the feature."""
        return {name: Column("rule")}

    def fit(self, name: str, batches: Sequence[Batch]) -> Matches:
        """Learn nothing."""
        return self

    def derive(
        self, name: str, batch: Batch, start: int, stop: int, *, threads: int = 1
    ) -> dict[str, Any]:
        """Test each distinct text once."""
        codes, texts = read_texts(batch, self.source, start, stop)
        whole = f"^(?:{self.pattern})$"
        held = pc.match_substring_regex(pa.array(texts, pa.string()), whole)
        return {name: held.take(pa.array(codes, mask=codes < 0))}

    def to_dict(self) -> dict[str, Any]:
        """Return column and pattern."""
        return {"derived": self.NAME, "inputs": self.inputs, "pattern": self.pattern}

    @classmethod
    def from_dict(cls, declared: Mapping[str, Any]) -> Matches:
        """Read such a declaration."""
        if set(declared) != {"inputs", "pattern"} or len(inputs_of(declared)) != 1:
            raise SchemaError(f"one column in `inputs` and a `pattern` are wanted, got {declared}")
        return cls(inputs_of(declared)[0], declared["pattern"])

    def learned(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def with_learned(self, learned: Mapping[str, Any]) -> Matches:
        """Return the rule itself."""
        return self


DERIVATIONS: dict[str, type[Derivation]] = {
    Function.NAME: Function,
    Matches.NAME: Matches,
    Embedding.NAME: Embedding,
}


# -- fitting and deriving ----------------------------------------------------------------------


def fit_derivations(
    derivations: Mapping[str, Derivation], batches: Sequence[Batch]
) -> dict[str, Derivation]:
    """Let every derivation learn from the first tables of a reference.

    Raises
    ------
    SchemaError
        When an input is not there, an output is there already, or a derivation fails.
    """
    fitted = {}
    there = dict.fromkeys(name for batch in batches for name in batch.names)
    for name, derivation in derivations.items():
        if absent := [column for column in derivation.inputs if column not in there]:
            raise SchemaError(
                f"feature {name!r} is derived from column {absent[0]!r}, which is not in the "
                f"table; its columns are: {', '.join(there)}"
            )
        try:
            fitted[name] = derivation.fit(name, batches)
        except Exception as error:
            refuse(name, derivation, error)
        if taken := [output for output in fitted[name].outputs(name) if output in there]:
            raise SchemaError(
                f"feature {name!r} derives {taken[0]!r}, but the table has such a column already; "
                "choose another name"
            )
    return fitted


def derive(
    derivations: Mapping[str, Derivation],
    batch: Batch,
    start: int,
    stop: int,
    *,
    failed: Callable[[str, Derivation, Exception], None],
    threads: int = 1,
) -> Batch:
    """Make the derived columns of rows [start, stop), as a batch of their own.

    Columns whose inputs are absent are absent too. Where a derivation fails and `failed` returns,
    its columns hold values that count as invalid.
    """
    n = stop - start
    columns: dict[str, pa.Array] = {}
    for name, derivation in derivations.items():
        if any(batch.kind(column) == "absent" for column in derivation.inputs):
            continue
        outputs = derivation.outputs(name)
        try:
            made = derivation.derive(name, batch, start, stop, threads=threads)
            arrays = {output: as_arrow(made[output], n) for output in outputs}
            for output, column in outputs.items():
                _check_type(arrays[output], column)
        except Exception as error:
            failed(name, derivation, error)
            arrays = dict.fromkeys(outputs, _invalid(n))
        columns |= arrays
    return _batch(columns, n)


def refuse(name: str, derivation: Derivation, error: Exception) -> NoReturn:
    """Raise what went wrong with a derivation."""
    raise SchemaError(told(name, derivation, error)) from error


def told(name: str, derivation: Derivation, error: Exception) -> str:
    """Say which feature failed, of which columns, and why."""
    known = isinstance(error, DataError | SchemaError)
    reason = str(error) if known else f"raised {type(error).__name__}: {error}"
    return f"feature {name!r}, derived from {', '.join(derivation.inputs)}: {reason}"


def as_arrow(values: Any, n_rows: int) -> pa.Array:
    """One value a row, as an Arrow array; NaN stays NaN among numbers and is null among objects.

    Raises
    ------
    DataError
        When the values are not one a row, or of no type that Arrow knows.

    >>> as_arrow(np.array([True, False]), 2).type
    DataType(bool)
    """
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if not isinstance(values, pa.Array):
        values = np.asanyarray(values)
        if values.shape != (n_rows,):
            raise DataError(
                f"one value for each of {n_rows} rows is wanted, got shape {values.shape}"
            )
        if values.dtype.kind == "M":
            values = values.astype("datetime64[us]")
        if values.dtype.kind in "UST":
            values = values.astype(object)
        try:
            values = pa.array(values, from_pandas=values.dtype == object)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"values of dtype {values.dtype} cannot be counted ({error})") from None
    if len(values) != n_rows:
        raise DataError(f"one value for each of {n_rows} rows is wanted, got {len(values)}")
    return values


def _check_type(array: pa.Array, column: Column | None) -> None:
    found = _type_of(array)
    allowed = ("numeric",) if column is None else _ACCEPTED[column.kind]
    if found not in (*allowed, *UNTYPED):
        assert column is not None
        raise DataError(
            f"values of type {array.type} are not {column.kind}; allowed: {', '.join(allowed)}"
        )


def _type_of(array: pa.Array) -> str:
    return _batch({"": array}, len(array)).kind("")


def _batch(columns: Mapping[str, pa.Array], n_rows: int) -> Batch:
    """Batch of the columns; a struct keeps its length even without any."""
    names = [pa.field(name, array.type) for name, array in columns.items()]
    struct = pa.StructArray.from_buffers(
        pa.struct(names), n_rows, [None], children=list(columns.values())
    )
    return Batch.from_array(*struct.__arrow_c_array__())


def _invalid(n_rows: int) -> pa.Array:
    """Values of a type that no kind of column takes."""
    return pa.array(np.zeros(n_rows, dtype="timedelta64[s]"))


# -- reading the inputs -----------------------------------------------------------------------


def read_column(
    batch: Batch, name: str, reading: Reading | None, start: int, stop: int
) -> NDArray[Any]:
    """Rows of a column as an array of its own; None reads numbers, texts or times as they come.

    Raises
    ------
    DataError
        When the column is not of the type that it had in the reference.
    """
    n = stop - start
    kind = batch.kind(name)
    found = _READINGS.get(kind)
    if found is None and kind not in UNTYPED:
        raise DataError(
            f"column {name!r} has type {batch.types[batch.names.index(name)]}, which "
            "no function can be given"
        )
    wanted = reading or found or "numbers"
    if found not in (None, wanted):
        raise DataError(f"column {name!r} held {wanted} in the reference, and now {found}")
    if wanted == "numbers":
        return np.full(n, np.nan) if found is None else read_numbers(batch, name, start, stop)
    if wanted == "times":
        times = np.full(n, "NaT", dtype="datetime64[us]")
        if found is not None:
            moments = read_instants(batch, name, start, stop)
            known = ~np.isnan(moments)
            times[known] = moments[known].astype(np.int64).view("datetime64[us]")
        return times
    if found is None:
        return np.full(n, None, dtype=object)
    codes, texts = read_texts(batch, name, start, stop)
    return np.array([*texts, None], dtype=object)[np.where(codes < 0, len(texts), codes)]


def read_texts(
    batch: Batch, name: str, start: int, stop: int
) -> tuple[NDArray[np.int32], list[str]]:
    """Distinct texts of a column, and which each row holds: a negative number where missing.

    Raises
    ------
    DataError
        When the column holds no texts, numbers or booleans.
    """
    vocabulary = Vocabulary([], stop - start)
    codes = intern_codes(batch, name, vocabulary, start, stop)
    if (codes == INVALID).any():
        raise DataError(
            f"column {name!r} has type {batch.types[batch.names.index(name)]}; texts are wanted"
        )
    return codes, vocabulary.texts


def _is_missing(values: NDArray[Any]) -> NDArray[np.bool_]:
    if values.dtype == object:
        return np.array([value is None for value in values], dtype=bool)
    return np.asarray(np.isnan(values))  # NaT too


def inputs_of(declared: Mapping[str, Any]) -> tuple[str, ...]:
    """Columns that a stored derivation reads.

    >>> inputs_of({"derived": "function", "inputs": ["a", "b"]})
    ('a', 'b')
    """
    names = declared.get("inputs")
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise SchemaError(f"`inputs` is a list of column names, got {names!r}")
    return tuple(names)


# -- compiled functions -----------------------------------------------------------------------


def _engine_of(function: ArrayFunction) -> Engine:
    """Engine for a function: numba's own for what `numba.njit` has made."""
    compiled = type(function).__module__.startswith("numba.") and hasattr(function, "py_func")
    return "numba" if compiled else "numpy"


def _check_numbers(names: Sequence[str], inputs: Sequence[NDArray[Any]]) -> None:
    for name, values in zip(names, inputs, strict=True):
        if values.dtype != np.float64:
            raise DataError(f"engine 'numba' takes columns of numbers; {name!r} holds other values")


@lru_cache(maxsize=256)
def _compiled(function: ArrayFunction) -> ArrayFunction:
    """Compile a function of single numbers into one of arrays.

    The machine code is kept on disk beside the module that the function is in, where it has one.
    """
    import numba

    scalar = cast("Any", getattr(function, "py_func", function))
    place = getattr(sys.modules.get(scalar.__module__), "__file__", None)
    in_module = place is not None and place == scalar.__code__.co_filename
    compiled: ArrayFunction = numba.vectorize(nopython=True, cache=in_module)(scalar)
    return compiled
