"""What one stream raises ends that stream; the others end as if nothing had been."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from models.registry import Registry
from models.scorer import Scored
from models.spec import ModelVersion
from service.domain.decision import Means
from service.pipeline.containment import PASSING, Failure, StreamFailedError, contained
from service.pipeline.pipeline import Pipeline
from service.pipeline.stream import Batch, Stream
from service.records.block import Block
from service.records.reading import Given
from service.records.record import LabelRecord, Record, TemporaryError
from service.settings.service import Settings
from service.sources.listed import ListSource
from service.sources.source import SourceError
from service.store.errors import StoreError
from service.store.states import loads
from service.store.store import Store
from tests.service.repair.models import publish
from tests.service.runs import (
    DyingSource,
    DyingStore,
    Fuse,
    KilledError,
    incidents_of,
    open_store,
    pipeline_of,
    run_to_end,
    work_off,
)
from tests.service.streams import x_to_y_records

N = 900
CHANGE = 500
FIRST = 700
"""Records of each stream that there are in the first process's time."""
GOOD, BAD = "good", "bad"


class Scorer:
    """A logistic rule; every version answers alike."""

    def __init__(self, version: ModelVersion) -> None:
        self.classes = version.classes
        self.input_shape = version.input_shape

    def score(self, inputs: Any, /) -> Scored:
        p = 1 / (1 + np.exp(-(2 * inputs[:, 0] + inputs[:, 1])))
        return Scored(np.stack([1 - p, p], axis=1))

    def close(self) -> None:
        """Nothing is held."""


class Poisoned(RuntimeError):  # noqa: N818  (what the stream raises)
    """What a stream raises."""


@dataclass
class Fault:
    """A member of the stream `bad` that raises at its n-th use, once."""

    member: str
    at: int = 1
    used: int = 0

    def use(self, stream: Stream) -> None:
        if stream.settings.name == BAD:
            self.used += 1
            if self.used == self.at:
                raise Poisoned(f"{self.member} at its use {self.at}")

    def stream_of(self) -> type[Stream]:
        """A kind of stream that has the fault."""
        original = getattr(Stream, self.member)
        if isinstance(original, property):
            get: Any = original.fget

            def read(stream: Stream) -> Any:
                self.use(stream)
                return get(stream)

            return type("Broken", (Stream,), {self.member: property(read)})

        def call(stream: Stream, *args: Any, **kwargs: Any) -> Any:
            if self.member == "__init__":
                stream.settings = args[0]
            self.use(stream)
            return original(stream, *args, **kwargs)

        return type("Broken", (Stream,), {self.member: call})


def settings_of(folder: Path) -> Settings:
    stream: dict[str, Any] = {
        "problem": "x_to_y",
        "classes": ["0", "1"],
        "false_alarm_every": 50_000,
        "confirm": {"looks": [60, 120], "max_wait": 400, "min_labels": 40},
        "on_confirmed": dict.fromkeys(("covariate", "prior", "concept"), "alert_only"),
        "model": {"family": "tabular", "max_samples": 1000},
    }
    file = folder / "reference.jsonl"
    if not file.exists():
        reference = x_to_y_records(300, seed=3, stream=BAD)
        file.write_bytes(b"".join(r.value + b"\n" for r in reference))
        registry = Registry(folder / "models")
        for name in (GOOD, BAD, BAD):
            publish(registry, stream=name)
    settings = Settings.model_validate(
        {
            "store": {"url": f"sqlite:///{folder}/s.db"},
            "registry": {"path": folder / "models"},
            "dead_letters": {"path": folder / "dead.jsonl"},
            "checkpoint": {"every_records": 150, "every_s": 1e9},
            "webhooks": [{"url": "https://example.org/hook", "secret": "whsec_" + "A" * 32}],
            "streams": [
                {**stream, "name": GOOD, "reference": {"warm_up": 300}},
                {**stream, "name": BAD, "reference": {"file": file}},
            ],
        }
    )
    with closing(open_store(settings.store.url)) as store:
        if store.champion(BAD) is None:
            with store.transaction() as tx:
                for name in (GOOD, BAD):
                    tx.set_champion(name, 1, "first version", 0)
    return settings


def records_of(n_lanes: int, n: int = N) -> list[Record]:
    """`good` in the first partition, `bad` in turn in all of them; both move."""
    found: list[Record] = []
    offsets = [0] * n_lanes
    streams = [
        x_to_y_records(n, shift="covariate", at=at, seed=seed, stream=name)
        for name, at, seed in ((GOOD, CHANGE, 8), (BAD, 150, 9))
    ]
    for k, both in enumerate(zip(*streams, strict=True)):
        for record, lane in zip(both, (0, k % n_lanes), strict=True):
            found.append(dataclasses.replace(record, partition=lane, offset=offsets[lane]))
            offsets[lane] += 1
    return found


@dataclass
class Left:
    """What a run leaves of a stream."""

    incidents: list[dict[str, Any]]
    actions: list[tuple[str, Mapping[str, Any]]]
    states: list[bytes | None]
    samples: list[list[Any]]

    @classmethod
    def of(cls, store: Store, stream: str, n_lanes: int) -> Left:
        return cls(
            [i.to_json() for i in incidents_of(store) if i.stream == stream],
            [(a.id, a.payload) for a in store.actions() if a.stream == stream],
            [store.state(stream, lane) for lane in range(n_lanes)],
            [store.samples(stream, lane=lane) for lane in range(n_lanes)],
        )


@dataclass
class Run:
    """Two processes, one after the other, and what they say."""

    n_lanes: int
    folder: Path
    failures: list[Failure] = field(default_factory=list)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    logs: list[Any] = field(default_factory=list)
    closed: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.settings = settings_of(self.folder)

    def process(self, records: Sequence[Record], stream_of: type[Stream] = Stream) -> None:
        """One process over these records: a promotion by hand, and closing by hand what opens."""
        self.registry = CollectorRegistry()
        with closing(open_store(self.settings.store.url)) as store, capture_logs() as logs:
            pipeline = pipeline_of(
                self.settings,
                DyingSource(records, Fuse(None), 100),
                store,
                self.registry,
                scorer_of=Scorer,
                stream_of=stream_of,
            )
            pipeline.on_written = lambda: self._operate(pipeline, store)
            work_off(pipeline)
            self.view = pipeline.view
            self.failures += pipeline.failures
            pipeline.close()
        self.logs += logs

    def _operate(self, pipeline: Pipeline, store: Store) -> None:
        champion = store.champion(BAD)
        if champion is not None and champion.version == 1 and pipeline.n_records > 1000:
            with store.transaction() as tx:
                tx.set_champion(BAD, 2, "by hand", 0)
        for incident in store.incidents(BAD):
            if pipeline.view.has_open(incident.id) and incident.confirmed_at is not None:
                pipeline.requests.close(incident.id, "seen")
                self.closed.add(incident.id)

    @property
    def store(self) -> Store:
        return open_store(self.settings.store.url)


def first_part(records: Sequence[Record]) -> list[Record]:
    return list(records[: 2 * FIRST])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Left]:
    """What the good stream leaves where nothing fails, by the number of lanes."""
    left = {}
    for n_lanes in (1, 2):
        run = Run(n_lanes, tmp_path_factory.mktemp(f"whole-{n_lanes}"))
        records = records_of(n_lanes)
        run.process(first_part(records))
        run.process(records)
        assert run.failures == []
        assert run.closed, "nothing was open to be closed"
        with closing(run.store) as store:
            left[n_lanes] = Left.of(store, GOOD, n_lanes)
    assert [i["state"] for i in left[1].incidents] == ["confirmed"]
    return left


MEMBERS: dict[str, tuple[int, ...]] = {
    "__init__": (1,),
    "is_image": (1, 60),
    "keeps_samples": (1, 6),
    "score_classes": (1, 9),
    "correction": (1, 5),
    "look_up": (1, 5),
    "take": (1, 5),
    "open": (1, 6),
    "close": (1,),
    "repaired": (1,),
    "preload": (1,),
    "champion_changed": (1,),
    "snapshot": (1, 3),
}
"""Members of a stream that raise in the first process, with the uses at which they do."""


def check_the_others(run: Run, whole: Left, records: Sequence[Record]) -> None:
    """The good stream ended as it would have, and every record of the bad one is somewhere."""
    with closing(run.store) as store:
        assert Left.of(store, GOOD, run.n_lanes) == whole
        ends = {(r.topic, r.partition): r.offset + 1 for r in records}
        assert store.offsets() == ends
        letters = store.dead_letters(limit=10**6)
        assert {(letter.stream, letter.reason) for letter in letters} <= {(BAD, "stream_failed")}
        for lane in range(run.n_lanes):
            state = store.state(BAD, lane)
            seen = 0 if state is None else loads(state)["monitor"]["n_seen"]
            refused = sum(letter.partition == lane for letter in letters)
            assert seen + refused == sum(
                r.partition == lane and f'"{BAD}"'.encode() in r.value for r in records
            ), f"records of lane {lane} are lost"


@pytest.mark.parametrize("n_lanes", [1, 2])
@pytest.mark.parametrize(
    ("member", "at"), [(member, at) for member, uses in MEMBERS.items() for at in uses]
)
def test_whatever_of_a_stream_raises_the_others_end_as_without_it(
    member: str, at: int, n_lanes: int, whole: dict[int, Left], tmp_path: Path
) -> None:
    run, fault = Run(n_lanes, tmp_path), Fault(member, at)
    records = records_of(n_lanes)
    run.process(first_part(records), fault.stream_of())
    assert fault.used >= at, "it was never used so often"
    (failure,) = run.failures
    assert failure.stream == BAD
    assert failure.reason == f"Poisoned: {member} at its use {at}"
    seen = run.view.stream(BAD)
    assert (seen.phase, seen.reason) == ("failed", str(failure))
    assert run.view.stream(GOOD).phase != "failed"
    gauge = [
        run.registry.get_sample_value("shiftwatch_stream_failed", {"stream": name})
        for name in (BAD, GOOD)
    ]
    assert gauge == [1.0, None]
    # The next process tries again.
    run.process(records)
    assert run.failures == [failure]
    check_the_others(run, whole[n_lanes], records)


@pytest.mark.parametrize("n_lanes", [1, 2])
def test_a_state_that_cannot_be_gone_on_from_keeps_the_others_going(
    n_lanes: int, whole: dict[int, Left], tmp_path: Path
) -> None:
    run = Run(n_lanes, tmp_path)
    records = records_of(n_lanes)
    run.process(first_part(records))
    run.process(records, Fault("restore").stream_of())
    (failure,) = run.failures
    assert failure.first == "", "there was no batch"
    check_the_others(run, whole[n_lanes], records)


def test_a_part_that_cannot_be_folded_keeps_the_others_going(
    whole: dict[int, Left], tmp_path: Path
) -> None:
    run, fault = Run(2, tmp_path), Fault("fold")
    records = records_of(2)
    run.process(first_part(records), fault.stream_of())
    assert fault.used == 1
    assert [f.stream for f in run.failures] == [BAD]
    run.process(records)
    check_the_others(run, whole[2], records)


def test_every_public_member_of_a_stream_was_tried() -> None:
    tried = {*MEMBERS, "restore", "fold"} - {"__init__"}
    assert {name for name in vars(Stream) if not name.startswith("_")} == tried


# -- a failure and then a kill -------------------------------------------------------------------


class Allergic(Stream):
    """A stream that cannot take one of its records, in any process."""

    def take(self, given: Given, means: Means) -> Batch:
        if self.name == BAD and "e333" in given.ids:
            raise Poisoned("e333")
        return super().take(given, means)


def killed_run(folder: Path, fuse: Fuse, n_lanes: int) -> tuple[Left, list[Any]]:
    """What the good stream and the dead letters are after a failure, kills and restarts."""
    settings = settings_of(folder)
    records = records_of(n_lanes)
    return run_to_end(
        settings,
        lambda: DyingSource(records, fuse, 100),
        lambda _, store: (Left.of(store, GOOD, n_lanes), store.dead_letters(limit=10**6)),
        store_of=lambda url: DyingStore(url, fuse),
        scorer_of=Scorer,
        stream_of=Allergic,
    )


@pytest.fixture(scope="module")
def unkilled(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Left, int]]:
    found = {}
    for n_lanes in (1, 2):
        fuse = Fuse(None)
        left, letters = killed_run(tmp_path_factory.mktemp(f"unkilled-{n_lanes}"), fuse, n_lanes)
        assert letters
        found[n_lanes] = left, fuse.steps
    return found


@pytest.mark.slow
@pytest.mark.parametrize("n_lanes", [1, 2])
def test_a_kill_after_or_before_a_failure_changes_nothing_for_the_others(
    n_lanes: int, unkilled: dict[int, tuple[Left, int]], tmp_path: Path
) -> None:
    expected, steps = unkilled[n_lanes]
    for at in range(1, steps + 1, 2):
        folder = tmp_path / str(at)
        folder.mkdir()
        left, letters = killed_run(folder, Fuse(at), n_lanes)
        assert left == expected, f"killed at step {at} of {steps}"
        # The next process may begin behind the record that was refused, and go on.
        assert {(letter.stream, letter.reason) for letter in letters} == {(BAD, "stream_failed")}


def test_a_kill_right_after_a_failure_changes_nothing_for_the_others(
    unkilled: dict[int, tuple[Left, int]], tmp_path: Path
) -> None:
    expected, steps = unkilled[1]
    left, _ = killed_run(tmp_path, Fuse(steps // 2), 1)
    assert left == expected


# -- what is said ----------------------------------------------------------------------------------


def test_a_failure_is_said_once_with_the_batch_and_its_cause(tmp_path: Path) -> None:
    run = Run(1, tmp_path)
    run.process(records_of(1), Allergic)
    (said,) = [entry for entry in run.logs if entry["event"] == "stream failed"]
    assert said["log_level"] == "error"
    assert (said["stream"], said["lane"], said["reason"]) == (BAD, 0, "Poisoned: e333")
    assert isinstance(said["exc_info"], Poisoned)
    first, last = (int(said[end].removeprefix("events[0]@")) for end in ("first", "last"))
    assert first <= 2 * 333 + 1 <= last, "the batch does not hold the record"
    lines = [json.loads(line) for line in (tmp_path / "dead.jsonl").read_text().splitlines()]
    assert {line["reason"] for line in lines} == {"stream_failed"}
    assert all(f"stream 'bad' failed at {said['first']} to" in line["message"] for line in lines)
    counted = run.registry.get_sample_value(
        "shiftwatch_dead_letters_total", {"reason": "stream_failed"}
    )
    assert counted == len(lines)


# -- a source that cannot go back ------------------------------------------------------------------


class Pipe(ListSource):
    """A list that brings every record once, as standard input does."""

    seeks_back = False


@pytest.mark.parametrize("member", ["take", "look_up", "snapshot", "open"])
def test_where_nothing_can_be_read_again_the_batch_goes_on_for_the_others(
    member: str, whole: dict[int, Left], tmp_path: Path
) -> None:
    settings = settings_of(tmp_path)
    records = records_of(1)
    fault = Fault(member, 4)
    with closing(open_store(settings.store.url)) as store:
        source = Pipe(records)
        pipeline = pipeline_of(
            settings, source, store, scorer_of=Scorer, stream_of=fault.stream_of()
        )
        work_off(pipeline)
        assert [f.stream for f in pipeline.failures] == [BAD]
        assert pipeline.n_records == len(records)
        assert Left.of(store, GOOD, 1) == whole[1]
        assert store.offsets() == {("events", 0): len(records)}
        state = store.state(BAD)
        seen = 0 if state is None else loads(state)["monitor"]["n_seen"]
        refused = len(store.dead_letters(limit=10**6))
        # What it had taken since the last transaction is lost with it, and nothing more.
        assert N - settings.checkpoint.every_records - 500 <= seen + refused <= N
        pipeline.close()


# -- what is no stream's fault ---------------------------------------------------------------------


@pytest.mark.parametrize("error", [*PASSING, KeyboardInterrupt, SystemExit, KilledError])
def test_what_is_no_streams_fault_passes(error: type[BaseException]) -> None:
    with pytest.raises(error), contained("s", 0):
        raise error("away")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("x"), "ValueError: x"),
        (OSError(28, "full"), "OSError: [Errno 28] full"),
        (MemoryError(), "MemoryError"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_all_else_is_the_streams_failure(error: Exception, reason: str) -> None:
    record = Record("events", 3, 7, None, b"")
    block = Block.of([record, record, dataclasses.replace(record, offset=9), record])
    given = Given(block, [(at, LabelRecord("s", str(at), None, "y")) for at in (0, 2)])
    with pytest.raises(StreamFailedError) as caught, contained("s", 3, given):
        raise error
    assert caught.value.__cause__ is error
    assert caught.value.failure == Failure("s", 3, reason, "events[3]@7", "events[3]@9")
    assert str(caught.value) == f"stream 's' failed at events[3]@7 to events[3]@9: {reason}"


def test_the_passing_errors_are_those_that_are_waited_for() -> None:
    assert set(PASSING) == {StoreError, SourceError, TemporaryError}
