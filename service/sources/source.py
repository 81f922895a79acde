"""Where records come from: the contract.

A source delivers records in order and remembers nothing for the service: the store holds the
offsets, and `seek` goes back to them. Offsets are Kafka's: what is sought or committed is the
offset of the next record, not of the last one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Protocol

from service.records.block import Block

Partition = tuple[str, int]
"""Topic and partition."""
MAX_POLL_BYTES = 32 * 1024 * 1024
"""More than the largest record; fewer records are polled where they are large."""
_WAIT_S = 0.05


class SourceError(RuntimeError):
    """The source cannot go on; says which one, where and why."""


class NotNowError(SourceError):
    """The owner cannot take lanes over now; the source tries again, if it has a way to wait."""


class Owner(Protocol):
    """Who works on the lanes of a source.

    A lane is one partition number of all topics, such as `features[3]` and `labels[3]`. It is the
    unit that moves between processes: the records of a lane have one order, and their streams one
    state in the store.
    """

    def assigned(self, lanes: Collection[int], total: int) -> Mapping[Partition, int]:
        """Take lanes over.

        Parameters
        ----------
        lanes
            Their numbers.
        total
            How many lanes the source has.

        Returns
        -------
        dict
            The offsets from which their partitions go on, as far as the store has them.

        Raises
        ------
        NotNowError
            If that cannot be done now; then none of them is taken over.
        """
        ...

    def begun(
        self, offsets: Mapping[Partition, int], gone: Mapping[Partition, int] | None = None
    ) -> None:
        """Keep where partitions begin that the store had no usable offset of.

        Parameters
        ----------
        offsets
            Where they begin.
        gone
            The offsets that the store had and that are not there any more.
        """
        ...

    def revoked(self, lanes: Collection[int]) -> None:
        """Write what these lanes have done, and let go of them."""
        ...

    def lost(self, lanes: Collection[int]) -> None:
        """Forget these lanes; others have them already."""
        ...


class Source(Protocol):
    """A place that records come from, in order within each lane.

    Attributes
    ----------
    seeks_back
        Whether `seek` can go back to what was polled.
    """

    seeks_back: bool

    def start(self, owner: Owner) -> None:
        """Say which lanes there are, now and whenever that changes; called once, before `poll`."""
        ...

    def release(self, lane: int) -> None:
        """Deliver nothing more of a lane that its owner has lost, until it is assigned again."""
        ...

    def poll(self, max_records: int = 500, timeout_s: float = 1.0) -> Block:
        """Return the next records; waits up to `timeout_s` seconds for the first one.

        With `max_records` 0 it only keeps up with the other side. It does not read more than about
        `MAX_POLL_BYTES` for one answer: of large records there may be fewer than were asked for.
        """
        ...

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        """Go to these offsets; partitions that are not named stay where they are."""
        ...

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Tell others how far the records are processed; the store knows it already."""
        ...

    @property
    def exhausted(self) -> bool:
        """Whether no record will ever come again."""
        ...

    def lag(self) -> int | None:
        """Records that are there and not yet polled, estimated where counting means reading."""
        ...

    def lags(self) -> Mapping[Partition, int]:
        """The same by partition, where they are known."""
        ...

    def close(self) -> None:
        """Release what the source holds; a closed source is not used again."""
        ...


def check_reached(path: Path, n: int, start: int) -> None:
    """Check that a file of n lines or rows goes as far as it was read before.

    Raises
    ------
    SourceError
        If it ends earlier.
    """
    if n < start:
        raise SourceError(
            f"{path}: ends after {n} lines or rows, but the next one to read is {start}; "
            "is it another file of the same name?"
        )


def wait_for_records(
    read: Callable[[], Block], timeout_s: float, sleep: Callable[[float], None]
) -> Block:
    """Read again and again until there is a record, for as long as that."""
    found = read()
    waited = 0.0
    while not found and waited < timeout_s:
        pause = min(_WAIT_S, timeout_s - waited)
        sleep(pause)
        waited += pause
        found = read()
    return found


class OneLane(ABC):
    """What sources with a single lane have in common; they belong to one process."""

    seeks_back = True

    def start(self, owner: Owner) -> None:
        """Assign the lane."""
        self.seek(owner.assigned([0], 1))

    def release(self, lane: int) -> None:
        """Stop: there is no other lane to go on with."""
        raise SourceError(f"lane {lane}: another process reads the source into the same store")

    @abstractmethod
    def seek(self, offsets: Mapping[Partition, int]) -> None:
        """Go to these offsets."""

    def lags(self) -> Mapping[Partition, int]:
        """Nothing by partition."""
        return {}
