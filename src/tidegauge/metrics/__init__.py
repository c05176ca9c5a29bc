"""Every metric, by name: drift, integrity and performance as pure functions over sums."""

from __future__ import annotations

from tidegauge.metrics import drift, integrity, performance
from tidegauge.metrics.registry import Metric, families, get, metric, names

__all__ = ["Metric", "drift", "families", "get", "integrity", "metric", "names", "performance"]
