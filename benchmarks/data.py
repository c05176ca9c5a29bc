"""The tables that benchmarks run on: seeded, made in chunks, the same on every machine.

`drift_job` is the job by which drift engines are compared here: 20 float64 columns (10 normal, 5
lognormal with sigma 2, 5 Poisson counts kept as floats), 2 % of them NaN, and 4 dictionary columns
of 5, 50, 500 and 10,000 categories (Zipf 0.9, 1 % null). Current data is shifted a little and holds
categories that the reference never saw.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

NORMAL = tuple(f"normal_{i}" for i in range(10))
LOGNORMAL = tuple(f"lognormal_{i}" for i in range(5))
POISSON = tuple(f"poisson_{i}" for i in range(5))
FLOATS = (*NORMAL, *LOGNORMAL, *POISSON)
CARDINALITIES = {"category_5": 5, "category_50": 50, "category_500": 500, "category_10000": 10_000}
NAN_SHARE, NULL_SHARE = 0.02, 0.01
KNOWN_SHARE = 0.95  # of the categories occur in the reference
CHUNK = 1_000_000
SHIFT = {"reference": 0.0, "current": 0.05}


def drift_job(part: str, n_rows: int, *, seed: int = 0) -> Iterator[pa.RecordBatch]:
    """The "reference" or "current" part of the job, in chunks of at most `CHUNK` rows."""
    for chunk, start in enumerate(range(0, n_rows, CHUNK)):
        random = np.random.default_rng([seed, sorted(SHIFT).index(part), chunk])
        yield drift_chunk(random, min(CHUNK, n_rows - start), part)


def drift_chunk(random: np.random.Generator, n: int, part: str) -> pa.RecordBatch:
    """One chunk; the generator alone decides its values."""
    shift = SHIFT[part]
    columns: dict[str, pa.Array] = {}
    for i, name in enumerate(FLOATS):
        if name in NORMAL:
            values = random.normal(i + shift, 1 + i / 4, n)
        elif name in LOGNORMAL:
            values = random.lognormal(shift, 2.0, n)
        else:
            values = random.poisson(3.0 * (i - 14) * (1 + shift), n).astype(np.float64)
        values[random.random(n) < NAN_SHARE] = np.nan
        columns[name] = pa.array(values, from_pandas=False)
    for name, cardinality in CARDINALITIES.items():
        known = cardinality if part == "current" else max(1, int(cardinality * KNOWN_SHARE))
        weights = np.arange(1, known + 1) ** -0.9
        codes = np.searchsorted(np.cumsum(weights / weights.sum()), random.random(n))
        codes = np.minimum(codes, known - 1).astype(np.int32)
        dictionary = pa.array([f"{name}/{code}" for code in range(cardinality)])
        missing = random.random(n) < NULL_SHARE
        columns[name] = pa.DictionaryArray.from_arrays(pa.array(codes, mask=missing), dictionary)
    return pa.RecordBatch.from_pydict(columns)


def wide_job(part: str, n_rows: int, n_columns: int, *, seed: int = 0) -> pa.RecordBatch:
    """Normal columns, as many as wanted."""
    random = np.random.default_rng([seed, sorted(SHIFT).index(part), n_columns])
    values = random.normal(SHIFT[part], 1, (n_columns, n_rows))
    return pa.RecordBatch.from_pydict({f"x{i}": column for i, column in enumerate(values)})


def with_segments(batch: pa.RecordBatch, *, seed: int = 0) -> pa.RecordBatch:
    """The same rows with four more columns, s0 to s3, of four values each."""
    random = np.random.default_rng([seed, batch.num_rows])
    words = pa.array(["north", "east", "south", "west"])
    for i in range(4):
        codes = random.integers(0, 4, batch.num_rows, dtype=np.int32)
        batch = batch.append_column(f"s{i}", pa.DictionaryArray.from_arrays(codes, words))
    return batch
