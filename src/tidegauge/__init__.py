"""Tidegauge watches machine-learning models in production: drift, integrity, live performance."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tidegauge import alerts, metrics
from tidegauge._core import DataError, SchemaError
from tidegauge.column import Column, categorical, numeric, timestamp
from tidegauge.derived import derived, matches
from tidegauge.embedding import embedding
from tidegauge.monitor import Monitor, compare
from tidegauge.reference import Reference
from tidegauge.report import Report
from tidegauge.schema import Schema
from tidegauge.values import Account, Distribution

if TYPE_CHECKING:
    from tidegauge import explain
    from tidegauge.explain import KernelExplainer
    from tidegauge.server.client import Client

__version__ = "0.1.0"

__all__ = [
    "Account",
    "Client",
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


def __getattr__(name: str) -> Any:
    """Load explanations and the client when they are first asked for."""
    if name == "Client":
        return import_module("tidegauge.server.client").Client
    if name in ("explain", "KernelExplainer"):
        found = import_module("tidegauge.explain")
        return found if name == "explain" else found.KernelExplainer
    raise AttributeError(f"module 'tidegauge' has no attribute {name!r}")
