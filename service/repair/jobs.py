"""Trainings in processes of their own: one at a time, resumed after a crash, never in the loop."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from models.job import JOB_FILE, RESULT_FILE, JobResult
from models.registry import Registry
from models.spec import ModelVersion
from service.domain.job import Job, JobState
from service.repair.ending import Finished
from service.repair.preparation import prepare
from service.repair.process import last_words, progress_of, start_training
from service.repair.publishing import publish_result
from service.settings.service import Settings
from service.store.errors import StoreError
from service.store.store import Store

log = structlog.get_logger()

Progress = Callable[[Job, Mapping[str, Any]], None]


@dataclass(slots=True)
class _Training:
    """The training that runs, and what it has said."""

    job: Job
    folder: Path
    process: subprocess.Popen[bytes]
    error: str = ""
    reader: threading.Thread = field(init=False)

    def listen(self, on_progress: Progress) -> None:
        """Read what it says, in a thread."""
        self.reader = threading.Thread(
            target=self._read, args=(on_progress,), name="training-progress", daemon=True
        )
        self.reader.start()

    def _read(self, on_progress: Progress) -> None:
        for event in progress_of(self.process):
            if event.get("event") == "error":
                self.error = str(event.get("message", ""))
            on_progress(self.job, event)

    def stop(self) -> None:
        """End it; what it has done is in its folder."""
        self.process.terminate()
        self.process.wait(timeout=30)
        self.reader.join()

    def finished(self) -> Finished:
        """How it ended, once its process has."""
        self.reader.join()
        job, code, result_file = self.job, self.process.returncode, self.folder / RESULT_FILE
        if code == 0 and result_file.exists():
            result = json.loads(result_file.read_bytes())
            log.info("training finished", stream=job.stream, job=job.id, gate=result["gate"])
            return Finished(job, JobState.SUCCEEDED, result, self.folder)
        error = self.error or f"the training process ended with code {code}"
        log.error(
            "training failed",
            stream=job.stream,
            job=job.id,
            error=error,
            said=last_words(self.folder),
        )
        return Finished(job, JobState.FAILED, {"error": error}, self.folder)


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
    start
        Starts the process of a job's folder.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        settings: Settings,
        folder: Path,
        on_progress: Progress = lambda job, event: None,
        *,
        start: Callable[[Path], subprocess.Popen[bytes]] = start_training,
    ) -> None:
        self._store = store
        self._registry = registry
        self._settings = settings
        self._folder = folder
        self._on_progress = on_progress
        self._start_process = start
        self._training: _Training | None = None
        self._unprepared: list[Finished] = []
        """Jobs that failed before they began, and of which nobody knows yet."""
        self._queued = True

    @property
    def is_busy(self) -> bool:
        """Whether a training runs or is about to."""
        return self._training is not None or self._queued or bool(self._unprepared)

    def notify(self) -> None:
        """Jobs or labels were written: one may be able to start."""
        self._queued = True

    def take_over(self, lane: int) -> None:
        """Queue again what the former owner of a lane was training; it is resumed."""
        ours = None if self._training is None else self._training.job.id
        for job in self._store.jobs(state=JobState.RUNNING):
            if job.spec.lane == lane and job.id != ours:
                with self._store.transaction() as tx:
                    tx.requeue_job(job.id)
        self._sweep()
        self._queued = True

    def leave(self, lanes: Collection[int]) -> None:
        """Stop a training for lanes that others have now."""
        if self._training is not None and self._training.job.spec.lane in lanes:
            log.info("training left to the lane's owner", job=self._training.job.id)
            self._stop()
        self._unprepared = [f for f in self._unprepared if f.job.spec.lane not in lanes]

    def start_next(self, lanes: Collection[int]) -> None:
        """Start the oldest queued job of these lanes that has enough labels, if none runs.

        One that cannot be prepared has failed; `poll` says so.
        """
        if self._training is not None or self._unprepared or not self._queued:
            return
        # Until something new is written there is no use in trying again.
        self._queued = False
        for job in self._store.jobs(state=JobState.QUEUED):
            if job.spec.lane in lanes and self._is_ready(job, self._folder / job.id):
                self._start(job, self._folder / job.id)
                return

    def _is_ready(self, job: Job, folder: Path) -> bool:
        if (folder / JOB_FILE).exists():
            return True
        try:
            champion = self._champion(job.stream)
            return prepare(job, folder, self._store, champion, self._settings)
        except StoreError:
            raise
        except Exception as error:
            # Whatever one stream's samples or champion are like: the others go on.
            log.exception("training not prepared", stream=job.stream, job=job.id)
            why = {"error": f"could not be prepared: {error}"}
            self._unprepared.append(Finished(job, JobState.FAILED, why, folder))
            return False

    def _start(self, job: Job, folder: Path) -> None:
        with self._store.transaction() as tx:
            tx.start_job(job.id)
        log.info("training started", stream=job.stream, job=job.id)
        self._training = _Training(job, folder, self._start_process(folder))
        self._training.listen(self._on_progress)

    def poll(self) -> Finished | None:
        """The training that ended since the last call, or None."""
        if self._unprepared:
            self._queued = True
            return self._unprepared.pop(0)
        if self._training is None or self._training.process.poll() is None:
            return None
        training, self._training = self._training, None
        self._queued = True
        return training.finished()

    def publish(self, finished: Finished) -> ModelVersion:
        """Make the candidate a version; the same version when it is called again after a crash."""
        job = finished.job
        return publish_result(
            self._registry,
            JobResult.read(finished.folder),
            stream=job.stream,
            parent=self._champion(job.stream).version,
            key=job.id,
            trained_on={
                "lane": job.spec.lane,
                "change_point": job.spec.change_point,
                "factors": list(job.spec.factors),
                "day": job.spec.day,
                "incident": job.incident_id,
            },
        )

    def _champion(self, stream: str) -> ModelVersion:
        champion = self._store.champion(stream)
        if champion is None:
            raise RuntimeError(f"{stream}: there is no champion to start from")
        return self._registry.get(stream, champion.version)

    def discard(self, job: Job) -> None:
        """Remove the folder of a job whose end is written.

        If the process is killed first, the next one does it when it takes a lane over.
        """
        shutil.rmtree(self._folder / job.id, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove the folders of jobs whose end was written by a process that was killed then."""
        if not self._folder.is_dir():
            return
        there = {path.name for path in self._folder.iterdir() if path.is_dir()}
        for job in self._store.jobs() if there else ():
            if job.id in there and not job.state.is_pending:
                self.discard(job)

    def close(self) -> None:
        """Stop a running training; it is resumed at the next start."""
        self._stop()

    def _stop(self) -> None:
        if self._training is not None:
            self._training.stop()
            self._training = None
