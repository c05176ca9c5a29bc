"""Tidegauge watches machine-learning models in production: drift, integrity, live performance."""

from __future__ import annotations

from tidegauge import alerts, explain, metrics
from tidegauge._core import DataError, SchemaError
from tidegauge.column import Column, categorical, numeric, timestamp
from tidegauge.derived import derived, matches
from tidegauge.embedding import embedding
from tidegauge.explain import KernelExplainer
from tidegauge.monitor import Monitor, compare
from tidegauge.reference import Reference
from tidegauge.report import Report
from tidegauge.schema import Schema
from tidegauge.values import Account, Distribution

__version__ = "0.1.0"

__all__ = [
    "Account",
    "Column",
    "DataError",
    "Distribution",
    "KernelExplainer",
    "Monitor",
    "Reference",
    "Report",
    "Schema",
    "SchemaError",
    "alerts",
    "categorical",
    "compare",
    "derived",
    "embedding",
    "explain",
    "matches",
    "metrics",
    "numeric",
    "timestamp",
]
