"""Tables that claim to lie on a device, by the Arrow C device interface and nothing else."""

from __future__ import annotations

import ctypes
from typing import Any

import pyarrow as pa

CUDA = 2
_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.restype, _get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


class _DeviceArray(ctypes.Structure):
    _fields_ = (
        ("array", ctypes.c_byte * 80),
        ("device_id", ctypes.c_int64),
        ("device_type", ctypes.c_int32),
        ("sync_event", ctypes.c_void_p),
        ("reserved", ctypes.c_int64 * 3),
    )


def move_to_device(address: int, device_id: int) -> None:
    """Say of an exported array that its buffers lie on a device."""
    array = _DeviceArray.from_address(address)
    array.device_type, array.device_id = CUDA, device_id


class DeviceBatch:
    """One record batch, given as `__arrow_c_device_array__`."""

    def __init__(self, batch: pa.RecordBatch, device_id: int = 0) -> None:
        self._batch, self._device_id = batch, device_id

    def __arrow_c_device_array__(
        self, requested_schema: object = None, **_: Any
    ) -> tuple[object, object]:
        schema, array = self._batch.__arrow_c_device_array__(requested_schema)
        move_to_device(_get_pointer(array, b"arrow_device_array"), self._device_id)
        return schema, array


_GetSchema = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_LastError = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
_Release = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Stream(ctypes.Structure):
    _fields_ = (
        ("device_type", ctypes.c_int32),
        ("get_schema", _GetSchema),
        ("get_next", _GetSchema),
        ("get_last_error", _LastError),
        ("release", _Release),
        ("private_data", ctypes.c_void_p),
    )


class DeviceTable:
    """The batches of a table, given as `__arrow_c_device_stream__`; `fails` instead of the last."""

    def __init__(self, table: pa.Table, *, fails: bool = False) -> None:
        self._table, self._fails = table, fails
        self._stream: Any = None

    def __arrow_c_device_stream__(self, requested_schema: object = None, **_: Any) -> object:
        del requested_schema
        batches = self._table.to_batches()
        reason = ctypes.create_string_buffer(b"the device went away")

        def get_schema(_: int, out: int) -> int:
            self._table.schema._export_to_c(out)
            return 0

        def get_next(_: int, out: int) -> int:
            if self._fails and len(batches) < 2:
                return 5
            if not batches:
                ctypes.memset(out, 0, ctypes.sizeof(_DeviceArray))
                return 0
            batches.pop(0)._export_to_c_device(out)
            move_to_device(out, 0)
            return 0

        def release(stream: int) -> None:
            _Stream.from_address(stream).release = _Release()

        self._stream = _Stream(
            CUDA,
            _GetSchema(get_schema),
            _GetSchema(get_next),
            _LastError(lambda _: ctypes.addressof(reason)),
            _Release(release),
            None,
        )
        return _new_capsule(ctypes.addressof(self._stream), b"arrow_device_array_stream", None)
