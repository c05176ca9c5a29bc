"""The server, through its own port: what it counts, answers, refuses and outlives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from onnx import TensorProto, helper
from served import (
    Caller,
    config,
    outcomes,
    predictions,
    reference_file,
    server_process,
    until,
    write_outcomes,
    write_predictions,
)

import tidegauge as tg
from tidegauge.server import batches
from tidegauge.server.config import ModelConfig
from tidegauge.server.serve import Server
from tidegauge.server.service import IngestService
from tidegauge.v1 import admin_pb2, ingest_pb2, query_pb2


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reference_file(tmp_path_factory.mktemp("reference"))


@pytest.fixture
def server(tmp_path: Path, reference: Path) -> Iterator[Server]:
    with Server(config(tmp_path, models={"flights": ModelConfig(reference)})) as running:
        yield running


@pytest.fixture
def caller(server: Server) -> Caller:
    return Caller(f"127.0.0.1:{server.port}")


def details(error: grpc.RpcError | status_pb2.Status) -> dict[str, object]:
    """Details of a status, by their kind."""
    status = error if isinstance(error, status_pb2.Status) else rpc_status.from_call(error)
    found = {}
    for kind in ("ErrorInfo", "BadRequest", "RetryInfo"):
        for detail in status.details:
            made = getattr(error_details_pb2, kind)()
            if detail.Unpack(made):
                found[kind] = made
    return found


def refused(call, code: grpc.StatusCode) -> dict[str, object]:
    """Call what must be refused; the details."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.code() == code, caught.value.details()
    found = details(caught.value)
    assert found["ErrorInfo"].domain == "tidegauge"
    return {"message": caught.value.details(), **found}


def test_events_are_counted_as_a_monitor_counts_them(caller: Caller, reference: Path) -> None:
    monitor = tg.Monitor(tg.Reference.load(reference), model="flights")
    for first in (0, 500, 1000):
        rows, labels = predictions(500, first=first), outcomes(400, first=first)
        assert caller.log(rows).outcome.accepted == 500
        assert caller.label(labels).outcome.accepted == 400
        monitor.log(rows)
        monitor.label(labels)
    assert caller.account() == monitor.account.to_dict()
    assert caller.metrics().to_pylist() == monitor.metrics().to_pylist()
    windows = caller.query.ListWindows(query_pb2.ListWindowsRequest(model="flights")).windows
    assert [(each.rows, each.labels, each.closed) for each in windows] == [
        (1000, 800, True),
        (500, 400, False),
    ]


def test_an_arrow_stream_is_as_good_as_packed_columns(caller: Caller) -> None:
    rows = predictions(700)
    stream = batches.stream_of([rows.slice(0, 300), rows.slice(300)], rows.schema)
    request = ingest_pb2.WritePredictionsRequest(
        model="flights", request_id="r1", arrow_stream=stream
    )
    assert caller.ingest.WritePredictions(request).outcome.accepted == 700
    assert caller.log(rows).outcome.duplicates == 700


def test_a_request_that_comes_again_is_answered_again(caller: Caller) -> None:
    first = caller.log(predictions(100), request_id="r1")
    again = caller.log(predictions(100), request_id="r1")
    assert (first.replayed, again.replayed) == (False, True)
    assert first.outcome == again.outcome
    assert caller.account()["predictions"] == 100
    found = refused(
        lambda: caller.log(predictions(50), request_id="r1"), grpc.StatusCode.ALREADY_EXISTS
    )
    assert found["ErrorInfo"].reason == "REQUEST_ID_REUSED"


def test_a_stream_answers_in_order_and_survives_what_it_refuses(caller: Caller) -> None:
    broken = predictions(10).drop_columns(["score"])
    requests = [
        ingest_pb2.StreamWriteRequest(
            predictions=write_predictions(predictions(100), request_id="a")
        ),
        ingest_pb2.StreamWriteRequest(predictions=write_predictions(broken, request_id="b")),
        ingest_pb2.StreamWriteRequest(outcomes=write_outcomes(outcomes(60), request_id="c")),
        ingest_pb2.StreamWriteRequest(
            predictions=write_predictions(predictions(100), request_id="a")
        ),
    ]
    replies = list(caller.ingest.StreamWrite(iter(requests)))
    assert [reply.request_id for reply in replies] == ["a", "b", "c", "a"]
    assert [reply.WhichOneof("result") for reply in replies] == ["outcome", "error"] + 2 * [
        "outcome"
    ]
    assert [reply.replayed for reply in replies] == [False, False, False, True]
    found = details(status_pb2.Status.FromString(replies[1].error))
    assert "score" in found["BadRequest"].field_violations[0].description
    assert caller.account()["matched"] == 60


def test_a_stream_that_breaks_does_not_end_as_if_all_were_well(
    server: Server, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = IngestService.write

    def fail_on_b(self, kind, request, authorization):
        if request.request_id == "b":
            raise MemoryError
        return write(self, kind, request, authorization)

    monkeypatch.setattr(IngestService, "write", fail_on_b)
    replies = caller.ingest.StreamWrite(
        ingest_pb2.StreamWriteRequest(
            predictions=write_predictions(predictions(9), request_id=name)
        )
        for name in "abc"
    )
    assert next(replies).outcome.accepted == 9
    found = refused(lambda: next(replies), grpc.StatusCode.INTERNAL)
    assert "MemoryError" in found["message"]


def test_versions_are_named_by_the_request_where_rows_name_none(caller: Caller) -> None:
    caller.log(predictions(50, version=None), model_version="v7")
    windows = caller.query.ListWindows(query_pb2.ListWindowsRequest(model="flights")).windows
    assert [each.version for each in windows] == ["v7"]


def test_refusals_say_which_field_and_what_is_allowed(caller: Caller) -> None:
    found = refused(
        lambda: caller.log(predictions(5), request_id=""), grpc.StatusCode.INVALID_ARGUMENT
    )
    assert found["BadRequest"].field_violations[0].field == "request_id"
    found = refused(lambda: caller.log(predictions(5), model="trains"), grpc.StatusCode.NOT_FOUND)
    assert "flights" in found["message"]
    found = refused(
        lambda: caller.log(predictions(5), schema_fingerprint=7),
        grpc.StatusCode.FAILED_PRECONDITION,
    )
    listed = caller.admin.ListModels(admin_pb2.ListModelsRequest()).models[0]
    metadata = found["ErrorInfo"].metadata
    assert metadata["schema_fingerprint"] == str(listed.schema_fingerprint)
    assert tg.Schema.from_toml(listed.schema_toml).label == "late"
    caller.log(predictions(5), schema_fingerprint=listed.schema_fingerprint)
    bad = predictions(5).set_column(4, "score", pa.array([0.1, 0.2, 7.0, 0.3, 0.4]))
    found = refused(lambda: caller.log(bad), grpc.StatusCode.INVALID_ARGUMENT)
    assert "score" in found["message"]
    assert "5 rows" in found["message"]
    assert caller.account()["predictions"] == 5


def test_one_faulty_request_of_a_group_does_not_take_others_with_it(server: Server) -> None:
    from tidegauge.journal import COLUMNS, PREDICTIONS

    good = [predictions(10, first=10 * i) for i in range(5)]
    bad = predictions(10, first=90)
    bad = bad.set_column(4, "score", pa.array([2.0] * 10))
    with server.desk._turn:  # the writer waits: all of them come as few groups
        answers = [
            server.desk.write(
                PREDICTIONS, "flights", f"r{i}", encoding=COLUMNS, body=b"%d" % i, rows=rows
            )
            for i, rows in enumerate([*good[:3], bad, *good[3:]])
        ]
    assert [answer.exception(10) is None for answer in answers] == [True] * 3 + [False] + [True] * 2
    assert server.desk.models["flights"].monitor.account.predictions == 50


def test_models_are_added_and_stay_once_they_count(caller: Caller, reference: Path) -> None:
    request = admin_pb2.PutModelRequest(name="other", reference=reference.read_bytes(), window="1d")
    made = caller.admin.PutModel(request).model
    assert (made.window, made.lateness) == ("1d", "48h")
    request.window = "1h"
    assert caller.admin.PutModel(request).model.window == "1h"
    caller.log(predictions(10), model="other")
    refused(lambda: caller.admin.PutModel(request), grpc.StatusCode.FAILED_PRECONDITION)
    request = admin_pb2.PutModelRequest(name="a/b", reference=reference.read_bytes())
    refused(lambda: caller.admin.PutModel(request), grpc.StatusCode.INVALID_ARGUMENT)
    request = admin_pb2.PutModelRequest(name="third", reference=b"nothing")
    refused(lambda: caller.admin.PutModel(request), grpc.StatusCode.INVALID_ARGUMENT)


def test_predictions_are_deleted_by_their_ids(caller: Caller) -> None:
    caller.log(predictions(100))
    request = admin_pb2.DeletePredictionsRequest(
        model="flights", request_id="d1", integer_ids=[3, 5, 999]
    )
    assert caller.admin.DeletePredictions(request).forgotten == 2
    again = caller.admin.DeletePredictions(request)
    assert (again.forgotten, again.replayed) == (2, True)
    assert caller.account()["forgotten"] == 2


def test_drops_of_clients_are_part_of_the_account(caller: Caller) -> None:
    caller.log(predictions(10), dropped=ingest_pb2.Dropped(queue_full=7, expired=2))
    reply = caller.query.GetAccount(query_pb2.GetAccountRequest(model="flights"))
    assert reply.dropped_by_clients == 9


def test_what_was_acknowledged_is_there_after_a_restart(tmp_path: Path, reference: Path) -> None:
    settings = config(tmp_path, models={"flights": ModelConfig(reference)})
    with Server(settings) as server:
        caller = Caller(f"127.0.0.1:{server.port}")
        caller.log(predictions(300), request_id="r1")
        caller.admin.Checkpoint(admin_pb2.CheckpointRequest())
        caller.label(outcomes(200))
        caller.log(predictions(300, first=300), dropped=ingest_pb2.Dropped(expired=4))
        before = caller.account()
        metrics = caller.metrics()
        server.desk._since_checkpoint = 0  # no last checkpoint: the start has something to replay
    with Server(settings) as server:
        caller = Caller(f"127.0.0.1:{server.port}")
        assert caller.account() == before
        assert caller.metrics().to_pylist() == metrics.to_pylist()
        assert caller.log(predictions(300), request_id="r1").replayed
        assert server.desk.models["flights"].dropped == 4


def test_windows_are_told_of_as_they_close(server: Server, caller: Caller) -> None:
    caller.log(predictions(500))
    asked = query_pb2.StreamEventsRequest(model="flights")
    events = caller.query.StreamEvents(asked, timeout=30)
    until(lambda: len(server.desk._listeners) > 1)
    caller.log(predictions(2000, first=500))  # two hours and a half: two windows close
    first, second = next(events), next(events)
    assert [each.window_closed.rows for each in (first, second)] == [1000, 1000]
    assert first.window_closed.end == second.window_closed.start
    events.cancel()
    asked.cursor = first.cursor
    again = caller.query.StreamEvents(asked, timeout=30)
    assert next(again).window_closed == second.window_closed
    again.cancel()
    asked.cursor = "nonsense"
    refused(lambda: list(caller.query.StreamEvents(asked)), grpc.StatusCode.INVALID_ARGUMENT)


def test_tables_are_compared_without_being_kept(caller: Caller) -> None:
    request = query_pb2.CompareRequest(model="flights", current=batches.pack(predictions(500)))
    found = pa.ipc.open_stream(caller.query.Compare(request).arrow_stream).read_all()
    assert {"age", "plan"} <= set(found["column"].to_pylist())
    alone = query_pb2.CompareRequest(
        reference_columns=batches.pack(predictions(500)), current=batches.pack(predictions(500))
    )
    found = pa.ipc.open_stream(caller.query.Compare(alone).arrow_stream).read_all()
    psi = found.filter(pc.equal(found["metric"].cast(pa.string()), "psi"))
    assert set(psi["value"].to_pylist()) == {0.0}
    assert caller.account()["predictions"] == 0
    nothing = query_pb2.CompareRequest(current=batches.pack(predictions(5)))
    refused(lambda: caller.query.Compare(nothing), grpc.StatusCode.INVALID_ARGUMENT)


def test_a_slow_question_does_not_hold_up_the_writers(server: Server, caller: Caller) -> None:
    caller.log(predictions(100))
    with server.desk.models["flights"].frozen():  # somebody is asking
        assert caller.log(predictions(100, first=100)).outcome.accepted == 100
        assert caller.account()["predictions"] == 200
    windows = caller.query.ListWindows(query_pb2.ListWindowsRequest(model="flights")).windows
    assert [each.rows for each in windows] == [200]


def test_a_model_is_explained_by_its_file(tmp_path: Path, caller: Caller) -> None:
    asked = query_pb2.ExplainRequest(model="flights")
    found = refused(lambda: caller.query.Explain(asked), grpc.StatusCode.FAILED_PRECONDITION)
    assert "onnx" in found["message"]
    rows = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
    schema = tg.Schema(features=["a", "b"], prediction_id="id")
    table = {"a": rows[:, 0], "b": rows[:, 1], "id": np.arange(400)}
    tg.Reference.fit(table, schema, sample_rows=200).save(tmp_path / "r.tide")
    weights = helper.make_tensor("w", TensorProto.FLOAT, [2, 1], [3.0, 0.0])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        [weights],
    )
    onnx_model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (tmp_path / "m.onnx").write_bytes(onnx_model.SerializeToString())
    model = ModelConfig(tmp_path / "r.tide", sample_rows=100, onnx=tmp_path / "m.onnx")
    with Server(config(tmp_path / "own", models={"linear": model})) as server:
        other = Caller(f"127.0.0.1:{server.port}")
        batch = pa.record_batch({name: pa.array(values) for name, values in table.items()})
        other.log(batch, model="linear")
        reply = other.query.Explain(query_pb2.ExplainRequest(model="linear"))
    found = pa.ipc.open_stream(reply.arrow_stream).read_all().to_pylist()
    value = {row["column"]: row["value"] for row in found if row["metric"] == "shap_importance"}
    assert value["a"] > 1
    assert value["b"] == pytest.approx(0, abs=1e-4)


def test_health_follows_the_server(server: Server) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        asked = health_pb2.HealthCheckRequest(service="tidegauge.v1.IngestService")
        assert stub.Check(asked).status == health_pb2.HealthCheckResponse.SERVING
        watch = stub.Watch(asked)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        server.desk.drain()
        server._tell_health()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()


def test_a_process_drains_when_it_is_asked_to_stop(tmp_path: Path) -> None:
    with server_process(tmp_path) as server:
        caller = server.caller()
        caller.log(predictions(100))
        assert server.stop() == 0, server.said
    with server_process(tmp_path) as server:
        assert server.caller().account()["predictions"] == 100
        until(lambda: True)
