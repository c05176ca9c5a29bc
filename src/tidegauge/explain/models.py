"""What may be handed over as a model: a function, an object that predicts, or an ONNX file."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tidegauge.cuda.columns import lies_on_device
from tidegauge.cuda.device import Device
from tidegauge.engine import DeviceError

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
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


def as_function(model: Any, device: Device | None = None) -> Callable[[Any], Any]:
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


def has_cuda_provider() -> bool:
    """Whether onnxruntime is there, and built for CUDA."""
    try:
        runtime = import_module("onnxruntime")
    except ModuleNotFoundError:
        return False
    return PROVIDERS["cuda"] in runtime.get_available_providers()


def load_onnx(path: str | Path, device: Device | None = None) -> Callable[[Any], Any]:
    """Return the function of an ONNX file: its first output of numbers with a row a row.

    A single two-dimensional input takes a matrix, of the device where one is given; several inputs
    take the columns of a table by name.
    """
    runtime = extra("onnxruntime")
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such ONNX file: {path}")
    provider = PROVIDERS["cpu" if device is None else device.kind]
    known = runtime.get_available_providers()
    network = None
    if provider in known:
        network = runtime.InferenceSession(str(path), providers=[provider])
    if network is None or provider not in network.get_providers():
        raise DeviceError(
            f"onnxruntime cannot use {provider} here; it has {', '.join(known)} (for CUDA: "
            "pip install onnxruntime-gpu)"
        )
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
        if device is not None and lies_on_device(rows):
            return _run_on_device(network, numeric[0], device, rows)
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


def _run_on_device(network: Any, output: str, device: Device, rows: Any) -> Any:
    """Answer for rows of the device, which onnxruntime reads where they lie."""
    inputs = network.get_inputs()
    view = device.view(rows)
    wanted = np.dtype(NUMBERS.get(inputs[0].type, np.void))
    if len(inputs) != 1 or view.dtype != wanted:
        kinds = ", ".join(f"{one.name}: {one.type}" for one in inputs)
        raise TypeError(
            f"the file's inputs ({kinds}) are not one matrix of {view.dtype}; choose the "
            "explainer's dtype, or device='cpu'"
        )
    device.finish(device.record(device.current_stream()))  # onnxruntime has streams of its own
    binding = network.io_binding()
    place = device.kind, device.device_id
    binding.bind_input(inputs[0].name, *place, wanted.type, list(view.shape), view.address)
    binding.bind_output(output, *place)
    network.run_with_iobinding(binding)
    binding.synchronize_outputs()
    return _Output(binding.get_outputs()[0])


class _Output:
    """A value of onnxruntime as an array of the device."""

    def __init__(self, value: Any) -> None:
        self._value = value
        kind = NUMBERS[value.data_type()]
        self.__cuda_array_interface__ = {
            "data": (value.data_ptr(), False),
            "shape": tuple(value.shape()),
            "typestr": np.dtype(kind).str,
            "version": 3,
            "stream": None,
        }

    def __len__(self) -> int:
        return int(self._value.shape()[0])


def _column(table: Any, name: str) -> Any:
    column = table[name] if not isinstance(table, pa.Table) else table.column(name)
    return np.asarray(column)


def _tensor(values: Any, kind: str) -> Any:
    return values.astype(object) if kind == TEXT else values.astype(NUMBERS[kind], copy=False)
