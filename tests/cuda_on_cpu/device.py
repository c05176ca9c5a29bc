"""A device that is none: NumPy memory, kernels by g++, streams as late as events allow."""

from __future__ import annotations

import ctypes
import hashlib
import math
import os
import random
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tidegauge.cuda.device import Bytes, DeviceView, OutOfDeviceMemoryError
from tidegauge.cuda.source import kernel_source

HERE = Path(__file__).parent
BUILD = HERE.parent.parent / "build" / "cuda_on_cpu"
FLAGS = ("-std=c++20", "-O1", "-g", "-ffp-contract=off", "-fno-strict-aliasing", "-fPIC", "-shared")
_loaded: dict[str, Any] = {}


def load_kernel(file: str, options: tuple[str, ...]) -> Any:
    """The kernel as a function of this process; compiled when its text or options are new."""
    name = file.rpartition("/")[2].removesuffix(".cu")
    parts = [(HERE / "threads.hpp").read_text(), kernel_source(file)]
    text = "\n".join([*parts, (HERE / "launch.hpp").read_text()])
    defines = [option for option in options if option.startswith("-D")]
    command = [os.environ.get("CXX", "g++").split()[-1], *FLAGS, *defines, f"-DKERNEL={name}"]
    key = hashlib.sha256(" ".join([*command, text]).encode()).hexdigest()[:24]
    if key not in _loaded:
        library = BUILD / f"{name}-{key}.so"
        if not library.exists():
            BUILD.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=BUILD) as folder:
                source = Path(folder) / f"{name}.cpp"
                source.write_text(text)
                made = Path(folder) / "kernel.so"
                subprocess.run([*command, str(source), "-o", str(made)], check=True)
                made.replace(library)
        _loaded[key] = ctypes.CDLL(str(library)).launch
    return _loaded[key]


class Memory:
    """NumPy memory that only the device may look at."""

    def __init__(self, device: CpuDevice, n_bytes: int) -> None:
        self._array = np.full(n_bytes + 256, 0xCD, dtype=np.uint8)
        self.address = -(-self._array.ctypes.data // 256) * 256
        self._device, self._n_bytes = device, n_bytes
        device.in_use += n_bytes

    def __del__(self) -> None:
        self._device.in_use -= self._n_bytes


class Stream:
    """Work that waits until somebody asks for it."""

    def __init__(self) -> None:
        self.queue: deque[Callable[[], bool]] = deque()


class Event:
    """Happens when the streams get to it."""

    def __init__(self) -> None:
        self.happened = False


class CpuDevice:
    """Keeps the order that streams and events ask for, and no other.

    Nothing runs before the host waits for an event; then streams advance in any order that events
    allow. A launcher that forgets an event, or writes staging memory too early, gets wrong counts.
    """

    kind = "cpu"  # as onnxruntime calls it
    device_id = 0
    n_processors = 2
    block_threads = 32

    def __init__(self, *, n_bytes: int = 1 << 30, seed: int = 0) -> None:
        self.n_bytes = n_bytes
        self.in_use = 0
        self.launches = 0
        self._random = random.Random(seed)
        self._current = Stream()
        self._streams = [self._current]
        self.fail: Exception | None = None  # what the next launch runs into

    @contextmanager
    def active(self) -> Iterator[None]:
        yield

    def allocate(self, n_bytes: int) -> Memory:
        if self.in_use + n_bytes > self.n_bytes:
            raise OutOfDeviceMemoryError(f"{n_bytes} bytes wanted")
        return Memory(self, n_bytes)

    def pinned(self, n_bytes: int) -> Bytes:
        return np.full(n_bytes, 0xCD, dtype=np.uint8)

    def current_stream(self) -> Stream:
        return self._current

    def new_stream(self) -> Stream:
        self._streams.append(Stream())
        return self._streams[-1]

    def _later(self, stream: Stream, work: Callable[[], None]) -> None:
        def step() -> bool:
            work()
            return True

        stream.queue.append(step)

    def set_bytes(self, address: int, value: int, n_bytes: int, stream: Stream) -> None:
        self._later(stream, lambda: ctypes.memset(address, value, n_bytes) and None)

    def upload(self, address: int, source: Bytes, stream: Stream) -> None:
        self._later(
            stream, lambda: ctypes.memmove(address, source.ctypes.data, source.nbytes) and None
        )

    def download(self, target: Bytes, address: int, stream: Stream) -> None:
        self._later(
            stream, lambda: ctypes.memmove(target.ctypes.data, address, target.nbytes) and None
        )

    def compile(self, file: str, options: tuple[str, ...]) -> Any:
        return load_kernel(file, options)

    def launch(
        self, kernel: Any, n_blocks: int, shared_bytes: int, arguments: list[int], stream: Stream
    ) -> None:
        def run() -> None:
            if self.fail is not None:
                raise self.fail
            given = (ctypes.c_uint64 * len(arguments))(*arguments)
            if kernel(n_blocks, self.block_threads, shared_bytes, given):
                raise AssertionError("a block wrote behind its shared memory")
            self.launches += 1

        self._later(stream, run)

    def record(self, stream: Stream) -> Event:
        event = Event()
        self._later(stream, lambda: setattr(event, "happened", True))
        return event

    def wait(self, stream: Stream, event: Event) -> None:
        stream.queue.append(lambda: event.happened)

    def wait_foreign(self, stream: Stream, address: int) -> None:
        del stream, address

    def finish(self, event: Event) -> None:
        """Let streams advance, a random one at a time, until the event happens."""
        while not event.happened:
            ready = [stream for stream in self._streams if stream.queue]
            self._random.shuffle(ready)
            for stream in ready:
                work = stream.queue.popleft()
                if work():
                    break
                stream.queue.appendleft(work)
            else:
                raise AssertionError("the streams wait for each other")

    def array(self, memory: Memory, shape: tuple[int, ...], dtype: Any) -> WaitingArray:
        kind = np.dtype(dtype)
        held = (ctypes.c_uint8 * (kind.itemsize * math.prod(shape))).from_address(memory.address)
        values = np.frombuffer(held, kind).reshape(shape)
        return WaitingArray(values, memory, lambda work: self._later(self._current, work))

    def view(self, values: Any) -> DeviceView:
        if hasattr(values, "__cuda_array_interface__"):
            given = values.__cuda_array_interface__
            array = np.asarray(_Interface({**given, "version": 3}, values))
            device_id = getattr(values, "device_id", 0)
        else:
            array, device_id = np.from_dlpack(values.on_host), values.__dlpack_device__()[1]
        array = np.ascontiguousarray(array) if array.ndim else array
        return DeviceView(array.ctypes.data, array.dtype, array.shape, device_id, (values, array))


class _Interface:
    """The same memory by NumPy's interface, which reads the same entries."""

    def __init__(self, interface: dict[str, Any], owner: object) -> None:
        self.__array_interface__ = {k: v for k, v in interface.items() if k != "stream"}
        self._owner = owner


class CudaArray:
    """A device array of which nothing is known but `__cuda_array_interface__`."""

    def __init__(self, values: Any, device_id: int = 0) -> None:
        self._values = np.asarray(values)
        self.device_id = device_id

    def __len__(self) -> int:
        return len(self._values)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {**self._values.__array_interface__, "version": 3, "stream": None}


class WaitingArray(CudaArray):
    """What a model is handed: memory that is written once the stream has got there."""

    def __init__(self, values: Any, owner: object, later: Callable[..., None]) -> None:
        super().__init__(values)
        self._owner, self._work_later = owner, later

    def map(self, function: Callable[[Any], Any]) -> WaitingArray:
        """Let the stream apply a function of NumPy arrays; only its shape is known before."""
        shaped = np.asarray(function(np.zeros_like(self._values)))
        answer = np.full_like(shaped, 77)

        def work() -> None:
            answer[...] = function(self._values)

        self._work_later(work)
        return WaitingArray(answer, (self, self._owner), self._work_later)


class DlpackArray:
    """A device array of which nothing is known but DLPack."""

    def __init__(self, values: Any, device_id: int = 0) -> None:
        self.on_host = np.array(values)
        self._device = (2, device_id)

    def __len__(self) -> int:
        return len(self.on_host)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device

    def __dlpack__(self, **_: Any) -> object:
        raise AssertionError("only the device itself may read its arrays")
