"""References: fitted whole or in chunks, merged, stored; what their bins can and cannot see."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

import tidegauge as tg
from tidegauge import archive


def table(n: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    x[::50] = np.nan
    return {"x": x, "k": rng.integers(0, 9, n), "c": rng.choice(["a", "b", "c"], n)}


SCHEMA = tg.Schema(features=["x", "k", "c"])


def metrics(reference: tg.Reference, current: dict[str, Any]) -> pa.Table:
    return tg.compare(reference, current).to_arrow()


def test_chunks_equal_the_whole() -> None:
    parts = [table(400, seed) for seed in range(4)]
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    first = tg.Reference.fit(parts[0], SCHEMA)
    chunked = tg.Reference.fit(iter(parts), SCHEMA, like=first)
    again = tg.Reference.fit(whole, SCHEMA, like=first)
    merged = tg.Reference.fit(parts[0], SCHEMA)
    for part in parts[1:]:
        merged.merge(tg.Reference.fit(part, SCHEMA, like=merged))
    assert chunked.n_rows == merged.n_rows == again.n_rows == 1600
    expected = metrics(chunked, table(300, 9))
    assert metrics(merged, table(300, 9)).equals(expected)
    assert metrics(again, table(300, 9)).equals(expected)
    at_once = tg.Reference.fit(whole, SCHEMA)
    assert metrics(at_once, table(300, 9)).equals(
        metrics(tg.Reference.fit(iter(parts), SCHEMA), table(300, 9))
    )


def test_categories_grow_with_later_chunks() -> None:
    parts = [{"c": ["a", "b"] * 5}, {"c": ["b", "c", None] * 5}]
    chunked = tg.Reference.fit(iter(parts), tg.Schema(features=["c"]))
    first = tg.Reference.fit(parts[0], tg.Schema(features=["c"]))
    first.merge(tg.Reference.fit(parts[1], first.schema, like=first))
    for reference in (chunked, first):
        found = metrics(reference, {"c": ["a", "b", "c", "d"]}).to_pylist()
        unseen = next(row for row in found if row["metric"] == "unseen_rate")
        assert (unseen["value"], unseen["reference_value"]) == (0.25, 0.0)


def test_merge_refuses_other_bins() -> None:
    with pytest.raises(tg.SchemaError, match="like="):
        tg.Reference.fit(table(50), SCHEMA).merge(tg.Reference.fit(table(50, 1), SCHEMA))


def test_save_and_load(tmp_path: Path) -> None:
    reference = tg.Reference.fit(table(500), SCHEMA)
    reference.save(tmp_path / "r.tide")
    loaded = tg.Reference.load(tmp_path / "r.tide")
    assert loaded.schema == reference.schema
    assert metrics(loaded, table(99, 3)).equals(metrics(reference, table(99, 3)))
    assert [p.name for p in tmp_path.iterdir()] == ["r.tide"]


def test_damaged_foreign_and_later_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.tide"
    reference = tg.Reference.fit(table(100), SCHEMA)
    reference.save(path)
    with pytest.raises(tg.DataError, match="holds a reference, a monitor is wanted"):
        tg.Monitor.load(path)
    whole = path.read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 5):
        (tmp_path / "cut").write_bytes(whole[:cut])
        with pytest.raises(tg.DataError, match="not a Tidegauge file, or damaged"):
            tg.Reference.load(tmp_path / "cut")
    header, arrays = reference.state()
    archive.write(tmp_path / "later", "reference", {**header, "format": 99}, arrays)
    with pytest.raises(tg.DataError, match="written in format 99"):
        tg.Reference.load(tmp_path / "later")
    with zipfile.ZipFile(tmp_path / "zip", "w") as file:
        file.writestr("header.npy", b"no array")
    with pytest.raises(tg.DataError, match="not a Tidegauge file"):
        tg.Reference.load(tmp_path / "zip")
    broken = {**arrays, "slots_0": np.full_like(arrays["slots_0"], 60_000)}
    archive.write(tmp_path / "broken", "reference", header, broken)
    with pytest.raises(tg.DataError, match="outside the layout"):
        tg.Reference.load(tmp_path / "broken")


def test_bins_hold_a_tenth_each() -> None:
    rng = np.random.default_rng(0)
    for sample in (rng.normal(size=20_000), rng.lognormal(0, 2, 20_000), rng.random(20_000)):
        reference = tg.Reference.fit({"x": sample}, tg.Schema(features=["x"]))
        counted = reference.layout.columns["x"]
        map_, width = reference.coarse(counted)
        slots = counted.bins.encode(sample)  # type: ignore[union-attr]
        shares = np.bincount(map_[slots], minlength=width) / len(sample)
        assert width == 11
        np.testing.assert_allclose(shares[:10], 0.1, atol=0.02)


def test_declared_edges_are_kept() -> None:
    schema = tg.Schema(features={"x": tg.numeric(edges=[0.0, 1.0])})
    reference = tg.Reference.fit({"x": [-1.0, 0.0, 0.5, 1.0]}, schema)
    report = tg.compare(reference, {"x": [0.0, 0.5, 1.0, 1.0]})
    found = {row["metric"]: row["value"] for row in report.to_arrow().to_pylist()}
    assert found["total_variation"] == pytest.approx(0.25)


SHAPES = {
    "normal": lambda rng, n: rng.normal(size=n),
    "uniform": lambda rng, n: rng.random(n),
    "lognormal": lambda rng, n: rng.lognormal(0, 2, n),
    "bimodal": lambda rng, n: np.where(
        rng.random(n) < 0.5, rng.normal(-5, 0.5, n), rng.normal(5, 0.1, n)
    ),
    "poisson": lambda rng, n: rng.poisson(20, n).astype(float),
    "half zero": lambda rng, n: np.where(rng.random(n) < 0.5, 0.0, rng.exponential(3, n)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_fine_bins_against_exact_distances(name: str) -> None:
    """Kolmogorov-Smirnov within a thousandth, Wasserstein within a hundredth of the spread."""
    rng = np.random.default_rng(1)
    before = SHAPES[name](rng, 20_000)
    after = SHAPES[name](rng, 10_000) * 1.1
    after = np.floor(after) if name == "poisson" else after
    found = {
        row["metric"]: row["value"]
        for row in tg.compare({"x": before}, {"x": after}).to_arrow().to_pylist()
    }
    exact = stats.ks_2samp(before, after).statistic
    assert exact - 2e-3 <= found["kolmogorov_smirnov"] <= exact + 1e-12
    distance = stats.wasserstein_distance(before, after)
    assert found["wasserstein_distance"] == pytest.approx(distance, rel=0.02, abs=0.005)


@pytest.mark.parametrize(
    ("columns", "roles", "message"),
    [
        ({"x": [1.0]}, {"features": ["y"]}, "feature 'y' is not in the table; its columns are: x"),
        ({"x": [[1]]}, {"features": ["x"]}, "feature 'x' has type list, which cannot be counted"),
    ],
)
def test_what_cannot_be_fitted_is_named(columns: Any, roles: Any, message: str) -> None:
    with pytest.raises(tg.SchemaError, match=message):
        tg.Reference.fit(columns, tg.Schema(**roles))


def test_odd_references_are_ordinary() -> None:
    for values in ([], [None], [None, None], [np.nan], [np.inf, -np.inf], [1.0], [5e-324, 1.7e308]):
        column = pa.array(values, pa.float64(), from_pandas=False)
        report = tg.compare(pa.table({"x": column}), pa.table({"x": column}))
        for row in report.to_arrow().to_pylist():
            if row["metric"] in ("psi", "kolmogorov_smirnov", "wasserstein_distance"):
                assert row["value"] in (0.0, None), (values, row)


def test_fit_needs_a_table() -> None:
    with pytest.raises(tg.DataError, match="holds no table"):
        tg.Reference.fit(iter([]), SCHEMA)
    with pytest.raises(tg.SchemaError, match="between 16 and 4096"):
        tg.Reference.fit(table(10), SCHEMA, bins=4)


def test_a_first_chunk_that_is_not_typical_does_no_harm() -> None:
    values = np.sort(np.random.default_rng(0).lognormal(0, 2, 20_000))
    chunks = [{"x": pa.nulls(3)}, *({"x": chunk} for chunk in np.array_split(values, 9))]
    reference = tg.Reference.fit(chunks, tg.Schema(features=["x"]))
    found = {row["metric"]: row for row in metrics(reference, {"x": values * 1.5}).to_pylist()}
    exact = stats.wasserstein_distance(values, values * 1.5)
    assert found["wasserstein_distance"]["value"] == pytest.approx(exact, rel=0.02)
    assert found["out_of_range_rate"]["reference_value"] == 0.0
    assert found["out_of_range_rate"]["value"] == pytest.approx((values * 1.5 > values[-1]).mean())


def test_limits_follow_what_is_merged() -> None:
    schema = tg.Schema(features=["x"])
    reference = tg.Reference.fit({"x": np.linspace(0.1, 1, 50)}, schema)
    reference.merge(tg.Reference.fit({"x": np.linspace(1, 2.3, 50)}, schema, like=reference))
    found = {
        row["metric"]: row for row in metrics(reference, {"x": [2.0, 2.3, 2.8, -1.0]}).to_pylist()
    }
    assert found["out_of_range_rate"]["value"] == 0.5
    assert found["out_of_range_rate"]["reference_value"] == 0.0


@pytest.mark.parametrize(
    ("before", "after", "distance"),
    [
        (np.zeros(100), np.repeat([0.0, 1.0], 50), 0.5),
        (np.full(100, 5.0), np.full(100, 7.0), 2.0),
        (np.tile([1.0, 2.0, 3.0], 40), np.zeros(90), 2.0),
    ],
)
def test_values_that_the_reference_never_had_are_seen(
    before: np.ndarray, after: np.ndarray, distance: float
) -> None:
    found = {
        row["metric"]: row["value"]
        for row in tg.compare({"x": before}, {"x": after}).to_arrow().to_pylist()
    }
    new = ~np.isin(after, before)
    assert found["total_variation"] == pytest.approx(new.mean())
    assert found["wasserstein_distance"] == pytest.approx(distance, abs=1e-9)


@pytest.mark.parametrize("shift", [-100.0, 20.0, 100.0])
def test_a_far_shift_keeps_its_distance(shift: float) -> None:
    values = np.random.default_rng(0).normal(size=5000)
    report = tg.compare({"x": values}, {"x": values + shift})
    found = {row["metric"]: row["value"] for row in report.to_arrow().to_pylist()}
    assert found["wasserstein_distance"] == pytest.approx(abs(shift), rel=0.02)


def test_scores_in_a_narrow_band_keep_their_order() -> None:
    rng = np.random.default_rng(0)
    rank = rng.random(20_000)
    table_ = {"p": 0.5 + 0.01 * rank, "y": (rng.random(20_000) < rank).astype(int)}
    schema = tg.Schema(task="binary", prediction_score="p", label="y")
    report = tg.compare(table_, table_, schema)
    found = {row["metric"]: row["value"] for row in report.to_arrow().to_pylist()}
    assert found["roc_auc"] == pytest.approx(roc_auc_score(table_["y"], table_["p"]), abs=2e-4)


def test_a_table_without_rows_is_an_answer() -> None:
    report = tg.compare({"x": [1.0, 2.0]}, pa.table({"x": pa.array([], pa.float64())}))
    found = {row["metric"]: row for row in report.to_arrow().to_pylist()}
    assert found["row_count"]["value"] == 0
    assert found["psi"]["status"] == "no data"
