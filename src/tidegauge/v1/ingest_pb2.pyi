import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from tidegauge.v1 import batch_pb2 as _batch_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Dropped(_message.Message):
    __slots__ = ("queue_full", "expired", "refused")
    QUEUE_FULL_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    queue_full: int
    expired: int
    refused: int
    def __init__(self, queue_full: _Optional[int] = ..., expired: _Optional[int] = ..., refused: _Optional[int] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("accepted", "duplicates", "rejected")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    accepted: int
    duplicates: int
    rejected: int
    def __init__(self, accepted: _Optional[int] = ..., duplicates: _Optional[int] = ..., rejected: _Optional[int] = ...) -> None: ...

class WritePredictionsRequest(_message.Message):
    __slots__ = ("model", "model_version", "request_id", "schema_fingerprint", "columns", "arrow_stream", "sent_at", "dropped")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    ARROW_STREAM_FIELD_NUMBER: _ClassVar[int]
    SENT_AT_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    model: str
    model_version: str
    request_id: str
    schema_fingerprint: int
    columns: _batch_pb2.ColumnBatch
    arrow_stream: bytes
    sent_at: _timestamp_pb2.Timestamp
    dropped: Dropped
    def __init__(self, model: _Optional[str] = ..., model_version: _Optional[str] = ..., request_id: _Optional[str] = ..., schema_fingerprint: _Optional[int] = ..., columns: _Optional[_Union[_batch_pb2.ColumnBatch, _Mapping]] = ..., arrow_stream: _Optional[bytes] = ..., sent_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., dropped: _Optional[_Union[Dropped, _Mapping]] = ...) -> None: ...

class WritePredictionsResponse(_message.Message):
    __slots__ = ("outcome", "replayed", "server_version")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    outcome: Outcome
    replayed: bool
    server_version: str
    def __init__(self, outcome: _Optional[_Union[Outcome, _Mapping]] = ..., replayed: _Optional[bool] = ..., server_version: _Optional[str] = ...) -> None: ...

class WriteOutcomesRequest(_message.Message):
    __slots__ = ("model", "request_id", "schema_fingerprint", "columns", "arrow_stream", "sent_at", "dropped")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    ARROW_STREAM_FIELD_NUMBER: _ClassVar[int]
    SENT_AT_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    model: str
    request_id: str
    schema_fingerprint: int
    columns: _batch_pb2.ColumnBatch
    arrow_stream: bytes
    sent_at: _timestamp_pb2.Timestamp
    dropped: Dropped
    def __init__(self, model: _Optional[str] = ..., request_id: _Optional[str] = ..., schema_fingerprint: _Optional[int] = ..., columns: _Optional[_Union[_batch_pb2.ColumnBatch, _Mapping]] = ..., arrow_stream: _Optional[bytes] = ..., sent_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., dropped: _Optional[_Union[Dropped, _Mapping]] = ...) -> None: ...

class WriteOutcomesResponse(_message.Message):
    __slots__ = ("outcome", "replayed", "server_version")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    outcome: Outcome
    replayed: bool
    server_version: str
    def __init__(self, outcome: _Optional[_Union[Outcome, _Mapping]] = ..., replayed: _Optional[bool] = ..., server_version: _Optional[str] = ...) -> None: ...

class StreamWriteRequest(_message.Message):
    __slots__ = ("predictions", "outcomes")
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    predictions: WritePredictionsRequest
    outcomes: WriteOutcomesRequest
    def __init__(self, predictions: _Optional[_Union[WritePredictionsRequest, _Mapping]] = ..., outcomes: _Optional[_Union[WriteOutcomesRequest, _Mapping]] = ...) -> None: ...

class StreamWriteResponse(_message.Message):
    __slots__ = ("request_id", "outcome", "error", "replayed")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    outcome: Outcome
    error: bytes
    replayed: bool
    def __init__(self, request_id: _Optional[str] = ..., outcome: _Optional[_Union[Outcome, _Mapping]] = ..., error: _Optional[bytes] = ..., replayed: _Optional[bool] = ...) -> None: ...
