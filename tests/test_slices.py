"""Slices: what was planted is found, what was not is found about as seldom as was asked."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

import tidegauge as tg
from tidegauge.metrics.results import Proportion
from tidegauge.metrics.significance import q_values
from tidegauge.slices import _two_samples
from tidegauge.values import SLICE_TABLE

HOUR = 3_600_000_000
START = 1_700_000_000_000_000 // HOUR * HOUR
AIRPORTS, CARRIERS = 40, 5

SCHEMA = tg.Schema(
    task="binary",
    timestamp="t",
    features=["x", "z"],
    prediction_score="p",
    label="y",
    segments=["origin", "carrier", ("origin", "carrier")],
)


def flights(n: int, seed: int, wrong: Any = None, shifted: Any = None) -> dict[str, Any]:
    """Flights decided right nine times in ten, less often where `wrong` says so."""
    rng = np.random.default_rng(seed)
    origin, carrier = rng.integers(0, AIRPORTS, n), rng.integers(0, CARRIERS, n)
    y = rng.integers(0, 2, n)
    error = np.full(n, 0.1)
    x, z = rng.normal(size=(2, n))
    if wrong is not None:
        error[wrong(origin, carrier)] = 0.25
    if shifted is not None:
        x[shifted(origin, carrier)] += 0.5
    return {
        "t": (START + rng.integers(0, 24 * HOUR, n)).astype("datetime64[us]"),
        "x": x,
        "z": z,
        "p": np.where(rng.random(n) < error, 1 - y, y) * 0.8 + 0.1,
        "y": y,
        "origin": origin.astype(str),
        "carrier": carrier.astype(str),
    }


@pytest.fixture(scope="module")
def reference() -> tg.Reference:
    return tg.Reference.fit(flights(60_000, 0), SCHEMA)


def monitor_of(reference: tg.Reference, columns: dict[str, Any]) -> tg.Monitor:
    monitor = tg.Monitor(reference, window="1h")
    monitor.log(columns)
    return monitor


def test_a_planted_loss_is_found_first(reference: tg.Reference) -> None:
    monitor = monitor_of(reference, flights(40_000, 1, wrong=lambda o, c: o == 7))
    for against in ("reference", "rest"):
        found = monitor.slices("accuracy", against=against)
        assert found.schema == SLICE_TABLE
        first = found.to_pylist()[0]
        assert first["segment"] == "origin=7"
        assert first["found"]
        assert first["effect"] == pytest.approx(-0.15, abs=0.04)
        assert first["lower"] < -0.15 < first["upper"]
        names = found.filter(found["found"])["segment"].to_pylist()
        parts = {name for name in names if "origin=7" in name}
        assert len(parts) == 6  # the airport and its five carriers
        assert len(names) - len(parts) <= 0.3 * len(names)
    assert monitor.slices("accuracy")["explained"][0].as_py() == pytest.approx(1, abs=0.6)


def test_a_planted_pair_is_found(reference: tg.Reference) -> None:
    monitor = monitor_of(reference, flights(60_000, 2, wrong=lambda o, c: (o == 3) & (c == 2)))
    found = monitor.slices("log_loss").to_pylist()
    by_effect = max((row for row in found if row["found"]), key=lambda row: row["effect"])
    assert by_effect["segment"] == "origin=3 & carrier=2"


def test_a_planted_drift_is_found_in_its_column(reference: tg.Reference) -> None:
    monitor = monitor_of(reference, flights(40_000, 3, shifted=lambda o, c: c == 1))
    for metric in ("psi", "kolmogorov_smirnov"):
        first = monitor.slices(metric).to_pylist()[0]
        assert (first["column"], first["segment"]) == ("x", "carrier=1")
        assert first["value"] > 2 * first["baseline"]
        assert first["explained"] > 0.8
    assert set(monitor.slices("psi", column="z")["column"].to_pylist()) == {"z"}


@pytest.fixture(scope="module")
def quiet_days(reference: tg.Reference) -> list[tg.Monitor]:
    """Twenty days on which nothing has changed, each with a reference of its own."""
    days = []
    for seed in range(20):
        fitted = tg.Reference.fit(flights(20_000, 100 + seed), SCHEMA, like=reference)
        days.append(monitor_of(fitted, flights(20_000, 200 + seed)))
    return days


@pytest.mark.parametrize(
    ("metric", "against"),
    [
        ("accuracy", "reference"),
        ("accuracy", "rest"),
        ("log_loss", "rest"),
        ("recall", "reference"),
        ("roc_auc", "rest"),
        ("psi", "reference"),
    ],
)
def test_without_a_planted_slice_little_is_found(
    quiet_days: list[tg.Monitor], metric: str, against: Any
) -> None:
    """Anything is found on one day in ten at most."""
    hits = 0
    for monitor in quiet_days:
        found = monitor.slices(metric, against=against, q=0.1, minimum=50)
        assert found.num_rows > AIRPORTS
        hits += any(found["found"].to_pylist())
    assert stats.binom.sf(hits - 1, len(quiet_days), 0.1) > 0.001


def test_what_is_reported_is_what_metrics_report(reference: tg.Reference) -> None:
    monitor = monitor_of(reference, flights(30_000, 4, wrong=lambda o, c: o == 1))
    for name in ("accuracy", "recall", "log_loss", "roc_auc", "missing_rate", "duplicate_rate"):
        table = monitor.metrics(name, window="12h", columns="x").to_pylist()
        known = {(row["window_start"], row["segment"]): row for row in table}
        found = monitor.slices(name, window="12h", column="x" if "missing" in name else None)
        assert found.num_rows > 50
        for row in found.to_pylist():
            value = known[row["window_start"], row["segment"]]
            assert row["value"] == pytest.approx(value["value"], rel=1e-12)
            assert row["baseline"] == pytest.approx(value["reference_value"], rel=1e-12)


def test_contributions_are_what_is_gone_without_the_slice(reference: tg.Reference) -> None:
    columns = flights(20_000, 5, wrong=lambda o, c: o == 2)
    monitor = monitor_of(reference, columns)
    right = (columns["p"] >= 0.5) == columns["y"]
    usual = flights(60_000, 0)
    was_right = (usual["p"] >= 0.5) == usual["y"]
    move = right.mean() - was_right.mean()
    for row in monitor.slices("accuracy").to_pylist()[:20]:
        parts = [part.split("=") for part in row["segment"].split(" & ")]
        inside = np.logical_and.reduce([columns[name] == value for name, value in parts])
        was_inside = np.logical_and.reduce([usual[name] == value for name, value in parts])
        without = right[~inside].mean() - was_right[~was_inside].mean()
        assert row["contribution"] == pytest.approx(move - without, abs=1e-12)
        assert row["explained"] == pytest.approx((move - without) / move, rel=1e-6)
    for row in monitor.slices("accuracy", against="rest").to_pylist()[:20]:
        parts = [part.split("=") for part in row["segment"].split(" & ")]
        inside = np.logical_and.reduce([columns[name] == value for name, value in parts])
        assert row["baseline"] == pytest.approx(right[~inside].mean(), abs=1e-12)
        assert row["contribution"] == pytest.approx(right.mean() - right[~inside].mean(), abs=1e-12)
        assert row["explained"] is None


def test_small_slices_and_surplus_pairs_are_left_out(reference: tg.Reference) -> None:
    monitor = monitor_of(reference, flights(20_000, 6))
    rows = monitor.slices("accuracy", minimum=120)["n"].to_pylist()
    assert min(rows) >= 120
    names = monitor.slices("accuracy", minimum=1, max_pairs=30)["segment"].to_pylist()
    assert sum(" & " in name for name in names) == 30
    assert sum(" & " not in name for name in names) == AIRPORTS + CARRIERS
    assert monitor.slices("accuracy", minimum=10**6).num_rows == 0


def test_a_metric_without_an_error_is_refused(reference: tg.Reference) -> None:
    monitor = monitor_of(reference, flights(2000, 7))
    for metric in ("distinct_count", "matthews_correlation", "label_count"):
        with pytest.raises(ValueError, match="has no error of its own"):
            monitor.slices(metric)
    with pytest.raises(ValueError, match="is not for this model"):
        monitor.slices("mae")
    with pytest.raises(ValueError, match="against is"):
        monitor.slices("accuracy", against="others")  # type: ignore[arg-type]
    assert tg.Monitor(reference).slices("accuracy").num_rows == 0


def test_the_shares_test_is_close_to_the_exact_one() -> None:
    rng = np.random.default_rng(8)
    for _ in range(200):
        n, m = rng.integers(100, 2000, 2)
        a, b = rng.binomial(n, 0.1), rng.binomial(m, 0.1)
        sides = [
            Proportion(np.array(float(k)), np.array(float(size))) for k, size in ((a, n), (b, m))
        ]
        counts = type("Counts", (), {"n": np.array(float(n)), "rows_per_count": 1.0})
        test = _two_samples(sides[0], counts, sides[1], counts, worse="higher")
        exact = stats.hypergeom(n + m, a + b, n)
        mid = exact.sf(a) + exact.pmf(a) / 2
        assert float(test.p) == pytest.approx(mid, rel=0.15, abs=1e-3)


def test_false_discovery_is_that_of_scipy() -> None:
    p = np.random.default_rng(9).random(500) ** 3
    np.testing.assert_allclose(q_values(p), stats.false_discovery_control(p), rtol=1e-12)
    assert math.isclose(q_values(np.array([0.02]))[0], 0.02)
