"""What one stream raises ends that stream, and no other.

A stream is code of many kinds over data of any kind. Whatever it raises is turned into a
`StreamFailedError` here, at every call of a stream. Its lane then begins again from the store, as
after a crash, without that stream (`service.pipeline.lanes`).

What is no stream's fault passes: a store, a source or a registry of schemas that is away, and
whatever ends the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from service.records.reading import Given
from service.records.record import Record, TemporaryError, coordinates
from service.sources.source import SourceError
from service.store.errors import StoreError
from service.telemetry.metrics import Metrics

log = structlog.get_logger()

PASSING = (StoreError, SourceError, TemporaryError)
REASON = "stream_failed"
"""Of the dead letters of a stream that has failed."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a part of a stream is not worked on.

    Attributes
    ----------
    stream, lane
        Which part.
    reason
        What it raised.
    first, last
        Coordinates of the batch that it was given; empty where it raised without one.
    """

    stream: str
    lane: int
    reason: str
    first: str = ""
    last: str = ""

    def __str__(self) -> str:
        where = f" at {self.first} to {self.last}" if self.first else ""
        return f"stream {self.stream!r} failed{where}: {self.reason}"


class StreamFailedError(Exception):
    """A stream has raised something; carries it as its cause.

    Parameters
    ----------
    failure
        Which stream, where and why.
    records
        The batch that it was given and did not take.
    """

    def __init__(self, failure: Failure, records: Sequence[Record] = ()) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.records = records


class contained:  # noqa: N801  (read as a statement: with contained(...))
    """Turns what a stream raises into a `StreamFailedError`.

    Parameters
    ----------
    stream, lane
        Whose code runs.
    given
        The records that it is given; None where it is given none.
    """

    # A class and no generator: it stands around every batch of every stream.
    __slots__ = ("_given", "_lane", "_stream")

    def __init__(self, stream: str, lane: int, given: Given | None = None) -> None:
        self._stream = stream
        self._lane = lane
        self._given = given

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        if not isinstance(error, Exception) or isinstance(error, (*PASSING, StreamFailedError)):
            return
        records = [] if self._given is None else self._given.records
        places = [coordinates(records[0]), coordinates(records[-1])] if records else ["", ""]
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise StreamFailedError(
            Failure(self._stream, self._lane, reason, *places), records
        ) from error


class Failures:
    """The parts of streams that have failed since the process began.

    Parameters
    ----------
    metrics
        Shows them.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._found: dict[tuple[int, str], Failure] = {}

    def met(self, error: StreamFailedError) -> None:
        """Note a failure, and say it once."""
        failure = error.failure
        if (failure.lane, failure.stream) in self._found:
            return
        self._found[failure.lane, failure.stream] = failure
        self._metrics.stream_failed.labels(failure.stream).set(1)
        log.error(
            "stream failed",
            stream=failure.stream,
            lane=failure.lane,
            reason=failure.reason,
            first=failure.first,
            last=failure.last,
            exc_info=error.__cause__,
        )

    def of(self, lane: int, stream: str) -> Failure | None:
        """The failure of a part, or None."""
        return self._found.get((lane, stream))

    @property
    def all(self) -> list[Failure]:
        """All of them, in the order in which they came."""
        return list(self._found.values())

    def __bool__(self) -> bool:
        return bool(self._found)
