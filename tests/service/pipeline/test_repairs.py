"""A training from the verdict to the champion, with a process that only writes a result."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from models.registry import Registry
from models.spec import ModelVersion
from service.domain.job import JobState
from service.pipeline.pipeline import Pipeline
from service.pipeline.stream import Stream
from service.records.block import Block
from service.repair.jobs import Jobs
from service.settings.service import Settings
from service.sources.listed import ListSource
from service.store.store import Store
from tests.service.pipeline.test_containment import Scorer
from tests.service.repair.models import publish
from tests.service.runs import (
    DyingSource,
    DyingStore,
    Fuse,
    KilledError,
    open_store,
    pipeline_of,
    work_off,
)
from tests.service.runs import settings_of as plain_settings
from tests.service.streams import x_to_y_records

CHANGE = 600
RECORDS = x_to_y_records(1100, shift="covariate", at=CHANGE, seed=8)
GATE = {
    **{"promote": True, "reason": "better", "anchor_n": 400, "n": 400},
    **{"anchor_champion_accuracy": 0.9, "champion_accuracy": 0.6},
}
PROGRAM = """
import json, os, sys
os.makedirs("candidate/saved_model", exist_ok=True)
for name in ("weights", "saved_model/saved_model.pb"):
    open("candidate/" + name, "w").write("better")
result = json.loads(sys.argv[1])
result["candidate"] = os.path.abspath("candidate")
open("result.json", "w").write(json.dumps(result))
"""


def trains(gate: dict[str, Any], error: str = "") -> Callable[[Path], subprocess.Popen[bytes]]:
    """A process that leaves a candidate with this gate, or fails."""
    result = {
        **{"family": "tabular", "classes": ["0", "1"], "input_shape": [3], "preprocessing": {}},
        **{"strategy": "refit", "reason": "", "metrics": {}, "gate": gate, "elapsed_s": 1.0},
    }
    program = f"raise SystemExit({error!r})" if error else PROGRAM
    return lambda folder: subprocess.Popen(
        [sys.executable, "-c", program, json.dumps(result)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def settings_of(folder: Path, **model: Any) -> Settings:
    settings = plain_settings(
        folder,
        classes=["0", "1"],
        model={"family": "tabular", "min_labels": 100, "saved_model": True, **model},
        on_confirmed={"covariate": "fine_tune"},
    )
    place = {"path": folder / "models", "serving": folder / "serving"}
    return Settings.model_validate({**settings.model_dump(exclude_unset=True), "registry": place})


@dataclass
class House:
    """A service with a first model, whose trainings end as told."""

    folder: Path
    gate: dict[str, Any]
    error: str = ""
    approval: str = "auto"

    def __post_init__(self) -> None:
        self.settings = settings_of(self.folder, approval=self.approval)
        self.metrics = CollectorRegistry()
        publish(Registry(self.settings.registry.path), stream="s")
        with closing(open_store(self.settings.store.url)) as store, store.transaction() as tx:
            tx.set_champion("s", 1, "first version", 0)

    def pipeline(self, store: Store, source: ListSource, **more: Any) -> Pipeline:
        registry = Registry(self.settings.registry.path)
        jobs = Jobs(store, registry, self.settings, self.jobs, start=trains(self.gate, self.error))
        self.metrics = CollectorRegistry()
        more = {"jobs": jobs, "scorer_of": Scorer, **more}
        pipeline = pipeline_of(self.settings, source, store, self.metrics, **more)
        pipeline.pause_while_training = True  # so that it ends at the same record every time
        return pipeline

    def run(self, **more: Any) -> None:
        with closing(open_store(self.settings.store.url)) as store:
            pipeline = self.pipeline(store, ListSource(RECORDS), **more)
            work_off(pipeline)
            pipeline.close()

    @property
    def jobs(self) -> Path:
        return self.folder / "jobs"

    def left(self) -> dict[str, Any]:
        """What a run leaves: champions, jobs, incidents, what is served, folders."""
        with closing(open_store(self.settings.store.url)) as store:
            serving = self.folder / "serving" / "s"
            mark = Path("assets.extra") / "shiftwatch-version"
            numbers = [p.name for p in serving.iterdir()] if serving.is_dir() else []
            return {
                "champions": [(c.version, c.reason) for c in store.champion_history("s")],
                "jobs": [(j.id, j.state) for j in store.jobs()],
                "incidents": [
                    (i.id, i.state, i.detail) for i in reversed(store.incidents(limit=None))
                ],
                "served": sorted(
                    (n, (serving / n / mark).read_text()) for n in numbers if n.isdecimal()
                ),
                "folders": sorted(p.name for p in self.jobs.glob("*")),
                "state": store.state("s"),
                "actions": [a.id for a in store.actions()],
            }


def retrained(house: House, outcome: str) -> float | None:
    labels = {"stream": "s", "outcome": outcome}
    return house.metrics.get_sample_value("shiftwatch_retrain_runs_total", labels)


def test_a_better_candidate_becomes_champion_and_is_served_and_its_folder_goes(
    tmp_path: Path,
) -> None:
    house = House(tmp_path, GATE)
    house.run()
    left = house.left()
    assert left["champions"] == [(1, "first version"), (2, "version 2 promoted: better")]
    assert [state for _, state in left["jobs"]] == ["succeeded"]
    assert [i[1:] for i in left["incidents"]] == [("resolved", "version 2 promoted: better")]
    assert left["served"] == [("1", "1"), ("2", "2")]
    assert left["folders"] == []
    assert retrained(house, "promoted") == 1


@pytest.mark.parametrize(
    ("gate", "error", "approval", "state", "detail", "outcome"),
    [
        (GATE, "", "manual", "succeeded", "version 2 is better and waits", "promoted"),
        ({**GATE, "promote": False}, "", "auto", "succeeded", "candidate rejected", "rejected"),
        (GATE, "no memory", "auto", "failed", "training failed", "failed"),
    ],
)
def test_what_is_not_promoted_leaves_the_champion_and_the_incident(
    gate: dict[str, Any],
    error: str,
    approval: str,
    state: str,
    detail: str,
    outcome: str,
    tmp_path: Path,
) -> None:
    house = House(tmp_path, gate, error, approval)
    house.run()
    left = house.left()
    assert left["champions"] == [(1, "first version")]
    assert [s for _, s in left["jobs"]] == [state]
    ((_, incident_state, said),) = left["incidents"]
    assert incident_state == "confirmed"
    assert said.startswith(detail)
    assert left["served"] == [("1", "1")]
    assert left["folders"] == []
    assert retrained(house, outcome) == 1


class Pausing(DyingSource):
    """Does not count how often it is asked for nothing, which is as long as a training takes."""

    def poll(self, max_records: int = 500, timeout_s: float = 1.0) -> Block:
        return super().poll(max_records, timeout_s) if max_records else Block.of([])


def killed_run(house: House, fuse: Fuse) -> None:
    """Run to the end, starting again after each kill; a kill ends the training too."""
    while True:
        with closing(DyingStore(house.settings.store.url, fuse)) as store:
            pipeline = None
            try:
                pipeline = house.pipeline(store, Pausing(RECORDS, fuse, 200))
                while pipeline.step(timeout_s=0.01) or not pipeline.write():
                    pass
            except KilledError:
                if pipeline is not None and pipeline.jobs is not None:
                    pipeline.jobs.close()
                continue
            pipeline.close()
            return


@pytest.mark.slow
def test_a_kill_at_any_step_of_a_repair_leaves_one_promotion_served_and_no_folder(
    tmp_path: Path,
) -> None:
    (tmp_path / "whole").mkdir()
    whole, fuse = House(tmp_path / "whole", GATE), Fuse(None)
    killed_run(whole, fuse)
    expected = whole.left()
    assert len(expected["champions"]) == 2
    # From when the training may have begun: before that it is a kill like any other.
    for at in range(fuse.steps // 2, fuse.steps + 1):
        (tmp_path / str(at)).mkdir()
        house = House(tmp_path / str(at), GATE)
        killed_run(house, Fuse(at))
        assert house.left() == expected, f"killed at step {at} of {fuse.steps}"


class Full(Registry):
    """A registry on a disk that is full for the first candidates."""

    left = 2

    def publish(self, *args: Any, **kwargs: Any) -> ModelVersion:
        if self.left:
            self.left -= 1
            raise OSError(28, "No space left on device")
        return super().publish(*args, **kwargs)


class Refusing(Registry):
    """A registry that takes nothing."""

    def publish(self, *args: Any, **kwargs: Any) -> ModelVersion:
        raise ValueError("nothing is taken")


def with_registry(house: House, store: Store, registry: Registry) -> Jobs:
    return Jobs(store, registry, house.settings, house.jobs, start=trains(GATE))


def test_a_registry_that_is_full_is_waited_for(tmp_path: Path) -> None:
    house, ticks = House(tmp_path, GATE), iter(range(10**6))
    with closing(open_store(house.settings.store.url)) as store:
        registry = Full(house.settings.registry.path)
        jobs = with_registry(house, store, registry)
        source = ListSource(RECORDS)
        pipeline = house.pipeline(store, source, jobs=jobs, monotonic=ticks.__next__)
        work_off(pipeline)
        pipeline.close()
    assert registry.left == 0
    assert [version for version, _ in house.left()["champions"]] == [1, 2]


def test_a_candidate_that_cannot_be_published_has_failed(tmp_path: Path) -> None:
    house = House(tmp_path, GATE)
    with closing(open_store(house.settings.store.url)) as store:
        jobs = with_registry(house, store, Refusing(house.settings.registry.path))
        pipeline = house.pipeline(store, ListSource(RECORDS), jobs=jobs)
        work_off(pipeline)
        pipeline.close()
    left = house.left()
    assert [state for _, state in left["jobs"]] == [JobState.FAILED]
    assert "could not be published: nothing is taken" in left["incidents"][0][2]


class Stubborn(Stream):
    """A stream that does not survive the end of its training."""

    def repaired(self, detail: str) -> Any:
        raise ValueError("stubborn")


def test_a_stream_that_fails_at_the_end_of_its_training_is_repaired_after_the_next_start(
    tmp_path: Path,
) -> None:
    house = House(tmp_path, GATE)
    house.run(stream_of=Stubborn)
    left = house.left()
    assert [version for version, _ in left["champions"]] == [1]
    assert [state for _, state in left["jobs"]] == [JobState.RUNNING]
    assert len(left["folders"]) == 1, "the candidate is thrown away"
    house.run()
    left = house.left()
    assert [version for version, _ in left["champions"]] == [1, 2]
    assert [state for _, state in left["jobs"]] == [JobState.SUCCEEDED]
    assert left["folders"] == []


@pytest.fixture
def promoted(tmp_path: Path) -> Iterator[tuple[House, Store, Pipeline]]:
    """A running service, after somebody has promoted another version."""
    house = House(tmp_path, GATE)
    publish(Registry(house.settings.registry.path), stream="s")
    with closing(open_store(house.settings.store.url)) as store:
        pipeline = house.pipeline(store, ListSource(RECORDS[:300]))
        pipeline.step(timeout_s=0)
        with store.transaction() as tx:
            tx.set_champion("s", 2, "by hand", 0)
        yield house, store, pipeline
        pipeline.close()


def test_a_champion_made_by_hand_serves_from_the_next_checkpoint_on_and_is_exposed(
    promoted: tuple[House, Store, Pipeline],
) -> None:
    house, store, pipeline = promoted
    assert house.left()["served"] == [("1", "1")]
    versions: Sequence[int | None] = [s.version for s in pipeline.parts("s")]
    assert versions == [1]
    pipeline.write()
    assert [s.version for s in pipeline.parts("s")] == [2]
    with store.transaction() as tx:  # a roll-back
        tx.set_champion("s", 1, "back", 0)
    pipeline.write()
    assert house.left()["served"] == [("1", "1"), ("2", "2"), ("3", "1")]
