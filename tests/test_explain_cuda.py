"""Explanations on a device: the bits of the host, whatever the model answers with.

Kernels run on the CPU (see cuda_on_cpu); that they compile for a device is tested in test_cuda.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cuda_on_cpu.device import CpuDevice, CudaArray, DlpackArray
from hypothesis import given, settings
from hypothesis import strategies as st
from test_explain import curved, probability, rows_of

import tidegauge as tg
from tidegauge import cuda
from tidegauge.cuda.shap import DeviceCoalitions, Workplace
from tidegauge.engine import DeviceError
from tidegauge.explain import models
from tidegauge.explain.coalitions import HostCoalitions
from tidegauge.explain.operators import split_background


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[CpuDevice]:
    """The device that is none; at the end nothing of an explainer is left in its memory."""
    made = CpuDevice()
    monkeypatch.setattr(cuda, "open_device", lambda: made)
    return made


def on_device(model: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A model of device arrays, whose answer waits in the stream as its input does."""
    return lambda given: given.map(model)


def both(model: Any, background: Any, **options: Any) -> list[tg.KernelExplainer]:
    """The same explainer on the host and on the device."""
    return [
        tg.KernelExplainer(asked, background, device=name, **options)
        for name, asked in (("cpu", model), ("cuda", on_device(model)))
    ]


def assert_same(found: Any, wanted: Any) -> None:
    assert found.method == wanted.method
    np.testing.assert_array_equal(found.values, wanted.values)
    np.testing.assert_array_equal(found.standard_errors, wanted.standard_errors)
    np.testing.assert_array_equal(found.base_values, wanted.base_values)
    np.testing.assert_array_equal(found.evaluations, wanted.evaluations)
    assert found.n_failed == wanted.n_failed


# --- the same bits --------------------------------------------------------------------------------


@given(
    width=st.integers(1, 70),
    split=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)),
    kind=st.tuples(
        st.sampled_from([np.float32, np.float64]), st.sampled_from(["identity", "logit"])
    ),
    seed=st.integers(0, 99),
)
@settings(max_examples=30)
def test_kernels_do_what_the_core_does(
    width: int, split: tuple[int, int], shape: tuple[int, int, int], kind: Any, seed: int
) -> None:
    """Masking, reduction and product of any tile, group and width."""
    n_rows, n_outputs, n_designs = shape
    (n_background, n_groups), (dtype, link) = split, kind
    random = np.random.default_rng(seed)
    n_pairs = int(random.integers(1, 12))
    masks = random.integers(0, 1 << 63, (n_designs, n_pairs, -(-width // 64)), dtype=np.uint64)
    weights = random.dirichlet(np.ones(n_background))
    groups = split_background(weights, min(n_groups, n_background))
    word = np.dtype(np.uint32 if dtype == np.float32 else np.uint64)
    rows, background = (
        random.normal(size=(n, width)).astype(dtype).view(word) for n in (n_rows, n_background)
    )
    place = Workplace(CpuDevice(seed=seed))
    host = HostCoalitions.of(masks, groups, background)
    device = DeviceCoalitions(place, masks, groups.starts, groups.weights, background)
    designs = random.integers(0, n_designs, n_rows, dtype=np.int32)
    labels = random.permuted(np.tile(np.arange(width, dtype=np.int32), (n_rows, 1)), axis=1)
    wanted = host.differences(n_rows, n_outputs)
    found = device.differences(n_rows, n_outputs)
    for pairs in ((0, n_pairs // 2), (n_pairs // 2, n_pairs)):
        n = n_rows * host.n_inputs(pairs)
        assert device.n_inputs(pairs) == host.n_inputs(pairs)
        masked = np.empty((n, width), word)
        memory = place.allocate(masked.nbytes)
        host.fill(pairs, rows, masked, designs=designs, labels=labels)
        device.fill(pairs, place.send(rows), memory.address, designs=designs, labels=labels)
        np.testing.assert_array_equal(place.fetch(memory.address, word, masked.shape), masked)
        answers = random.uniform(-0.1, 1.1, (n, n_outputs)).astype(dtype)
        host.reduce(pairs, answers, link, wanted)
        view = place.device.view(CudaArray(answers))
        device.reduce(pairs, view, link, found)
    np.testing.assert_array_equal(device.fetch(found), wanted)
    operators = list(random.normal(size=(n_designs, n_pairs, 5)))
    np.testing.assert_array_equal(
        device.multiply(found, operators, designs), host.multiply(wanted, operators, designs)
    )


@pytest.mark.parametrize(
    ("method", "evaluations", "link"),
    [
        ("sinh", 400, "identity"),
        ("sinh", 6_000, "identity"),
        ("wls", 6_000, "identity"),
        ("sinh", 6_000, "logit"),
        ("auto", None, "identity"),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_are_those_of_the_host(
    method: Any, evaluations: int | None, link: Any, dtype: Any
) -> None:
    width = 9 if evaluations is None else 14
    background, rows = rows_of(10, width), rows_of(12, width, 1)
    rows[2, 3] = background[:, 3] = 0.5  # null for one row
    model = probability if link == "logit" else curved
    host, device = both(model, background, method=method, link=link, dtype=dtype, seed=3)
    wanted = host.attribute(rows, evaluations)
    assert device.device == "cuda"
    assert_same(device.attribute(rows, evaluations), wanted)
    assert host.expected_value == device.expected_value


def test_tiles_calls_and_targets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    background, rows = rows_of(20, 14), rows_of(9, 14, 1)
    host, _ = both(curved, background)
    wanted = host.attribute(rows, 8_000)
    for most in (64 << 20, 1 << 19, 1 << 16):  # rows share calls; one row takes several
        calls: list[int] = []

        def counted(given: Any, calls: list[int] = calls) -> Any:
            calls.append(given.__cuda_array_interface__["shape"][0])
            return given.map(curved)

        monkeypatch.setattr("tidegauge.explain.kernel.DEVICE_BYTES", most)
        small = tg.KernelExplainer(counted, background, device="cuda")
        assert_same(small.attribute(rows, 8_000), wanted)
        assert max(calls) * 14 * 8 <= max(most // 2, 256 * 14 * 8)
    target = 2 * float(np.median(wanted.standard_errors))
    _, device = both(curved, background)
    assert_same(
        device.attribute(rows, 8_000, standard_error=target),
        host.attribute(rows, 8_000, standard_error=target),
    )


def test_several_outputs_groups_and_weights_are_those_of_the_host() -> None:
    def several(x: Any) -> Any:
        return np.stack([probability(x), curved(x)], axis=1)

    weights = np.random.default_rng(0).dirichlet(np.ones(12))
    background = tg.explain.Background(rows_of(12, 16), weights)
    groups = {"pair": ["0", "3"], "tail": ["14", "15"]}
    host, device = both(several, background, groups=groups)
    rows = rows_of(5, 16, 1)
    host.fit(rows_of(9, 16, 2))
    device.fit(rows_of(9, 16, 2))
    assert_same(device.attribute(rows, 3_000), host.attribute(rows, 3_000))
    np.testing.assert_array_equal(host.expected_value, device.expected_value)
    assert device(rows, 3_000).values.shape == (5, 14, 2)


ANSWERS: dict[str, Callable[[Any], Any]] = {
    "of the host": curved,
    "whole numbers": lambda x: curved(x).round().astype(np.int16),
    "truths": lambda x: curved(x) > 0,
    "half": lambda x: curved(x).astype(np.float16),
    "a column of several": lambda x: np.stack([curved(x), curved(x)], axis=1)[:, 1],
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_may_be_of_any_kind(name: str, device: CpuDevice) -> None:
    answer = ANSWERS[name]

    def model(given: Any) -> Any:
        if name != "of the host":
            return given.map(answer)
        device.finish(device.record(device.current_stream()))
        return answer(given._values)

    background, rows = rows_of(6, 13), rows_of(3, 13, 1)
    wanted = tg.KernelExplainer(answer, background).attribute(rows, 2_000)
    found = tg.KernelExplainer(model, background, device="cuda").attribute(rows, 2_000)
    assert_same(found, wanted)


def test_arrays_of_the_device_decide_and_are_taken_as_they_are() -> None:
    background, rows = rows_of(6, 13), rows_of(3, 13, 1)
    wanted = tg.KernelExplainer(curved, background).attribute(rows, 2_000)
    for kind in (CudaArray, DlpackArray):
        explainer = tg.KernelExplainer(on_device(curved), kind(background))
        assert explainer.device == "cuda"
        assert_same(explainer.attribute(kind(rows), 2_000), wanted)
        explanation = explainer(kind(rows), 2_000)
        np.testing.assert_array_equal(explanation.data, rows)
    frame = pd.DataFrame(rows, columns=[str(place) for place in range(13)])
    assert_same(explainer.attribute(frame, 2_000), wanted)
    assert tg.KernelExplainer(curved, background).device == "cpu"  # a function of NumPy arrays


def test_memory_is_kept_and_given_back(device: CpuDevice) -> None:
    background, rows = rows_of(100, 20), rows_of(40, 20, 1)
    most, peak = 8 << 20, 0

    def watched(given: Any) -> Any:
        nonlocal peak
        peak = max(peak, device.in_use)
        return given.map(lambda x: x[:, 0] * x[:, 1])

    explainer = tg.KernelExplainer(watched, background, device="cuda", max_bytes=most)
    explainer.attribute(rows, 4_096)
    assert 1 << 20 < peak <= most
    device.n_bytes = device.in_use + 100
    with pytest.raises(DeviceError, match=r"too little free memory .* lower max_bytes"):
        tg.KernelExplainer(watched, background, device="cuda").attribute(rows)
    del explainer
    assert device.in_use == 0


# --- ONNX -----------------------------------------------------------------------------------------


def network(path: Path, width: int = 6) -> Path:
    from onnx import TensorProto, helper, save

    slopes = np.random.default_rng(0).normal(size=(width, 3)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("ReduceSum", ["t", "axis"], ["y"], keepdims=0),
    ]
    kind = TensorProto.FLOAT
    given = [helper.make_tensor_value_info("x", kind, [None, width])]
    answers = [helper.make_tensor_value_info("y", kind, [None])]
    weights = [
        helper.make_tensor("w", kind, slopes.shape, slopes.ravel()),
        helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
    ]
    graph = helper.make_graph(nodes, "net", given, answers, weights)
    opsets = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(path))
    return path


def test_onnx_files_read_the_device_where_it_lies(
    tmp_path: Path, device: CpuDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = network(tmp_path / "net.onnx")
    background, rows = rows_of(5, 6), rows_of(4, 6, 1)
    host, there = (
        tg.KernelExplainer(path, background, dtype="float32", device=name)
        for name in ("cpu", "cuda")
    )
    wanted, found = (explainer.attribute(rows) for explainer in (host, there))
    # onnxruntime's products round by the number of rows that share a call
    np.testing.assert_allclose(found.values, wanted.values, atol=1e-5)
    assert device.launches > 0
    monkeypatch.setattr(device, "kind", "cuda")
    with pytest.raises(DeviceError, match=r"CUDAExecutionProvider here.*onnxruntime-gpu"):
        tg.KernelExplainer(path, background, dtype="float32", device="cuda")
    monkeypatch.setattr(device, "kind", "cpu")
    with pytest.raises(tg.explain.ModelError, match=r"not one matrix of float64.*dtype"):
        tg.KernelExplainer(path, background, device="cuda").attribute(rows)
    monkeypatch.setattr(
        models, "PROVIDERS", dict.fromkeys(models.PROVIDERS, "CPUExecutionProvider")
    )
    chosen = tg.KernelExplainer(path, background, dtype="float32")
    assert chosen.device == "cuda"
    assert_same(chosen.attribute(rows), found)


# --- bad input ------------------------------------------------------------------------------------


def test_a_device_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(DeviceError, match=r"pip install 'tidegauge\[cuda\]'"):
        tg.KernelExplainer(curved, rows_of(5, 3), device="cuda")
    assert tg.KernelExplainer(curved, rows_of(5, 3), device="auto").device == "cpu"
    with pytest.raises(tg.DataError, match=r"background: lies on a CUDA device; use device='cuda'"):
        tg.KernelExplainer(curved, CudaArray(rows_of(5, 3)), device="cpu")
    with pytest.raises(ValueError, match="device 'tpu' is unknown; allowed: 'cpu', 'cuda', 'auto'"):
        tg.KernelExplainer(curved, rows_of(5, 3), device="tpu")  # type: ignore[arg-type]


def test_bad_arrays_and_models_of_a_device_are_told() -> None:
    background, rows = rows_of(5, 13), rows_of(3, 13, 1)
    with pytest.raises(ValueError, match="tables are masked on the host"):
        tg.KernelExplainer(curved, pd.DataFrame(background), device="cuda")
    with pytest.raises(tg.DataError, match="rows: lies on a CUDA device"):
        tg.KernelExplainer(curved, background).attribute(CudaArray(rows), 2_000)
    with pytest.raises(tg.DataError, match=r"background: lies on cuda:3, but .* cuda:0"):
        tg.KernelExplainer(curved, CudaArray(background, device_id=3))
    for model, message in (
        (curved, "a device.WaitingArray|cuda_on_cpu.WaitingArray"),
        (lambda given: CudaArray(np.zeros((5, 2, 2))), r"gave shape \(5, 2, 2\)"),
        (lambda given: CudaArray(np.zeros(5, complex)), "numbers are wanted"),
        (lambda given: CudaArray(np.zeros(5), device_id=1), "the model's answer: lies on cuda:1"),
        (lambda given: given.map(lambda x: np.negative(x, out=x)[:, 0]), "changes its input"),
    ):
        with pytest.raises(tg.explain.ModelError, match=message):
            tg.KernelExplainer(model, background, device="cuda").attribute(rows, 2_000)


def test_a_device_that_fails_late_names_the_rows(device: CpuDevice) -> None:
    rows = rows_of(200, 14, 1)
    explainer = tg.KernelExplainer(
        on_device(curved), rows_of(5, 14), device="cuda", max_bytes=1 << 22
    )
    wanted = explainer.attribute(rows[:4], 4_000)
    launches = device.launches

    def fail_later(given: Any) -> Any:
        if device.launches > launches + 6:
            device.fail = RuntimeError("an illegal address was met")
        return given.map(curved)

    explainer._fit().model = fail_later
    with pytest.raises(tg.explain.ModelError, match=r"illegal address.*rows were finished") as told:
        explainer.attribute(rows, 4_000)
    assert told.value.partial is not None
    np.testing.assert_array_equal(told.value.partial.values[:4], wanted.values)
    device.fail = None
