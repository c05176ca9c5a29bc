"""CUDA devices by CuPy; no other module knows it."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tidegauge.cuda.device import Bytes, DeviceView, Memory, OutOfDeviceMemoryError
from tidegauge.cuda.source import kernel_source
from tidegauge.engine import DeviceError

_TO_DEVICE, _TO_HOST = 1, 2  # cudaMemcpyKind


def list_devices() -> tuple[list[dict[str, Any]], str]:
    """Devices that CuPy sees, and a word on whether a monitor can count on one."""
    try:
        import cupy
    except ImportError:
        return [], "CUDA: CuPy is not installed; pip install 'tidegauge[cuda]' to count on a device"
    runtime = cupy.cuda.runtime
    try:
        found = [runtime.getDeviceProperties(at) for at in range(runtime.getDeviceCount())]
    except runtime.CUDARuntimeError as error:
        return [], f"CUDA: no device can be used: {' '.join(str(error).split())}"
    listed = [
        {
            "name": one["name"].decode(),
            "memory_gib": round(one["totalGlobalMem"] / 2**30, 1),
            "capability": f"{one['major']}.{one['minor']}",
        }
        for one in found
    ]
    return listed, f"CUDA: {len(listed)} devices; a monitor counts there with device='cuda'"


class _Memory:
    """Memory of CuPy's pool."""

    def __init__(self, pointer: Any) -> None:
        self.address = int(pointer.ptr)
        self._pointer = pointer


class CupyDevice:
    """The device that is current in CuPy when the monitor is made."""

    kind = "cuda"
    block_threads = 256

    def __init__(self) -> None:
        try:
            import cupy
        except ImportError as error:
            raise DeviceError(
                "device 'cuda' needs CuPy: pip install 'tidegauge[cuda]' (CUDA 12 and an NVIDIA "
                f"driver), or use device='cpu' ({error})"
            ) from None
        self._cupy = cupy
        try:
            self._device = cupy.cuda.Device()
            attributes = self._device.attributes
        except cupy.cuda.runtime.CUDARuntimeError as error:
            raise DeviceError(
                f"device 'cuda': CuPy finds no device that can be used ({error}); install an "
                "NVIDIA driver for CUDA 12, or use device='cpu'"
            ) from None
        self.device_id = int(self._device.id)
        self.n_processors = int(attributes["MultiProcessorCount"])
        self._kernels: dict[tuple[str, tuple[str, ...]], Any] = {}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make it CuPy's current device."""
        with self._device:
            yield

    def allocate(self, n_bytes: int) -> _Memory:
        """Take memory from CuPy's pool."""
        try:
            return _Memory(self._cupy.cuda.alloc(max(n_bytes, 1)))
        except self._cupy.cuda.memory.OutOfMemoryError as error:
            raise OutOfDeviceMemoryError(str(error)) from None

    def pinned(self, n_bytes: int) -> Bytes:
        """Take page-locked memory from CuPy's pool."""
        try:
            memory = self._cupy.cuda.alloc_pinned_memory(n_bytes)
        except self._cupy.cuda.runtime.CUDARuntimeError as error:
            raise OutOfDeviceMemoryError(str(error)) from None
        return np.frombuffer(memory, np.uint8, n_bytes)

    def current_stream(self) -> Any:
        """CuPy's current stream."""
        return self._cupy.cuda.get_current_stream()

    def new_stream(self) -> Any:
        """Return a stream that does not wait for the default one."""
        return self._cupy.cuda.Stream(non_blocking=True)

    def set_bytes(self, address: int, value: int, n_bytes: int, stream: Any) -> None:
        """Set every byte."""
        self._cupy.cuda.runtime.memsetAsync(address, value, n_bytes, stream.ptr)

    def upload(self, address: int, source: Bytes, stream: Any) -> None:
        """Copy to the device."""
        runtime = self._cupy.cuda.runtime
        runtime.memcpyAsync(address, source.ctypes.data, source.nbytes, _TO_DEVICE, stream.ptr)

    def download(self, target: Bytes, address: int, stream: Any) -> None:
        """Copy from the device."""
        runtime = self._cupy.cuda.runtime
        runtime.memcpyAsync(target.ctypes.data, address, target.nbytes, _TO_HOST, stream.ptr)

    def compile(self, file: str, options: tuple[str, ...]) -> Any:
        """Compile by NVRTC; CuPy keeps the result on disk under the text and the options."""
        key = (file, options)
        if key not in self._kernels:
            module = self._cupy.RawModule(code=kernel_source(file), options=options)
            name = file.rpartition("/")[2].removesuffix(".cu")
            try:
                module.compile()
                self._kernels[key] = module.get_function(name)
            except self._cupy.cuda.compiler.CompileException as error:
                raise DeviceError(f"kernel {name} ({file}) does not compile: {error}") from None
        return self._kernels[key]

    def launch(
        self, kernel: Any, n_blocks: int, shared_bytes: int, arguments: list[int], stream: Any
    ) -> None:
        """Run a kernel on a stream."""
        given = tuple(np.uint64(argument) for argument in arguments)
        with stream:
            kernel((n_blocks,), (self.block_threads,), given, shared_mem=shared_bytes)

    def record(self, stream: Any) -> Any:
        """Record an event."""
        event = self._cupy.cuda.Event(disable_timing=True)
        event.record(stream)
        return event

    def wait(self, stream: Any, event: Any) -> None:
        """Let a stream wait for an event."""
        stream.wait_event(event)

    def wait_foreign(self, stream: Any, address: int) -> None:
        """Let a stream wait for the event that the address points to."""
        event = ctypes.c_void_p.from_address(address).value
        self._cupy.cuda.runtime.streamWaitEvent(stream.ptr, event or 0)

    def finish(self, event: Any) -> None:
        """Wait for an event."""
        event.synchronize()

    def array(self, memory: Memory, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """Return an array of CuPy over memory."""
        cuda, n_bytes = self._cupy.cuda, dtype.itemsize * math.prod(shape)
        held = cuda.UnownedMemory(memory.address, n_bytes, memory, self.device_id)
        return self._cupy.ndarray(shape, dtype, cuda.MemoryPointer(held, 0))

    def view(self, values: object) -> DeviceView:
        """View an array, ordered after what its owner has still to do."""
        interface = getattr(values, "__cuda_array_interface__", None)
        if interface is not None and (
            interface["version"] >= 3 or not hasattr(values, "__dlpack__")
        ):
            array = self._cupy.asarray(values)  # older ones, torch's too, say nothing of streams
        else:
            array = self._cupy.from_dlpack(values)
        device_id = int(array.device.id)
        if device_id == self.device_id:
            array = self._cupy.ascontiguousarray(array) if array.ndim else array
        return DeviceView(int(array.data.ptr), array.dtype, array.shape, device_id, array)
