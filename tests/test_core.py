"""The compiled core against its definitions: bins, edges, exact sums."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegauge import _core, numeric
from tidegauge.grid import Grid, edge_grid, fit_grid, score_grid
from tidegauge.window import NO_ROWS

SETS = [name for name in ("scalar", "neon", "avx2", "avx512") if _core.use_instruction_set(name)]
BEST = SETS[-1]
_core.use_instruction_set(BEST)

floats = st.floats(allow_nan=True, allow_infinity=True, width=64)
SAMPLES = {
    "linear": np.linspace(-3, 3, 500) + 0.001,
    "log": np.geomspace(0.01, 1e6, 500),
    "symlog": np.concatenate([-np.geomspace(0.01, 1e6, 250), np.geomspace(0.01, 1e6, 250)]),
    "integer": np.arange(40.0),
}


def panes_of(width: int) -> np.ndarray:
    """Panes of one width, kept for ever."""
    return np.array([[width], [_core.NEVER]], np.int64)


def grids() -> dict[str, Grid]:
    made = {kind: fit_grid(sample, numeric(grid=kind), 256) for kind, sample in SAMPLES.items()}
    made["atoms"] = fit_grid(np.append(np.full(500, 0.25), SAMPLES["linear"]), numeric(), 1024)
    made["edges"] = edge_grid(np.array([-1.5, 0.0, 0.1, 7.0]))
    made["many edges"] = edge_grid(np.sort(np.random.default_rng(2).standard_cauchy(300)))
    made["even edges"] = edge_grid(np.linspace(-8, 8, 41))
    made["score"] = score_grid(0.3, np.linspace(0.4, 0.41, 50))
    made["huge"] = fit_grid(np.array([-1e308, 0.0, 3.0, 1e308]), numeric(), 64)
    made["constant"] = fit_grid(np.full(9, 0.1), numeric(), 64)
    return made


GRIDS = grids()


@pytest.mark.parametrize("name", GRIDS)
@given(values=st.lists(floats, min_size=1, max_size=70))
def test_every_instruction_set_gives_the_same_slots(name: str, values: list[float]) -> None:
    bins = GRIDS[name].bins()
    given_values = np.array(values)
    slots = {}
    for instruction_set in SETS:
        assert _core.use_instruction_set(instruction_set)
        slots[instruction_set] = bins.encode(given_values)
    _core.use_instruction_set(BEST)
    for found in slots.values():
        np.testing.assert_array_equal(found, slots["scalar" if "scalar" in slots else BEST])


@pytest.mark.parametrize("name", GRIDS)
@given(values=st.lists(floats.filter(lambda x: not math.isnan(x)), min_size=1, max_size=70))
def test_slot_is_the_number_of_edges_at_or_below(name: str, values: list[float]) -> None:
    bins = GRIDS[name].bins()
    edges = bins.lower_edges()
    assert (np.diff(edges) >= 0).all() or math.isinf(edges[0])
    expected = _core.SPECIALS + np.searchsorted(edges, values, side="right") - 1
    np.testing.assert_array_equal(bins.encode(np.array(values)), expected)


@pytest.mark.parametrize("name", GRIDS)
def test_edges_are_exact(name: str) -> None:
    bins = GRIDS[name].bins()
    edges = bins.lower_edges()
    finite = edges[np.isfinite(edges)]
    at = bins.encode(finite).astype(int)
    with np.errstate(over="ignore"):
        below = bins.encode(np.nextafter(finite, -np.inf)).astype(int)
    assert (below < at).all()


WIDTHS = [*"bhilBHIL", "e", "f"]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("name", GRIDS)
def test_numbers_of_any_width_count_as_their_doubles(
    name: str, instruction_set: str, width: str
) -> None:
    """Through a monitor's cells: the same counts and extremes as the doubles give."""
    assert _core.use_instruction_set(instruction_set)
    values = hostile(np.dtype(width))
    bins = GRIDS[name].bins(missing=(3.0,))
    task = ("numbers", "x", 0, bins)
    narrow = counted(task, pa.array(values), bins.n_slots)
    wide = counted(task, pa.array(values.astype(np.float64)), bins.n_slots)
    expected = np.bincount(bins.encode(values.astype(np.float64)), minlength=bins.n_slots)
    _core.use_instruction_set(BEST)
    np.testing.assert_array_equal(narrow[0], expected)
    np.testing.assert_array_equal(wide[0], expected)
    finite = values.astype(np.float64)[np.isfinite(values.astype(np.float64)) & (values != 3)]
    for _, extremes in (narrow, wide):
        np.testing.assert_array_equal(extremes, [finite.min(), finite.max()])


def hostile(dtype: np.dtype) -> np.ndarray:
    """Ends of the type, ordinary values and, of floats, all that is special; over two blocks."""
    random = np.random.default_rng(5)
    if dtype.kind == "f":
        limits = np.finfo(dtype)
        special = [math.nan, -math.nan, math.inf, -math.inf, 0.0, -0.0, limits.max, limits.min]
        special += [limits.tiny, -limits.smallest_subnormal]
        ordinary = random.standard_cauchy(9_000)
        with np.errstate(over="ignore"):
            return np.concatenate([ordinary, special, ordinary[:77]]).astype(dtype)
    limits = np.iinfo(dtype)
    ordinary = random.integers(max(-50, limits.min), 51, 9_000, dtype=dtype)
    ends = np.array([limits.min, limits.max, 0, 1], dtype=dtype)
    return np.concatenate([ordinary, ends, ordinary[:77]])


def counted(
    task: tuple[object, ...], values: pa.ChunkedArray, n_slots: int
) -> tuple[np.ndarray, np.ndarray]:
    """Counts and extremes of one column in a single cell."""
    batch = _core.Batch.from_stream(pa.table({"x": values}).__arrow_c_stream__())
    cells = _core.Cells([n_slots, 5], 0)
    where = cells.locate(
        np.zeros(1, np.int64), np.zeros(1, np.int32), np.zeros((1, 1), np.int64), panes_of(0)
    )
    cells.fill(_core.Filler(batch, [task]), 0, len(values), where, 1, 1)
    first = np.zeros(1, np.int32)
    counts = cells.counts(0, first, first, 1, np.empty(0, np.int32), n_slots)[0]
    return counts, cells.extremes(0, first, first, 1)[0]


@pytest.mark.parametrize("n_entries", [3, 100, 30_000])
@pytest.mark.parametrize("index", [pa.int8(), pa.uint8(), pa.int16(), pa.uint32(), pa.int64()])
def test_dictionaries_of_any_length_count_as_their_texts(
    index: pa.DataType, n_entries: int
) -> None:
    """Longer than the batch, with nulls in either place, in chunks: one slot for all unseen."""
    random = np.random.default_rng(n_entries)
    n_entries = min(n_entries, 2 ** (index.bit_width - 1))
    entries = pa.array([None if k == 1 else f"value {k}" for k in range(n_entries)])
    codes = pa.array(random.integers(0, n_entries, 9_100), mask=random.random(9_100) < 0.02)
    column = pa.DictionaryArray.from_arrays(codes.cast(index), entries)
    chunks = pa.chunked_array([column[:5], column[5:8_000], column[8_000:]])
    known, missing = [f"value {k}" for k in range(0, 50, 2)], _core.Vocabulary(["value 7"], 1)
    task = ("categories", "x", 0, _core.Vocabulary(known, len(known)), missing)
    n_slots = _core.SPECIALS + 1 + len(known)
    slot_of = {None: 0, "value 7": 2, **{text: 6 + code for code, text in enumerate(known)}}
    expected = np.bincount([slot_of.get(text, 5) for text in column.to_pylist()], minlength=n_slots)
    texts = chunks.cast(pa.string())
    for values in (chunks, texts, texts.cast(pa.large_string()), texts.cast(pa.string_view())):
        np.testing.assert_array_equal(counted(task, values, n_slots)[0], expected)


def test_nan_of_either_sign_has_its_slot() -> None:
    negative = np.array([np.uint64(0xFFF8000000000001)]).view(np.float64)
    for grid in GRIDS.values():
        slots = grid.bins().encode(np.array([math.nan, -math.nan, negative[0]]))
        assert set(slots.tolist()) == {1}


def test_sentinels_have_their_slot() -> None:
    bins = GRIDS["linear"].bins(missing=(-999.0, 0.5))
    np.testing.assert_array_equal(bins.encode(np.array([-999.0, 0.5]))[:2], [2, 2])
    assert bins.encode(np.array([0.25]))[0] >= _core.SPECIALS


@pytest.mark.parametrize(
    ("sample", "kind"),
    [
        (np.arange(100.0), "linear"),
        (np.random.default_rng(0).normal(size=1000), "linear"),
        (np.random.default_rng(0).lognormal(0, 2, 1000), "log"),
        (np.random.default_rng(0).standard_cauchy(1000), "symlog"),
        (np.full(10, 3.7), "linear"),
        (np.empty(0), "linear"),
        (np.array([math.nan, math.inf]), "linear"),
    ],
)
def test_grid_follows_the_shape_of_the_data(sample: np.ndarray, kind: str) -> None:
    assert fit_grid(sample, numeric(), 1024).kind == kind


def test_whole_numbers_get_a_bin_each() -> None:
    grid = fit_grid(np.arange(50.0), numeric(), 1024)
    slots = grid.bins().encode(np.arange(-3.0, 53.0))
    assert len(set(slots.tolist())) == 56


def test_limits_and_atoms_are_edges() -> None:
    values = np.append(np.full(300, 0.25), np.random.default_rng(0).normal(size=1000))
    edges = fit_grid(values, numeric(limits=(-1.0, 2.0)), 1024).bins().lower_edges()
    for edge in (-1.0, np.nextafter(2.0, 3.0), 0.25, np.nextafter(0.25, 1.0)):
        assert edge in edges


# Sums: one cell, the error of a regression is the first sum.


def sums_of(errors: list[float], signs: list[int]) -> float:
    cells = _core.Cells([5, 7], 11)
    n = len(errors)
    blocks = {
        "traffic": 0,
        "delays": 0,
        "pairs": 0,
        "first": 1,
        "pair_sum": 0,
        "n_classes": 0,
        "score_edges": np.empty(0),
        "label_center": 0.0,
        "label_bins": _core.NumericBins.edges([0.0]),
    }
    rows = {
        "times": np.zeros(n, np.int64),
        "known": np.zeros(n, np.int64),
        "groups": np.zeros(n, np.int32),
        "labels": np.zeros(n),
        "decisions": np.full(n, -1, np.int16),
        "values": np.array(errors, np.float64),
        "weights": np.ones(n),
        "signs": np.array(signs, np.int8),
        "delays": np.full(n, _core.NO_DELAY, np.uint8),
    }
    places = (np.zeros((1, 1), np.int64), panes_of(0))
    joined = _core.JoinedRows(NO_ROWS | rows, weighted=False)
    _core.add_outcomes(cells, "regression", blocks, places, joined)
    first = np.zeros(len(cells), np.int32)
    return float(cells.sums(np.arange(len(cells), dtype=np.int32), first, 1)[0, 0]) if n else 0.0


moderate = st.floats(min_value=-1e30, max_value=1e30, allow_subnormal=False)


@given(errors=st.lists(moderate, max_size=40), seed=st.randoms())
def test_sums_are_exact_in_any_order(errors: list[float], seed: object) -> None:
    shuffled = list(errors)
    seed.shuffle(shuffled)  # type: ignore[attr-defined]
    exact = math.fsum(e for e in errors if e == 0 or abs(e) > 1e-60)
    kept = [e for e in errors if e == 0 or abs(e) > 1e-60]
    assert sums_of(kept, [1] * len(kept)) == exact
    rest = [e for e in shuffled if e == 0 or abs(e) > 1e-60]
    assert sums_of(rest, [1] * len(rest)) == exact


@given(errors=st.lists(moderate, max_size=40), taken=st.lists(moderate, max_size=20))
def test_what_is_taken_back_leaves_no_trace(errors: list[float], taken: list[float]) -> None:
    both = [*errors, *taken, *taken]
    signs = [1] * (len(errors) + len(taken)) + [-1] * len(taken)
    assert sums_of(both, signs) == sums_of(errors, [1] * len(errors))


def test_sums_never_wrap() -> None:
    cells = _core.Cells([5, 7], 1)
    moments = np.arange(4, dtype=np.int64)
    where = cells.locate(moments, np.zeros(4, np.int32), np.zeros((1, 1), np.int64), panes_of(1))[0]
    limbs = np.zeros((4, 1, 26), np.int64)
    limbs[:, 0, 8] = 2**62  # limb 8 counts units
    cells.add_limbs(where, limbs)
    assert cells.sums(where, np.zeros(4, np.int32), 1)[0, 0] == 4.0 * 2**62
    cells.add_limbs(where, cells.limbs())
    assert cells.sums(where, np.zeros(4, np.int32), 1)[0, 0] == 8.0 * 2**62
    assert ((cells.limbs()[:, :, :-1] >= 0) & (cells.limbs()[:, :, :-1] < 2**32)).all()


def test_few_rows_stay_small_when_stored_and_read() -> None:
    cells = _core.Cells([1030], 0)
    where = cells.locate(
        np.arange(50, dtype=np.int64),
        np.zeros(50, np.int32),
        np.zeros((1, 1), np.int64),
        panes_of(1),
    )[0]
    cells.add_entries(0, where, where + 7, np.full(50, 3, np.int64))
    copy = _core.Cells([1030], 0)
    copy.locate(
        np.arange(50, dtype=np.int64),
        np.zeros(50, np.int32),
        np.zeros((1, 1), np.int64),
        panes_of(1),
    )
    copy.add_entries(0, *cells.entries(0))
    assert copy.n_bytes <= cells.n_bytes < 50 * 1030
