"""What the launcher wants of a device: memory, copies, kernels, and an order between them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


class OutOfDeviceMemoryError(Exception):
    """The device has no room for an allocation."""


class Memory(Protocol):
    """Device memory, free again when the last reference goes."""

    @property
    def address(self) -> int:
        """Where it begins."""


@dataclass(frozen=True, slots=True)
class DeviceView:
    """An array that lies on a device; `owner` keeps it alive."""

    address: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    device_id: int
    owner: object


class Device(Protocol):
    """A CUDA device. Streams and events are the device's own objects."""

    @property
    def kind(self) -> str:
        """What other libraries call such devices."""

    @property
    def device_id(self) -> int:
        """Its number."""

    @property
    def n_processors(self) -> int:
        """Multiprocessors, which blocks are shared between."""

    @property
    def block_threads(self) -> int:
        """Threads of a block, 256 at most."""

    def active(self) -> AbstractContextManager[None]:
        """While entered, calls of this thread go to this device."""

    def allocate(self, n_bytes: int) -> Memory:
        """Device memory; raises OutOfDeviceMemoryError."""

    def pinned(self, n_bytes: int) -> Bytes:
        """Host memory that copies run from without the host's help."""

    def current_stream(self) -> Any:
        """Return the stream that the caller's own work goes to."""

    def new_stream(self) -> Any:
        """Return a stream beside it."""

    def set_bytes(self, address: int, value: int, n_bytes: int, stream: Any) -> None:
        """Set every byte."""

    def upload(self, address: int, source: Bytes, stream: Any) -> None:
        """Copy to the device; the source must keep until the stream has got there."""

    def download(self, target: Bytes, address: int, stream: Any) -> None:
        """Copy from the device; the target holds it once the stream has got there."""

    def compile(self, file: str, options: tuple[str, ...]) -> Any:
        """Return the kernel of a source file, compiled once for each set of options."""

    def launch(
        self, kernel: Any, n_blocks: int, shared_bytes: int, arguments: list[int], stream: Any
    ) -> None:
        """Run a kernel; all its arguments are 64 bits wide."""

    def record(self, stream: Any) -> Any:
        """Event that happens when the stream has got here."""

    def wait(self, stream: Any, event: Any) -> None:
        """Let the stream wait for an event."""

    def wait_foreign(self, stream: Any, address: int) -> None:
        """Let the stream wait for another library's event, a `cudaEvent_t` at this address."""

    def finish(self, event: Any) -> None:
        """Wait for an event here, on the host."""

    def array(self, memory: Memory, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """Return an array over memory, as models take it."""

    def view(self, values: object) -> DeviceView:
        """View an array by `__cuda_array_interface__` or DLPack; one with strides is copied.

        Raises
        ------
        ValueError, TypeError, BufferError
            When it cannot be viewed.
        """
