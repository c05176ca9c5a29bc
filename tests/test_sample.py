"""Sampled rows: which are kept, that nothing but the rows decides it, and what they tell."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tidegauge as tg
from tidegauge import _core
from tidegauge.ingest import as_batch
from tidegauge.metrics.inputs import RowSamples
from tidegauge.metrics.multivariate import area_under_curve, domain_classifier_auc
from tidegauge.sample import RowSample, united

HOUR = 3_600_000_000
START = np.datetime64("2024-05-01T00:00", "us")
SCHEMA = tg.Schema(
    task="binary",
    features=["x", "color"],
    prediction_id="id",
    timestamp="time",
    model_version="version",
    prediction_score="p",
    label="late",
    segments=["color"],
)


def traffic(n: int = 2000, *, seed: int = 0, hours: int = 4, first_id: int = 0) -> pa.Table:
    random = np.random.default_rng(seed)
    return pa.table(
        {
            "id": np.arange(first_id, first_id + n),
            "time": START + random.integers(0, hours * HOUR, n).astype("timedelta64[us]"),
            "version": random.choice(["a", "b"], n),
            "x": random.normal(size=n).astype(np.float32),
            "color": pa.array(random.choice(["red", "blue"], n)).dictionary_encode(),
            "p": random.random(n),
        }
    )


REFERENCE = tg.Reference.fit(traffic(seed=9), SCHEMA, sample_rows=500)


def monitored(*batches: object, size: int = 20, threads: int = 1, **settings: Any) -> tg.Monitor:
    monitor = tg.Monitor(REFERENCE, sample_rows=size, threads=threads, **settings)
    for batch in batches:
        monitor.log(batch)
    return monitor


def smallest(table: pa.Table, size: int, window: int = HOUR) -> set[int]:
    """Ids of the rows that belong to the sample: the definition."""
    batch = as_batch(table)
    keys = _core.read_keys(batch, "id", 0, batch.n_rows, REFERENCE.secret)
    strata = defaultdict(list)
    columns = (table["time"].cast(pa.int64()), table["version"], table["id"])
    rows = zip(*(column.to_pylist() for column in columns), keys[:, 1].tolist(), strict=True)
    for time, version, id_, priority in rows:
        strata[time // window, version].append((priority, id_))
    return {id_ for rows in strata.values() for _, id_ in sorted(rows)[:size]}


def ids_of(sample: pa.Table, table: pa.Table) -> set[int]:
    batch = as_batch(table)
    keys = _core.read_keys(batch, "id", 0, batch.n_rows, REFERENCE.secret)
    known = {key.tobytes(): id_ for key, id_ in zip(keys, table["id"].to_pylist(), strict=True)}
    return {known[key] for key in sample["key"].to_pylist()}


# -- which rows are kept --------------------------------------------------------------------------


@given(st.integers(0, 300), st.integers(1, 40), st.integers(0, 5), st.data())
def test_the_rows_with_the_smallest_priorities_are_kept_however_they_come(
    n: int, size: int, seed: int, data: st.DataObject
) -> None:
    table = traffic(n, seed=seed)
    whole = monitored(table, size=size)
    sample = whole.sample()
    assert ids_of(sample, table) == smallest(table, size)
    order = np.random.default_rng(seed).permutation(n)
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=4)))
    shuffled = table.take(order)
    parts = [shuffled.slice(a, b - a) for a, b in zip([0, *cuts], [*cuts, n], strict=True)]
    assert monitored(*parts, size=size, threads=3).sample().equals(sample)
    merged = monitored(*parts[::2], size=size)
    merged.merge(monitored(*parts[1::2], size=size))
    assert merged.sample().equals(sample)


def test_tiles_and_many_small_batches_keep_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    table = traffic(30_000)
    sample = monitored(table).sample()
    assert ids_of(sample, table) == smallest(table, 20)
    assert monitored(*(table.slice(i, 300) for i in range(0, 30_000, 300))).sample().equals(sample)
    monkeypatch.setattr("tidegauge.ingest.TILE", 7000)
    assert monitored(table).sample().equals(sample)


def test_a_window_of_several_panes_has_the_smallest_of_all_of_them() -> None:
    table = traffic(5000)
    monitor = monitored(table)
    assert ids_of(monitor.sample(window="2h"), table) == smallest(table, 20, 2 * HOUR)
    assert ids_of(monitor.sample(window="all"), table) == smallest(table, 20, 10**9 * HOUR)
    one = monitor.sample(versions="a", window="1h")
    assert set(one["version"].to_pylist()) == {"a"}
    assert one.num_rows == 4 * 20


def test_panes_that_are_rolled_up_keep_what_wide_ones_would_have_kept() -> None:
    table = traffic(20_000, hours=30)
    in_order = table.sort_by("time")
    parts = [in_order.slice(i, 500) for i in range(0, 20_000, 500)]
    rolled = monitored(*parts, retention={"1h": "2h", "6h": "12h"}, lateness="1h")
    wide = ids_of(rolled.sample(window="6h"), table)
    kept = in_order.filter(
        pa.compute.greater_equal(in_order["time"], pa.scalar(START + 12 * np.timedelta64(1, "h")))
    )
    wanted = smallest(kept, 20, 6 * HOUR)
    recent = {
        id_
        for id_, t in zip(kept["id"].to_pylist(), kept["time"].to_pylist(), strict=True)
        if t.hour >= 18 or t.day == 2
    }
    assert wanted & recent <= wide
    times = np.unique(rolled.sample()["window_start"].to_numpy())
    assert len(times) < 30
    assert rolled.sample().num_rows <= 20 * 2 * len(times)


def test_every_row_is_as_likely_as_any_other() -> None:
    counts = np.zeros(200)
    for seed in range(300):
        sample = RowSample(20, ("x",))
        keys = np.random.default_rng(seed).integers(0, 2**63, (200, 2)).astype(np.uint64) * 2
        cells = np.zeros(200, dtype=np.int32)
        table = pa.table({"x": np.arange(200)})
        sample.add(table, cells, lambda _: [(0, "")], keys=keys, labels=np.full(200, np.nan))
        counts[sample.drawn().rows["x"].to_numpy()] += 1
    # 300 draws of probability 0.1: standard deviation 5.2.
    assert abs(counts - 30).max() < 5 * 5.2


def test_rows_without_ids_are_drawn_by_their_number() -> None:
    schema = tg.Schema(features=["x"])
    numbers = {"x": np.arange(50_000)}
    reference = tg.Reference.fit(numbers, schema, sample_rows=1000)
    again = tg.Reference.fit(
        [{"x": part} for part in np.array_split(numbers["x"], 9)], schema, sample_rows=1000
    )
    assert reference.drawn.rows.equals(again.drawn.rows)
    drawn = reference.drawn.rows["x"].to_numpy()
    assert len(np.unique(drawn)) == 1000
    assert abs(drawn.mean() / 25_000 - 1) < 4 * 0.58 / np.sqrt(1000)
    monitor = tg.Monitor(reference, sample_rows=10)
    monitor.log(numbers)
    assert "key" not in monitor.sample().column_names
    assert monitor.sample()["window_start"].null_count == 10


def test_many_rows_at_once_never_leave_a_stratum_short() -> None:
    """Where the first cut is too low, all are taken: here priorities crowd at the top."""
    sample = RowSample(10, ("x",))
    n = 5000
    keys = np.zeros((n, 2), dtype=np.uint64)
    keys[:, 1] = 2**64 - 1 - np.arange(n, dtype=np.uint64)
    sample.add(
        pa.table({"x": np.arange(n)}),
        np.zeros(n, dtype=np.int32),
        lambda _: [(0, "")],
        keys=keys,
        labels=np.full(n, np.nan),
    )
    assert sample.drawn().rows["x"].to_pylist() == list(range(n - 1, n - 11, -1))


def test_duplicates_are_not_sampled_twice() -> None:
    table = traffic(100)
    monitor = monitored(table, table, size=500)
    assert monitor.sample().num_rows == 100
    merged = monitored(table, size=500)
    merged.merge(monitored(table, size=500))
    assert merged.sample().num_rows == 100


# -- what is kept of a row ------------------------------------------------------------------------


def test_rows_are_kept_as_they_came_without_ids() -> None:
    table = traffic(50)
    sample = monitored(table, size=500).sample()
    assert sample.column_names == [
        "window_start",
        "key",
        "x",
        "color",
        "time",
        "version",
        "p",
        "label",
    ]
    assert sample.schema.field("x").type == pa.float32()
    assert sample.schema.field("color").type == pa.utf8()
    ours = sample.select(["x", "color", "p"]).sort_by("p")
    assert ours.to_pylist() == table.select(["x", "color", "p"]).sort_by("p").to_pylist()


def test_segments_choose_rows() -> None:
    monitor = monitored(traffic(3000))
    blue = monitor.sample(segments="color=blue")
    assert set(blue["color"].to_pylist()) == {"blue"}
    assert blue.num_rows < monitor.sample().num_rows
    assert monitor.sample(segments=["color=blue", "all"]).equals(monitor.sample())
    with pytest.raises(ValueError, match="unknown segment"):
        monitor.sample(segments="color=green")


def test_labels_are_attached_when_they_come() -> None:
    table = traffic(200)
    monitor = monitored(table, size=500)
    monitor.label({"id": [0, 1, 2, 900], "late": [1, 0, None, 1]})
    monitor.label({"id": [1], "late": [1]})
    by_p = {row["p"]: row["label"] for row in monitor.sample().to_pylist()}
    labels = [by_p[p] for p in table["p"].to_pylist()]
    assert labels[:4] == [1, 1, None, None]
    assert labels.count(None) == 198
    with_labels = table.append_column("late", pa.array(np.arange(200) % 2))
    assert monitored(with_labels, size=500).sample()["label"].null_count == 0


def test_forgotten_ids_leave_the_sample(tmp_path: Path) -> None:
    table = traffic(400)
    monitor = monitored(table)
    kept = ids_of(monitor.sample(), table)
    gone = sorted(kept)[::2]
    assert monitor.forget(gone) == len(gone)
    assert ids_of(monitor.sample(), table) == kept - set(gone)
    monitor.save(tmp_path / "monitor.tide")
    assert ids_of(tg.Monitor.load(tmp_path / "monitor.tide").sample(), table) == kept - set(gone)


def test_columns_may_change_their_type_or_stay_away() -> None:
    table = traffic(90)
    texts = table.slice(30, 30).set_column(3, "x", pa.array(["1.5"] * 30))
    monitor = monitored(table.slice(0, 30), texts, table.slice(60, 30).drop_columns(["x"]), size=99)
    sample = monitor.sample()
    assert sample["x"].type == pa.utf8()
    assert sample["x"].null_count == 30
    assert sample["x"].to_pylist().count("1.5") == 30
    whole = pa.table({"x": pa.array([1], pa.int8())})
    wider = united([whole, pa.table({"x": [2.5]}), pa.table({"y": [1]})])
    assert wider["x"].to_pylist() == [1.0, 2.5, None]


def test_no_buffer_of_a_batch_is_held_and_broken_ones_do_no_harm() -> None:
    colors = pa.DictionaryArray.from_arrays(
        pa.array([0, 1, 7, -2, None], pa.int8()), pa.array(["red", None]), safe=False
    )
    columns = {
        "x": pa.array([{"deep": 1}] * 5),
        "color": colors,
        "p": pa.array([0.5] * 5),
        "version": pa.array(["a", "longer than twelve bytes"] * 2 + ["b"], pa.string_view()),
        "id": range(5),
        "time": pa.array([START] * 5),
    }
    sample = monitored(pa.table(columns), size=99).sample().sort_by("version")
    assert sorted(sample["color"].to_pylist(), key=str) == [None] * 4 + ["red"]
    assert sample.schema.field("version").type == pa.utf8()
    assert sample["x"].null_count == 5  # of a type that cannot be counted


def test_vectors_are_sampled_and_compared() -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(1000, 6)).astype(np.float32)
    schema = tg.Schema(features={"text": tg.embedding("text", clusters=4, components=3)})
    reference = tg.Reference.fit({"text": vectors}, schema, sample_rows=400)
    monitor = tg.Monitor(reference, sample_rows=400)
    monitor.log({"text": vectors[:, [1, 0, 2, 3, 4, 5]] * [3, 1, 1, 1, 1, 1]})
    assert monitor.sample()["text"].type == pa.list_(pa.float64(), 6)
    (row,) = monitor.metrics("domain_classifier_auc").to_pylist()
    assert row["lower"] > 0.6


# -- state ----------------------------------------------------------------------------------------


def test_samples_are_saved_and_go_on(tmp_path: Path) -> None:
    table = traffic(3000)
    monitor = monitored(table.slice(0, 1500))
    monitor.label({"id": [5], "late": [1]})
    monitor.save(tmp_path / "monitor")
    loaded = tg.Monitor.load(tmp_path / "monitor")
    assert loaded.sample().equals(monitor.sample())
    for each in (monitor, loaded):
        each.log(table.slice(1500))
    assert loaded.sample().equals(monitor.sample())
    assert loaded.reference.drawn.rows.equals(REFERENCE.drawn.rows)
    (header, arrays), (other_header, other_arrays) = monitor.state(), loaded.state()
    assert header == other_header
    assert all(arrays[name].tobytes() == other_arrays[name].tobytes() for name in arrays)


def test_no_row_is_kept_unless_asked_for() -> None:
    reference = tg.Reference.fit(traffic(), SCHEMA)
    monitor = tg.Monitor(reference)
    monitor.log(traffic())
    assert not [name for name in monitor.state()[1] if "sample" in name]
    with pytest.raises(ValueError, match="no rows are kept"):
        monitor.sample()
    with pytest.raises(ValueError, match=r"Reference.fit\(..., sample_rows=5000\)"):
        monitor.metrics("domain_classifier_auc")
    assert "domain_classifier_auc" not in monitor.metrics()["metric"].to_pylist()


def test_samples_of_different_sizes_do_not_merge() -> None:
    with pytest.raises(tg.SchemaError, match="same sample_rows"):
        monitored().merge(monitored(size=21))
    other = tg.Reference.fit(traffic(), SCHEMA, like=REFERENCE)
    with pytest.raises(tg.SchemaError, match="sample_rows"):
        tg.Reference.fit(traffic(), SCHEMA, like=REFERENCE, sample_rows=5).merge(other)
    for size in (-1, 10**9, 2.5):
        with pytest.raises(tg.SchemaError, match="sample_rows lies between"):
            tg.Monitor(REFERENCE, sample_rows=size)  # type: ignore[arg-type]


def test_references_merge_their_samples() -> None:
    schema = tg.Schema(features=["x"])
    first, second = ({"x": np.arange(1000) + shift} for shift in (0, 5000))
    merged = tg.Reference.fit(first, schema, sample_rows=100)
    merged.merge(tg.Reference.fit(second, schema, like=merged, sample_rows=100))
    drawn = merged.drawn.rows["x"].to_numpy()
    assert len(drawn) == 100
    assert (drawn >= 5000).sum() == 50  # rows of equal numbers come together


def test_a_damaged_sample_is_refused() -> None:
    header, arrays = monitored(traffic())._sample.state()
    damages = [
        {"rows": arrays["rows"][:100]},
        {"strata": arrays["strata"] + 1000},
        {"labels": arrays["labels"][:3]},
    ]
    for damage in damages:
        with pytest.raises(tg.DataError, match="the stored sample is damaged"):
            RowSample(20, ("x",)).add_state(header, {**arrays, **damage})


# -- what they tell -------------------------------------------------------------------------------


def samples(random: np.random.Generator, n: int, correlation: float = 0.0) -> RowSamples:
    mixed = np.array([[1, correlation], [0, np.sqrt(1 - correlation**2)]])
    return RowSamples.of(random.normal(size=(n, 2)) @ mixed)


def test_without_drift_the_interval_holds_a_half_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    inside = 0
    for _ in range(100):
        result = domain_classifier_auc(samples(random, 150), samples(random, 100))
        lower, upper = result.interval()
        inside += bool(lower <= 0.5 <= upper)
    assert 87 <= inside <= 100  # 95 expected, standard deviation 2.2


def test_the_interval_is_delongs() -> None:
    random = np.random.default_rng(0)
    areas, variances = [], []
    for _ in range(2000):
        positives, negatives = random.normal(0.7, 1.5, 40), random.normal(0, 1, 60)
        area, variance = area_under_curve(np.round(positives, 1), np.round(negatives, 1))
        areas.append(area)
        variances.append(variance)
    np.testing.assert_allclose(np.mean(variances), np.var(areas), rtol=0.1)


def test_a_changed_correlation_is_found_where_every_column_is_silent() -> None:
    schema = tg.Schema(features=["x", "y"])
    random = np.random.default_rng(3)

    def rows(correlation: float) -> dict[str, np.ndarray]:
        x, noise = random.normal(size=(2, 4000))
        return {"x": x, "y": correlation * x + np.sqrt(1 - correlation**2) * noise}

    reference = tg.Reference.fit(rows(0.8), schema, sample_rows=1000)
    values = {}
    for correlation in (0.8, 0.0):
        monitor = tg.Monitor(reference, sample_rows=1000)
        monitor.log(rows(correlation))
        asked = ["psi", "kolmogorov_smirnov", "domain_classifier_auc", "reconstruction_error"]
        table = monitor.metrics(asked).to_pylist()
        values[correlation] = {(row["metric"], row["column"]): row for row in table}
    for key, row in values[0.0].items():
        if key[1] is not None:
            assert row["value"] < 4 * row["noise_floor"]
    for metric in ("domain_classifier_auc", "reconstruction_error"):
        same, other = (values[correlation][metric, None] for correlation in (0.8, 0.0))
        # The floor is an estimate too, of half as many rows.
        assert abs(same["value"] - same["noise_floor"]) < 2 * (same["upper"] - same["lower"])
        assert other["lower"] > other["noise_floor"] + 0.1
        assert (other["n"], other["n_reference"]) == (1000, 1000)


def test_too_few_rows_have_no_value() -> None:
    table = monitored(traffic(300), size=49).metrics(
        ["domain_classifier_auc", "reconstruction_error"], window="all", segments="all"
    )
    assert set(table["status"].to_pylist()) == {"undefined"}
    assert table["value"].null_count == table.num_rows
    assert set(table["n"].to_pylist()) == {49}


def test_samples_are_immutable_records() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        REFERENCE.drawn.size = 3
