"""Every metric, by name: drift, integrity, performance and fairness as pure functions over sums."""

from __future__ import annotations

from tidegauge.metrics import drift, fairness, integrity, performance
from tidegauge.metrics.inputs import (
    BinaryOutcomes,
    Bins,
    ColumnCounts,
    Fine,
    MulticlassOutcomes,
    RegressionOutcomes,
    Traffic,
    ratio,
)
from tidegauge.metrics.registry import Metric, families, get, metric, names, remove
from tidegauge.metrics.results import Estimate, PerClass, Proportion, mean

__all__ = [
    "BinaryOutcomes",
    "Bins",
    "ColumnCounts",
    "Estimate",
    "Fine",
    "Metric",
    "MulticlassOutcomes",
    "PerClass",
    "Proportion",
    "RegressionOutcomes",
    "Traffic",
    "drift",
    "fairness",
    "families",
    "get",
    "integrity",
    "mean",
    "metric",
    "names",
    "performance",
    "ratio",
    "remove",
]
