"""Row work on a CUDA device: the same counts as the core's, from device or host memory.

The kernels are in `source`, the tree of the core itself. `launcher` says what runs, in which order,
on which memory; it knows a device by the protocol of `device` alone, which `cupy_device` provides.
"""

from __future__ import annotations

from tidegauge.cuda.device import Device
from tidegauge.cuda.launcher import CudaEngine
from tidegauge.engine import CpuEngine

__all__ = ["CudaEngine", "Device", "open_device", "open_engine"]


def open_device() -> Device:
    """Return the CUDA device that CuPy works on.

    Raises
    ------
    DeviceError
        When CuPy is not installed, or finds no device.
    """
    from tidegauge.cuda.cupy_device import CupyDevice

    return CupyDevice()


def open_engine(host: CpuEngine) -> CudaEngine:
    """Engine on that device; what no kernel counts is left to the host's."""
    return CudaEngine(open_device(), host)
