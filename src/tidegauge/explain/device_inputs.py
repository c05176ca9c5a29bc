"""Rows that are masked on a CUDA device, for models that take arrays of a device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tidegauge import cuda
from tidegauge._core import DataError
from tidegauge.cuda.columns import fetch_array, lies_on_device
from tidegauge.cuda.device import Device, DeviceView, Memory
from tidegauge.cuda.shap import VALUES, DeviceCoalitions, Workplace
from tidegauge.engine import DEVICES, DeviceError
from tidegauge.explain.coalitions import Coalitions
from tidegauge.explain.inputs import ArrayInputs, Chunk, Selection, frame_of
from tidegauge.explain.models import has_cuda_provider
from tidegauge.explain.operators import Split

WATCHED_BYTES = 1 << 20  # of the first input, compared before and after the model


def choose_device(
    device: Literal["cpu", "cuda", "auto"], background: Any, model: Any
) -> Device | None:
    """Return the device that an explainer works on, None for the host.

    "auto" is the device where the background lies there, or where the model is an ONNX file that
    onnxruntime can run there: a function of NumPy arrays or tables stays on the host.

    Raises
    ------
    ValueError
        When there is no such device, or tables should be masked on one.
    DeviceError
        When CUDA is asked for and cannot be used.

    >>> choose_device("auto", np.zeros((1, 2)), len) is None
    True
    """
    if device not in DEVICES:
        raise ValueError(f"device {device!r} is unknown; allowed: {', '.join(map(repr, DEVICES))}")
    if device == "cpu":
        return None
    is_file = isinstance(model, str | Path)
    if device == "auto":
        if not (has_cuda_provider() if is_file else lies_on_device(background)):
            return None
        try:
            return cuda.open_device()
        except DeviceError:
            return None
    if not is_file and frame_of(background) is not None:
        raise ValueError("tables are masked on the host; give device='cuda' an array, or a file")
    return cuda.open_device()


def on_host(rows: Any, device: Device | None, what: str) -> Any:
    """Return rows that lie on the device as an array of the host, others as they are."""
    if not lies_on_device(rows):
        return rows
    if device is None:
        raise DataError(f"{what}: lies on a CUDA device; use device='cuda'")
    with device.active():
        return fetch_array(_view(rows, device, what), device)


def _view(values: Any, device: Device, what: str) -> DeviceView:
    view = device.view(values)
    if view.device_id != device.device_id:
        raise DataError(
            f"{what}: lies on cuda:{view.device_id}, but the explainer works on "
            f"cuda:{device.device_id}; move it there"
        )
    return view


class DeviceInputs:
    """Rows and background as matrices; masked rows are written on the device, in one buffer.

    The model is handed an array of the device's library (CuPy), which others take by DLPack, and
    may answer with any array of the device, or of the host.
    """

    alone = 1 << 62  # a device is fast when many rows share a call

    def __init__(self, device: Device, host: ArrayInputs) -> None:
        self.columns = host.columns
        self.row_bytes = host.row_bytes
        self._host = host
        self._device = device
        self._place = Workplace(device)
        self._background = self._place.allocate(host.background().nbytes)
        self._place.send(host.background(), self._background.address)
        self._buffer: Memory = self._place.allocate(1)
        self._n_buffer = 0  # rows that the buffer has room for

    def coalitions(
        self, masks: NDArray[np.uint64], split: Split, order: NDArray[np.int64]
    ) -> Coalitions:
        """Return pairs that mask such inputs, with the background in this order."""
        return DeviceCoalitions(
            self._place,
            masks,
            split.starts,
            split.weights,
            self._host.background()[order],
        )

    def background(self) -> Any:
        """Return the background as the model wants it."""
        n = len(self._host.background())
        return self._device.array(self._background, (n, len(self.columns)), self._host.dtype)

    def background_chunk(self) -> Chunk:
        """Return the background as rows that can be masked."""
        return self._host.background_chunk()

    def background_bits(self) -> NDArray[np.uint64]:
        """Return the identities of the background's values."""
        return self._host.background_bits()

    def copy(self, given: Any) -> NDArray[Any]:
        """Keep the beginning of what the model is handed."""
        view = self._device.view(given)
        n = max(1, min(view.shape[0], WATCHED_BYTES // max(self.row_bytes, 1)))
        return self._place.fetch(view.address, np.uint8, (n * self.row_bytes,))

    def same(self, given: Any, before: Any) -> bool:
        """Whether the model has left its input alone."""
        return np.array_equal(self.copy(given), before)

    def columns_of_rows(self, rows: Any, n: int) -> list[NDArray[Any]]:
        """Return the values of the first n rows, by column."""
        return self._host.columns_of_rows(rows, n)

    def chunks(self, rows: Any) -> list[Chunk]:
        """Check rows and prepare them, some at a time."""
        return self._host.chunks(rows)

    def masked(self, coalitions: Coalitions | None, chunk: Chunk, selection: Selection) -> Any:
        """Return masked rows; the rows themselves follow where the selection starts at pair 0."""
        rows = chunk.content[selection.rows]
        n_masked = len(rows) * (coalitions.n_inputs(selection.pairs) if coalitions else 0)
        n_inputs = n_masked + (len(rows) if selection.pairs[0] == 0 else 0)
        if self._n_buffer < n_inputs:
            self._buffer = self._place.allocate(n_inputs * self.row_bytes)
            self._n_buffer = n_inputs
        if coalitions:
            coalitions.fill(
                selection.pairs,
                self._place.send(rows),
                self._buffer.address,
                designs=selection.designs,
                labels=self._host.labels_of_columns(selection.labels),
            )
        if n_inputs > n_masked:
            self._place.send(rows, self._buffer.address + n_masked * self.row_bytes)
        self._place.keep(self._buffer)
        return self._device.array(self._buffer, (n_inputs, len(self.columns)), self._host.dtype)

    def view(self, answer: Any) -> Any:
        """Return the model's answer as an array, of the device where it lies there."""
        if lies_on_device(answer):
            return _view(answer, self._device, "the model's answer")
        return np.asarray(answer)

    def numbers(self, answer: Any) -> DeviceView:
        """Return an answer as [n, outputs] of float64 or float32 on the device.

        Other types are made float64 on the host.
        """
        shape = answer.shape[0], int(np.prod(answer.shape[1:]))
        if isinstance(answer, DeviceView):
            if answer.dtype.name in VALUES and answer.dtype.isnative:
                return DeviceView(
                    answer.address, answer.dtype, shape, answer.device_id, answer.owner
                )
            self._place.keep(answer)
            answer = self._place.fetch(answer.address, answer.dtype, answer.shape)
        kept = np.dtype(answer.dtype if answer.dtype == np.float32 else np.float64)
        values = np.ascontiguousarray(answer, dtype=kept)
        memory = self._place.allocate(values.nbytes)
        self._place.send(values, memory.address)
        return DeviceView(memory.address, kept, shape, self._device.device_id, memory)

    def fetch(self, answers: Any, first: int = 0) -> NDArray[np.float64]:
        """Return answers from a row on as float64 of the host."""
        n, width = answers.shape
        address = answers.address + first * width * answers.dtype.itemsize
        found = self._place.fetch(address, answers.dtype, (n - first, width))
        return found.astype(np.float64)

    def fetch_later(self, answers: DeviceView, first: int) -> Callable[[], NDArray[np.float64]]:
        """Return how to fetch them once they are wanted; the device need not be waited for."""
        return lambda: self.fetch(answers, first)
