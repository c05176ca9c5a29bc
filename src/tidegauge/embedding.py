"""Embeddings: vectors placed among what a reference's vectors have taught, and counted."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidegauge import _core
from tidegauge._core import INVALID, MISSING, NAN, Batch, DataError, SchemaError
from tidegauge.column import Column
from tidegauge.ingest import as_batch

Vectors = NDArray[np.float32]

MAX_CLUSTERS = 1024
MAX_COMPONENTS = 64
MAX_WIDTH = 16_384
FIT_MEMBERS = 1 << 24  # of the vectors that are learnt from: 64 MiB
FIT_VECTORS = 1 << 16
STARTS = 64  # vectors a cluster that the first centroids are drawn from
ROUNDS = 25


def embedding(
    column: str, *, clusters: int = 64, components: float = 0.8, seed: int = 0
) -> Embedding:
    """Declare vectors as a feature: they are counted by the region they lie in.

    From a sample of the reference's vectors it learns centroids (k-means) and the main directions
    around their mean (PCA). Each vector then gives, for the feature `name`:

    - `name.cluster`: its nearest centroid, a category, and "0" the one with most of the sample.
      Drift of this column says that other regions are visited. Null vectors, vectors with a
      member that is null or not finite, and vectors of another length are counted here, as null,
      NaN and invalid; in the numeric columns they are missing.
    - `name.distance`: how far it lies from that centroid; grows with vectors unlike any region.
    - `name.reconstruction_error`: how far it lies from the plane of the main directions; grows
      with vectors that have broken with what the members used to share.
    - `name.norm`: its length; moves when an encoder or its scaling has changed.

    Parameters
    ----------
    column
        Column of the traffic with the vectors: lists of float16, float32 or float64, fixed in size
        or not, or the rows of a NumPy matrix. They are read in single precision.
    clusters
        Centroids, 1024 at most; fewer are kept where the sample has not as many distinct vectors.
    components
        Directions: a whole number, or a share in (0, 1) of the variance that they explain, 64
        directions at most. With 0 there is no `name.reconstruction_error`.
    seed
        Of the sample and of the first centroids.

    >>> import numpy as np
    >>> import tidegauge as tg
    >>> vectors = np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32)
    >>> schema = tg.Schema(features={"text": tg.embedding("text", clusters=4)})
    >>> reference = tg.Reference.fit({"text": vectors}, schema)
    >>> report = tg.compare(reference, {"text": vectors + 2})
    >>> drift = report.to_pandas().query("column == 'text.cluster' and metric == 'psi'")
    >>> drift["value"].item() > 1
    True
    """
    return Embedding(column, clusters, components, seed)


@dataclass(frozen=True)
class Fitted:
    """What an embedding has learnt: arrays of float32, little-endian."""

    width: int
    center: bytes
    centroids: bytes  # [n_centroids, width], the one with most vectors first
    components: bytes  # [n_components, width], orthonormal
    explained: float  # share of the variance that the components explain


@dataclass(frozen=True)
class Embedding:
    """Vectors placed among centroids; made by `embedding`."""

    source: str
    clusters: int = 64
    components: float = 0.8
    seed: int = 0
    fitted: Fitted | None = None

    NAME = "embedding"

    def __post_init__(self) -> None:
        if not isinstance(self.source, str):
            raise SchemaError(f"one column of vectors is named, got {self.source!r}")
        if not isinstance(self.clusters, int) or not 1 <= self.clusters <= MAX_CLUSTERS:
            raise SchemaError(f"clusters lie between 1 and {MAX_CLUSTERS}, got {self.clusters!r}")
        whole = isinstance(self.components, int) and 0 <= self.components <= MAX_COMPONENTS
        share = isinstance(self.components, float) and 0 < self.components < 1
        if not whole and not share:
            raise SchemaError(
                f"components are a number from 0 to {MAX_COMPONENTS}, or a share of the variance "
                f"in (0, 1), got {self.components!r}"
            )

    @property
    def inputs(self) -> tuple[str, ...]:
        """The column with the vectors."""
        return (self.source,)

    def outputs(self, name: str) -> dict[str, Column | None]:
        """Region, distance from its centre, distance from the plane, length."""
        n = self.clusters if self.fitted is None else self._n_centroids
        columns: dict[str, Column | None] = {
            f"{name}.cluster": Column("categorical", categories=tuple(str(j) for j in range(n))),
            f"{name}.distance": Column("numeric"),
            f"{name}.reconstruction_error": Column("numeric"),
            f"{name}.norm": Column("numeric"),
        }
        if self.components == 0:
            del columns[f"{name}.reconstruction_error"]
        return columns

    def fit(self, name: str, batches: Sequence[Batch]) -> Embedding:
        """Learn centroids and directions from a sample of the vectors."""
        vectors = sample_vectors(self.source, batches, seed=self.seed)
        random = np.random.default_rng(self.seed)
        center = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
        directions, explained = principal_directions(vectors - center, self.components, random)
        centroids = k_means(vectors, self.clusters, random)
        stored = [array.astype("<f4").tobytes() for array in (center, centroids, directions)]
        fitted = Fitted(vectors.shape[1], stored[0], stored[1], stored[2], explained)
        return replace(self, fitted=fitted)

    def derive(
        self, name: str, batch: Batch, start: int, stop: int, *, threads: int = 1
    ) -> dict[str, pa.Array]:
        """Place the vectors of rows [start, stop)."""
        clusters, numbers = self.core.embed(batch, self.source, start, stop, threads)
        n = self._n_centroids
        # A category that is NaN, and one that its dictionary does not hold, which is invalid.
        codes = np.where(clusters == NAN, n, np.where(clusters == INVALID, n + 1, clusters))
        indices = pa.array(codes, pa.int32(), mask=clusters == MISSING)
        categories = pa.array([*map(float, range(n)), np.nan])
        of_cluster = pa.DictionaryArray.from_arrays(indices, categories, safe=False)
        distances, errors, norms = (pa.array(row, mask=clusters < 0) for row in numbers)
        return {
            f"{name}.cluster": of_cluster,
            f"{name}.distance": distances,
            f"{name}.reconstruction_error": errors,
            f"{name}.norm": norms,
        }

    def coordinates(self, batch: Batch) -> NDArray[np.float64]:
        """Coordinates of vectors along the learnt directions, NaN where there is no vector."""
        width, center, _, components = self._arrays
        if batch.kind(self.source) != "vector":
            return np.full((batch.n_rows, len(components)), np.nan)
        rows = np.arange(batch.n_rows)
        vectors, states = _core.read_vectors(batch, self.source, rows, width)
        along = (vectors - center).astype(np.float64) @ components.T
        along[states != 0] = np.nan
        return np.asarray(along)

    def to_dict(self) -> dict[str, Any]:
        """Return what was declared."""
        return {
            "derived": self.NAME,
            "inputs": self.inputs,
            "clusters": self.clusters,
            "components": self.components,
            "seed": self.seed,
        }

    @classmethod
    def from_dict(cls, declared: Mapping[str, Any]) -> Embedding:
        """Read such a declaration."""
        settings = dict(declared)
        inputs = settings.pop("inputs", None)
        if not isinstance(inputs, list | tuple) or len(inputs) != 1:
            raise SchemaError(f"one column in `inputs` is wanted, got {inputs!r}")
        allowed = {"clusters", "components", "seed"}
        if unknown := set(settings) - allowed:
            raise SchemaError(
                f"unknown key {sorted(unknown)[0]!r}; allowed: inputs, {', '.join(sorted(allowed))}"
            )
        return cls(inputs[0], **settings)

    def learned(self) -> dict[str, Any]:
        """Arrays as base64 text."""
        if self.fitted is None:
            return {}
        values = {item.name: getattr(self.fitted, item.name) for item in fields(Fitted)}
        return {
            name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
            for name, value in values.items()
        }

    def with_learned(self, learned: Mapping[str, Any]) -> Embedding:
        """Return the embedding as it was fitted."""
        if not learned:
            return self
        values: dict[str, Any] = {
            name: base64.b64decode(value, validate=True) if isinstance(value, str) else value
            for name, value in learned.items()
        }
        restored = replace(self, fitted=Fitted(**values))
        width, center, centroids, _ = restored._arrays
        if center.shape != (width,) or not 1 <= len(centroids) <= self.clusters:
            raise DataError(f"the stored embedding of {self.source!r} is damaged")
        return restored

    @cached_property
    def core(self) -> _core.Embedding:
        """Compiled centroids and directions."""
        _, center, centroids, components = self._arrays
        return _core.Embedding(center, centroids, components)

    @property
    def _arrays(self) -> tuple[int, Vectors, Vectors, Vectors]:
        fitted = self.fitted
        if fitted is None:
            raise SchemaError(f"the embedding of {self.source!r} has not been fitted yet")
        center, centroids, components = (
            np.frombuffer(stored, "<f4").astype(np.float32)
            for stored in (fitted.center, fitted.centroids, fitted.components)
        )
        width = fitted.width
        return width, center, centroids.reshape(-1, width), components.reshape(-1, width)

    @property
    def _n_centroids(self) -> int:
        assert self.fitted is not None
        return len(self.fitted.centroids) // (4 * self.fitted.width)


def sample_vectors(name: str, batches: Sequence[Batch], *, seed: int = 0) -> Vectors:
    """Draw usable vectors of a column, in their order: as many as 64 MiB hold, 65,536 at most.

    Raises
    ------
    DataError
        When the column holds none, or none that can be learnt from.
    """
    there = [batch for batch in batches if batch.kind(name) not in ("absent", "empty", "null")]
    width = next((found for each in there if (found := _core.vector_width(each, name))), 0)
    if not 0 < width <= MAX_WIDTH:
        raise DataError(
            f"column {name!r}: vectors of 1 to {MAX_WIDTH} members are wanted, got {width}"
        )
    limit = min(FIT_VECTORS, FIT_MEMBERS // width)
    ends = np.cumsum([batch.n_rows for batch in there])
    total = int(ends[-1])
    random = np.random.default_rng(seed)
    rows = np.sort(random.choice(total, min(limit, total), replace=False, shuffle=False))
    parts = []
    for batch, end in zip(there, ends, strict=True):
        own = rows[(rows >= end - batch.n_rows) & (rows < end)] - (end - batch.n_rows)
        vectors, states = _core.read_vectors(batch, name, own, width)
        parts.append(vectors[states == 0])
    usable = np.concatenate(parts)
    if not len(usable):
        raise DataError(f"column {name!r}: none of {len(rows)} vectors drawn can be used")
    return usable


def principal_directions(
    centered: Vectors, wanted: float, random: np.random.Generator
) -> tuple[Vectors, float]:
    """Orthonormal directions of the largest variance, and the share of it that they explain.

    Randomised subspace iteration (Halko, Martinsson, Tropp 2011): no matrix of width x width.

    >>> flat = np.outer(np.arange(9.0) - 4, [3, 4]).astype(np.float32)
    >>> principal_directions(flat, 1, np.random.default_rng(0))[0].round(3)
    array([[0.6, 0.8]], dtype=float32)
    """
    n, width = centered.shape
    most = min(MAX_COMPONENTS if isinstance(wanted, float) else int(wanted), n, width)
    total = float(np.einsum("nd,nd->", centered, centered, dtype=np.float64))
    if not most or not total:
        return np.zeros((0, width), dtype=np.float32), 0.0
    size = min(most + 16, n, width)
    basis = random.normal(size=(width, size)).astype(np.float32)
    for _ in range(8):
        basis = np.linalg.qr(centered.T @ (centered @ np.linalg.qr(basis)[0]))[0]
    along = (centered @ basis).astype(np.float64)
    variances, turns = np.linalg.eigh(along.T @ along)
    shares = variances[::-1][:most] / total
    kept = most
    if isinstance(wanted, float):
        kept = min(most, int(np.searchsorted(np.cumsum(shares), wanted)) + 1)
    directions = (basis.astype(np.float64) @ turns[:, ::-1][:, :kept]).T
    largest = np.abs(directions).argmax(axis=1)
    directions *= np.sign(directions[np.arange(kept), largest])[:, None]
    return directions.astype(np.float32), min(float(shares[:kept].sum()), 1.0)


def k_means(vectors: Vectors, clusters: int, random: np.random.Generator) -> Vectors:
    """Centroids of k-means, the one with most vectors first; no more than distinct vectors.

    Starts are drawn far from each other (k-means++, Arthur and Vassilvitskii 2007), then Lloyd's
    rounds. A centroid without vectors moves to the vector farthest from its own.

    >>> k_means(np.array([[0, 0], [0, 2], [9, 9]], np.float32), 2, np.random.default_rng(0))
    array([[0., 1.],
           [9., 9.]], dtype=float32)
    """
    batch = as_batch({"": vectors})
    centroids = _starts(vectors, clusters, random)
    before = np.inf
    for _ in range(ROUNDS):
        codes, distances = _assign(batch, centroids)
        spread = float((distances**2).sum())
        empty = np.setdiff1d(np.arange(len(centroids)), codes)
        farthest = np.argsort(-distances, kind="stable")[: len(empty)]
        farthest = farthest[distances[farthest] > 0]
        codes[farthest] = empty[: len(farthest)]
        used = np.unique(codes)
        centroids = np.stack(
            [vectors[codes == j].mean(axis=0, dtype=np.float64) for j in used]
        ).astype(np.float32)
        if not len(empty) and spread >= before * (1 - 1e-4):
            break
        before = spread
    counts = np.bincount(_assign(batch, centroids)[0], minlength=len(centroids))
    return np.ascontiguousarray(centroids[np.argsort(-counts, kind="stable")])


def _starts(vectors: Vectors, clusters: int, random: np.random.Generator) -> Vectors:
    """Vectors drawn one by one, in proportion to the squared distance from those drawn before."""
    pool = vectors[random.permutation(len(vectors))[: STARTS * clusters]]
    batch = as_batch({"": pool})
    chosen = [0]
    nearest = _assign(batch, pool[:1])[1] ** 2
    while len(chosen) < clusters and nearest.any():
        weights = np.cumsum(nearest)
        pick = int(np.searchsorted(weights, random.random() * weights[-1], side="right"))
        chosen.append(min(pick, int(np.flatnonzero(nearest)[-1])))
        nearest = np.minimum(nearest, _assign(batch, pool[chosen[-1:]])[1] ** 2)
    return pool[chosen]


def _assign(batch: Batch, centroids: Vectors) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Nearest centroid of every vector, and how far it is; the same bits on every machine."""
    width = centroids.shape[1]
    center = centroids.mean(axis=0, dtype=np.float64).astype(np.float32)
    core = _core.Embedding(center, centroids, np.zeros((0, width), dtype=np.float32))
    codes, numbers = core.embed(batch, "", 0, batch.n_rows, 1)
    return codes, numbers[0]
