"""What a training is asked to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from models.job import Job as TrainingJob
from models.job import Kind
from models.spec import Family
from service.settings.service import Settings
from service.settings.stream import ModelSettings


def recipe(model: ModelSettings, seed: int) -> dict[str, Any]:
    """The fields of a training job that the settings decide."""
    return {
        "strategy": model.strategy,
        "epochs": model.epochs,
        "learning_rate": model.learning_rate,
        "dense_units": model.dense_units,
        "precision": model.precision,
        "time_box_s": model.time_box_s,
        "saved_model": model.saved_model,
        "seed": seed,
    }


def source_job(
    model: ModelSettings,
    stream: str,
    classes: Sequence[str],
    *,
    seed: int,
) -> TrainingJob:
    """The job that makes a stream's first version."""
    return TrainingJob(
        kind=Kind.SOURCE,
        family=Family(model.family),
        stream=stream,
        classes=tuple(classes),
        weights=str(model.weights),
        **recipe(model, seed) | {"strategy": "auto"},
    )


def model_of(settings: Settings, stream: str) -> ModelSettings:
    """The model settings of a stream.

    Raises
    ------
    ValueError
        If it has none.
    """
    model = next((s.model for s in settings.streams if s.name == stream), None)
    if model is None:
        raise ValueError(f"streams.{stream}.model: the stream has no model section to train by")
    return model
