import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from tidegauge.v1 import batch_pb2 as _batch_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetMetricsRequest(_message.Message):
    __slots__ = ("model", "metrics", "columns", "window", "step")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    model: str
    metrics: _containers.RepeatedScalarFieldContainer[str]
    columns: _containers.RepeatedScalarFieldContainer[str]
    window: str
    step: str
    def __init__(self, model: _Optional[str] = ..., metrics: _Optional[_Iterable[str]] = ..., columns: _Optional[_Iterable[str]] = ..., window: _Optional[str] = ..., step: _Optional[str] = ...) -> None: ...

class GetMetricsResponse(_message.Message):
    __slots__ = ("arrow_stream",)
    ARROW_STREAM_FIELD_NUMBER: _ClassVar[int]
    arrow_stream: bytes
    def __init__(self, arrow_stream: _Optional[bytes] = ...) -> None: ...

class ListWindowsRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class ListWindowsResponse(_message.Message):
    __slots__ = ("windows",)
    WINDOWS_FIELD_NUMBER: _ClassVar[int]
    windows: _containers.RepeatedCompositeFieldContainer[Window]
    def __init__(self, windows: _Optional[_Iterable[_Union[Window, _Mapping]]] = ...) -> None: ...

class Window(_message.Message):
    __slots__ = ("version", "start", "end", "rows", "labels", "closed")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    version: str
    start: _timestamp_pb2.Timestamp
    end: _timestamp_pb2.Timestamp
    rows: int
    labels: int
    closed: bool
    def __init__(self, version: _Optional[str] = ..., start: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., rows: _Optional[int] = ..., labels: _Optional[int] = ..., closed: _Optional[bool] = ...) -> None: ...

class GetAccountRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class GetAccountResponse(_message.Message):
    __slots__ = ("events", "dropped_by_clients", "refused_requests", "watermark", "quarantined_requests")
    class EventsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class RefusedRequestsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_BY_CLIENTS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.ScalarMap[str, int]
    dropped_by_clients: int
    refused_requests: _containers.ScalarMap[str, int]
    watermark: _timestamp_pb2.Timestamp
    quarantined_requests: int
    def __init__(self, events: _Optional[_Mapping[str, int]] = ..., dropped_by_clients: _Optional[int] = ..., refused_requests: _Optional[_Mapping[str, int]] = ..., watermark: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., quarantined_requests: _Optional[int] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("model", "window")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    model: str
    window: str
    def __init__(self, model: _Optional[str] = ..., window: _Optional[str] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("arrow_stream",)
    ARROW_STREAM_FIELD_NUMBER: _ClassVar[int]
    arrow_stream: bytes
    def __init__(self, arrow_stream: _Optional[bytes] = ...) -> None: ...

class CompareRequest(_message.Message):
    __slots__ = ("model", "reference_columns", "current")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_COLUMNS_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    model: str
    reference_columns: _batch_pb2.ColumnBatch
    current: _batch_pb2.ColumnBatch
    def __init__(self, model: _Optional[str] = ..., reference_columns: _Optional[_Union[_batch_pb2.ColumnBatch, _Mapping]] = ..., current: _Optional[_Union[_batch_pb2.ColumnBatch, _Mapping]] = ...) -> None: ...

class CompareResponse(_message.Message):
    __slots__ = ("arrow_stream",)
    ARROW_STREAM_FIELD_NUMBER: _ClassVar[int]
    arrow_stream: bytes
    def __init__(self, arrow_stream: _Optional[bytes] = ...) -> None: ...

class StreamEventsRequest(_message.Message):
    __slots__ = ("model", "cursor")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    model: str
    cursor: str
    def __init__(self, model: _Optional[str] = ..., cursor: _Optional[str] = ...) -> None: ...

class StreamEventsResponse(_message.Message):
    __slots__ = ("cursor", "model", "window_closed", "alert")
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    WINDOW_CLOSED_FIELD_NUMBER: _ClassVar[int]
    ALERT_FIELD_NUMBER: _ClassVar[int]
    cursor: str
    model: str
    window_closed: Window
    alert: AlertChange
    def __init__(self, cursor: _Optional[str] = ..., model: _Optional[str] = ..., window_closed: _Optional[_Union[Window, _Mapping]] = ..., alert: _Optional[_Union[AlertChange, _Mapping]] = ...) -> None: ...

class AlertChange(_message.Message):
    __slots__ = ("metric", "column", "segment", "version", "from_state", "to_state", "value", "limit", "window_start")
    METRIC_FIELD_NUMBER: _ClassVar[int]
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FROM_STATE_FIELD_NUMBER: _ClassVar[int]
    TO_STATE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    WINDOW_START_FIELD_NUMBER: _ClassVar[int]
    metric: str
    column: str
    segment: str
    version: str
    from_state: str
    to_state: str
    value: float
    limit: float
    window_start: _timestamp_pb2.Timestamp
    def __init__(self, metric: _Optional[str] = ..., column: _Optional[str] = ..., segment: _Optional[str] = ..., version: _Optional[str] = ..., from_state: _Optional[str] = ..., to_state: _Optional[str] = ..., value: _Optional[float] = ..., limit: _Optional[float] = ..., window_start: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
