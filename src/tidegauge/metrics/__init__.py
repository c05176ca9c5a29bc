"""Every metric, by name: drift, integrity, performance and fairness as pure functions over sums."""

from __future__ import annotations

from tidegauge.metrics import drift, fairness, integrity, performance
from tidegauge.metrics.registry import Metric, families, get, metric, names

__all__ = [
    "Metric",
    "drift",
    "fairness",
    "families",
    "get",
    "integrity",
    "metric",
    "names",
    "performance",
]
