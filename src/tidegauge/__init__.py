"""Tidegauge watches machine-learning models in production: drift, integrity, live performance."""

from __future__ import annotations

from tidegauge import metrics
from tidegauge._core import DataError, SchemaError
from tidegauge.monitor import Monitor, compare
from tidegauge.reference import Reference
from tidegauge.report import Report
from tidegauge.schema import Column, Schema, categorical, numeric, timestamp
from tidegauge.values import Account, Distribution

__version__ = "0.1.0"

__all__ = [
    "Account",
    "Column",
    "DataError",
    "Distribution",
    "Monitor",
    "Reference",
    "Report",
    "Schema",
    "SchemaError",
    "categorical",
    "compare",
    "metrics",
    "numeric",
    "timestamp",
]
