"""A training job as a folder: what is asked, the rows, and the result."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.evaluate import MIN_ROWS
from models.spec import Family, check_stream
from models.strategy import Strategy

JOB_FILE = "job.json"
DATA_FILE = "data.npz"
RESULT_FILE = "result.json"
CANDIDATE = "candidate"

AUTO = "auto"
IMAGENET = "imagenet"
SOURCE = "source"
"""As `Job.weights`: train from scratch; as a strategy, the first model of a stream."""


class JobError(ValueError):
    """A job that cannot be done as asked; says which field, and what it got."""


class Kind(StrEnum):
    """What a job makes."""

    SOURCE = "source"
    """A stream's first model, from its source data."""
    FINE_TUNE = "fine_tune"
    """A candidate that starts from the champion."""


class Split(StrEnum):
    """What a row is for."""

    TRAIN = "train"
    """Recent labelled rows, in time order."""
    REPLAY = "replay"
    """Rows from before the change that are trained on too, against forgetting."""
    HOLDOUT = "holdout"
    """Recent rows, later than the training rows, that decide about promotion."""
    ANCHOR = "anchor"
    """Rows from before the change that the candidate must not get much worse on."""


@dataclass(frozen=True, slots=True)
class GateSettings:
    """How `models.evaluate.compare` decides; the same names."""

    confidence: float = 0.95
    min_gain: float = 0.0
    max_anchor_drop: float | None = None
    min_rows: int = MIN_ROWS


@dataclass(frozen=True, slots=True)
class Job:
    """One training job.

    Attributes
    ----------
    kind, family, stream
        What is made, how, for whom.
    classes
        Names of all classes; a fine-tuned network grows outputs for new ones.
    champion
        Folder of the version to start from and to compare with; needed to fine-tune. A source job
        with one is only compared with it.
    weights
        For source jobs of images: ``source`` (from scratch), ``imagenet``, or a weights file.
    strategy
        ``auto`` or a `Strategy`; for fine-tuning images.
    difference
        How different the new domain is, 0 to 1, for ``auto``; None measures it on the network's
        codes of the anchor and replay rows against those of the recent rows, or takes the domains
        for different where there are too few old rows to measure.
    medium_from, different_from
        Limits of `models.strategy.choose`.
    epochs, learning_rate
        None takes the strategy's own (`models.transfer.RECIPES`); it makes more epochs where the
        rows are few.
    batch_size
        Rows of a training step.
    dense_units, dropout
        Of a network that is built new; see `models.vgg16.Vgg16`. From scratch on some thousand
        images more dropout takes more epochs and gains nothing: 0.1 is after three where 0.3 is
        after five, and the paper's 0.5 after about ten.
    precision
        ``float32``, ``mixed_bfloat16``, or ``auto``: the latter where the processor has it.
    validation_share, patience
        Share of the training rows that watches for the best epoch, and how many epochs without a
        better one end training. 0 switches it off.
    time_box_s
        Training stops after the step in which this passes, in seconds over all restarts; what has
        been learned until then is evaluated.
    saved_model
        Whether the candidate also gets a SavedModel.
    seed
        Of everything random.
    threads
        Processor threads.
    gate
        How the candidate is judged.
    """

    kind: Kind
    family: Family
    stream: str
    classes: tuple[str, ...]
    champion: str | None = None
    weights: str = SOURCE
    strategy: str = AUTO
    difference: float | None = None
    medium_from: int = 400
    different_from: float = 0.5
    epochs: int | None = None
    learning_rate: float | None = None
    batch_size: int = 32
    dense_units: int = 4096
    dropout: float = 0.1
    precision: str = AUTO
    validation_share: float = 0.1
    patience: int = 3
    time_box_s: float | None = None
    saved_model: bool = False
    seed: int = 0
    threads: int = 2
    gate: GateSettings = field(default_factory=GateSettings)

    def __post_init__(self) -> None:
        check_stream(self.stream)
        if self.kind is Kind.FINE_TUNE and self.champion is None:
            raise JobError("champion: a fine-tuning job needs the folder of the version to tune")
        if self.strategy != AUTO and self.strategy not in set(Strategy):
            raise JobError(
                f"strategy: expected {AUTO} or one of {[s.value for s in Strategy]}, "
                f"got {self.strategy!r}"
            )
        if self.precision not in (AUTO, "float32", "mixed_bfloat16"):
            raise JobError(
                f"precision: expected auto, float32 or mixed_bfloat16, got {self.precision!r}"
            )
        for name in ("epochs", "learning_rate", "time_box_s"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise JobError(f"{name}: expected a positive number, got {value}")
        for name in ("batch_size", "threads"):
            if getattr(self, name) < 1:
                raise JobError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if not 0 <= self.validation_share < 0.5:
            raise JobError(f"validation_share: expected [0, 0.5), got {self.validation_share}")

    def write(
        self,
        folder: Path,
        rows: npt.NDArray[Any],
        labels: npt.NDArray[np.integer[Any]],
        split: npt.NDArray[np.str_],
    ) -> None:
        """Write the job and its rows into a folder, the job last.

        Parameters
        ----------
        folder
            Created when missing.
        rows
            Images of shape (n, h, w, 3), uint8, or features of shape (n, d); in time order.
        labels
            Indices into `classes`, shape (n,).
        split
            `Split` of each row, shape (n,).
        """
        Rows(rows, labels, split).check(self)
        folder.mkdir(parents=True, exist_ok=True)
        name = "images" if self.family is Family.VGG16 else "features"
        arrays: dict[str, Any] = {name: rows, "labels": labels, "split": np.asarray(split, "U")}
        partial = folder / f"partial-{DATA_FILE}"
        np.savez(partial, **arrays)
        partial.replace(folder / DATA_FILE)
        write_json(folder / JOB_FILE, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> tuple[Job, Rows]:
        """The job and its rows from a folder.

        Raises
        ------
        JobError
            If a file is missing or a field is unknown, missing or wrong.
        """
        try:
            data = json.loads((folder / JOB_FILE).read_bytes())
            job = cls._from_json(data)
            with np.load(folder / DATA_FILE, allow_pickle=False) as arrays:
                name = "images" if job.family is Family.VGG16 else "features"
                rows = Rows(arrays[name], arrays["labels"], arrays["split"])
        except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise JobError(f"job {folder}: {error}") from error
        rows.check(job)
        return job, rows

    @classmethod
    def _from_json(cls, data: Mapping[str, Any]) -> Job:
        unknown = set(data) - {f.name for f in fields(cls)}
        if unknown:
            raise JobError(f"job: unknown fields {sorted(unknown)}")
        return cls(
            **{
                **data,
                "kind": Kind(data["kind"]),
                "family": Family(data["family"]),
                "classes": tuple(data["classes"]),
                "gate": GateSettings(**data.get("gate", {})),
            }
        )


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a job.

    Attributes
    ----------
    x
        Images (n, h, w, 3) of uint8 or features (n, d).
    labels
        Indices into the job's classes, shape (n,).
    split
        `Split` of each row, shape (n,).
    """

    x: npt.NDArray[Any]
    labels: npt.NDArray[np.integer[Any]]
    split: npt.NDArray[np.str_]

    def of(self, *splits: Split) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """Rows and labels of some splits, in time order."""
        chosen = np.isin(self.split, [s.value for s in splits])
        return self.x[chosen], self.labels[chosen].astype(np.int64)

    def check(self, job: Job) -> None:
        """Raise `JobError` where the rows do not fit the job."""
        n = len(self.x)
        if self.labels.shape != (n,) or self.split.shape != (n,):
            raise JobError(
                f"rows: expected {n} labels and splits, got {self.labels.shape} and "
                f"{self.split.shape}"
            )
        if job.family is Family.VGG16 and (self.x.ndim != 4 or self.x.dtype != np.uint8):
            raise JobError(
                f"images: expected uint8 of shape (n, h, w, 3), got {self.x.dtype} {self.x.shape}"
            )
        wrong = set(np.unique(self.split).tolist()) - set(Split)
        if wrong:
            raise JobError(f"split: expected {[s.value for s in Split]}, got {sorted(wrong)}")
        if n and not 0 <= self.labels.min() <= self.labels.max() < len(job.classes):
            raise JobError(
                f"labels: expected indices of {len(job.classes)} classes, got "
                f"{self.labels.min()} to {self.labels.max()}"
            )
        if not (self.split == Split.TRAIN).any():
            raise JobError("split: there are no rows to train on")
        if job.gate.max_anchor_drop is not None and not (self.split == Split.ANCHOR).any():
            raise JobError(
                f"gate.max_anchor_drop: {job.gate.max_anchor_drop} asks for anchor rows, got none"
            )


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a finished job leaves in ``result.json``.

    Attributes
    ----------
    family, classes, input_shape, preprocessing, strategy, metrics
        As `models.registry.Registry.publish` takes them.
    reason
        Why this strategy, in one line.
    gate
        `models.evaluate.Gate.to_json`; None without a champion to compare with.
    candidate
        Folder of the candidate's files, to be published.
    elapsed_s
        Time of the process that finished, in seconds.
    """

    family: Family
    classes: tuple[str, ...]
    input_shape: tuple[int, ...]
    preprocessing: Mapping[str, Any]
    strategy: str
    reason: str
    metrics: Mapping[str, Any]
    gate: Mapping[str, Any] | None
    candidate: Path
    elapsed_s: float

    def write(self, folder: Path) -> None:
        """Write the result, atomically."""
        write_json(folder / RESULT_FILE, asdict(self) | {"candidate": str(self.candidate)})

    @classmethod
    def read(cls, folder: Path) -> JobResult:
        """The result of a finished job.

        Raises
        ------
        FileNotFoundError
            If the job has not finished.
        """
        data = json.loads((folder / RESULT_FILE).read_bytes())
        return cls(
            **{
                **data,
                "family": Family(data["family"]),
                "classes": tuple(data["classes"]),
                "input_shape": tuple(data["input_shape"]),
                "candidate": Path(data["candidate"]),
            }
        )


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Replace a file by JSON in one step: a reader sees the old or the new content."""
    partial = path.with_name(f"partial-{path.name}")
    with partial.open("w", encoding="utf-8") as stream:
        json.dump(data, stream, indent=2, allow_nan=False)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
