"""What may be handed over as a model: a function, an object that predicts, or an ONNX file."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

NUMBERS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}
TEXT = "tensor(string)"


def extra(module: str) -> Any:
    """Import a part of the extra `explain`.

    >>> extra("shap").Explanation.__name__
    'Explanation'
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        wanted = "pip install 'tidegauge[explain]'"
        raise ImportError(f"{error.name} is needed here and not installed: {wanted}") from None


def as_function(model: Any, device: str = "cpu") -> Callable[[Any], Any]:
    """Return the function of a model: itself, its predict_proba or predict, or that of its file.

    >>> as_function(len)([1, 2])
    2
    """
    if isinstance(model, str | Path):
        return load_onnx(model, device)
    for name in ("predict_proba", "inplace_predict", "predict"):
        if not callable(model) or hasattr(model, "fit"):
            found = getattr(model, name, None)
            if callable(found):
                return found  # type: ignore[no-any-return]
    if not callable(model):
        raise TypeError(
            f"a model is a function of rows, an object that predicts or the path of an ONNX file; "
            f"got {type(model).__name__}"
        )
    return model  # type: ignore[no-any-return]


def load_onnx(path: str | Path, device: str = "cpu") -> Callable[[Any], Any]:
    """Return the function of an ONNX file: its first output of numbers with a row a row.

    A single two-dimensional input takes a matrix; several inputs take the columns of a table by
    name.
    """
    runtime = extra("onnxruntime")
    provider = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such ONNX file: {path}")
    network = runtime.InferenceSession(str(path), providers=[provider])
    inputs, outputs = network.get_inputs(), network.get_outputs()
    numeric = [one.name for one in outputs if one.type in ("tensor(float)", "tensor(double)")]
    if not numeric:
        kinds = ", ".join(f"{one.name}: {one.type}" for one in outputs)
        raise ValueError(
            f"{path}: no output is a tensor of floating-point numbers ({kinds}); "
            "export classifiers with zipmap=False"
        )
    for one in inputs:
        if one.type != TEXT and one.type not in NUMBERS:
            raise ValueError(f"{path}: input {one.name!r} is {one.type}, which no column can be")

    def predict(rows: Any) -> Any:
        if len(inputs) == 1:
            fed = {inputs[0].name: _tensor(np.asarray(rows), inputs[0].type)}
        else:
            table = rows if hasattr(rows, "columns") and not isinstance(rows, pa.Table) else None
            columns = rows if table is None else table
            fed = {
                one.name: _tensor(_column(columns, one.name), one.type)[:, None] for one in inputs
            }
        return network.run(numeric[:1], fed)[0]

    return predict


def _column(table: Any, name: str) -> Any:
    column = table[name] if not isinstance(table, pa.Table) else table.column(name)
    return np.asarray(column)


def _tensor(values: Any, kind: str) -> Any:
    return values.astype(object) if kind == TEXT else values.astype(NUMBERS[kind], copy=False)
