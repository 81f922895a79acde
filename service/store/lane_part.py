"""What a transaction writes of a lane, which its owner alone writes."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import sqlalchemy as sa

from service.domain.sample import StoredSample
from service.domain.waiting import Bound, Pruned, Side, SpillChanges
from service.store import tables
from service.store.statements import Statements

TopicPartition = tuple[str, int]


class LanePart(Statements):
    """Writes of lanes: offsets, states, what waits, samples.

    Parameters
    ----------
    connection, now
        As for `Statements`.
    lanes
        The lanes this transaction is fenced by; empty for one that writes no offsets.
    """

    def __init__(self, connection: sa.Connection, now: float, lanes: Collection[int] = ()) -> None:
        super().__init__(connection, now)
        self._lanes = lanes

    def put_offsets(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Store where each partition goes on.

        Parameters
        ----------
        offsets
            The next offset to read, by topic and partition.

        Raises
        ------
        ValueError
            If the transaction is fenced by some lanes, but a partition is in none of them.
        """
        for topic, partition in offsets:
            if self._lanes and partition not in self._lanes:
                raise ValueError(
                    f"{topic}[{partition}]: the transaction is fenced by lanes "
                    f"{sorted(self._lanes)}, not by lane {partition}"
                )
        self._upsert(
            tables.offsets,
            [
                {"topic": topic, "partition": partition, "next_offset": next_offset}
                for (topic, partition), next_offset in sorted(offsets.items())
            ],
            update=("next_offset",),
        )

    def put_state(self, stream: str, state: bytes, lane: int = 0) -> None:
        """Store a stream's state in a lane, in place of the former one."""
        row = {"stream": stream, "lane": lane, "state": state}
        self._upsert(tables.states, [row], update=("state",))

    # -- what waits ----------------------------------------------------------------------------

    def put_spilled(self, stream: str, changes: SpillChanges, lane: int = 0) -> Pruned:
        """Keep the observations and labels of a stream's lane that wait, and delete the others."""
        table = tables.waiting
        place = {"stream": stream, "lane": lane}
        self._upsert(
            table,
            [
                {
                    **place,
                    "id": entry.id,
                    "side": str(entry.side),
                    "number": entry.number,
                    "idx": entry.index,
                    "time": None if math.isnan(entry.time) else entry.time,
                    "value": entry.value,
                }
                for entry in changes.put
            ],
            update=("side", "number", "idx", "time", "value"),
        )
        own = (table.c.stream == stream, table.c.lane == lane)
        if changes.dropped:
            self._connection.execute(
                table.delete().where(*own, table.c.id == sa.bindparam("id_")),
                [{"id_": id_} for id_ in changes.dropped],
            )
        deleted = {
            side: sum(self._delete(bound, *own, table.c.side == str(side)) for bound in bounds)
            for side, bounds in changes.over.items()
        }
        since, until = changes.alive
        query = sa.select(sa.func.min(table.c.time)).where(
            *own,
            table.c.side == str(Side.OBSERVATION),
            table.c.time >= since,
            table.c.time <= until,
        )
        return Pruned(deleted, self._connection.execute(query).scalar())

    def _delete(self, bound: Bound, *where: sa.ColumnElement[bool]) -> int:
        table = tables.waiting
        if math.isfinite(bound.number):
            where = (*where, table.c.number <= bound.number)
        if math.isfinite(bound.time):
            where = (*where, table.c.time < bound.time)
        return self._connection.execute(table.delete().where(*where)).rowcount

    # -- samples -------------------------------------------------------------------------------

    def put_samples(
        self, stream: str, samples: Sequence[StoredSample], *, keep: int, lane: int = 0
    ) -> None:
        """Store observations for training, and prune the stream's lane to its newest ones.

        Parameters
        ----------
        stream, lane
            Where they belong; indices are counted in each lane by itself.
        samples
            In any order; one that is there already keeps its label and content.
        keep
            Samples that stay, by index; positive.
        """
        if keep < 1:
            raise ValueError(f"keep must be positive, got {keep}")
        table = tables.samples
        self._upsert(
            table,
            [
                {
                    "stream": stream,
                    "lane": lane,
                    "idx": s.index,
                    "id": s.id,
                    "time": s.time,
                    "content": s.content,
                    "kind": str(s.kind),
                    "label": s.label,
                }
                for s in samples
            ],
        )
        self._prune(table.c.idx, keep, table.c.stream == stream, table.c.lane == lane)

    def label_samples(self, stream: str, labels: Iterable[tuple[int, str]], lane: int = 0) -> None:
        """Give stored samples of a lane their labels, as pairs of index and label.

        A sample that was pruned or never stored is passed over.
        """
        rows = [{"idx_": index, "label_": label} for index, label in labels]
        if rows:
            table = tables.samples
            self._connection.execute(
                table.update()
                .where(
                    table.c.stream == stream,
                    table.c.lane == lane,
                    table.c.idx == sa.bindparam("idx_"),
                )
                .values(label=sa.bindparam("label_")),
                rows,
            )
