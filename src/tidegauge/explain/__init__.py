"""Explanations of predictions: Kernel SHAP in batches, with error bars."""

from __future__ import annotations

from tidegauge.explain.background import Background, summarize
from tidegauge.explain.kernel import Attribution, KernelExplainer, ModelError

__all__ = ["Attribution", "Background", "KernelExplainer", "ModelError", "summarize"]
