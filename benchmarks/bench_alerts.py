"""How often alerts are false and how soon they are right, on real flights: make bench-judgement.

    python benchmarks/bench_alerts.py [--seeds 10]

Flights that left New York from March to May 2013, eight features, windows of a day (about 905
flights). Of each pair of neighbouring days a coin makes one the reference's and the other traffic:
46 days each, of the same season, so there is no drift and every alert is false. `shuffled` gives
the same flights to days at random, so that rows are independent, as most tests take them to be.

Then all features drift, in the last 23 days of traffic: numbers move by a share of their standard
deviation, and a share of the flights takes the most frequent category. Found is a feature that is
alerted in the first ten of these days, which without drift is a false alarm.

NannyML's rules are its formulas (constant 0.1 for its default, the Jensen-Shannon distance; three
standard deviations of the reference's chunks, ddof 0, for the others), with Tidegauge's bins.
"""

from __future__ import annotations

import argparse
import zipfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

import tidegauge as tg
from tidegauge.alerts import Check, Series, backtest, suggest_level
from tidegauge.alerts.watch import OK, judge
from tidegauge.demo import data_folder

NUMERIC = ("dep_delay", "arr_delay", "air_time", "distance", "hour")
CATEGORICAL = ("carrier", "origin", "dest")
FEATURES = (*NUMERIC, *CATEGORICAL)
DAYS = 46  # of the reference, and of traffic
BEGIN = 23  # of the drift, in days
SOON = 10  # days in which it should be found
DAY = np.timedelta64(1, "D")
START = np.datetime64("2013-01-01", "us")
SIZES = {"none": (0.0, 0.0), "small": (0.1, 0.03), "middle": (0.25, 0.1), "large": (0.5, 0.2)}

Rows = dict[str, NDArray]
Flags = NDArray[np.bool_]  # [features, days]
DEFAULT = Check(metric="psi")
ONCE = Check(metric="psi", critical=None, confirm=(1, 1))


def flights() -> tuple[Rows, NDArray]:
    """Features of the three months, and the day of each flight, 0 to 91."""
    with (
        zipfile.ZipFile(data_folder() / "flights.csv.zip") as archive,
        archive.open("flights.csv") as file,
    ):
        table = csv.read_csv(file)
    spring = np.isin(table["month"].to_numpy(), (3, 4, 5))
    date = [
        np.datetime64(f"2013-{month:02}-{day:02}")
        for month, day in zip(table["month"].to_pylist(), table["day"].to_pylist(), strict=True)
    ]
    days = (np.array(date)[spring] - np.datetime64("2013-03-01")).astype(int)
    rows = {}
    for name in FEATURES:
        kind = pa.float64() if name in NUMERIC else pa.string()
        rows[name] = table[name].cast(kind).to_numpy()[spring]
    return rows, days


def halves(days: NDArray, random: np.random.Generator) -> tuple[NDArray, NDArray]:
    """For each flight the half it is in, and its day of that half."""
    second = random.integers(0, 2, DAYS)[days // 2] == days % 2
    return second, days // 2


def timed(rows: Rows, chosen: Flags, day: NDArray, random: np.random.Generator) -> Rows:
    """The chosen rows, each at some time of its day."""
    seconds = random.integers(0, 86_400, int(chosen.sum())) * np.timedelta64(1, "s")
    some = {name: values[chosen] for name, values in rows.items()}
    return {**some, "time": START + day[chosen] * DAY + seconds}


def drifted(rows: Rows, size: tuple[float, float], random: np.random.Generator) -> Rows:
    """The same rows, with every feature changed in the later days."""
    shift, share = size
    late = rows["time"] >= START + BEGIN * DAY
    changed = dict(rows)
    for name in NUMERIC:
        changed[name] = rows[name] + late * shift * np.nanstd(rows[name])
    for name in CATEGORICAL:
        words, counts = np.unique(rows[name], return_counts=True)
        moved = late & (random.random(len(late)) < share)
        changed[name] = np.where(moved, words[counts.argmax()], rows[name])
    return changed


# What each rule says: whether a feature is alerted, by day.


def values(monitor: tg.Monitor, metric: str) -> tuple[NDArray, NDArray]:
    """A metric of traffic and of the reference's windows; NaN for features that it is not of."""
    found = []
    for table in (monitor.metrics(metric), monitor.baseline(metric)):
        series = Series.from_table(table)
        whole = np.full((len(FEATURES), DAYS), np.nan)
        for name, line in zip(series.names, series.values, strict=True):
            whole[FEATURES.index(name.column)] = line
        found.append(whole)
    return found[0], found[1]


def above(metric: str, limit: float) -> Callable[[tg.Monitor], Flags]:
    return lambda monitor: values(monitor, metric)[0] > limit


def either(one: Callable[[tg.Monitor], Flags], other: Callable[[tg.Monitor], Flags]):
    return lambda monitor: one(monitor) | other(monitor)


def below(metric: str, limit: float) -> Callable[[tg.Monitor], Flags]:
    return lambda monitor: values(monitor, metric)[0] < limit


def three_deviations(metric: str) -> Callable[[tg.Monitor], Flags]:
    def flags(monitor: tg.Monitor) -> Flags:
        now, usual = values(monitor, metric)
        numeric = np.isfinite(usual).all(axis=1)
        mean, spread = usual[numeric].mean(axis=1), usual[numeric].std(axis=1)
        found = np.zeros(now.shape, dtype=bool)
        found[numeric] = np.abs(now[numeric] - mean[:, None]) > 3 * spread[:, None]
        return found

    return flags


def beyond(check: Check) -> Callable[[tg.Monitor], Flags]:
    """Windows beyond the limits, each by itself."""

    def flags(monitor: tg.Monitor) -> Flags:
        series = Series.from_table(monitor.metrics(check.metric))
        baseline = Series.from_table(monitor.baseline(check.metric), like=series)
        found = judge(check, series, baseline).severity > OK
        return found[[[n.column for n in series.names].index(name) for name in FEATURES]]

    return flags


def firing(check: Check) -> Callable[[tg.Monitor], Flags]:
    """Windows in which an alert is open."""

    def flags(monitor: tg.Monitor) -> Flags:
        found = np.zeros((len(FEATURES), DAYS), dtype=bool)
        for one in backtest(check, monitor).episodes:
            began, ended = (
                DAYS
                if each is None
                else int((np.datetime64(each.replace(tzinfo=None), "us") - START) / DAY)
                for each in (one["began"], one["ended"])
            )
            found[FEATURES.index(one["column"]), began:ended] = True
        return found

    return flags


RULES: dict[str, Callable[[tg.Monitor], Flags]] = {
    "default check (2 of 3 days, or one far out)": firing(DEFAULT),
    "the same, budget of one false alert a week": firing(replace(DEFAULT, budget=1.0)),
    "the same, LORD++": firing(replace(DEFAULT, budget=1.0, procedure="lord")),
    "`drift_null` at 1 %, each day alone": beyond(ONCE),
    "`effect_size` at 1 %, each day alone": beyond(replace(ONCE, rule="effect_size")),
    "PSI > 0.1": above("psi", 0.1),
    "PSI > 0.2": above("psi", 0.2),
    "KS or chi-square, p < 0.05": either(
        below("kolmogorov_smirnov_p_value", 0.05), below("chi_square_p_value", 0.05)
    ),
    "NannyML's default: Jensen-Shannon > 0.1": above(
        "jensen_shannon_distance(convention=nannyml)", 0.1
    ),
    "NannyML: KS beyond 3 deviations, chi-square p < 0.05": either(
        three_deviations("kolmogorov_smirnov"), below("chi_square_p_value", 0.05)
    ),
    "NannyML: Wasserstein beyond 3 deviations (numbers only)": three_deviations(
        "wasserstein_distance"
    ),
}


def begun(flags: Flags) -> NDArray:
    """Alerts that begin: a flag on a day after none."""
    return flags & ~np.pad(flags, ((0, 0), (1, 0)))[:, :-1]


def monitors(reference: Rows, traffic: Rows) -> tg.Monitor:
    schema = tg.Schema(
        features={
            **{name: tg.numeric() for name in NUMERIC},
            **{name: tg.categorical() for name in CATEGORICAL},
        },
        timestamp="time",
    )
    monitor = tg.Monitor(tg.Reference.fit(reference, schema), window="1d")
    monitor.log(traffic)
    return monitor


def main() -> None:
    """Resample, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    rows, days = flights()
    false: dict[tuple[str, str], list[Flags]] = defaultdict(list)
    found: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    levels = []
    for seed in range(options.seeds):
        random = np.random.default_rng(seed)
        for kind in ("days", "shuffled"):
            dates = days if kind == "days" else random.permutation(days)
            second, day = halves(dates, random)
            reference, traffic = (timed(rows, half, day, random) for half in (~second, second))
            monitor = monitors(reference, traffic)
            for name, rule in RULES.items():
                false[name, kind].append(rule(monitor))
            if kind == "shuffled":
                continue
            levels.append(suggest_level(DEFAULT, monitor, alerts_per_week=1.0))
            for size, amounts in SIZES.items():
                changed = monitors(reference, drifted(traffic, amounts, random))
                for name, rule in RULES.items():
                    flags = rule(changed)[:, BEGIN : BEGIN + SOON]
                    known = flags.any(axis=1)
                    wait = np.where(known, flags.argmax(axis=1) + 1, 0).sum()
                    found[name, size].append((int(known.sum()), int(wait)))
    weeks = DAYS / 7
    print(f"{options.seeds} resamples, {len(FEATURES)} features, {DAYS} days without drift\n")
    print("| rule | feature-days alerted | days with any | alerts begun a week | ", end="")
    print("feature-days, rows independent |\n| --- | --: | --: | --: | --: |")
    for name in RULES:
        flags, still = np.stack(false[name, "days"]), np.stack(false[name, "shuffled"])
        week = np.mean([begun(each).sum() for each in flags]) / weeks
        print(
            f"| {name} | {flags.mean():.1%} | {flags.any(axis=1).mean():.0%} | {week:.1f} "
            f"| {still.mean():.1%} |"
        )
    print(
        f"\nFeatures found within {SOON} days of the drift's beginning, and mean days until then\n"
    )
    heads = [
        f"{size} ({shift:g} deviations, {share:.0%})" for size, (shift, share) in SIZES.items()
    ]
    print(f"| rule | {' | '.join(heads)} |")
    print("| --- |" + " --: |" * len(SIZES))
    for name in RULES:
        cells = []
        for size in SIZES:
            known, wait = np.sum(found[name, size], axis=0)
            share = known / (options.seeds * len(FEATURES))
            cells.append(f"{share:.0%}, {wait / known:.1f}" if known else "0%")
        print(f"| {name} | {' | '.join(cells)} |")
    print(f"\nsuggested level for one false alert a week: median {np.median(levels):.2g}")


if __name__ == "__main__":
    main()
