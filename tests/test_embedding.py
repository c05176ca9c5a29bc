"""Vectors: how they are read, and where they are placed."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from strategies import StreamOnly, chunked, vector_arrays

import tidegauge as tg
from tidegauge import _core
from tidegauge.embedding import Embedding, k_means, principal_directions, sample_vectors
from tidegauge.ingest import as_batch

SETS = [name for name in ("scalar", "neon", "avx2", "avx512") if _core.use_instruction_set(name)]
_core.use_instruction_set(SETS[-1])

HALVES = st.sampled_from(
    [0.0, -0.0, 1.0, -2.5, 2.0**-24, 65504.0, -0.333251953125]
)  # exact in float16
BROKEN = st.sampled_from([None, np.nan, np.inf, -np.inf])
STATES = {0: "usable", _core.MISSING: "null", _core.NAN: "nan", _core.INVALID: "invalid"}


@st.composite
def vector_rows(draw: st.DrawFn) -> tuple[list[list[float | None] | None], int]:
    """Rows of vectors: usable, null, with a broken member, of another length."""
    width = draw(st.integers(1, 20))
    usable = st.lists(HALVES, min_size=width, max_size=width)
    broken = st.lists(HALVES | BROKEN, min_size=width, max_size=width)
    other = st.lists(HALVES, max_size=24).filter(lambda row: len(row) != width)
    kinds = draw(st.sampled_from([usable, usable | st.none() | broken, usable | broken | other]))
    return draw(st.lists(kinds, max_size=30)), width


def state_of(row: list[float | None] | None, width: int) -> str:
    if row is None:
        return "null"
    if len(row) != width:
        return "invalid"
    return "usable" if all(x is not None and np.isfinite(x) for x in row) else "nan"


# -- reading --------------------------------------------------------------------------------------


@given(vector_rows(), st.data())
def test_vectors_are_read_from_any_layout(
    drawn: tuple[list[list[float | None] | None], int], data: st.DataObject
) -> None:
    rows, width = drawn
    table = pa.table({"v": data.draw(vector_arrays(rows, width))})
    batch = as_batch(StreamOnly(data.draw(chunked(table))))
    order = np.array(data.draw(st.permutations(range(len(rows)))), dtype=np.int64)
    vectors, states = _core.read_vectors(batch, "v", order, width)
    for place, row in enumerate(order.tolist()):
        expected = state_of(rows[row], width)
        assert STATES[int(states[place])] == expected
        filled = rows[row] if expected == "usable" else [0.0] * width
        np.testing.assert_array_equal(vectors[place], np.array(filled, dtype=np.float32))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_matrices_are_vectors_whatever_their_layout(dtype: type) -> None:
    matrix = np.arange(24, dtype=dtype).reshape(4, 6)
    for given_matrix in (matrix, np.asfortranarray(matrix), matrix[::-1, ::2], matrix[:1]):
        batch = as_batch({"v": given_matrix})
        n, width = given_matrix.shape
        assert (batch.kind("v"), _core.vector_width(batch, "v")) == ("vector", width)
        vectors, states = _core.read_vectors(batch, "v", np.arange(n), width)
        np.testing.assert_array_equal(vectors, given_matrix.astype(np.float32))
        assert not states.any()


def test_every_half_is_read_exactly() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    batch = as_batch({"v": halves[:, None]})
    vectors, states = _core.read_vectors(batch, "v", np.arange(1 << 16), 1)
    np.testing.assert_array_equal(vectors[states == 0, 0], halves[np.isfinite(halves)])
    assert (states[~np.isfinite(halves)] == _core.NAN).all()


def test_members_beyond_single_precision_are_no_numbers() -> None:
    batch = as_batch({"v": np.array([[1e15], [1.1e15], [-1e300], [-9e14]])})
    _, states = _core.read_vectors(batch, "v", np.arange(4), 1)
    assert [STATES[int(state)] for state in states] == ["usable", "nan", "nan", "usable"]


OTHER_TYPES = {
    "lists of whole numbers": pa.array([[1, 2]]),
    "lists of text": pa.array([["a"]]),
    "lists of lists": pa.array([[[1.0]]]),
    "a struct of a float": pa.array([{"x": 1.0}]),
    "vectors in a dictionary": pa.DictionaryArray.from_arrays([0], pa.array([[1.0]])),
    "lists of dictionaries": pa.array([[1.0]], pa.list_(pa.dictionary(pa.int8(), pa.float64()))),
    "vectors without members": pa.array([[]], pa.list_(pa.float32(), 0)),
}


@pytest.mark.parametrize("array", OTHER_TYPES.values(), ids=OTHER_TYPES)
def test_nothing_else_that_is_nested_is_a_vector(array: pa.Array) -> None:
    batch = as_batch(pa.table({"v": array}))
    assert batch.kind("v") == "other"
    with pytest.raises(tg.DataError, match="'v': vectors are wanted"):
        _core.read_vectors(batch, "v", np.arange(1), 1)


class ArrowArray(ctypes.Structure):
    """The C struct of an array, so that one can be told a lie."""


ArrowArray._fields_ = [
    *(
        (name, ctypes.c_int64)
        for name in ("length", "null_count", "offset", "n_buffers", "n_children")
    ),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(ArrowArray))),
]


class Lying:
    """A producer whose vectors claim what is not so: `lie` changes the struct of the column."""

    def __init__(self, array: pa.Array, lie: Callable[[ArrowArray], None]) -> None:
        self.batch, self.lie = pa.record_batch([array], names=["v"]), lie

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        schema, array = self.batch.__arrow_c_array__()
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype = ctypes.POINTER(ArrowArray)
        pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
        self.lie(pointer(array, b"arrow_array").contents.children[0].contents)
        return schema, array


def fewer_members(array: ArrowArray) -> None:
    array.children[0].contents.length -= 1


def more_rows(array: ArrowArray) -> None:
    array.length += 1
    array.offset += 1


def far_offset(array: ArrowArray) -> None:
    array.offset = 2**62


def no_members(array: ArrowArray) -> None:
    array.n_children = 0


def lists_at(*offsets: int) -> Callable[[ArrowArray], None]:
    def lie(array: ArrowArray) -> None:
        given_offsets = ctypes.cast(array.buffers[1], ctypes.POINTER(ctypes.c_int32))
        for place, offset in enumerate(offsets):
            given_offsets[place] = offset

    return lie


FIXED = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2))
FREE = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32()))
LIES = {
    "too few members": (FIXED, fewer_members, "shorter than its batch"),
    "an offset that leaves too few": (FIXED, more_rows, "shorter than its batch"),
    "an offset beyond all numbers": (FIXED, far_offset, "too long"),
    "no members": (FIXED, no_members, "members are missing"),
    "lists without members": (FREE, no_members, "members are missing"),
    "offsets that decrease": (FREE, lists_at(0, 3, 1), "offsets decrease"),
    "a negative offset": (FREE, lists_at(-1, 2, 4), "offsets decrease"),
    "offsets past the members": (FREE, lists_at(0, 2, 5), "pass its members"),
    "fewer members than the offsets say": (FREE, fewer_members, "pass its members"),
}


@pytest.mark.parametrize(("array", "lie", "message"), LIES.values(), ids=LIES)
def test_broken_vectors_are_refused(
    array: pa.Array, lie: Callable[[ArrowArray], None], message: str
) -> None:
    own = pa.array(array.to_pylist(), array.type)  # its buffers are written to
    with pytest.raises(tg.DataError, match=f"'v': broken Arrow array, .*{message}"):
        as_batch(Lying(own, lie))


def test_a_matrix_must_hold_floats() -> None:
    for matrix in (np.ones((2, 2), int), np.ones((2, 2, 2)), np.ones((2, 0)), np.array(1.0)):
        with pytest.raises(tg.DataError, match="'v': one dimension is wanted, or a matrix"):
            as_batch({"v": matrix})


# -- placing --------------------------------------------------------------------------------------


def random_core(seed: int, width: int, clusters: int, components: int) -> _core.Embedding:
    random = np.random.default_rng(seed)
    directions = np.linalg.qr(random.normal(size=(width, max(components, 1))))[0].T[:components]
    return _core.Embedding(
        random.normal(size=width).astype(np.float32),
        random.normal(size=(clusters, width)).astype(np.float32),
        np.ascontiguousarray(directions, dtype=np.float32).reshape(-1, width),
    )


@pytest.mark.parametrize(
    ("width", "clusters", "components"),
    [(1, 1, 0), (3, 2, 3), (16, 16, 16), (17, 33, 5), (300, 64, 20), (1536, 40, 3)],
)
def test_places_are_those_of_the_definition(width: int, clusters: int, components: int) -> None:
    random = np.random.default_rng(width)
    vectors = (3 * random.normal(size=(200, width)) + 1).astype(np.float32)
    center = vectors.mean(axis=0)
    centroids = vectors[random.permutation(200)[:clusters]].copy()
    directions = np.linalg.qr(random.normal(size=(width, max(components, 1))))[0].T[:components]
    directions = np.ascontiguousarray(directions, dtype=np.float32).reshape(-1, width)
    core = _core.Embedding(center, centroids, directions)
    clusters_found, numbers = core.embed(as_batch({"v": vectors}), "v", 0, 200, 1)
    for row, vector in enumerate(vectors):
        place = reference.place(vector, center, centroids, directions)
        assert clusters_found[row] == place[0]
        # Single precision: sums of squares are good to 1e-6 of the vector's own square.
        np.testing.assert_allclose(numbers[0, row], place[1], rtol=1e-5, atol=1e-6)
        slack = 2e-3 * np.linalg.norm(vector - center)
        np.testing.assert_allclose(numbers[1, row], place[2], rtol=1e-4, atol=slack)
        np.testing.assert_allclose(numbers[2, row], place[3], rtol=1e-6)


@given(
    st.integers(1, 40),
    st.integers(1, 70),
    st.integers(0, 8),
    st.integers(0, 300),
    st.data(),
)
def test_the_same_bits_for_any_split_order_thread_and_instruction_set(
    width: int, clusters: int, components: int, n: int, data: st.DataObject
) -> None:
    core = random_core(width, width, clusters, min(components, width))
    random = np.random.default_rng(n)
    vectors = random.normal(size=(n, width)).astype(np.float32)
    vectors[random.random(n) < 0.1] = np.nan
    whole = core.embed(as_batch({"v": vectors}), "v", 0, n, 1)
    order = random.permutation(n)
    shuffled = core.embed(as_batch({"v": vectors[order]}), "v", 0, n, 2)
    cut = data.draw(st.integers(0, n))
    table = pa.table({"v": as_lists(vectors)})
    batch = as_batch(data.draw(chunked(table)))
    parts = [core.embed(batch, "v", *rows, 7) for rows in ((0, cut), (cut, n))]
    others = [shuffled]
    for name in SETS:
        assert _core.use_instruction_set(name)
        others.append(core.embed(as_batch({"v": vectors[order]}), "v", 0, n, 1))
    _core.use_instruction_set(SETS[-1])
    for clusters_found, numbers in others:
        assert clusters_found.tobytes() == whole[0][order].tobytes()
        assert numbers.tobytes() == np.ascontiguousarray(whole[1][:, order]).tobytes()
    assert np.concatenate([part[0] for part in parts]).tobytes() == whole[0].tobytes()
    assert np.concatenate([part[1] for part in parts], axis=1).tobytes() == whole[1].tobytes()


def as_lists(vectors: np.ndarray) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])


def test_threads_share_the_blocks_of_a_large_tile() -> None:
    core = random_core(0, 64, 20, 4)
    vectors = np.random.default_rng(1).normal(size=(30_000, 64)).astype(np.float16)
    batch = as_batch({"v": vectors})
    one, three = (core.embed(batch, "v", 5, 30_000, threads) for threads in (1, 3))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(one, three, strict=True))


def test_the_lowest_of_equal_centroids_is_nearest() -> None:
    width = 5
    centroids = np.tile(np.array([[1.0], [2.0]], dtype=np.float32), (20, width))  # 1, 2, 1, 2, …
    core = _core.Embedding(
        np.zeros(width, np.float32), centroids, np.zeros((0, width), dtype=np.float32)
    )
    vectors = np.repeat(np.array([[0.0], [9.0], [1.5]], dtype=np.float32), width, axis=1)
    clusters, _ = core.embed(as_batch({"v": vectors}), "v", 0, 3, 1)
    assert clusters.tolist() == [0, 1, 0]


def test_vectors_that_cannot_be_placed_say_why() -> None:
    core = random_core(0, 2, 3, 1)
    lists = pa.array([[1.0, 2.0], None, [1.0, None], [np.inf, 0.0], [1.0], []])
    clusters, numbers = core.embed(as_batch(pa.table({"v": lists})), "v", 0, 6, 1)
    states = [STATES[min(int(cluster), 0)] for cluster in clusters]
    assert states == ["usable", "null", "nan", "nan", "invalid", "invalid"]
    assert np.isnan(numbers[:, 1:]).all()
    assert np.isfinite(numbers[:, 0]).all()


# -- fitting --------------------------------------------------------------------------------------


def blobs(n: int = 3000, width: int = 12, centers: int = 6, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    middles = 8 * random.normal(size=(centers, width))
    rows = middles[random.integers(0, centers, n)] + random.normal(size=(n, width))
    return rows.astype(np.float32)


def inertia(vectors: np.ndarray, centroids: np.ndarray) -> float:
    return float(((vectors[:, None] - centroids[None]) ** 2).sum(axis=2).min(axis=1).sum())


def test_k_means_is_as_good_as_the_peer() -> None:
    vectors = blobs()
    ours = inertia(vectors, k_means(vectors, 6, np.random.default_rng(0)))
    peer = KMeans(6, n_init=4, random_state=0).fit(vectors).inertia_
    assert ours <= 1.02 * peer


def test_k_means_orders_clusters_by_size_and_keeps_none_without_vectors() -> None:
    vectors = np.repeat(np.eye(3, dtype=np.float32), [2, 9, 5], axis=0)
    centroids = k_means(vectors, 10, np.random.default_rng(0))
    assert centroids.tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]


@given(st.integers(1, 40), st.integers(1, 4), st.integers(1, 12), st.integers(0, 5))
def test_k_means_takes_any_few_vectors(n: int, width: int, clusters: int, values: int) -> None:
    vectors = np.random.default_rng(n).integers(0, values + 1, (n, width)).astype(np.float32)
    centroids = k_means(vectors, clusters, np.random.default_rng(0))
    n_distinct = len(np.unique(vectors, axis=0))
    assert len(centroids) <= min(clusters, n_distinct)
    if clusters >= n_distinct:
        np.testing.assert_allclose(inertia(vectors, centroids), 0, atol=1e-6)
    again = k_means(vectors, clusters, np.random.default_rng(0))
    assert again.tobytes() == centroids.tobytes()


def test_directions_explain_what_those_of_the_peer_do() -> None:
    random = np.random.default_rng(0)
    scales = 1 / np.arange(1, 81)
    vectors = (random.normal(size=(2000, 80)) * scales).astype(np.float32)
    centered = vectors - vectors.mean(axis=0)
    directions, explained = principal_directions(centered, 0.8, random)
    peer = PCA().fit(vectors).explained_variance_ratio_.cumsum()
    n = len(directions)
    assert peer[n - 2] < 0.8 <= peer[n - 1]
    np.testing.assert_allclose(explained, peer[n - 1], rtol=1e-4)
    np.testing.assert_allclose(directions @ directions.T, np.eye(n), atol=1e-5)
    few, share = principal_directions(centered, 3, random)
    assert len(few) == 3
    np.testing.assert_allclose(share, peer[2], rtol=1e-4)
    assert principal_directions(centered * 0, 3, random)[0].shape == (0, 80)


def test_the_sample_is_bounded_reproducible_and_free_of_unusable_vectors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.modules["tidegauge.embedding"], "FIT_MEMBERS", 4000)
    vectors = blobs(3000, 4)
    vectors[::3] = np.nan
    batches = [as_batch({"v": part}) for part in (vectors[:100], vectors[:0], vectors[100:])]
    drawn = sample_vectors("v", batches, seed=1)
    assert 500 < len(drawn) <= 1000
    assert np.isfinite(drawn).all()
    assert drawn.tobytes() == sample_vectors("v", [as_batch({"v": vectors})], seed=1).tobytes()
    assert drawn.tobytes() != sample_vectors("v", batches, seed=2)[: len(drawn)].tobytes()


BAD_SETTINGS = {
    "no clusters": {"clusters": 0},
    "too many clusters": {"clusters": 2000},
    "a share of all": {"components": 1.0},
    "too many components": {"components": 65},
    "a negative number of them": {"components": -1},
}


@pytest.mark.parametrize("settings", BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_bad_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(tg.SchemaError, match=r"got -?\d"):
        Embedding("v", **settings)  # type: ignore[arg-type]


def test_what_it_has_learnt_is_restored() -> None:
    declared = Embedding("v", 5, 0.5, 3)
    fitted = declared.fit("v", [as_batch({"v": blobs()})])
    settings = {key: value for key, value in fitted.to_dict().items() if key != "derived"}
    restored = Embedding.from_dict(settings).with_learned(fitted.learned())
    assert restored == fitted != declared
    batch = as_batch({"v": blobs(seed=9)})
    made = [each.core.embed(batch, "v", 0, 100, 1) for each in (fitted, restored)]
    assert all(a.tobytes() == b.tobytes() for a, b in zip(*made, strict=True))


# -- counted like any feature ---------------------------------------------------------------------

VECTORS = blobs(2000)
SCHEMA = tg.Schema(features={"text": tg.embedding("text", clusters=6, components=3)})
REFERENCE = tg.Reference.fit({"text": VECTORS}, SCHEMA)


def values_of(table: pa.Table, metric: str) -> dict[str, float]:
    rows = [row for row in table.to_pylist() if row["metric"] == metric]
    return {row["column"]: row["value"] for row in rows}


def monitored(*batches: object, threads: int = 1) -> tg.Monitor:
    monitor = tg.Monitor(REFERENCE, threads=threads)
    for batch in batches:
        monitor.log(batch)
    return monitor


def test_vectors_that_stay_show_no_drift_and_those_that_move_do() -> None:
    floors = monitored({"text": blobs(2000)[::2]}).metrics("psi").to_pylist()
    assert all(row["value"] < 4 * row["noise_floor"] for row in floors)
    columns = ["text.cluster", "text.distance", "text.reconstruction_error", "text.norm"]
    assert [row["column"] for row in floors] == columns
    longer = values_of(monitored({"text": 1.5 * VECTORS}).metrics("psi"), "psi")
    assert longer["text.norm"] > 1
    # Fewer regions are visited, each as before.
    cluster = REFERENCE.schema.derivations["text"].core.embed(
        as_batch({"text": VECTORS}), "text", 0, 2000, 1
    )[0]
    fewer = values_of(monitored({"text": VECTORS[cluster < 3]}).metrics("psi"), "psi")
    assert fewer["text.cluster"] > 1
    # Members that varied together no longer do.
    random = np.random.default_rng(0)
    mixed = np.stack([random.permutation(column) for column in VECTORS.T], axis=1)
    apart = values_of(monitored({"text": mixed}).metrics("psi"), "psi")
    assert apart["text.reconstruction_error"] > 1


def test_unusable_vectors_are_counted_by_why() -> None:
    rows = [*VECTORS[:5].tolist(), None, [*[np.nan] * 12], [1.0] * 11]
    monitor = monitored(pa.table({"text": pa.array(rows, pa.list_(pa.float64()))}))
    table = monitor.metrics(["missing_rate", "type_violation_rate"])
    assert values_of(table, "missing_rate") == {
        "text.cluster": 2 / 8,
        "text.distance": 3 / 8,
        "text.reconstruction_error": 3 / 8,
        "text.norm": 3 / 8,
    }
    assert values_of(table, "type_violation_rate")["text.cluster"] == 1 / 8
    assert values_of(table, "type_violation_rate")["text.norm"] == 0


def test_a_column_without_vectors_is_invalid_and_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    monitor = monitored({"text": ["a", "b"]}, {"text": [1.0, 2.0]}, {"other": [1]})
    table = monitor.metrics(["type_violation_rate", "absent_rate"])
    assert values_of(table, "type_violation_rate")["text.cluster"] == 4 / 5
    assert caplog.text.count("'text': vectors are wanted") == 1
    with pytest.raises(tg.SchemaError, match=r"'text'.*vectors are wanted"):
        tg.Reference.fit({"text": ["a"]}, SCHEMA)
    with pytest.raises(tg.SchemaError, match="none of 2 vectors drawn can be used"):
        tg.Reference.fit({"text": np.full((2, 3), np.nan)}, SCHEMA)


def test_splits_and_threads_change_no_count(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = monitored({"text": VECTORS}).state()[1]
    parts = monitored(*({"text": part} for part in np.array_split(VECTORS, 7)), threads=3).state()[
        1
    ]
    monkeypatch.setattr("tidegauge.ingest.TILE", 300)
    tiled = monitored({"text": VECTORS.astype(np.float64)}).state()[1]
    for other in (parts, tiled):
        assert all(other[name].tobytes() == array.tobytes() for name, array in whole.items())


def test_a_saved_reference_counts_the_same(tmp_path: Path) -> None:
    REFERENCE.save(tmp_path / "reference")
    loaded = tg.Reference.load(tmp_path / "reference")
    assert loaded.schema == REFERENCE.schema
    monitor = tg.Monitor(loaded)
    monitor.log({"text": VECTORS[:100]})
    monitor.save(tmp_path / "monitor")
    merged = tg.Monitor.load(tmp_path / "monitor")
    merged.merge(monitored({"text": VECTORS[100:]}))
    whole = monitored({"text": VECTORS}).metrics(["psi", "wasserstein_distance"])
    assert merged.metrics(["psi", "wasserstein_distance"]).equals(whole)


def test_a_schema_with_an_embedding_goes_through_toml() -> None:
    assert tg.Schema.from_toml(SCHEMA.to_toml()) == SCHEMA
    with pytest.raises(tg.SchemaError, match=r"'text'.*unknown key 'cluster'"):
        tg.Schema.from_toml(SCHEMA.to_toml().replace("clusters", "cluster"))


def test_vectors_are_not_a_feature_by_themselves() -> None:
    with pytest.raises(tg.SchemaError, match=r"tg.embedding\('text'\)"):
        tg.Reference.fit({"text": VECTORS}, tg.Schema(features=["text"]))
    assert not tg.Schema.infer({"text": VECTORS}).features


def test_damaged_learning_is_refused(tmp_path: Path) -> None:
    fitted = REFERENCE.schema.derivations["text"]
    for name, value in (("center", "AAAA"), ("width", 5), ("centroids", "")):
        with pytest.raises((tg.DataError, ValueError)):
            Embedding("text", 6, 3).with_learned({**fitted.learned(), name: value})
