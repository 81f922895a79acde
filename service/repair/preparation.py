"""A job's folder, made from the samples that the store has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detectors.base import Factor, Problem
from models.evaluate import MIN_ROWS
from models.job import GateSettings, Kind, Split
from models.job import Job as TrainingJob
from models.spec import ModelVersion
from service.domain.job import Job
from service.domain.sample import StoredSample
from service.repair.inputs import rows_of
from service.repair.recipe import model_of, recipe
from service.settings.service import Settings
from service.store.reading import Reading

HOLDOUT_SHARE = 0.3
"""Newest share of the recent labelled rows, which decides about promotion and trains nothing."""
ANCHOR_ROWS = 400
"""Labelled rows from before the change, newest first: half are trained on again, half judge."""


def prepare(
    job: Job, folder: Path, store: Reading, champion: ModelVersion, settings: Settings
) -> bool:
    """Write the folder of a job; False while there are too few labels.

    Parameters
    ----------
    job
        What was asked for.
    folder
        Created; complete when `job.json` is there.
    store
        Has the samples.
    champion
        What to start from and to compare with.
    settings
        The whole configuration.

    Raises
    ------
    StoreError
        If the store does not answer.
    ValueError
        If the stream has no model settings, or a sample cannot be read.
    """
    model = model_of(settings, job.stream)
    spec = job.spec
    recent = store.samples(job.stream, spec.change_point, labelled_only=True, lane=spec.lane)
    if len(recent) < model.min_labels:
        return False
    before = store.samples(job.stream, 0, spec.change_point, labelled_only=True, lane=spec.lane)
    concept = str(Factor.CONCEPT) in spec.factors
    # Where the rule from features to labels has changed, old rows would teach the old rule. In
    # Y->X problems an old row still shows what its class can look like.
    new_rule = concept and settings.stream(job.stream).problem is Problem.X_TO_Y
    kept = divided(before, recent, replays=not new_rule)
    labels = [sample.label or "" for sample, _ in kept]
    classes = tuple(dict.fromkeys([*champion.classes, *sorted(set(labels))]))
    TrainingJob(
        kind=Kind.FINE_TUNE,
        family=champion.family,
        stream=job.stream,
        classes=classes,
        champion=str(champion.path),
        gate=GateSettings(max_anchor_drop=None if concept or not before else model.max_anchor_drop),
        **recipe(model, settings.seed),
    ).write(
        folder,
        rows_of([sample for sample, _ in kept], champion, settings.images.max_pixels),
        np.array([classes.index(label) for label in labels], np.int64),
        np.array([str(split) for _, split in kept]),
    )
    return True


def divided(
    before: Sequence[StoredSample], recent: Sequence[StoredSample], *, replays: bool
) -> list[tuple[StoredSample, Split]]:
    """Labelled samples with what each is for, in time order.

    Parameters
    ----------
    before
        Those from before the change; the newest `ANCHOR_ROWS` count.
    recent
        Those from after it; the newest `HOLDOUT_SHARE` judges.
    replays
        Whether every second old one is trained on again.
    """
    anchors = before[-ANCHOR_ROWS:]
    splits = [Split.REPLAY if n % 2 else Split.ANCHOR for n in range(len(anchors))]
    n_holdout = max(round(HOLDOUT_SHARE * len(recent)), MIN_ROWS)
    splits += [Split.TRAIN] * (len(recent) - n_holdout) + [Split.HOLDOUT] * n_holdout
    return [
        (sample, split)
        for sample, split in zip([*anchors, *recent], splits, strict=True)
        if replays or split is not Split.REPLAY
    ]
