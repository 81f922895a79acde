"""Trainings in processes of their own: one at a time, resumed after a crash, never in the loop."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from detectors.base import Problem
from models.evaluate import MIN_ROWS
from models.job import GateSettings, JobResult, Kind, Split
from models.job import Job as TrainingJob
from models.registry import Registry
from models.spec import ModelVersion
from service.domain.accuracy import worse
from service.domain.job import Job, JobState
from service.repair.inputs import rows_of
from service.repair.process import progress_of, start_training
from service.repair.publishing import publish_result
from service.repair.recipe import _recipe
from service.settings.service import Settings
from service.settings.stream import ModelSettings
from service.store.store import Store

log = structlog.get_logger()

HOLDOUT_SHARE = 0.3
"""Newest share of the recent labelled rows, which decides about promotion and trains nothing."""
ANCHOR_ROWS = 400
"""Labelled rows from before the change, newest first: half are trained on again, half judge."""
Progress = Callable[[Job, Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Finished:
    """A training that ended.

    Attributes
    ----------
    job
        The job.
    state
        Succeeded or failed.
    result
        What the process reported; for a failure its `error`.
    folder
        Where its files are.
    """

    job: Job
    state: JobState
    result: Mapping[str, Any]
    folder: Path

    @property
    def outcome(self) -> str:
        """As the metric counts it."""
        if self.state is not JobState.SUCCEEDED:
            return "failed"
        return "promoted" if self.result["gate"]["promote"] else "rejected"

    @property
    def champion_holds(self) -> bool:
        """Whether nothing shows that the champion is worse since the change than before."""
        gate = self.result["gate"]
        before, now = gate["anchor_champion_accuracy"], gate["champion_accuracy"]
        if before is None or now is None:
            return False
        n, m = gate["anchor_n"], gate["n"]
        return not worse((round(before * n), n), (round(now * m), m))


class Jobs:
    """Starts the store's queued jobs one after the other and notices when one ends.

    Parameters
    ----------
    store
        Where jobs and samples are.
    registry
        Where versions are published.
    settings
        The whole configuration.
    folder
        Where job folders are made.
    on_progress
        Called from a thread with what a training reports.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        settings: Settings,
        folder: Path,
        on_progress: Progress = lambda job, event: None,
    ) -> None:
        self._store = store
        self._registry = registry
        self._settings = settings
        self._folder = folder
        self._on_progress = on_progress
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._job: Job | None = None
        self._error = ""
        self._queued = True

    @property
    def is_busy(self) -> bool:
        """Whether a training runs or is about to."""
        return self._job is not None or self._queued

    def notify(self) -> None:
        """Jobs or labels were written: one may be able to start."""
        self._queued = True

    def take_over(self, lane: int) -> None:
        """Queue again what the former owner of a lane was training; it is resumed."""
        for job in self._store.jobs(state=JobState.RUNNING):
            if _lane(job) == lane and (self._job is None or job.id != self._job.id):
                with self._store.transaction() as tx:
                    tx.requeue_job(job.id)
        self._queued = True

    def leave(self, lanes: Collection[int]) -> None:
        """Stop a training for lanes that others have now."""
        if self._job is not None and _lane(self._job) in lanes:
            log.info("training left to the lane's owner", job=self._job.id)
            self._stop()
            self._job = None

    def start_next(self, lanes: Collection[int]) -> None:
        """Start the oldest queued job of these lanes that has enough labels, if none runs."""
        if self._job is not None or not self._queued:
            return
        # Until something new is written there is no use in trying again.
        self._queued = False
        for job in self._store.jobs(state=JobState.QUEUED):
            if _lane(job) not in lanes:
                continue
            folder = self._folder / job.id
            if not (folder / "job.json").exists() and not self._prepare(job, folder):
                continue
            with self._store.transaction() as tx:
                tx.start_job(job.id)
            self._start(job, folder)
            return

    def _prepare(self, job: Job, folder: Path) -> bool:
        """Write the job's folder; False while there are too few labels."""
        model = self._model(job.stream)
        change_point = int(job.spec["change_point"])
        lane = _lane(job)
        recent = self._store.samples(job.stream, change_point, labelled_only=True, lane=lane)
        before = self._store.samples(job.stream, 0, change_point, labelled_only=True, lane=lane)
        if len(recent) < model.min_labels:
            return False
        before = before[-ANCHOR_ROWS:]
        n_holdout = max(round(HOLDOUT_SHARE * len(recent)), MIN_ROWS)
        splits = [Split.REPLAY if n % 2 else Split.ANCHOR for n in range(len(before))]
        splits += [Split.TRAIN] * (len(recent) - n_holdout) + [Split.HOLDOUT] * n_holdout
        # Where the rule from features to labels has changed, old rows would teach the old rule. In
        # Y->X problems an old row still shows what its class can look like.
        concept = "concept" in job.spec["factors"]
        new_rule = concept and self._problem(job.stream) is Problem.X_TO_Y
        kept = [
            (sample, split)
            for sample, split in zip([*before, *recent], splits, strict=True)
            if not (new_rule and split is Split.REPLAY)
        ]
        champion = self._champion(job.stream)
        classes = tuple(
            dict.fromkeys([*champion.classes, *sorted({s.label or "" for s, _ in kept})])
        )
        TrainingJob(
            kind=Kind.FINE_TUNE,
            family=champion.family,
            stream=job.stream,
            classes=classes,
            champion=str(champion.path),
            gate=GateSettings(
                max_anchor_drop=None if concept or not before else model.max_anchor_drop
            ),
            **_recipe(model, self._settings.seed),
        ).write(
            folder,
            rows_of([s for s, _ in kept], champion, self._settings.images.max_pixels),
            np.array([classes.index(s.label or "") for s, _ in kept], np.int64),
            np.array([str(split) for _, split in kept]),
        )
        return True

    def _champion(self, stream: str) -> ModelVersion:
        champion = self._store.champion(stream)
        if champion is None:
            raise RuntimeError(f"{stream}: there is no champion to start from")
        return self._registry.get(stream, champion.version)

    def _model(self, stream: str) -> ModelSettings:
        model = next(s.model for s in self._settings.streams if s.name == stream)
        if model is None:
            raise RuntimeError(f"{stream}: the stream has no model settings")
        return model

    def _problem(self, stream: str) -> Problem:
        return next(s.problem for s in self._settings.streams if s.name == stream)

    def _start(self, job: Job, folder: Path) -> None:
        log.info("training started", stream=job.stream, job=job.id)
        self._job = job
        self._error = ""
        self._process = start_training(folder)
        self._reader = threading.Thread(
            target=self._read, args=(job, self._process), name="training-progress", daemon=True
        )
        self._reader.start()

    def _read(self, job: Job, process: subprocess.Popen[bytes]) -> None:
        for event in progress_of(process):
            if event.get("event") == "error":
                self._error = str(event.get("message", ""))
            self._on_progress(job, event)

    def poll(self) -> Finished | None:
        """The training that ended since the last call, or None."""
        if self._process is None or self._job is None or self._process.poll() is None:
            return None
        if self._reader is not None:
            self._reader.join()
        job, folder = self._job, self._folder / self._job.id
        code = self._process.returncode
        self._process = self._reader = self._job = None
        self._queued = True
        result_file = folder / "result.json"
        if code == 0 and result_file.exists():
            result = json.loads(result_file.read_bytes())
            log.info("training finished", stream=job.stream, job=job.id, gate=result["gate"])
            return Finished(job, JobState.SUCCEEDED, result, folder)
        error = self._error or f"the training process ended with code {code}"
        log.error("training failed", stream=job.stream, job=job.id, error=error)
        return Finished(job, JobState.FAILED, {"error": error}, folder)

    def publish(self, finished: Finished) -> ModelVersion:
        """Make the candidate a version; the same version when it is called again after a crash."""
        job = finished.job
        champion = self._champion(job.stream)
        return publish_result(
            self._registry,
            JobResult.read(finished.folder),
            stream=job.stream,
            parent=champion.version,
            key=job.id,
            trained_on={**job.spec, "incident": job.incident_id},
        )

    def discard(self, finished: Finished) -> None:
        """Remove the folder of a job whose end is written."""
        shutil.rmtree(finished.folder, ignore_errors=True)

    def close(self) -> None:
        """Stop a running training; it is resumed at the next start."""
        self._stop()

    def _stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=30)
            self._process = None


def _lane(job: Job) -> int:
    return int(job.spec.get("lane", 0))
