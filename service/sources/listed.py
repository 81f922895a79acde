"""The list that stands for a broker in tests; faults are items of the list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from service.records.block import Block
from service.records.record import Record
from service.sources.source import OneLane, Owner, Partition


class Aborted(RuntimeError):  # noqa: N818  (named after what happened, as the fault is)
    """What an `Abort` in a `ListSource` raises."""


@dataclass(slots=True)
class Abort:
    """A crash in the list: polling up to here raises `Aborted`, once."""

    fired: bool = False


@dataclass(slots=True)
class Pause:
    """A silence in the list: one poll returns nothing, once."""

    fired: bool = False


class ListSource(OneLane):
    """A list as the broker; faults are items of the list.

    Parameters
    ----------
    items
        Records of any topics and partitions, in the order of arrival, and faults among them. A
        fault fires once, also when another source reads the same list after the crash.
    """

    def __init__(self, items: Iterable[Record | Abort | Pause]) -> None:
        self._items = list(items)
        self._at = 0
        self._next: dict[Partition, int] = {}
        self.committed: dict[Partition, int] = {}
        self._lanes = {i.partition for i in self._items if isinstance(i, Record)} or {0}

    def start(self, owner: Owner) -> None:
        """Assign all lanes; there is no other process."""
        self.seek(owner.assigned(sorted(self._lanes), len(self._lanes)))

    def release(self, lane: int) -> None:
        """Leave the records of the lane out."""
        self._lanes.discard(lane)

    def poll(self, max_records: int = 500, timeout_s: float = 1.0) -> Block:  # noqa: ARG002
        """Return the records up to the next fault."""
        found: list[Record] = []
        while self._at < len(self._items) and len(found) < max_records:
            item = self._items[self._at]
            if isinstance(item, Record):
                self._at += 1
                partition = (item.topic, item.partition)
                if item.offset >= self._next.get(partition, 0) and item.partition in self._lanes:
                    found.append(item)
                    self._next[partition] = item.offset + 1
            elif item.fired:
                self._at += 1
            elif found:
                break
            else:
                item.fired = True
                if isinstance(item, Abort):
                    raise Aborted(f"abort at item {self._at}")
                break
        return Block.of(found)

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        """Go to these offsets, forwards or back."""
        self._next.update(offsets)
        self._at = 0

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Keep the offsets in `committed`."""
        self.committed.update(offsets)

    @property
    def exhausted(self) -> bool:
        """Whether the end of the list is reached."""
        return all(not isinstance(i, Record) and i.fired for i in self._items[self._at :])

    def lag(self) -> int:
        """Records not yet polled."""
        return sum(
            isinstance(i, Record) and i.offset >= self._next.get((i.topic, i.partition), 0)
            for i in self._items[self._at :]
        )

    def close(self) -> None:
        """Nothing is held."""
