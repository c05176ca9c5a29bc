"""Every metric, by name: drift, integrity, performance and fairness as pure functions over sums."""

from __future__ import annotations

from tidegauge.metrics import (
    comparison,
    drift,
    estimated,
    fairness,
    integrity,
    labels,
    multivariate,
    performance,
)
from tidegauge.metrics.inputs import (
    BinaryEstimates,
    BinaryOutcomes,
    Bins,
    ColumnCounts,
    Fine,
    MulticlassOutcomes,
    RegressionOutcomes,
    RowSamples,
    Traffic,
    ratio,
)
from tidegauge.metrics.registry import Metric, families, get, metric, names, remove, usual
from tidegauge.metrics.results import Estimate, PerClass, Proportion, mean

__all__ = [
    "BinaryEstimates",
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
    "RowSamples",
    "Traffic",
    "comparison",
    "drift",
    "estimated",
    "fairness",
    "families",
    "get",
    "integrity",
    "labels",
    "mean",
    "metric",
    "multivariate",
    "names",
    "performance",
    "ratio",
    "remove",
    "usual",
]
