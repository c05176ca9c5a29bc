"""Kernel SHAP on a device: what the core does with pairs of coalitions, by the kernels of shap/."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegauge._core import Coalitions
from tidegauge.cuda.columns import fetch, upload
from tidegauge.cuda.device import Device, DeviceView, Memory, OutOfDeviceMemoryError
from tidegauge.engine import DeviceError

FloatArray = NDArray[np.float64]
OPTIONS = ("--std=c++17", "--fmad=false")
BLOCKS_A_PROCESSOR = 32
VALUES = {"float32": "f32", "float64": "f64"}  # what answers may be, and how kernels call it
WORDS = {4: "u32", 8: "u64"}  # values as bits, by their bytes


class Workplace:
    """A device, and what lives until its stream has come to the end of what was asked."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._kept: list[object] = []

    def keep(self, *things: object) -> None:
        """Hold memory that waiting work reads or writes."""
        self._kept += things

    def allocate(self, n_bytes: int) -> Memory:
        """Device memory; an error that says what to do where there is none."""
        try:
            return self.device.allocate(max(n_bytes, 1))
        except OutOfDeviceMemoryError as error:
            raise DeviceError(
                f"the device has too little free memory ({error}); lower max_bytes, or use "
                "device='cpu'"
            ) from None

    def send(self, values: NDArray[Any], address: int | None = None) -> int:
        """Copy an array to the device, in the order of the stream; return where it lies."""
        source = np.ascontiguousarray(values).view(np.uint8).ravel()
        if address is None:
            memory = self.allocate(source.nbytes)
            address = memory.address
            self.keep(memory)
        self.keep(source)
        if source.nbytes:
            self.device.upload(address, source, self.device.current_stream())
        return address

    def fetch(self, address: int, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        """Copy an array to the host; all that was asked before is done then."""
        kind = np.dtype(dtype)
        found = fetch(self.device, address, kind.itemsize * int(np.prod(shape)))
        if found.nbytes:
            self._kept.clear()
        values: NDArray[Any] = found.view(kind).reshape(shape)
        return values

    def run(self, name: str, define: str, n_threads: int, arguments: list[int]) -> None:
        """Launch a kernel of shap/ over this many threads, or fewer that take turns."""
        device = self.device
        kernel = device.compile(f"shap/{name}.cu", (*OPTIONS, define))
        blocks = min(
            -(-n_threads // device.block_threads), BLOCKS_A_PROCESSOR * device.n_processors
        )
        if blocks:
            device.launch(kernel, blocks, 0, arguments, device.current_stream())


@dataclass(frozen=True, slots=True)
class DeviceDifferences:
    """Differences of pairs in device memory, [rows, outputs, pairs]."""

    memory: Memory
    address: int
    shape: tuple[int, int, int]


@dataclass(slots=True)
class DeviceCoalitions:
    """Designs of pairs on a device; the same functions, arguments and bits as the core's.

    masks[designs, pairs, words]; background rows starts[g] to starts[g + 1] belong to group g, each
    with its weight in its group. Rows and inputs are addresses of bits.
    """

    place: Workplace
    masks: NDArray[np.uint64]
    starts: NDArray[np.int64]
    weights: FloatArray
    background: NDArray[Any]
    _host: Coalitions = field(init=False)
    _lists: tuple[Memory, ...] = field(init=False)
    _matrices: Memory | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Bring the lists to the device."""
        self._host = Coalitions(self.masks, self.starts.tolist())
        lists = self.masks, self.starts, self.weights, self.background
        self._lists = tuple(upload(self.place.device, values) for values in lists)

    def n_inputs(self, pairs: tuple[int, int]) -> int:
        """Rows of the model's input that these pairs of one row take."""
        return self._host.n_inputs(pairs)

    def fill(
        self,
        pairs: tuple[int, int],
        rows: int,
        masked: int,
        *,
        designs: NDArray[np.int32],
        labels: NDArray[np.int32],
    ) -> None:
        """Write the masked rows of these pairs."""
        masks, starts, _, background = self._lists
        n_rows, (_, n_pairs, n_words) = len(designs), self.masks.shape
        arguments = [rows, background.address, masks.address, starts.address]
        arguments += [self.place.send(designs), self.place.send(labels)]
        arguments += [
            n_rows,
            self.background.shape[1],
            n_pairs,
            n_words,
            len(self.starts) - 1,
            *pairs,
            masked,
        ]
        n_threads = 32 * n_rows * (pairs[1] - pairs[0])
        self.place.run(
            "fill_masked", f"-DWORD={WORDS[self.background.itemsize]}", n_threads, arguments
        )

    def differences(self, n_rows: int, n_outputs: int) -> DeviceDifferences:
        """Room for the differences of all pairs of some rows."""
        shape = n_rows, n_outputs, self.masks.shape[1]
        memory = self.place.allocate(8 * int(np.prod(shape)))
        self.place.keep(memory)
        return DeviceDifferences(memory, memory.address, shape)

    def part(self, differences: DeviceDifferences, rows: slice) -> DeviceDifferences:
        """Return the room of some of the rows."""
        first, last, _ = rows.indices(differences.shape[0])
        _, n_outputs, n_pairs = differences.shape
        address = differences.address + 8 * first * n_outputs * n_pairs
        return DeviceDifferences(differences.memory, address, (last - first, n_outputs, n_pairs))

    def reduce(
        self, pairs: tuple[int, int], answers: DeviceView, link: str, differences: DeviceDifferences
    ) -> None:
        """Half the differences of the linked means of these pairs, from the model's answers."""
        _, starts, weights, _ = self._lists
        n_rows, n_outputs, n_pairs = differences.shape
        self.place.keep(answers)
        arguments = [answers.address, starts.address, weights.address, n_rows, n_outputs, n_pairs]
        arguments += [len(self.starts) - 1, *pairs, int(link == "logit")]
        arguments += [differences.address]
        n_threads = n_rows * n_outputs * (pairs[1] - pairs[0])
        define = f"-DVALUE={VALUES[answers.dtype.name]}"
        self.place.run("reduce_pairs", define, n_threads, arguments)

    def multiply(
        self,
        differences: DeviceDifferences,
        operators: Sequence[FloatArray],
        designs: NDArray[np.int32],
    ) -> FloatArray:
        """Differences of each row times the operator of its design, on the host."""
        n_rows, n_outputs, depth = differences.shape
        width = operators[0].shape[1]
        if self._matrices is None:
            self._matrices = upload(self.place.device, np.stack(operators))
        shape = n_rows, n_outputs, width
        products = self.place.allocate(8 * int(np.prod(shape)))
        arguments = [differences.address, self._matrices.address, self.place.send(designs)]
        arguments += [n_rows, n_outputs, depth, width, products.address]
        self.place.run("multiply_rows", "-DVALUE=f64", int(np.prod(shape)), arguments)
        return self.place.fetch(products.address, np.float64, shape)

    def fetch(self, differences: DeviceDifferences) -> FloatArray:
        """Return differences as an array of the host."""
        return self.place.fetch(differences.address, np.float64, differences.shape)
