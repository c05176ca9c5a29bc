"""Tidegauge watches machine-learning models in production: drift, integrity, live performance."""

from __future__ import annotations

from importlib.metadata import version

from tidegauge import metrics
from tidegauge._core import DataError, SchemaError
from tidegauge.monitor import Monitor, compare
from tidegauge.reference import Reference
from tidegauge.report import Report
from tidegauge.schema import Column, Schema, categorical, numeric, timestamp
from tidegauge.values import Account, Distribution

__version__ = version("tidegauge")

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
