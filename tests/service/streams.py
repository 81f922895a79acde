"""Small record streams with a known shift, and how streams and monitors take them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np

from detectors.base import Verdict
from service.domain.decision import ActionKind, Decision, Means
from service.monitor.monitor import Policy
from service.monitor.outcomes import Outcomes
from service.pipeline.stream import Batch, Stream
from service.records.block import Block
from service.records.columns import Columns
from service.records.formats.decoder import Decoder
from service.records.gather import Body, gather
from service.records.reading import Decodes, read
from service.records.record import Record
from service.records.schema import FeatureSchema

NO_MEANS = Means()


def x_to_y_records(
    n: int,
    *,
    shift: str = "none",
    at: int = 0,
    delay: int = 0,
    share: float = 1.0,
    seed: int = 0,
    stream: str = "s",
    d: int = 3,
) -> list[Record]:
    """Records of an X->Y stream: the features decide the label through one logistic rule.

    `shift` (none, covariate, concept, both) holds from observation `at` on; labels come `delay`
    observations later, for a `share` of the observations.
    """
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    moved = np.arange(n) >= at
    if shift in ("covariate", "both"):
        X[moved] += 0.8
    weights = np.where(moved[:, None] & (shift in ("concept", "both")), -2.0, 2.0)
    p = 1 / (1 + np.exp(-(weights[:, 0] * X[:, 0] + 1.0 * X[:, 1])))
    y = rng.random(n) < p
    labelled = rng.random(n) < share
    bodies: list[dict[str, object]] = []
    for i in range(n):
        body: dict[str, object] = {
            "stream": stream,
            "id": f"e{i}",
            "time": f"2026-01-01T{i // 3600 % 24:02d}:{i // 60 % 60:02d}:{i % 60:02d}Z",
            "features": {f"x{j}": round(float(X[i, j]), 6) for j in range(d)},
        }
        if labelled[i] and delay == 0:
            body["label"] = int(y[i])
        bodies.append(body)
        late = i - delay
        if delay and late >= 0 and labelled[late]:
            bodies.append({"stream": stream, "id": f"e{late}", "label": int(y[late])})
    return as_records(bodies)


def as_records(bodies: Sequence[object], topic: str = "events") -> list[Record]:
    """Bodies as records of one partition; bytes stay as they are."""
    return [
        Record(topic, 0, n, None, b if isinstance(b, bytes) else json.dumps(b).encode())
        for n, b in enumerate(bodies)
    ]


def columns_of(
    bodies: Sequence[Body], schema: FeatureSchema, classes: Sequence[str] = (), first: int = 0
) -> Columns:
    """Decoded records of one partition as columns; none of them may be refused.

    `first` is the offset of the first one.
    """
    offsets = range(first, first + len(bodies))
    block = Block.of_partition("events", 0, offsets, [b""] * len(bodies))
    columns, refused = gather(block, list(enumerate(bodies)), schema, classes)
    assert not refused
    return columns


def part_of(columns: Columns, start: int, stop: int | None = None) -> Columns:
    """The records from one place up to another, where they stand."""
    return columns[np.arange(start, len(columns) if stop is None else stop)]


def batches_of(columns: Columns, size: int) -> Iterator[Columns]:
    """The records, so many at a time."""
    for start in range(0, len(columns), size):
        yield part_of(columns, start, min(start + size, len(columns)))


def take(
    stream: Stream,
    records: Sequence[Record],
    decoder: Decodes | None = None,
    means: Means = NO_MEANS,
) -> Batch:
    """What a stream makes of records that a lane has read; all of them are its own."""
    readers = {} if stream.reader is None else {stream.name: stream.reader}
    reading = read(Block.of(records), decoder or Decoder(), {stream.name}, readers)
    assert not reading.refused
    assert not reading.ignored
    given = reading.streams[stream.name]
    stream.look_up(given.ids)
    return stream.take(given, means)


def always(action: ActionKind) -> Policy:
    """The policy that answers every verdict alike."""

    def decide(verdict: Verdict, means: Means, day: str) -> Decision:
        return Decision(action, "tested only")

    return decide


def joined_of(outcomes: Outcomes) -> list[tuple[int, str, str | None]]:
    """Index, label and what was served of each observation that was labelled."""
    joined = outcomes.joined
    return list(zip(joined.index.tolist(), joined.labels, joined.served, strict=True))
