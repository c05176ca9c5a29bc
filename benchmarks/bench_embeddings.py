"""Nanoseconds per member of placing vectors, next to the plain matrix product and a peer.

    python benchmarks/bench_embeddings.py [--runs 5]

One core, data in memory, medians by the clock of the processor. The limit is the product of the
vectors with the centroids by NumPy's BLAS, which a nearest centroid cannot do without; the peer is
scikit-learn's `KMeans.predict`, which gives the nearest centroid and nothing else. Ours checks the
vectors and gives distance, reconstruction error and norm besides. Answers are compared first.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")  # one core each

import numpy as np
from sklearn.cluster import KMeans

import tidegauge as tg
from tidegauge import _core
from tidegauge.ingest import as_batch

SHAPES = ((100_000, 32, 64), (50_000, 128, 64), (20_000, 768, 64), (10_000, 1536, 64))
SHAPES += ((20_000, 768, 256),)
DIRECTIONS = 16


def main() -> None:
    """Compare, time, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    print(f"tidegauge {tg.__version__}, {_core.instruction_set()}, NumPy {np.__version__}")
    print(f"load {os.getloadavg()[0]:.1f}; ns per member, {runs} runs\n")
    columns = ("product", "ours", "of product", f"+{DIRECTIONS} directions", "KMeans.predict")
    print(f"{'vectors x members, centroids':32}" + "".join(f"{name:>16}" for name in columns))
    for shape in SHAPES:
        product, ours, full, peer = times(*shape, runs)
        numbers = [f"{product:.3f}", f"{ours:.3f}", f"{ours / product:.2f}", f"{full:.3f}"]
        n, width, clusters = shape
        label = f"{n:,} x {width:,}, {clusters}"
        print(f"{label:32}" + "".join(f"{number:>16}" for number in [*numbers, f"{peer:.3f}"]))


def times(n: int, width: int, clusters: int, runs: int) -> list[float]:
    """The product, ours without and with directions, the peer."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(n, width)).astype(np.float32)
    centroids = vectors[:clusters].copy()
    center = vectors.mean(axis=0)
    directions = np.linalg.qr(random.normal(size=(width, DIRECTIONS)))[0].T.astype(np.float32)
    batch = as_batch({"v": vectors})
    cores = [
        _core.Embedding(center, centroids, np.ascontiguousarray(directions[:count]))
        for count in (0, DIRECTIONS)
    ]
    peer = KMeans(clusters, init=centroids, n_init=1, max_iter=1).fit(vectors[:clusters])
    peer.cluster_centers_ = centroids
    found = cores[0].embed(batch, "v", 0, n, 1)[0]
    if (agree := (found == peer.predict(vectors)).mean()) < 0.9999:
        raise SystemExit(f"only {agree:.2%} of the nearest centroids are the peer's")
    transposed = np.ascontiguousarray(centroids.T)
    jobs: list[Callable[[], object]] = [
        lambda: vectors @ transposed,
        *(lambda core=core: core.embed(batch, "v", 0, n, 1) for core in cores),
        lambda: peer.predict(vectors),
    ]
    return [median(job, runs) / (n * width) * 1e9 for job in jobs]


def median(job: Callable[[], object], runs: int) -> float:
    """Seconds of the processor; the first run is thrown away."""
    seconds = []
    for _ in range(runs + 1):
        begin = time.process_time()
        job()
        seconds.append(time.process_time() - begin)
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    main()
