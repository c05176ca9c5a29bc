"""Integrity: rates over rows, and what becomes of columns that vanish, freeze or repeat."""

from __future__ import annotations

import metric_inputs
import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tidegauge import metrics
from tidegauge.metrics import integrity
from tidegauge.metrics.inputs import ColumnCounts, Traffic

cells = st.lists(st.tuples(st.sampled_from(reference.TAGS), st.integers(0, 5)), max_size=40)

EXCLUSIVE = (
    integrity.missing_rate,
    integrity.type_violation_rate,
    integrity.infinite_rate,
    integrity.out_of_range_rate,
    integrity.unseen_rate,
)


@given(cells)
def test_the_rates_and_the_sound_values_make_up_all_rows(rows) -> None:
    counts = metric_inputs.column(rows)
    if not rows:
        assert all(np.isnan(rate(counts).value) for rate in EXCLUSIVE)
        return
    sound = sum(tag in ("value", "broken") for tag, _ in rows) / len(rows)
    assert sum(rate(counts).value for rate in EXCLUSIVE) + sound == pytest.approx(1)
    parts = (integrity.null_rate, integrity.nan_rate, integrity.sentinel_rate)
    missing = sum(rate(counts).value for rate in (*parts, integrity.absent_rate))
    assert integrity.missing_rate(counts).value == pytest.approx(missing)


@given(cells)
def test_a_rule_is_judged_where_there_is_a_value(rows) -> None:
    judged = [(tag, value) for tag, value in rows if tag in ("value", "broken")]
    unjudged = [(tag, value) for tag, value in rows if tag in (*reference.MISSING, "invalid")]
    alone, among = (metric_inputs.column(each) for each in (judged, judged + unjudged))
    for share in (integrity.violation_rate(alone), integrity.violation_rate(among)):
        np.testing.assert_equal(share.value, reference.violation_rate(judged))
        assert share.trials == len(judged)


@given(cells, cells)
def test_counts_of_two_cells_add(left, right) -> None:
    """A rate of the merged cell is the mean of the two, weighted by rows."""
    if not left or not right:
        return
    merged = metric_inputs.column(left + right)
    for rate in EXCLUSIVE:
        apart = [rate(metric_inputs.column(rows)).value * len(rows) for rows in (left, right)]
        assert rate(merged).value == pytest.approx(sum(apart) / (len(left) + len(right)))


@given(st.integers(0, 2000), st.integers(1, 2000))
def test_intervals_are_those_of_scipy(successes, extra) -> None:
    rows = successes + extra
    lower, upper = integrity.null_rate(ColumnCounts(rows=rows, null=successes)).interval()
    expected = stats.binomtest(successes, rows).proportion_ci(method="wilson")
    assert (float(lower), float(upper)) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_vanished_column_is_wholly_absent() -> None:
    gone = ColumnCounts(rows=50, absent=50)
    usual = ColumnCounts(rows=50, distinct=9, minimum=0.0, maximum=8.0)
    assert integrity.absent_rate(gone).value == 1
    assert integrity.missing_rate(gone).value == 1
    assert integrity.any_violation_rate(usual, gone).value == 1
    assert np.isnan(integrity.constant(usual, gone))
    assert np.isnan(integrity.minimum(gone))


def test_missing_values_violate_only_where_the_reference_had_none() -> None:
    current = ColumnCounts(rows=10, null=1, nan=1, sentinel=1, above=2)
    clean, gappy = ColumnCounts(rows=99), ColumnCounts(rows=99, nan=1)
    assert integrity.any_violation_rate(clean, current).value == 0.5
    assert integrity.any_violation_rate(gappy, current).value == 0.2
    assert np.isnan(integrity.any_violation_rate(ColumnCounts(rows=0), current).value)


@pytest.mark.parametrize(
    ("before", "after", "frozen"),
    [
        ({"distinct": 5}, {"distinct": 1}, 1.0),  # categories have no minimum
        ({"distinct": 5}, {"distinct": 2}, 0.0),
        ({"distinct": 1}, {"distinct": 1}, 0.0),  # it never varied
        # one fine bin can hold several numbers
        ({"distinct": 5}, {"distinct": 1, "minimum": 1.0, "maximum": 1.25}, 0.0),
        ({"distinct": 5}, {"distinct": 1, "minimum": 1.0, "maximum": 1.0}, 1.0),
    ],
)
def test_a_column_that_stops_varying_is_constant(before, after, frozen) -> None:
    sides = (ColumnCounts(rows=10, **counts) for counts in (before, after))
    assert integrity.constant(*sides) == frozen


def test_traffic_is_measured_before_any_column() -> None:
    silent, busy = Traffic(rows=0), Traffic(rows=90, duplicates=10, new_columns=45)
    assert integrity.row_count(silent) == 0
    assert np.isnan(integrity.duplicate_rate(silent).value)
    assert integrity.duplicate_rate(Traffic(rows=0, duplicates=3)).value == 1
    assert integrity.duplicate_rate(busy).value == 0.1
    assert integrity.new_column_rate(busy).value == 0.5


def test_checks_are_for_the_kinds_of_column_they_make_sense_for() -> None:
    def named(kind: str | None) -> set[str]:
        return {name for name in metrics.names("integrity") if metrics.get(name).form_for(kind)}

    numeric, categorical, timestamp = map(named, ("numeric", "categorical", "timestamp"))
    assert numeric - categorical == {
        "nan_rate",
        "infinite_rate",
        "out_of_range_rate",
        "quantile",
        "largest_bin_share",
        "minimum",
        "maximum",
    }
    assert categorical - numeric == {"unseen_rate"}
    assert numeric - timestamp == {"nan_rate", "infinite_rate"}
    assert named(None) == {"row_count", "duplicate_rate", "new_column_rate", "pooled_rate"}
