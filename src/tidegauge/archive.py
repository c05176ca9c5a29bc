"""One file for a reference or a monitor: NumPy arrays and a JSON header in a zip, never pickle."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from tidegauge._core import DataError
from tidegauge.derived import FunctionsWanted

# What this version writes, and all that it reads.
FORMATS = {"reference": 3, "monitor": 4, "window": 2}
MAX_BYTES = 64 << 30


def write(
    path: str | os.PathLike[str], kind: str, header: Mapping[str, Any], arrays: Mapping[str, Any]
) -> None:
    """Write header and arrays; the file appears whole or not at all."""
    target = Path(path)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            dump(file, kind, header, arrays)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def dump(
    file: IO[bytes],
    kind: str,
    header: Mapping[str, Any],
    arrays: Mapping[str, Any],
    *,
    save: Callable[..., None] = np.savez_compressed,
) -> None:
    """Write header and arrays to an open file; with `np.savez` as they are, which is faster."""
    text = json.dumps({"kind": kind, "format": FORMATS[kind], **header})
    save(file, header=np.frombuffer(text.encode(), dtype=np.uint8), **arrays)


def read(
    file: str | os.PathLike[str] | IO[bytes], kind: str
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read such a file back, by its path or when it is open.

    Raises
    ------
    DataError
        When the file is not one of ours, holds another kind of object, is damaged, or was written
        in a later format.
    """
    path = file if isinstance(file, str | os.PathLike) else "the file"
    try:
        with zipfile.ZipFile(file) as entries:
            if sum(entry.file_size for entry in entries.infolist()) > MAX_BYTES:
                raise DataError(f"{path}: holds more than {MAX_BYTES >> 30} GiB; refused")
        if not isinstance(file, str | os.PathLike):
            file.seek(0)
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        header = json.loads(np.asarray(arrays.pop("header")).tobytes())
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not a Tidegauge file, or damaged ({error})") from None
    if header.get("kind") != kind:
        raise DataError(f"{path}: holds a {header.get('kind')}, a {kind} is wanted")
    if header.get("format") != FORMATS[kind]:
        raise DataError(
            f"{path}: written in format {header.get('format')}, this version reads {FORMATS[kind]}"
        )
    return header, arrays


@contextmanager
def restoring(path: object) -> Iterator[None]:
    """Turn what a damaged file trips over while it is restored into one clear error."""
    try:
        yield
    except (DataError, FunctionsWanted):
        raise
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DataError(f"{path}: what it holds is damaged ({error!r})") from None
