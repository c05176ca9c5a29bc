"""The contract every metric keeps, checked over the whole registry without exemptions."""

from __future__ import annotations

import doctest
import importlib
import inspect
import math
import pkgutil
from pathlib import Path

import metric_inputs
import numpy as np
import pytest
import reference

import tidegauge as tg
from tidegauge import metrics
from tidegauge.metrics import registry
from tidegauge.metrics.inputs import ESTIMATES, TASKS, Bins, Fine, RegressionOutcomes
from tidegauge.metrics.page import metric_page
from tidegauge.metrics.registry import Metric, metric
from tidegauge.metrics.results import PerClass, PerGroup, value_of

FORMS = [
    pytest.param(get, form, task, id=f"{get.name}-{task or 'column'}")
    for get in map(metrics.get, metrics.names())
    for form in get.forms
    for task in form.tasks or (None,)
]
DRIFT = [
    pytest.param(metric, form, id=metric.name)
    for metric in map(metrics.get, metrics.names("drift"))
    for form in metric.forms
    if "reference" in form.inputs
]
NEVER_UNDEFINED = "Never undefined."
VALUES = {
    "threshold": (None, 0.5),
    "beta": (2.0, 0.5),
    "k": (2, 1, 3),
    "minimum": (1, 8),
    "against": ("overall", "largest", "b", "nobody"),
    "alpha": (0, 1, 2.0),
    "concentration": (0.5,),
    "q": (0.05, 0.3),
    "seed": (3,),
    "explained": (0.2, 0.9),
    "level": (0.0, 0.3, 0.9, 1.0),
}


def variants(form):
    """Every value of every option, one at a time."""
    yield {}
    for option in form.options:
        for value in form.choices.get(option) or VALUES[option]:
            yield {option: value}


def kind_of(types, task):
    if not task or len(types) == 1:
        return types[0]
    return next(each[task] for each in (TASKS, ESTIMATES) if each[task] in types)


def draw(form, task, random, size=40):
    """Plain data of each side, and the inputs built from it."""
    kinds = {side: kind_of(types, task) for side, types in form.inputs.items()}
    plain = {side: metric_inputs.plain(kind, random, size) for side, kind in kinds.items()}
    return plain, {side: metric_inputs.BUILD[kinds[side]](plain[side]) for side in kinds}


def expected(name, form, task, plain, options):
    extra = ()
    if form.inputs["current"][0] is Fine:
        extra = (metric_inputs.EDGES,)
    if task == "multiclass":
        extra = (metric_inputs.CLASSES,)
    by_middles = ("estimated_accuracy", "estimated_log_loss", "estimated_brier_score")
    if task == "binary" and name in by_middles:
        options = options | {"edges": metric_inputs.SCORE_EDGES}
    return reference.DEFINITIONS[name, task](*plain.values(), *extra, **options)


@pytest.mark.parametrize(("metric", "form", "task"), FORMS)
def test_the_value_is_that_of_the_slow_definition(metric, form, task) -> None:
    for options in variants(form):
        for seed in range(12):
            random = np.random.default_rng(seed)
            plain, inputs = draw(form, task, random, size=(40, 3)[seed % 2])
            value = value_of(form.function(**inputs, **options))
            np.testing.assert_allclose(
                value,
                expected(metric.name, form, task, plain, options),
                rtol=1e-9,
                atol=1e-7,  # the root of a rounding error: distances of equal bins
                err_msg=f"{options} seed {seed}",
            )


@pytest.mark.parametrize(("metric", "form", "task"), FORMS)
def test_values_and_intervals_keep_within_bounds(metric, form, task) -> None:
    low, high = form.bounds
    for seed in range(20):
        _, inputs = draw(form, task, np.random.default_rng(seed), size=(30, 2)[seed % 2])
        result = form.function(**inputs)
        values = value_of(result)
        known = np.asarray(values)[~np.isnan(values)]
        assert ((low <= known) & (known <= high)).all()
        if isinstance(result, PerClass | PerGroup):
            result = result.result
        if not isinstance(result, np.ndarray | float):
            lower, upper = result.interval()
            undefined = np.isnan(values)
            assert (undefined | ((lower <= values + 1e-12) & (values <= upper + 1e-12))).all()
            np.testing.assert_array_equal(np.isnan(lower), undefined)


@pytest.mark.parametrize(("metric", "form", "task"), FORMS)
def test_leading_dimensions_are_a_loop(metric, form, task) -> None:
    cases = [draw(form, task, np.random.default_rng(seed))[1] for seed in range(6)]
    stacked = {
        side: metric_inputs.stack([case[side] for case in cases], (2, 3)) for side in cases[0]
    }
    for options in variants(form):
        together = value_of(form.function(**stacked, **options))
        one_by_one = np.stack([value_of(form.function(**case, **options)) for case in cases])
        assert together.shape[:2] == (2, 3)
        # reductions may pair terms differently in another memory layout
        np.testing.assert_allclose(
            together.reshape(one_by_one.shape), one_by_one, rtol=1e-12, atol=1e-9
        )
        if form.noise:
            noise = form.noise(**stacked, **options)
            apart = [form.noise(**case, **options) for case in cases]
            np.testing.assert_allclose(np.reshape(noise, 6), apart, rtol=1e-12)


@pytest.mark.parametrize(("metric", "form", "task"), FORMS)
def test_nothing_is_undefined_and_warns_of_nothing(metric, form, task) -> None:
    empty = {}
    for side, types in form.inputs.items():
        kind = kind_of(types, task)
        empty[side] = metric_inputs.BUILD[kind](metric_inputs.nothing(kind))
    defined = NEVER_UNDEFINED in (inspect.getdoc(form.function) or "")
    for options in variants(form):
        result = form.function(**empty, **options)
        assert np.isnan(value_of(result)).all() != defined
        if form.noise:
            assert np.isnan(form.noise(**empty, **options)).all()


@pytest.mark.parametrize(("metric", "form", "task"), FORMS)
def test_the_docstring_says_what_a_reader_needs(metric, form, task) -> None:
    doc = inspect.getdoc(form.function) or ""
    first, _, rest = doc.partition("\n\n")
    assert first.endswith(".")
    assert "\n" not in first
    assert "Range" in rest or "Range:" in rest
    assert "ndefined" in rest
    assert ">>> " in rest
    assert form.worse in ("higher", "lower", "either")
    assert form.bounds[0] < form.bounds[1]


def test_every_definition_belongs_to_a_metric() -> None:
    registered = {
        (name, task)
        for name in metrics.names()
        for form in metrics.get(name).forms
        for task in form.tasks or (None,)
    }
    assert set(reference.DEFINITIONS) == registered


@pytest.mark.parametrize(
    ("metric", "form"), [each for each in DRIFT if Bins in each.values[1].needs]
)
def test_padding_with_empty_bins_changes_nothing(metric, form) -> None:
    for options in variants(form):
        plain, inputs = draw(form, None, np.random.default_rng(5))
        padded = {
            side: metric_inputs.bins([0, *counts[:3], 0, *counts[3:]])
            for side, counts in plain.items()
        }
        for function in (form.function, form.noise):
            before, after = function(**inputs, **options), function(**padded, **options)
            np.testing.assert_allclose(after, before, rtol=1e-12)


@pytest.mark.parametrize(("metric", "form"), DRIFT)
def test_no_change_is_the_best_value_and_the_floor_is_above_it(metric, form) -> None:
    kind = form.inputs["current"][0]
    best = form.bounds[form.worse == "lower"]
    for options in variants(form):
        same = metric_inputs.BUILD[kind]([3, 7, 0, 11, 2, 5])
        if options == {"convention": "tfdv"}:  # there a missing value is a change
            same = Bins([3, 7, 0, 11, 2, 0])
        assert form.function(same, same, **options) == best
        floor = form.noise(same, same, **options)
        assert 0 < floor < math.inf


SMALL, LARGE = 800, 3000


@pytest.mark.parametrize("skew", ["even", "skewed"])
@pytest.mark.parametrize(("metric", "form"), DRIFT)
def test_the_noise_floor_is_the_average_without_change(metric, form, skew) -> None:
    kind = form.inputs["current"][0]
    random = np.random.default_rng(7)
    n_bins = 200 if kind is Fine else 11
    weights = np.ones(n_bins) if skew == "even" else 1 / np.arange(1.0, n_bins + 1)
    p = weights / weights.sum()
    before, after = random.multinomial(LARGE, p, 2000), random.multinomial(SMALL, p, 2000)
    edges = (np.linspace(0, 1, n_bins + 1),) if kind is Fine else ()
    sides = kind(before, *edges), kind(after, *edges)
    for options in variants(form):
        measured = form.function(*sides, **options).mean()
        promised = form.noise(*sides, **options).mean()
        assert promised == pytest.approx(measured, rel=0.06), options


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics that a test registers are gone after it."""
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))


@pytest.mark.usefixtures("own_registry")
def test_a_metric_is_one_decorated_function() -> None:
    @metric("rows_of_the_largest_bin", worse="either", bounds=(0, math.inf), family="mine")
    def rows_of_the_largest_bin(current: Bins, *, power: int = 1) -> np.ndarray:
        """Count the rows of the largest bin."""
        return np.asarray(current.counts.max(axis=-1) ** power, dtype=float)

    found = metrics.get("rows_of_the_largest_bin", power=2)
    assert found.family == "mine"
    assert found.label == "rows_of_the_largest_bin(power=2)"
    assert metrics.get(found.label) == found
    assert not found.label_based
    assert found.function_for("numeric") is rows_of_the_largest_bin
    assert "mine" in metrics.families()
    # a cell of a notebook that runs again replaces its own
    metric("rows_of_the_largest_bin", worse="either", bounds=(0, 1))(rows_of_the_largest_bin)
    assert len(metrics.get("rows_of_the_largest_bin").forms) == 1
    assert metrics.get("rows_of_the_largest_bin").bounds == (0, 1)
    metrics.remove("rows_of_the_largest_bin")
    assert "rows_of_the_largest_bin" not in metrics.names()
    with pytest.raises(ValueError, match="unknown metric 'rows_of_the_largest_bin'"):
        metrics.remove("rows_of_the_largest_bin")


def largest_bin(current: Bins) -> np.ndarray:
    """Rows of the largest bin."""
    return current.counts.max(axis=-1).astype(float)


def absolute_error(current: RegressionOutcomes) -> np.ndarray:
    """Sum of the absolute errors."""
    return current.absolute


@pytest.mark.usefixtures("own_registry")
def test_names_belong_to_the_module_that_took_them() -> None:
    for name, function in [("psi", largest_bin), ("accuracy", absolute_error)]:
        with pytest.raises(ValueError, match=f"'{name}' is already defined by tidegauge"):
            metric(name, worse="higher", bounds=(0, 1))(function)
        with pytest.raises(ValueError, match=f"'{name}' belongs to tidegauge and stays"):
            metrics.remove(name)
    metric("mine", worse="higher", bounds=(0, math.inf))(largest_bin)
    metric("mine", worse="higher", bounds=(0, math.inf))(absolute_error)  # of other sums: a form
    assert [form.function for form in metrics.get("mine").forms] == [largest_bin, absolute_error]

    def bins_again(current: Bins) -> np.ndarray:
        """Rows of the first bin."""
        return current.counts[..., 0].astype(float)

    with pytest.raises(ValueError, match="'mine' has a function for these sums already"):
        metric("mine", worse="higher", bounds=(0, math.inf))(bins_again)


def documented(current: Bins, *, power: int) -> np.ndarray:
    """Have an option without a default."""
    return current.counts.max(axis=-1) ** power


def unknown_input(current: dict) -> np.ndarray:
    """Ask for sums that there are none of."""
    return np.zeros(len(current))


def undocumented(current: Bins) -> np.ndarray:
    return current.counts.max(axis=-1).astype(float)


@pytest.mark.usefixtures("own_registry")
@pytest.mark.parametrize(
    ("function", "settings", "error", "message"),
    [
        (lambda counts: counts, {}, TypeError, "inputs must be `current` or `reference, current`"),
        (documented, {}, TypeError, "option `power` needs a default"),
        (unknown_input, {}, TypeError, "annotated with <class 'dict'>; allowed: Bins, Fine"),
        (undocumented, {}, TypeError, "says in a docstring"),
        (largest_bin, {"name": "my metric"}, ValueError, "letters, digits and underscores"),
        (largest_bin, {"name": "p(a=1)"}, ValueError, "letters, digits and underscores"),
        (largest_bin, {"worse": "up"}, ValueError, "worse: 'up' is not one of higher, lower"),
        (largest_bin, {"scale": "big"}, ValueError, "scale: 'big' is not one of rate, total"),
        (largest_bin, {"kinds": ("text",)}, ValueError, "kinds: 'text' is not one of numeric"),
        (largest_bin, {"bounds": (1, 0)}, ValueError, "bounds are"),
        (largest_bin, {"noise": lambda: 0.0}, TypeError, "`noise` takes the same inputs"),
    ],
)
def test_a_metric_that_makes_no_sense_is_refused(function, settings, error, message) -> None:
    chosen = {"name": "wrong", "worse": "either", "bounds": (0, 1), **settings}
    with pytest.raises(error, match=message):
        metric(chosen.pop("name"), **chosen)(function)
    assert "wrong" not in metrics.names()


@pytest.mark.usefixtures("own_registry")
def test_a_metric_that_fails_is_named() -> None:
    @metric("summed", worse="higher", bounds=(0, math.inf))
    def summed(current: Bins) -> np.ndarray:
        """Forget that there are many columns and windows."""
        return current.counts.sum().astype(float)

    @metric("broken", worse="higher", bounds=(0, math.inf))
    def broken(current: Bins) -> np.ndarray:
        """Fail."""
        raise RuntimeError("no")

    table = {"x": np.arange(20.0)}
    with pytest.raises(ValueError, match=r"'summed' gave an array of shape \(\) where \(1, 1\)"):
        tg.compare(table, table, metrics="summed")
    with pytest.raises(RuntimeError, match="no") as raised:
        tg.compare(table, table, metrics="broken")
    assert raised.value.__notes__ == ["raised by metric 'broken'"]


def test_mistakes_are_answered_with_what_is_allowed() -> None:
    with pytest.raises(ValueError, match="unknown metric 'accurcy'; did you mean accuracy"):
        metrics.get("accurcy")
    with pytest.raises(ValueError, match=f"unknown metric 'zzzzzz'; known: {metrics.names()[0]}"):
        metrics.get("zzzzzz")
    with pytest.raises(ValueError, match=r"'psi' has no option 'k'; it has \['convention'\]"):
        metrics.get("psi", k=3)
    with pytest.raises(ValueError, match=r"convention='fidler' is not one of .*'fiddler'"):
        metrics.get("psi(convention=fidler)")
    with pytest.raises(ValueError, match="'mae' is not defined for 'binary', only"):
        metrics.get("mae").function_for("binary")
    with pytest.raises(ValueError, match=r"convention 'fidler' is not one of .*'fiddler'"):
        metrics.drift.psi(Bins([1, 2]), Bins([1, 2]), convention="fidler")


def test_labels_of_metrics_read_back() -> None:
    chosen = metrics.get("f_beta", beta=0.5, threshold=0.25)
    assert chosen.label == "f_beta(beta=0.5, threshold=0.25)"
    assert metrics.get(chosen.label) == chosen
    assert metrics.get("f_beta", beta=2.0).label == "f_beta"
    assert isinstance(chosen, Metric)


def test_examples_in_the_docstrings_run() -> None:
    attempted = 0
    for module in pkgutil.iter_modules(metrics.__path__, "tidegauge.metrics."):
        result = doctest.testmod(importlib.import_module(module.name))
        assert result.failed == 0
        attempted += result.attempted
    assert attempted > 100


def test_the_metric_page_is_fresh() -> None:
    page = Path(__file__).parents[1] / "docs" / "metrics.md"
    assert page.read_text(encoding="utf-8") == metric_page(), "run python -m tidegauge.metrics.page"
