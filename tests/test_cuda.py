"""The CUDA engine: the core's counts from every kind of memory, or one clear error and no count.

Kernels run on the CPU (see cuda_on_cpu); that they compile for a device is tested at the end.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from cuda_on_cpu.arrow import DeviceBatch, DeviceTable
from cuda_on_cpu.device import CpuDevice, CudaArray, DlpackArray
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import CATEGORIES, NUMBERS, TIMES, tables

import tidegauge as tg
from tidegauge import cuda
from tidegauge.cuda.columns import integer_table, storage_of
from tidegauge.cuda.launcher import KERNEL, OPTIONS, Limits
from tidegauge.cuda.source import kernel_source
from tidegauge.engine import CpuEngine, DeviceError

TINY = Limits(count_bytes=1 << 14, lane_bytes=1 << 13, stretch_rows=(8, 64))
SCHEMA = tg.Schema(
    features={
        "number": tg.numeric(missing=[-2, 100]),
        "edges": tg.numeric(edges=[-1, 0, 1.5, 100]),
        "moment": tg.timestamp(),
        "category": tg.categorical(categories=["a", "b", "3", "-1", "0", "true"], missing=["1"]),
    },
    segments=["group"],
)
TYPES = {
    "number": (*NUMBERS, *TIMES),
    "edges": NUMBERS,
    "moment": (*TIMES, pa.date32(), pa.date64(), pa.int64()),
    "category": CATEGORIES,
    "group": (pa.utf8(), pa.bool_()),
}
REFERENCE = tg.Reference.fit(
    {
        "number": np.linspace(-4, 4, 200),
        "edges": np.arange(200) % 7,
        "moment": np.arange(200).astype("datetime64[s]"),
        "category": ["a", "b", "3", "0"] * 50,
        "group": ["a", "b"] * 100,
    },
    SCHEMA,
    bins=32,
)


def monitors(reference: tg.Reference, limits: Limits = TINY, **device: Any) -> list[tg.Monitor]:
    """One monitor on the CPU and one on the device that is none."""
    made = CpuDevice(**device)
    before = cuda.open_engine
    cuda.open_engine = lambda host: cuda.CudaEngine(made, host, limits)
    try:
        return [tg.Monitor(reference, device=name) for name in ("cpu", "cuda")]
    finally:
        cuda.open_engine = before


def device_of(monitor: tg.Monitor) -> Any:
    return monitor._engine._device  # type: ignore[attr-defined]


def assert_same_state(wanted: tg.Monitor, found: tg.Monitor) -> None:
    (header, arrays), (other_header, other_arrays) = wanted.state(), found.state()
    assert json.dumps(header) == json.dumps(other_header)
    for name, array in arrays.items():
        assert array.tobytes() == other_arrays[name].tobytes(), name


# The same counts.


@settings(max_examples=40)
@given(data=st.data(), seed=st.integers(0, 99))
def test_every_type_and_layout_is_counted_as_the_core_counts_it(
    data: st.DataObject, seed: int
) -> None:
    dates = {"moment": [t for t in TYPES["moment"] if not pa.types.is_date(t)]}
    table = data.draw(tables({**TYPES, **dates}, max_rows=60))
    wanted, host = monitors(REFERENCE, seed=seed)
    wanted.log(table)
    host.log(table)
    assert_same_state(wanted, host)
    if any(type_ == pa.string_view() for type_ in table.schema.types):
        return  # cannot be copied from a device
    _, stream = monitors(REFERENCE, seed=seed)
    stream.log(DeviceTable(table))
    assert_same_state(wanted, stream)
    _, arrays = monitors(REFERENCE, seed=seed)
    for batch in table.to_batches():
        arrays.log(DeviceBatch(batch))
    assert_same_state(wanted, arrays)


@pytest.mark.parametrize("type_", [pa.date32(), pa.date64(), pa.timestamp("s"), pa.timestamp("ns")])
def test_times_beyond_64_bits_and_dates_count_alike(type_: pa.DataType) -> None:
    bits = 32 if type_ == pa.date32() else 64
    ticks = [0, 1, -1, 19_000, 2 ** (bits - 1) - 1, -(2 ** (bits - 1)), None]
    moments = pa.array(ticks, pa.int32() if bits == 32 else pa.int64()).cast(type_, safe=False)
    wanted, found = monitors(REFERENCE)
    for monitor in (wanted, found):
        monitor.log({"moment": moments})
    assert_same_state(wanted, found)


def features(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "f64": rng.normal(size=n),
        "f32": rng.lognormal(size=n).astype(np.float32),
        "f16": rng.normal(size=n).astype(np.float16),
        "i16": rng.integers(-40, 40, n).astype(np.int16),
        "u8": rng.integers(0, 200, n).astype(np.uint8),
        "flag": rng.random(n) < 0.3,
        "code": rng.integers(-3, 30, n),
        "constant": np.full(n, 7.0),
    }


WIDE = tg.Schema(
    features={name: tg.categorical() if name == "code" else None for name in features(1)},
)


@pytest.mark.parametrize("kind", [CudaArray, DlpackArray])
@pytest.mark.parametrize("n", [1, 7, 5_000])
def test_arrays_of_a_device_are_counted_where_they_lie(kind: Any, n: int) -> None:
    reference = tg.Reference.fit(features(2_000), WIDE)
    columns = features(n + 3, 1)
    wanted, found = monitors(reference)
    for offset in range(3):  # not on a 128-bit boundary
        part = {name: values[offset : offset + n] for name, values in columns.items()}
        wanted.log(part)
        found.log({name: kind(values) for name, values in part.items()})
    assert_same_state(wanted, found)
    assert device_of(found).launches > 0


def test_arrays_with_strides_are_copied_and_counted() -> None:
    reference = tg.Reference.fit({"x": np.arange(50.0)}, tg.Schema(features=["x"]))
    values = np.arange(90.0)
    wanted, found = monitors(reference)
    wanted.log({"x": values[::-3]})
    found.log({"x": CudaArray(values[::-3])})
    assert_same_state(wanted, found)


def test_roles_and_features_may_lie_apart() -> None:
    n = 700
    rng = np.random.default_rng(0)
    table = {
        "id": [f"row {i}" for i in range(n)],
        "t": (np.arange(n) * 60_000_000).astype("datetime64[us]"),
        "x": rng.normal(size=n),
        "g": rng.integers(0, 3, n),
        "p": rng.random(n),
        "y": rng.integers(0, 2, n),
    }
    schema = tg.Schema(
        task="binary",
        prediction_id="id",
        timestamp="t",
        features={"x": tg.numeric(), "g": tg.categorical()},
        prediction_score="p",
        label="y",
        segments=["g"],
    )
    wanted, found = monitors(tg.Reference.fit(table, schema))
    apart = {name: CudaArray(table[name]) for name in ("x", "g", "p", "y")}
    for _ in range(2):  # the second time every row is a duplicate
        wanted.log(table)
        found.log({**table, **apart, "surprise": CudaArray(np.zeros(n))})
    assert found.new_columns == {"surprise": n}
    assert wanted.account == found.account
    found._table.new_columns.clear()
    wanted_metrics = [row for row in wanted.metrics().to_pylist() if "new_col" not in row["metric"]]
    assert wanted_metrics == [
        row for row in found.metrics().to_pylist() if "new_col" not in row["metric"]
    ]


def test_columns_are_derived_from_those_of_a_device() -> None:
    columns = {"a": np.arange(300.0), "b": np.arange(300) % 7}
    schema = tg.Schema(features={"a": None, "sum": tg.derived(np.add, ["a", "b"], engine="numpy")})
    wanted, found = monitors(tg.Reference.fit(columns, schema))
    wanted.log(columns)
    found.log({name: CudaArray(values) for name, values in columns.items()})
    assert_same_state(wanted, found)


def test_vectors_of_a_device_are_embedded_on_the_host() -> None:
    vectors = np.random.default_rng(0).normal(size=(400, 6)).astype(np.float32)
    schema = tg.Schema(features={"e": tg.embedding("v")})
    wanted, found = monitors(tg.Reference.fit({"v": vectors}, schema))
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 6)
    mask = pa.array(np.arange(400) % 9 == 0)
    table = pa.table({"v": pa.FixedSizeListArray.from_arrays(lists.values, 6, mask=mask)}).slice(3)
    wanted.log({"v": vectors})
    wanted.log(table)
    found.log({"v": CudaArray(vectors)})
    found.log(DeviceTable(table))
    assert_same_state(wanted, found)


@pytest.mark.parametrize("kind", ["arrays", "table"])
def test_whole_rows_of_a_device_are_sampled(kind: str) -> None:
    columns = {name: values for name, values in features(500).items() if name != "f16"}
    schema = tg.Schema(features=[name for name in columns if name != "code"])
    reference = tg.Reference.fit(columns, schema)
    before = cuda.open_engine
    cuda.open_engine = lambda host: cuda.CudaEngine(CpuDevice(), host, TINY)
    try:
        found = tg.Monitor(reference, device="cuda", sample_rows=40)
    finally:
        cuda.open_engine = before
    wanted = tg.Monitor(reference, sample_rows=40)
    wanted.log(columns)
    on_device = {name: CudaArray(values) for name, values in columns.items()}
    found.log(on_device if kind == "arrays" else DeviceTable(pa.table(columns)))
    assert_same_state(wanted, found)


def test_batches_without_rows_or_known_columns_are_counted_too() -> None:
    wanted, found = monitors(REFERENCE)
    for monitor, kind in ((wanted, np.asarray), (found, CudaArray)):
        assert monitor.log({"number": kind(np.empty(0))}) == 0
        assert monitor.log({"edges": kind(np.zeros(5, np.uint64))}) == 5
        assert monitor.log({"number": kind(np.zeros(3)), "category": ["a", "x", None]}) == 3
    assert_same_state(wanted, found)
    _, empty = monitors(REFERENCE)
    assert empty.log(DeviceTable(pa.table({"number": pa.array([], pa.float64())}))) == 0


def test_dense_and_shared_counts_of_many_cells_agree() -> None:
    """Cells in one stretch: one, a few that fit shared memory, and more than fit."""
    schema = tg.Schema(features=["x"], segments=["g"])
    reference = tg.Reference.fit({"x": np.arange(64.0), "g": ["a"] * 64}, schema, bins=64)
    limits = Limits(count_bytes=1 << 22, lane_bytes=1 << 18, stretch_rows=(512, 512))
    for n_groups in (1, 5, 90, 400):
        rng = np.random.default_rng(n_groups)
        table = {"x": rng.normal(30, 9, 2_000), "g": rng.integers(0, n_groups, 2_000)}
        wanted, found = monitors(reference, limits)
        for monitor in (wanted, found):
            monitor.log(table)
        assert_same_state(wanted, found)


@given(
    texts=st.lists(
        st.sampled_from(["-129", "-1", "0", "00", "1", "+1", "127", "255", "256", "1e3", "x"])
        | st.integers(-(2**64), 2**65).map(str),
        unique=True,
        max_size=6,
    ),
    value=st.sampled_from([0, 1, -1, 127, -128, 255, 2**63 - 1, -(2**63), 2**64 - 1]),
)
def test_whole_numbers_are_the_categories_that_their_digits_spell(
    texts: list[str], value: int
) -> None:
    schema = tg.Schema(features={"c": tg.categorical(categories=texts or ["x"], missing=["1"])})
    wanted, found = monitors(tg.Reference.fit({"c": ["x"]}, schema))
    for dtype in (np.int8, np.uint8, np.int64, np.uint64):
        if np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
            numbers = np.array([value, 0, 1], dtype)
            wanted.log({"c": numbers})
            found.log({"c": CudaArray(numbers)})
    assert_same_state(wanted, found)


def test_categories_too_far_apart_for_a_table_are_left_to_the_host() -> None:
    numbers = np.array([0, 2**40, 5])
    schema = tg.Schema(features={"c": tg.categorical()})
    reference = tg.Reference.fit({"c": numbers}, schema)
    storage = storage_of("int64")
    assert storage is not None
    assert integer_table(reference.layout.columns["c"], storage) is None
    wanted, found = monitors(reference)
    wanted.log({"c": numbers})
    found.log({"c": CudaArray(numbers)})
    assert_same_state(wanted, found)
    assert device_of(found).launches == 0


def test_one_copy_holds_all_rows_when_only_features_are_given() -> None:
    """No array as long as the batch is made on the host."""
    schema = tg.Schema(features=["x"])
    values = np.random.default_rng(0).normal(size=200_000)
    limits = Limits(lane_bytes=1 << 14, stretch_rows=(8_192, 131_072))
    wanted, found = monitors(tg.Reference.fit({"x": values}, schema), limits)
    wanted.log({"x": values})
    found.log({"x": CudaArray(values)})
    assert_same_state(wanted, found)
    assert device_of(found).launches == 1


def test_compare_runs_on_the_device(engine: str) -> None:
    columns = features(3_000)
    wanted = tg.compare(columns, features(2_000, 1), WIDE, device="cpu")
    assert tg.compare(columns, features(2_000, 1), WIDE).to_arrow().equals(wanted.to_arrow())
    assert engine in ("cpu", "cuda")


# One clear error, and nothing counted.

GOOD = {"number": np.arange(4.0), "edges": np.arange(4.0)}
BAD: dict[str, tuple[Any, str]] = {
    "other device": (CudaArray(np.zeros(4), device_id=1), "lies on cuda:1, but the monitor counts"),
    "complex": (CudaArray(np.zeros(4, complex)), "booleans, integers or floats .* got complex128"),
    "long double": (CudaArray(np.zeros(4, np.longdouble)), "of 16, 32 or 64 bits, got"),
    "byte order": (CudaArray(np.zeros(4, ">f4")), "cast it before logging"),
    "table": (CudaArray(np.zeros((4, 2))), r"one dimension is wanted, got shape \(4, 2\)"),
    "scalar": (CudaArray(np.float64(1)), r"one dimension is wanted, got shape \(\)"),
    "aligned": (
        CudaArray(np.frombuffer(bytes(33), np.uint8)[1:].view(np.float64)),
        "its values are not aligned",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_device_array_is_named(name: str) -> None:
    values, message = BAD[name]
    monitor, twin = monitors(REFERENCE)[1], monitors(REFERENCE)[1]
    with pytest.raises(tg.DataError, match=f"column 'edges': .*{message}"):
        monitor.log({**GOOD, "edges": values})
    assert_same_state(monitor, twin)


def test_columns_of_different_length_are_refused() -> None:
    monitor, twin = monitors(REFERENCE)[1], monitors(REFERENCE)[1]
    for name in ("edges", "unknown"):
        with pytest.raises(tg.DataError, match=f"differ in length.*'{name}': 5"):
            monitor.log({**GOOD, "number": CudaArray(np.zeros(4)), name: CudaArray(np.zeros(5))})
    with pytest.raises(tg.DataError, match="differ in length"):
        monitor.log({"number": CudaArray(np.zeros(4)), "edges": np.zeros(3)})
    assert_same_state(monitor, twin)


def test_a_bad_role_far_down_a_device_table_rejects_all_of_it() -> None:
    schema = tg.Schema(features=["x"], task="binary", prediction_score="p")
    monitor, twin = monitors(tg.Reference.fit({"x": [1.0], "p": [0.5]}, schema))
    scores = np.full(500, 0.5)
    scores[-1] = 2
    with pytest.raises(tg.DataError, match="column 'p': row 499 holds 2"):
        monitor.log({"x": np.zeros(500), "p": scores})
    with pytest.raises(tg.DataError, match="column 'p': row 499 holds 2"):
        twin.log({"x": CudaArray(np.zeros(500)), "p": CudaArray(scores)})
    assert_same_state(monitor, twin)


def test_bad_arrow_tables_of_a_device_are_refused() -> None:
    monitor, twin = monitors(REFERENCE)[1], monitors(REFERENCE)[1]
    good = pa.table({"number": [1.0, 2.0]})
    with pytest.raises(tg.DataError, match="'number': lies on cuda:3"):
        monitor.log(DeviceBatch(good.to_batches()[0], device_id=3))
    with pytest.raises(tg.DataError, match="the Arrow device stream failed: the device went away"):
        monitor.log(DeviceTable(pa.concat_tables([good, good]), fails=True))
    twice = pa.table([good["number"], good["number"]], names=["number", "number"])
    with pytest.raises(tg.DataError, match="column 'number' appears twice"):
        monitor.log(DeviceTable(twice))
    views = pa.table({"category": pa.array(["a"], pa.string_view())})
    with pytest.raises(tg.DataError, match="column 'category': string_view cannot be copied"):
        monitor.log(DeviceTable(views))
    assert_same_state(monitor, twin)


def test_a_monitor_of_the_host_says_where_the_array_lies() -> None:
    with pytest.raises(tg.DataError, match="column 'number': lies on a CUDA device; use device="):
        monitors(REFERENCE)[0].log({"number": CudaArray(np.zeros(3))})


def test_less_memory_makes_smaller_pieces_and_too_little_an_error() -> None:
    table = {name: values for name, values in features(3_000).items() if name != "code"}
    reference = tg.Reference.fit(table, tg.Schema(features=list(table)))
    wanted, found = monitors(reference, Limits(), n_bytes=1 << 18)
    for monitor in (wanted, found):
        monitor.log(table)
    assert_same_state(wanted, found)
    assert device_of(found).in_use <= 1 << 18
    monitor, twin = (monitors(reference, Limits(), n_bytes=1 << 10)[1] for _ in range(2))
    with pytest.raises(DeviceError, match=r"too little free memory.*use device='cpu'"):
        monitor.log(table)
    assert_same_state(monitor, twin)


def test_after_a_failure_in_the_middle_no_answer_is_given() -> None:
    monitor = monitors(REFERENCE)[1]
    monitor.log(GOOD)
    device_of(monitor).fail = RuntimeError("an illegal address was met")
    for call in (lambda: monitor.log(GOOD), monitor.metrics, monitor.state, monitor.report):
        with pytest.raises(DeviceError, match=r"illegal address.*load the last saved state"):
            call()


# Choosing a device.


class _Broken:
    """A CuPy that finds no driver."""

    class cuda:
        class runtime:
            CUDARuntimeError = RuntimeError

        @staticmethod
        def Device() -> object:
            raise RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")


@pytest.mark.parametrize(
    ("cupy", "message"),
    [(None, r"pip install 'tidegauge\[cuda\]'"), (_Broken, "no CUDA-capable device is detected")],
)
def test_cuda_without_a_device_says_what_is_missing(
    cupy: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.raises(DeviceError, match=message):
        tg.Monitor(REFERENCE, device="cuda")
    assert tg.Monitor(REFERENCE, device="auto").device == "cpu"


def test_auto_takes_the_device_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "open_device", CpuDevice)
    assert tg.Monitor(REFERENCE, device="auto").device == "cuda"
    assert cuda.open_engine(CpuEngine(1)).name == "cuda"


# The sources.

VALUES = ("f64", "f32", "Half", "i64", "i8")
VARIANTS = [*((f"-DVALUE={value}",) for value in VALUES), ("-DVALUE=u8", "-DPACKED_BITS")]


def compile_kernel(text: str, options: tuple[str, ...]) -> tuple[int, str]:
    """Result and log of NVRTC, which needs no device."""
    found = importlib.util.find_spec("nvidia.cuda_nvrtc")
    assert found is not None
    assert found.submodule_search_locations is not None
    folder = Path(next(iter(found.submodule_search_locations))) / "lib"
    nvrtc = ctypes.CDLL(str(next(folder.glob("libnvrtc.so*"))))
    program = ctypes.c_void_p()
    assert (
        nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernel.cu", 0, None, None)
        == 0
    )
    given = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    result = nvrtc.nvrtcCompileProgram(program, len(options), given)
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return result, log.value.decode()


COMPILED = {
    KERNEL: VARIANTS,
    "shap/fill_masked.cu": [("-DWORD=u32",), ("-DWORD=u64",)],
    "shap/reduce_pairs.cu": [("-DVALUE=f32",), ("-DVALUE=f64",)],
    "shap/multiply_rows.cu": [("-DVALUE=f64",)],
}


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize(
    ("file", "variant"), [(file, one) for file, variants in COMPILED.items() for one in variants]
)
def test_kernels_compile_for_devices(
    file: str, variant: tuple[str, ...], architecture: str
) -> None:
    options = (*OPTIONS, *variant, f"-arch={architecture}")
    assert compile_kernel(kernel_source(file), options) == (0, "")


def test_every_kernel_is_one_that_is_compiled_here() -> None:
    sources = Path(cuda.__file__).parent / "source"
    files = {path.relative_to(sources).as_posix() for path in sources.rglob("*.cu")}
    assert files == set(COMPILED)


def test_an_error_in_a_kernel_names_its_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "a.hpp").write_text("#pragma once\nint two() { return 2; }\n")
    (tmp_path / "k.cu").write_text('#include "a.hpp"\n#include "a.hpp"\n\nint three = four;\n')
    result, log = compile_kernel(kernel_source("k.cu", tmp_path), ())
    assert result != 0
    assert "k.cu(4): error" in log


def test_the_device_of_cupy_uses_what_cupy_has() -> None:
    cupy = pytest.importorskip("cupy")
    for name in ("memcpyAsync", "memsetAsync", "streamWaitEvent", "CUDARuntimeError"):
        assert hasattr(cupy.cuda.runtime, name)
    for name in ("UnownedMemory", "MemoryPointer"):
        assert hasattr(cupy.cuda, name)
    for name in ("alloc", "alloc_pinned_memory", "Device", "Event", "Stream", "get_current_stream"):
        assert hasattr(cupy.cuda, name)
    assert hasattr(cupy.cuda.memory, "OutOfMemoryError")
    assert hasattr(cupy.cuda.compiler, "CompileException")
    module = cupy.RawModule(code=kernel_source(KERNEL), options=OPTIONS)
    assert hasattr(module, "compile")
    assert hasattr(module, "get_function")
