"""Why a request is refused: what a caller is told, whichever door it came by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

Code = Literal[
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "FAILED_PRECONDITION",
    "RESOURCE_EXHAUSTED",
    "UNAVAILABLE",
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
    "INTERNAL",
]


class Refused(Exception):
    """A request of which nothing was counted.

    Parameters
    ----------
    code
        Canonical code, as gRPC names it.
    reason
        One word for programs, such as "BACK_PRESSURE".
    message
        What came, what is allowed, what to do.
    fields
        Field of the request to what is wrong with it.
    retry_after
        Seconds after which the same request may be sent again; never, unless given.
    metadata
        More for programs, by name.

    >>> str(Refused("NOT_FOUND", "UNKNOWN_MODEL", "there is no model 'x'"))
    "there is no model 'x'"
    """

    def __init__(
        self,
        code: Code,
        reason: str,
        message: str,
        *,
        fields: Sequence[tuple[str, str]] = (),
        retry_after: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.fields = tuple(fields)
        self.retry_after = retry_after
        self.metadata = dict(metadata or {})

    @property
    def passing(self) -> bool:
        """Whether the same request may be taken later; else it is at fault itself.

        >>> invalid("data", "is empty").passing
        False
        """
        return self.code == "UNAVAILABLE" or self.retry_after is not None


def invalid(field: str, problem: str, *, reason: str = "INVALID") -> Refused:
    """Refuse what a field holds.

    >>> invalid("request_id", "is empty; it names the batch").fields
    (('request_id', 'is empty; it names the batch'),)
    """
    return Refused("INVALID_ARGUMENT", reason, f"{field}: {problem}", fields=[(field, problem)])


def no_stream() -> Refused:
    """Refuse a stream while as many are open as may be.

    >>> no_stream().reason
    'TOO_MANY_STREAMS'
    """
    return Refused("RESOURCE_EXHAUSTED", "TOO_MANY_STREAMS", "no stream is free", retry_after=1.0)
