"""The training process: ``python -m models.finetune JOB_DIR``.

Reads a job that `models.job.Job.write` wrote, prints progress as lines of JSON on standard output,
and leaves ``result.json`` and the folder ``candidate``. Killed at any time, the same command goes
on after the last full epoch; done already, it does nothing.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.child import claim_stdout, configure_tensorflow
from models.evaluate import Gate, compare, log_loss
from models.features import bulk_size, predict
from models.job import CANDIDATE, RESULT_FILE, Job, JobError, JobResult, Kind, Rows, Split
from models.spec import Family
from models.tabular import TabularClassifier
from models.training import Progress
from models.transfer import train
from models.vgg16 import Vgg16

Predict = Callable[[npt.NDArray[Any]], npt.NDArray[np.str_]]
"""Rows to the names of their predicted classes."""

REFIT = "refit"


def run(folder: Path, progress: Progress) -> JobResult:
    """Do the job in a folder, or return its result if it was done.

    Raises
    ------
    models.job.JobError
        If the job cannot be done as asked.
    models.vgg16.WeightsUnavailableError, models.training.TrainingError
        As in `models.transfer.train`.
    """
    # A service that was killed starts its job again while the first process may still be at it.
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / RESULT_FILE).is_file():
            return JobResult.read(folder)
        started = time.monotonic()
        job, rows = Job.read(folder)
        candidate = folder.resolve() / CANDIDATE
        shutil.rmtree(candidate, ignore_errors=True)  # of a process killed while it was writing
        candidate.mkdir()
        make = _images if job.family is Family.VGG16 else _tabular
        made, candidate_says, champion_says = make(job, rows, folder, progress)
        metrics, gate = _judge(job, rows, candidate_says, champion_says)
        result = JobResult(
            family=job.family,
            classes=job.classes,
            input_shape=rows.x.shape[1:],
            preprocessing=made.get("preprocessing", {}),
            strategy=made["strategy"],
            reason=made["reason"],
            metrics=made["metrics"] | metrics,
            gate=None if gate is None else gate.to_json(),
            candidate=candidate,
            elapsed_s=round(time.monotonic() - started, 3),
        )
        result.write(folder)
        return result


def _images(
    job: Job, rows: Rows, folder: Path, progress: Progress
) -> tuple[dict[str, Any], Predict, Predict | None]:
    configure_tensorflow(job.threads, training=True)

    def by_name(network: Vgg16, model: Any) -> Predict:
        names, size = np.array(network.classes), bulk_size(network.input_shape)
        return lambda x: names[predict(model, x, size)[0].argmax(axis=1)]

    done = train(job, rows, folder / "checkpoints", progress)
    done.network.save(done.model, folder / CANDIDATE, saved_model=job.saved_model)
    # What is judged is what would be served: the float32 network, read back from its file.
    candidate = by_name(*Vgg16.load(folder / CANDIDATE))
    champion = None if job.champion is None else by_name(*Vgg16.load(Path(job.champion)))
    trained = done.trained
    made = {
        "strategy": done.strategy,
        "reason": done.reason,
        "preprocessing": done.network.preprocessing.to_json(),
        "metrics": {
            "epochs": trained.epochs,
            "stopped": trained.stopped,
            "training_s": round(trained.elapsed_s, 3),
            "validation_accuracy": trained.best_accuracy,
            "precision": done.precision,
            "difference": done.difference,
        },
    }
    return made, candidate, champion


def _tabular(
    job: Job, rows: Rows, folder: Path, progress: Progress
) -> tuple[dict[str, Any], Predict, Predict | None]:
    x, y = rows.of(Split.TRAIN, Split.REPLAY)
    try:
        model = TabularClassifier.fit(x, y, job.classes, job.seed)
    except ValueError as error:
        raise JobError(f"rows: {error}") from error
    model.save(folder / CANDIDATE)
    scores = model.predict_proba(x)
    progress(
        {
            "event": "progress",
            "epoch": 1,
            "epochs": 1,
            "step": 1,
            "steps": 1,
            "loss": round(log_loss(scores, y), 5),
            "accuracy": round(float((scores.argmax(axis=1) == y).mean()), 5),
        }
    )

    def by_name(model: TabularClassifier) -> Predict:
        return lambda x: np.array(model.classes)[model.predict_proba(x).argmax(axis=1)]

    champion = None
    if job.champion is not None:
        champion = by_name(TabularClassifier.load(Path(job.champion)))
    made = {
        "strategy": job.kind.value if job.kind is Kind.SOURCE else REFIT,
        "reason": f"small enough to be trained anew on {len(x)} rows",
        "metrics": {},
    }
    return made, by_name(model), champion


def _judge(
    job: Job, rows: Rows, candidate: Predict, champion: Predict | None
) -> tuple[dict[str, Any], Gate | None]:
    """Accuracies of the candidate and, with a champion, the gate's decision."""
    names = np.array(job.classes)
    (x, y), (anchor_x, anchor_y) = rows.of(Split.HOLDOUT), rows.of(Split.ANCHOR)
    truth, predicted = names[y], candidate(x) if len(x) else names[y]
    metrics: dict[str, Any] = {
        "train_rows": int((rows.split == Split.TRAIN).sum()),
        "replay_rows": int((rows.split == Split.REPLAY).sum()),
        "holdout_rows": len(x),
        "holdout_accuracy": float((predicted == truth).mean()) if len(x) else None,
    }
    if champion is None:
        return metrics, None
    anchor = None
    if len(anchor_x):
        anchor = (names[anchor_y], champion(anchor_x), candidate(anchor_x))
    gate = compare(
        truth,
        champion(x) if len(x) else truth,
        predicted,
        confidence=job.gate.confidence,
        min_gain=job.gate.min_gain,
        anchor=anchor,
        max_anchor_drop=job.gate.max_anchor_drop,
        min_rows=job.gate.min_rows,
    )
    return metrics, gate


def main(arguments: Sequence[str]) -> int:
    """Do the job named on the command line; the exit status."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m models.finetune JOB_DIR\n")
        return 2
    protocol = claim_stdout()

    def emit(event: Mapping[str, Any]) -> None:
        protocol.write(json.dumps(event).encode() + b"\n")
        protocol.flush()

    try:
        result = run(Path(arguments[0]), emit)
    except Exception as error:  # whatever it was, the parent has to hear of it
        traceback.print_exc()
        emit({"event": "error", "message": f"{type(error).__name__}: {error}"})
        return 1
    emit({"event": "done", "promote": result.gate["promote"] if result.gate else None})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
