"""How long the metrics of many columns and windows take: python benchmarks/bench_metrics.py.

    python benchmarks/bench_metrics.py [--columns 1000] [--windows 24] [--rows 200]

Rows are those of one window. Processor time, median of several runs; what is computed is compared
with the same metrics of one column alone first.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import pyarrow as pa

import tidegauge as tg

RUNS = 7


def main() -> None:
    """Count, compare, time, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--columns", type=int, default=1000)
    parser.add_argument("--windows", type=int, default=24)
    parser.add_argument("--rows", type=int, default=200)
    options = parser.parse_args()
    monitor = counted(options.columns, options.windows, options.rows)
    everything = monitor.metrics()
    alone = monitor.metrics(columns="x7", metrics=tg.metrics.names("drift"))
    inside = pa.compute.equal(everything["column"], "x7")
    alone = alone.filter(pa.compute.equal(alone["column"], "x7"))
    table = everything.filter(inside).slice(0, alone.num_rows)
    left, right = (t["value"].to_numpy() for t in (alone, table))
    np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-9)
    print(f"{options.columns:,} columns x {options.windows} windows of {options.rows:,} rows\n")
    print("| metrics | values | s | ns a value |")
    print("| --- | --: | --: | --: |")
    chosen = {
        "drift and integrity": None,
        "drift": tg.metrics.names("drift"),
        "drifted_share alone": "drifted_share",
    }
    for name, metrics in chosen.items():
        seconds = [timed(monitor, metrics) for _ in range(RUNS)]
        n = monitor.metrics(metrics).num_rows
        median = statistics.median(seconds)
        print(f"| {name} | {n:,} | {median:.3f} | {1e9 * median / n:.0f} |")


def counted(columns: int, windows: int, rows: int) -> tg.Monitor:
    """A monitor that has seen every window once."""
    random = np.random.default_rng(0)
    n = windows * rows
    hours = np.arange(n) // rows * np.timedelta64(3600, "s")
    table = {f"x{i}": random.normal(size=n) for i in range(columns)}
    table["time"] = np.datetime64("2024-05-01", "us") + hours
    schema = tg.Schema(features=[f"x{i}" for i in range(columns)], timestamp="time")
    monitor = tg.Monitor(tg.Reference.fit(table, schema), window="1h", threads=1)
    monitor.log(table)
    return monitor


def timed(monitor: tg.Monitor, metrics: object) -> float:
    """Processor seconds of one call."""
    start = time.process_time()
    monitor.metrics(metrics)
    return time.process_time() - start


if __name__ == "__main__":
    main()
