"""What others see of the streams: published by the loop after each batch, never changed after it.

Pages and requests are answered from other threads. They read the view that was published last, and
the store; what is at work is the loop's alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from detectors.base import Factor
from detectors.learners.prior import PriorCorrection
from service.pipeline.containment import Failure
from service.pipeline.stream import Stream
from service.settings.stream import StreamSettings

FAILED = "failed"
"""The phase of a stream that is not worked on."""


@dataclass(frozen=True, slots=True)
class StreamView:
    """A part of a stream after a batch.

    Attributes
    ----------
    settings
        The stream's.
    lane
        Where the part is.
    phase
        Of its monitor, or `failed`.
    reason
        Why it has failed; empty otherwise.
    observations, labels, waiting_for_label
        Observations seen, those with a label, and those whose label has not come.
    accuracy
        Of the recent predictions; None while none is labelled.
    statistics
        By factor the largest statistic as a share of its threshold.
    left_out
        Detectors that the reference could not teach, and why.
    open_incidents
        Ids of the open incidents, those of segments among them.
    segments
        Phases by segment name and value.
    classes, correction
        Of the scores, and what corrects them for a moved prior; None for nothing.
    """

    settings: StreamSettings
    lane: int
    phase: str = ""
    reason: str = ""
    observations: int = 0
    labels: int = 0
    waiting_for_label: int = 0
    accuracy: float | None = None
    statistics: Mapping[Factor, float] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    open_incidents: tuple[str, ...] = ()
    segments: Mapping[tuple[str, str], str] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    correction: PriorCorrection | None = None

    @classmethod
    def of(cls, stream: Stream, lane: int) -> StreamView:
        """What is to be seen of a stream's part now."""
        monitor = stream.monitor
        classes, correction = stream.correction
        return cls(
            stream.settings,
            lane,
            str(monitor.phase),
            "",
            monitor.n_seen,
            monitor.n_labelled,
            monitor.n_waiting,
            monitor.served.accuracy,
            monitor.watches.statistics,
            monitor.watches.left_out,
            tuple(stream.open),
            stream.segments.values,
            classes,
            correction,
        )

    @property
    def name(self) -> str:
        """The stream's name."""
        return self.settings.name

    @property
    def is_failed(self) -> bool:
        """Whether the part is not worked on."""
        return self.phase == FAILED

    def failed(self, failure: Failure) -> StreamView:
        """The same part after it has failed: as it was seen last, and why it goes no further."""
        return replace(self, phase=FAILED, reason=str(failure))


@dataclass(frozen=True, slots=True)
class View:
    """All streams of this process, and whether it works on them.

    Attributes
    ----------
    lanes
        By lane its streams' parts by name; never changed, only replaced by others.
    is_ready
        Whether records are being taken.
    """

    lanes: tuple[Mapping[str, StreamView], ...] = ()
    is_ready: bool = False

    def parts(self, name: str) -> list[StreamView]:
        """A stream's parts in the lanes of this process; none of a stream that it has not."""
        return [views[name] for views in self.lanes if name in views]

    def stream(self, name: str) -> StreamView:
        """A stream; of one in several lanes the part seen most of, and one that failed first.

        Raises
        ------
        LookupError
            If this process has no such stream.
        """
        parts = self.parts(name)
        if not parts:
            raise LookupError(f"there is no stream {name!r}")
        return max(parts, key=lambda part: (part.is_failed, part.observations))

    @property
    def names(self) -> list[str]:
        """The streams' names."""
        return list(dict.fromkeys(name for views in self.lanes for name in views))

    def has_open(self, incident: str) -> bool:
        """Whether an incident of that id is open in any part."""
        return any(incident in view.open_incidents for its in self.lanes for view in its.values())
