"""The queue of trainings, with processes that only write what a training would leave."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from models.registry import Registry
from service.domain.job import Job, JobSpec, JobState
from service.repair.ending import Finished
from service.repair.jobs import Jobs
from service.settings.service import Settings
from service.store.store import Store
from tests.service.repair.models import STREAM, publish, samples, settings_of

RESULT = {"gate": {"promote": False, "reason": "why"}, "elapsed_s": 1.0}
SUCCEEDS = f"open('result.json', 'w').write({json.dumps(RESULT)!r})"
FAILS = 'print(\'{"event": "error", "message": "no memory"}\'); raise SystemExit(3)'
WAITS = "import time; time.sleep(600)"


def process(program: str) -> Callable[[Path], subprocess.Popen[bytes]]:
    """A process in the job's folder instead of a training."""
    return lambda folder: subprocess.Popen(
        [sys.executable, "-c", program], cwd=folder, stdout=subprocess.PIPE
    )


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path)


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    """A store that has a champion, enough samples, and a job that is queued."""
    with closing(Store(settings.store.url, lambda: 0.0)) as store:
        version = publish(Registry(settings.registry.path))
        with store.transaction() as tx:
            tx.set_champion(STREAM, version.version, "tested", 0)
            tx.put_samples(STREAM, samples(400), keep=1000)
            tx.add_job(Job("j-1", STREAM, "inc-1", "fine_tune", JobSpec(200, ("covariate",))))
        yield store


def jobs_of(store: Store, settings: Settings, program: str) -> Jobs:
    registry = Registry(settings.registry.path)
    folder = settings.registry.path.parent / "jobs"
    return Jobs(store, registry, settings, folder, start=process(program))


def ended(jobs: Jobs) -> Finished:
    """The next training that ends; it is waited for by its process, not by time."""
    while (finished := jobs.poll()) is None:
        assert jobs.is_busy
    return finished


def state_of(store: Store) -> JobState:
    (job,) = store.jobs()
    return job.state


@pytest.mark.parametrize(
    ("program", "state", "says"),
    [
        (SUCCEEDS, JobState.SUCCEEDED, "why"),
        (FAILS, JobState.FAILED, "no memory"),
        ("raise SystemExit(9)", JobState.FAILED, "ended with code 9"),
    ],
)
def test_a_training_ends_as_its_process_says(
    program: str, state: JobState, says: str, store: Store, settings: Settings
) -> None:
    jobs = jobs_of(store, settings, program)
    jobs.start_next({0})
    assert state_of(store) is JobState.RUNNING
    finished = ended(jobs)
    assert finished.state is state
    assert says in str(finished.result)
    assert jobs.poll() is None


def test_jobs_of_other_lanes_are_left_alone(store: Store, settings: Settings) -> None:
    jobs = jobs_of(store, settings, SUCCEEDS)
    jobs.start_next({1})
    assert not jobs.is_busy
    assert state_of(store) is JobState.QUEUED


def test_a_job_waits_for_its_labels(store: Store, settings: Settings) -> None:
    few = settings_of(settings.registry.path.parent, min_labels=201)
    jobs = jobs_of(store, few, SUCCEEDS)
    jobs.start_next({0})
    assert not jobs.is_busy
    with store.transaction() as tx:
        tx.put_samples(STREAM, samples(1, 400), keep=1000)
    jobs.notify()
    jobs.start_next({0})
    assert ended(jobs).state is JobState.SUCCEEDED


def test_a_lost_lane_stops_its_training_and_the_next_owner_resumes_it(
    store: Store, settings: Settings
) -> None:
    jobs = jobs_of(store, settings, WAITS)
    jobs.start_next({0})
    jobs.leave({1})
    assert jobs.poll() is None
    assert state_of(store) is JobState.RUNNING
    jobs.leave({0})
    other = jobs_of(store, settings, SUCCEEDS)
    other.take_over(1)
    assert state_of(store) is JobState.RUNNING
    other.take_over(0)
    assert state_of(store) is JobState.QUEUED
    other.start_next({0})
    assert ended(other).state is JobState.SUCCEEDED


def test_a_job_that_cannot_be_prepared_has_failed_and_does_not_stop_the_others(
    store: Store, settings: Settings
) -> None:
    with store.transaction() as tx:
        tx.add_job(Job("j-2", "bare", "inc-2", "fine_tune"))  # which has no model to train by
        tx.finish_job("j-1", JobState.FAILED)
        tx.add_job(Job("j-3", STREAM, "inc-3", "fine_tune", JobSpec(200, ("covariate",))))
    jobs = jobs_of(store, settings, SUCCEEDS)
    jobs.start_next({0})
    finished = ended(jobs)
    assert (finished.job.id, finished.state) == ("j-2", JobState.FAILED)
    assert "could not be prepared: bare: there is no champion" in finished.result["error"]
    with store.transaction() as tx:
        tx.finish_job("j-2", finished.state)
    jobs.start_next({0})
    assert ended(jobs).job.id == "j-3"


def test_the_folder_of_a_job_whose_end_is_written_goes(store: Store, settings: Settings) -> None:
    jobs = jobs_of(store, settings, SUCCEEDS)
    jobs.start_next({0})
    finished = ended(jobs)
    assert finished.folder.is_dir()
    jobs.discard(finished.job)
    jobs.discard(finished.job)
    assert not finished.folder.exists()


@pytest.mark.parametrize("is_written", [True, False])
def test_a_kill_between_the_end_and_the_removal_leaves_no_folder_for_ever(
    is_written: bool, store: Store, settings: Settings
) -> None:
    jobs = jobs_of(store, settings, SUCCEEDS)
    jobs.start_next({0})
    finished = ended(jobs)
    others = finished.folder.parent / "first-other"  # of a command that trains a first model
    others.mkdir()
    if is_written:
        with store.transaction() as tx:
            tx.finish_job("j-1", finished.state, dict(finished.result))
    # Killed here.
    jobs_of(store, settings, SUCCEEDS).take_over(0)
    assert finished.folder.exists() is not is_written
    assert others.is_dir()


def test_a_version_says_what_it_was_trained_on(store: Store, settings: Settings) -> None:
    result = {
        **{"family": "tabular", "classes": ["0", "1"], "input_shape": [2], "preprocessing": {}},
        **{"strategy": "refit", "reason": "", "metrics": {}, "gate": None, "elapsed_s": 1.0},
    }
    jobs = jobs_of(store, settings, SUCCEEDS)
    jobs.start_next({0})
    finished = ended(jobs)
    candidate = finished.folder / "candidate"
    candidate.mkdir()
    (candidate / "weights").write_bytes(b"w")
    document = {**result, "candidate": str(candidate)}
    (finished.folder / "result.json").write_text(json.dumps(document))
    version = jobs.publish(finished)
    assert version == jobs.publish(finished), "it was published twice"
    assert (version.version, version.parent) == (2, 1)
    assert version.trained_on == {
        **{"lane": 0, "change_point": 200, "factors": ["covariate"], "day": ""},
        "incident": "inc-1",
    }
