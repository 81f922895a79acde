"""The guarantee: killed at any instant, the service ends with the same incidents.

It rests on five steps and on their order (docs/adr/0002 says why):

1. poll a batch;
2. update the monitors;
3. write states, offsets, incidents and actions in ONE database transaction, fenced by the owner
   epoch of each lane;
4. commit the offsets to the broker;
5. carry out the actions from the outbox, at least once, each with a constant idempotency key.

Steps 1 and 2 may come several times before step 3. On assignment the source seeks to the store's
offsets (`service.pipeline.lanes`), so what is in memory since the last transaction is lost in a
crash and made again, equal, from the same records. Nothing else writes a stream's state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from service.notify.dead_letters import DeadLetters
from service.pipeline.containment import StreamFailedError, contained
from service.pipeline.fold import fold
from service.pipeline.lane import Lane
from service.pipeline.stream import Batch, Stream
from service.pipeline.unwritten import Unwritten
from service.records.block import Block
from service.sources.source import Partition, Source
from service.store import states
from service.store.errors import FencedError
from service.store.store import Store
from service.store.transaction import Transaction
from service.telemetry.metrics import Metrics

log = structlog.get_logger()


# 1. Poll a batch.


def poll(source: Source, lanes: Mapping[int, Lane], room: int, timeout_s: float) -> None:
    """Ask the source for at most `room` records, and put each down in its lane.

    The source may take lanes away and bring others while it is asked.
    """
    for number, block in source.poll(room, timeout_s).by_lane().items():
        lane = lanes[number]
        lane.polled = Block.joined([lane.polled, block]) if lane.polled else block


# 2. Update the monitors.


@dataclass(frozen=True, slots=True)
class Taken:
    """What a lane made of its records.

    Attributes
    ----------
    lane
        The lane.
    block
        All of them, in order.
    batches
        What they did to each stream.
    n_refused
        How many of them are dead letters.
    failed
        What streams raised over them; each such stream has taken none of its own.
    """

    lane: Lane
    block: Block
    batches: Sequence[tuple[Stream, Batch]]
    n_refused: int
    failed: Sequence[StreamFailedError]


def update(lanes: Iterable[Lane]) -> Iterator[Taken]:
    """Have every lane hand its streams what was polled, in order.

    Raises
    ------
    StoreError, TemporaryError
        If something that is needed for it is away. The records of this lane and of those after it
        are where they were.
    """
    for lane in lanes:
        if not lane.polled:
            continue
        refused, known = len(lane.unwritten.dead_letters), len(lane.unwritten.offsets)
        batches = lane.take(lane.polled)
        block, lane.polled = lane.polled, Block.of(())
        if len(lane.unwritten.offsets) > known:
            lane.begins = block.first_offsets() | lane.begins
        n_refused = len(lane.unwritten.dead_letters) - refused
        yield Taken(lane, block, batches, n_refused, lane.failing)


# 3. to 5. Write, commit, act.


@dataclass(slots=True)
class Left:
    """What could not be written, and never will be by this process.

    Attributes
    ----------
    fenced
        Lanes that another process has.
    failed
        What streams raised; nothing of their lanes is written.
    """

    fenced: list[int] = field(default_factory=list)
    failed: list[StreamFailedError] = field(default_factory=list)

    @property
    def lanes(self) -> set[int]:
        """The lanes of both kinds."""
        return {*self.fenced, *(error.failure.lane for error in self.failed)}


class Checkpoint:
    """Writes what lanes have done.

    Parameters
    ----------
    store, source
        Where it is written, and who is told how far.
    dead_letters
        Where refused records are put.
    metrics
        Counts what happens.
    clock
        Unix seconds, for a timestamp in the metrics.
    monotonic
        Seconds by a clock that is never set, for a duration in the metrics.
    act
        Step 5: told of each lane and of what was written of it, so that the outbox delivers and
        trainings start; returns what streams raise over it.
    """

    def __init__(
        self,
        store: Store,
        source: Source,
        dead_letters: DeadLetters,
        metrics: Metrics,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        act: Callable[[Lane, Unwritten], Sequence[StreamFailedError]],
    ) -> None:
        self._store = store
        self._source = source
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._clock = clock
        self._monotonic = monotonic
        self._act = act

    def write(self, lanes: Sequence[Lane]) -> Left:
        """Write what these lanes have done; whatever else they have can be written without those
        that are left.

        Raises
        ------
        StoreError, OSError
            If it cannot be written now; nothing is lost, and it can be tried again.
        """
        left = Left()
        while lanes := [lane for lane in lanes if lane.unwritten and lane.number not in left.lanes]:
            try:
                started = self._monotonic()
                self._write(lanes)  # 3
                self._metrics.checkpoint_duration.observe(self._monotonic() - started)
            except FencedError as error:
                log.warning("lane lost to another process", lane=error.lane, reason=str(error))
                left.fenced.append(error.lane)
                continue
            except StreamFailedError as error:
                left.failed.append(error)
                continue
            written = [(lane, lane.written()) for lane in lanes]
            self._commit([unwritten for _, unwritten in written])  # 4
            for lane, unwritten in written:
                left.failed += self._act(lane, unwritten)  # 5
            return left
        return left

    # 3. Write states, offsets, incidents and actions in one transaction.

    def _write(self, lanes: Sequence[Lane]) -> None:
        for lane in lanes:
            _file(lane.unwritten, self._dead_letters)
        with self._store.transaction({lane.number: lane.epoch for lane in lanes}) as tx:
            # Locks are taken in one order: the streams', the lanes' own, what all share.
            fold(lanes, tx)
            for lane in lanes:
                _write_own(lane, tx)
            for lane in lanes:
                _write_shared(lane.unwritten, tx)

    # 4. Commit the offsets to the broker; the source knows whether there is one.

    def _commit(self, written: Sequence[Unwritten]) -> None:
        offsets: dict[Partition, int] = {}
        for unwritten in written:
            offsets |= unwritten.offsets
            for stream, kind in unwritten.confirmed.values():
                self._metrics.incidents.labels(stream, kind).inc()
        self._source.commit(offsets)
        self._metrics.checkpoint_last_success.set(self._clock())
        for (topic, number), lag in self._source.lags().items():
            self._metrics.consumer_lag_records.labels(topic, str(number)).set(lag)


def _file(unwritten: Unwritten, dead_letters: DeadLetters) -> None:
    """Put away what was refused, before the transaction that passes over it.

    A letter that is written twice says so by its coordinates; one that is lost would be silent.
    """
    unwritten.dead_letters.sort(key=lambda d: (d.topic, d.partition, d.offset))
    dead_letters.write(unwritten.dead_letters[unwritten.n_filed :])
    unwritten.n_filed = len(unwritten.dead_letters)


def _write_own(lane: Lane, tx: Transaction) -> None:
    """Write what only this lane's owner writes; no other process waits for it."""
    unwritten = lane.unwritten
    tx.put_offsets(unwritten.offsets)
    for name in sorted(unwritten.touched):
        stream = lane.streams[name]
        with contained(name, lane.number):
            spilled = stream.monitor.waiting.unwritten()
            state = states.dumps(stream.snapshot())
        if spilled:
            unwritten.pruned[name] = tx.put_spilled(name, spilled, lane.number)
        tx.put_state(name, state, lane.number)
    for name, samples in unwritten.samples.items():
        model = lane.streams[name].settings.model
        assert model is not None
        tx.put_samples(name, samples, keep=model.max_samples, lane=lane.number)
    for name, labels in unwritten.labels.items():
        tx.label_samples(name, labels, lane.number)


def _write_shared(unwritten: Unwritten, tx: Transaction) -> None:
    """Write what all processes write; to be called after every lane's `_write_own`."""
    for incident in unwritten.incidents:
        tx.put_incident(incident)
    for action in unwritten.actions:
        tx.add_action(action)
    for job in unwritten.jobs:
        tx.add_job(job)
    tx.put_dead_letters(unwritten.dead_letters)
    for end in unwritten.endings:
        job = end.finished.job
        if end.promoted is not None:
            tx.set_champion(job.stream, end.promoted, end.detail, end.index)
        tx.finish_job(job.id, end.finished.state, dict(end.finished.result))
