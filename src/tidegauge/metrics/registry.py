"""The registry: a metric is one decorated function, and its signature says what it needs.

Arguments named `reference` and `current` are inputs, their types those of `metrics/inputs.py`;
keyword-only arguments are options. One name may stand for several functions, one per task.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

from tidegauge.metrics.inputs import (
    COLUMN_INPUTS,
    ESTIMATES,
    GROUP_INPUTS,
    JOINED_INPUTS,
    MODEL_INPUTS,
    TASKS,
    Fine,
    FloatArray,
    GroupEstimates,
    GroupOutcomes,
    RowSamples,
)
from tidegauge.metrics.results import PerClass, PerGroup, Result

Direction: TypeAlias = Literal["higher", "lower", "either"]
Scale: TypeAlias = Literal["rate", "total"]
Function = TypeVar("Function", bound=Callable[..., Result])

KINDS = ("numeric", "categorical", "timestamp", "rule")
PROTECTED = "protected"  # the kind of an attribute whose groups are compared
JOINED = "join"  # what is known of predictions and labels with ids
SIDES = ("reference", "current")


@dataclass(frozen=True, slots=True)
class Form:
    """One function behind a metric's name, with what its signature and decorator say."""

    function: Callable[..., Result]
    inputs: Mapping[str, tuple[type, ...]]  # side -> types it accepts
    options: Mapping[str, Any]  # name -> default
    choices: Mapping[str, tuple[Any, ...]]  # name -> allowed values, where they are a closed set
    worse: Direction
    bounds: tuple[float, float]
    noise: Callable[..., FloatArray] | None
    kinds: tuple[str, ...]  # of column
    tasks: tuple[str, ...]  # whose outcomes the function reads
    scale: Scale
    per_class: bool  # one value for every class
    per_group: bool  # one value for every group

    @property
    def doc(self) -> str:
        """What the value means, in one line."""
        return inspect.getdoc(self.function).partition("\n")[0]  # type: ignore[union-attr]

    @property
    def needs(self) -> tuple[type, ...]:
        """Input types, each once."""
        return tuple(dict.fromkeys(kind for side in self.inputs.values() for kind in side))

    @property
    def label_based(self) -> bool:
        """Whether it waits for labels."""
        if self.estimated:
            return False
        return bool(self.tasks) or JOINED in self.kinds or GroupOutcomes in self.needs

    @property
    def estimated(self) -> bool:
        """Whether it says what labels are expected to show."""
        return bool(set(self.inputs["current"]) & {*ESTIMATES.values(), GroupEstimates})


@dataclass(frozen=True, slots=True)
class Metric:
    """A named measurement: functions over sums, and how to read what they return."""

    name: str
    family: str
    forms: tuple[Form, ...]
    chosen: Mapping[str, Any] = field(default_factory=dict)  # options that differ from the default

    @property
    def label(self) -> str:
        """Name in the metric table, chosen options included; `get` reads it back.

        >>> get("psi", convention="fiddler").label
        'psi(convention=fiddler)'
        """
        chosen = ", ".join(f"{name}={value}" for name, value in self.chosen.items())
        return f"{self.name}({chosen})" if chosen else self.name

    @property
    def doc(self) -> str:
        """What the value means, in one line."""
        return self.forms[0].doc

    @property
    def worse(self) -> Direction:
        """In which direction the news is bad."""
        return self.forms[0].worse

    @property
    def bounds(self) -> tuple[float, float]:
        """Smallest and largest possible value."""
        return self.forms[0].bounds

    @property
    def needs(self) -> tuple[type, ...]:
        """Input types of all the functions."""
        return tuple(dict.fromkeys(kind for form in self.forms for kind in form.needs))

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks it can be computed for; none for metrics that need no label."""
        return tuple(task for form in self.forms for task in form.tasks)

    @property
    def label_based(self) -> bool:
        """Whether it waits for labels."""
        return any(form.label_based for form in self.forms)

    @property
    def estimated(self) -> bool:
        """Whether it says what labels are expected to show."""
        return any(form.estimated for form in self.forms)

    @property
    def of_groups(self) -> bool:
        """Whether it compares the groups of a protected attribute."""
        return any(PROTECTED in form.kinds for form in self.forms)

    @property
    def own(self) -> bool:
        """Whether it is the user's, and not one of the library's."""
        return not self.forms[0].function.__module__.startswith("tidegauge.")

    @property
    def samples_rows(self) -> bool:
        """Whether it needs sampled rows; such a metric is computed when it is named, and only then.

        >>> get("domain_classifier_auc").samples_rows
        True
        """
        return RowSamples in self.needs

    @property
    def options(self) -> Mapping[str, Any]:
        """Options it takes, with the values it will use."""
        defaults = {name: value for form in self.forms for name, value in form.options.items()}
        return defaults | dict(self.chosen)

    def tried(self, target: str | None) -> tuple[Metric, ...]:
        """Itself by each estimator that "best" chooses from, or itself alone.

        >>> [each.label for each in get("estimated_accuracy").tried("binary")][2:]
        ['estimated_accuracy(estimator=atc)', 'estimated_accuracy(estimator=doc)']
        """
        form = self.form_for(target)
        if form is None or "estimator" not in form.options or self.options["estimator"] != "best":
            return (self,)
        choices = [name for name in form.choices["estimator"] if name != "best"]
        return tuple(self.with_options(estimator=name) for name in choices)

    def form_for(self, target: str | None) -> Form | None:
        """Find what serves a task or a kind of column; with None, what serves the traffic.

        >>> get("accuracy").form_for("regression") is None
        True
        """
        for form in self.forms:
            if target in form.tasks or target in form.kinds:
                return form
            if target is None and not form.tasks and not form.kinds:
                return form
        return None

    def function_for(self, target: str | None) -> Callable[..., Result]:
        """Find the function for a task or a kind of column, or say which ones there are."""
        form = self.form_for(target)
        if form is None:
            served = [served for form in self.forms for served in form.tasks or form.kinds]
            raise ValueError(f"metric {self.name!r} is not defined for {target!r}, only {served}")
        return form.function

    def with_options(self, **options: Any) -> Metric:
        """Choose options; those equal to the default are dropped.

        >>> get("top_k_accuracy").with_options(k=3).label
        'top_k_accuracy(k=3)'
        """
        for name, value in options.items():
            if name not in self.options:
                allowed = sorted(self.options) or "none"
                raise ValueError(f"metric {self.name!r} has no option {name!r}; it has {allowed}")
            for form in self.forms:
                choices = form.choices.get(name, (value,))
                if value not in choices:
                    raise ValueError(
                        f"metric {self.name!r}: {name}={value!r} is not one of {list(choices)}"
                    )
        chosen = dict(self.chosen) | options
        defaults = replace(self, chosen={}).options
        return replace(self, chosen={k: v for k, v in chosen.items() if v != defaults[k]})


_REGISTRY: dict[str, Metric] = {}


def metric(
    name: str,
    *,
    worse: Direction,
    bounds: tuple[float, float],
    noise: Callable[..., FloatArray] | None = None,
    kinds: tuple[str, ...] = KINDS,
    family: str | None = None,
    scale: Scale = "rate",
) -> Callable[[Function], Function]:
    """Register a function as the metric `name`, or as its form for one more task.

    A function registered again, as when a cell of a notebook runs twice, replaces itself.

    Parameters
    ----------
    name
        What the metric table, the command line and the charts will call it: an identifier.
    worse
        In which direction the news is bad: "higher", "lower" or "either".
    bounds
        Smallest and largest possible value.
    noise
        Function of the same inputs and options: the value to expect when nothing has changed.
    kinds
        Kinds of column it can be computed for; of no meaning for model-level inputs.
    family
        Heading it belongs under; the module's name unless given.
    scale
        "total" for values that add up over windows, and so say nothing beside a whole reference.

    Raises
    ------
    TypeError
        When the signature does not say which sums are needed, or the docstring is missing.
    ValueError
        When the name is taken by another module's metric, or a setting is not one of those allowed.
    """
    if not name.isidentifier():
        raise ValueError(f"a metric's name is letters, digits and underscores, got {name!r}")
    _check("worse", worse, get_args(Direction))
    _check("scale", scale, get_args(Scale))
    for kind in kinds:
        _check("kinds", kind, KINDS)
    if len(bounds) != 2 or not bounds[0] < bounds[1]:
        raise ValueError(f"bounds are (smallest, largest) possible value, got {bounds!r}")

    def register(function: Function) -> Function:
        form = _read(function, worse=worse, bounds=bounds, noise=noise, kinds=kinds, scale=scale)
        known = _REGISTRY.get(name)
        forms = (
            [each for each in known.forms if not _same(each.function, function)] if known else []
        )
        if known and any(each.function.__module__ != function.__module__ for each in forms):
            taken = forms[0].function.__module__
            raise ValueError(f"metric {name!r} is already defined by {taken}; choose another name")
        if set(form.needs) & {need for each in forms for need in each.needs}:
            raise ValueError(f"metric {name!r} has a function for these sums already")
        heading = known.family if forms and known else family or function.__module__
        _REGISTRY[name] = Metric(name, heading.rpartition(".")[2], (*forms, form))
        return function

    return register


def remove(name: str) -> None:
    """Take a metric of one's own out of the registry.

    Raises
    ------
    ValueError
        When there is no such metric, or it belongs to the library.

    >>> remove("psi")
    Traceback (most recent call last):
    ValueError: metric 'psi' belongs to tidegauge and stays
    """
    if not get(name).own:
        raise ValueError(f"metric {name!r} belongs to tidegauge and stays")
    del _REGISTRY[name]


def _same(function: Callable[..., Result], other: Callable[..., Result]) -> bool:
    places = [(each.__module__, each.__qualname__) for each in (function, other)]
    return places[0] == places[1]


def _check(role: str, given: object, allowed: tuple[str, ...]) -> None:
    if given not in allowed:
        raise ValueError(f"{role}: {given!r} is not one of {', '.join(allowed)}")


def _read(
    function: Callable[..., Result],
    *,
    worse: Direction,
    bounds: tuple[float, float],
    noise: Callable[..., FloatArray] | None,
    kinds: tuple[str, ...],
    scale: Scale,
) -> Form:
    try:
        hints = get_type_hints(function)
    except NameError as error:
        raise TypeError(f"{function.__qualname__}: an annotation is unknown ({error})") from None
    parameters = inspect.signature(function).parameters.values()
    inputs = {p.name: p for p in parameters if p.kind is not p.KEYWORD_ONLY}
    if "current" not in inputs or not set(inputs) <= set(SIDES):
        raise TypeError(
            f"{function.__qualname__}: inputs must be `current` or `reference, current`, "
            f"got {sorted(inputs)}"
        )
    if not inspect.getdoc(function):
        raise TypeError(
            f"{function.__qualname__}: a metric says in a docstring what its value means"
        )
    needs = {side: get_args(hints.get(side)) or (hints.get(side),) for side in inputs}
    allowed = {
        kind.__name__: kind
        for kind in (
            *COLUMN_INPUTS,
            *GROUP_INPUTS,
            *JOINED_INPUTS,
            *MODEL_INPUTS,
            *TASKS.values(),
            *ESTIMATES.values(),
        )
    }
    for side, kinds_of_side in needs.items():
        if not set(kinds_of_side) <= set(allowed.values()):
            raise TypeError(
                f"{function.__qualname__}: `{side}` is annotated with {hints.get(side)!r}; "
                f"allowed: {', '.join(allowed)}"
            )
    options = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    if bare := [name for name, default in options.items() if default is inspect.Parameter.empty]:
        raise TypeError(f"{function.__qualname__}: option `{bare[0]}` needs a default")
    if noise is not None:
        try:
            inspect.signature(noise).bind(**dict.fromkeys([*inputs, *options]))
        except TypeError as error:
            raise TypeError(
                f"{function.__qualname__}: `noise` takes the same inputs and options ({error})"
            ) from None
    if Fine in needs["current"]:
        kinds = tuple(kind for kind in kinds if kind in ("numeric", "timestamp"))
    if set(needs["current"]) & set(GROUP_INPUTS):
        kinds = (PROTECTED,)
    elif set(needs["current"]) & set(JOINED_INPUTS):
        kinds = (JOINED,)
    elif not set(needs["current"]) & set(COLUMN_INPUTS):
        kinds = ()
    return Form(
        function=function,
        inputs=needs,
        options=options,
        choices={
            name: get_args(hints[name]) for name in options if get_origin(hints[name]) is Literal
        },
        worse=worse,
        bounds=bounds,
        noise=noise,
        kinds=kinds,
        scale=scale,
        tasks=tuple(
            task for task in TASKS if {TASKS[task], ESTIMATES.get(task)} & set(needs["current"])
        ),
        per_class=hints.get("return") is PerClass,
        per_group=hints.get("return") is PerGroup,
    )


def names(family: str | None = None) -> tuple[str, ...]:
    """Names of all metrics, or of one family, in the order they were defined.

    >>> names("drift")[:2]
    ('psi', 'kl_divergence')
    """
    return tuple(m.name for m in _REGISTRY.values() if family in (None, m.family))


def usual() -> tuple[str, ...]:
    """Names of the metrics that are computed unless others are asked for.

    >>> "psi" in usual(), "domain_classifier_auc" in usual()
    (True, False)
    """
    return tuple(m.name for m in _REGISTRY.values() if not m.samples_rows)


def families() -> tuple[str, ...]:
    """Headings the metrics are sorted under.

    >>> families()[:3]
    ('comparison', 'drift', 'performance')
    """
    return tuple(dict.fromkeys(m.family for m in _REGISTRY.values()))


def get(name: str, **options: Any) -> Metric:
    """Metric by name, or by the label of a metric with options.

    >>> get("psi").worse
    'higher'
    >>> get("psi(convention=fiddler)") == get("psi", convention="fiddler")
    True
    """
    bare, _, written = name.partition("(")
    if bare not in _REGISTRY:
        close = difflib.get_close_matches(bare, _REGISTRY, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(_REGISTRY)}"
        raise ValueError(f"unknown metric {name!r}; {hint}")
    if written and not re.fullmatch(_WRITTEN, written):
        raise ValueError(f"metric {name!r}: options are written as {bare}(name=value, ...)")
    pairs = (part.split("=", 1) for part in written.rstrip(")").split(",") if part)
    parsed = {key.strip(): _literal(value.strip()) for key, value in pairs}
    return _REGISTRY[bare].with_options(**parsed | options)


_WRITTEN = r"\s*\w+=[^,()\s]+(\s*,\s*\w+=[^,()\s]+)*\s*\)"


def _literal(text: str) -> Any:
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text
