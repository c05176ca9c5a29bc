from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Model(_message.Message):
    __slots__ = ("name", "schema_toml", "schema_fingerprint", "window", "lateness", "retention", "sample_rows")
    class RetentionEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_TOML_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    LATENESS_FIELD_NUMBER: _ClassVar[int]
    RETENTION_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_ROWS_FIELD_NUMBER: _ClassVar[int]
    name: str
    schema_toml: str
    schema_fingerprint: int
    window: str
    lateness: str
    retention: _containers.ScalarMap[str, str]
    sample_rows: int
    def __init__(self, name: _Optional[str] = ..., schema_toml: _Optional[str] = ..., schema_fingerprint: _Optional[int] = ..., window: _Optional[str] = ..., lateness: _Optional[str] = ..., retention: _Optional[_Mapping[str, str]] = ..., sample_rows: _Optional[int] = ...) -> None: ...

class PutModelRequest(_message.Message):
    __slots__ = ("name", "reference", "window", "lateness", "retention", "sample_rows")
    class RetentionEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    LATENESS_FIELD_NUMBER: _ClassVar[int]
    RETENTION_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_ROWS_FIELD_NUMBER: _ClassVar[int]
    name: str
    reference: bytes
    window: str
    lateness: str
    retention: _containers.ScalarMap[str, str]
    sample_rows: int
    def __init__(self, name: _Optional[str] = ..., reference: _Optional[bytes] = ..., window: _Optional[str] = ..., lateness: _Optional[str] = ..., retention: _Optional[_Mapping[str, str]] = ..., sample_rows: _Optional[int] = ...) -> None: ...

class PutModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class DeletePredictionsRequest(_message.Message):
    __slots__ = ("model", "request_id", "ids", "integer_ids")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    INTEGER_IDS_FIELD_NUMBER: _ClassVar[int]
    model: str
    request_id: str
    ids: _containers.RepeatedScalarFieldContainer[str]
    integer_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, model: _Optional[str] = ..., request_id: _Optional[str] = ..., ids: _Optional[_Iterable[str]] = ..., integer_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class DeletePredictionsResponse(_message.Message):
    __slots__ = ("forgotten", "replayed")
    FORGOTTEN_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    forgotten: int
    replayed: bool
    def __init__(self, forgotten: _Optional[int] = ..., replayed: _Optional[bool] = ...) -> None: ...

class CheckpointRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CheckpointResponse(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ...) -> None: ...
