"""A stream's first version, trained from labelled records of its source domain."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from models.job import Job as TrainingJob
from models.job import JobResult, Split
from models.registry import Registry
from models.spec import Family, ModelVersion
from models.tabular import tabular_row
from service.records.formats.decoder import Decoder, Ignored
from service.records.record import LabelRecord, Observation
from service.repair.process import last_words, progress_of, start_training
from service.repair.publishing import publish_result
from service.repair.recipe import model_of, source_job
from service.repair.serving import expose_champion
from service.settings.service import Settings
from service.sources.files import FileSource
from service.store.store import Store

HOLDOUT_SHARE = 0.2
"""Newest share of the rows, which only measures."""

OnEvent = Callable[[Mapping[str, Any]], None]


def train(folder: Path, on_event: OnEvent) -> JobResult:
    """Run a training process to its end.

    Raises
    ------
    RuntimeError
        If it fails; with what it said.
    """
    process = start_training(folder)
    error = ""
    try:
        for event in progress_of(process):
            on_event(event)
            if event.get("event") == "error":
                error = str(event.get("message"))
        if process.wait() != 0:
            raise RuntimeError(error or last_words(folder))
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
    return JobResult.read(folder)


def train_first(
    settings: Settings,
    store: Store,
    stream: str,
    rows: Any,
    labels: list[str],
    folder: Path,
    on_event: OnEvent,
) -> ModelVersion:
    """Train a stream's first version on rows and make it the champion.

    Parameters
    ----------
    rows
        Images (n, h, w, 3) of uint8 or features (n, d), in time order.
    labels
        Class of each row.
    folder
        The job's folder; a training that was cut short there goes on.
    """
    model = model_of(settings, stream)
    classes = next(s.classes for s in settings.streams if s.name == stream)
    names = list(classes or sorted(set(labels)))
    job: TrainingJob = source_job(model, stream, names, seed=settings.seed)
    if not (folder / "job.json").exists():
        codes = np.array([names.index(label) for label in labels], np.int64)
        cut = round((1 - HOLDOUT_SHARE) * len(codes))
        split = np.where(np.arange(len(codes)) < cut, str(Split.TRAIN), str(Split.HOLDOUT))
        job.write(folder, rows, codes, split)
    registry = Registry(settings.registry.path)
    version = publish_result(
        registry,
        train(folder, on_event),
        stream=stream,
        parent=None,
        key=f"first-{stream}",
        trained_on={"labels": len(labels)},
    )
    with store.transaction() as tx:
        tx.set_champion(stream, version.version, "first version", 0)
    if model.saved_model and settings.registry.serving is not None:
        expose_champion(store, registry, stream, settings.registry.serving)
    shutil.rmtree(folder, ignore_errors=True)
    return version


def labelled_rows(settings: Settings, stream: str, path: Path) -> tuple[Any, list[str]]:
    """Inputs and labels of a file's labelled observations, in their order.

    Raises
    ------
    DecodeError
        At the first record that does not decode: training data is not a stream, and a hole in it
        should be seen.
    ValueError
        If the file holds no labelled observation of the stream.
    """
    model = model_of(settings, stream)
    seen: dict[str, Observation] = {}
    labels: dict[str, str] = {}
    source = FileSource(path)
    decoder = Decoder(max_image_bytes=settings.images.max_bytes)
    while not source.exhausted:
        for record in source.poll():
            body = decoder.decode(record)
            if isinstance(body, Ignored) or body.stream != stream:
                continue
            if isinstance(body, LabelRecord):
                labels[body.id] = body.label
                continue
            seen[body.id] = body
            if body.label is not None:
                labels[body.id] = body.label
    source.close()
    chosen = [(o, labels[i]) for i, o in seen.items() if i in labels]
    if not chosen:
        raise ValueError(f"{path}: there is no labelled observation of stream {stream!r}")
    size = model.input_size if Family(model.family) is Family.VGG16 else None
    rows = [_input(o, size, settings.images.max_pixels) for o, _ in chosen]
    return np.stack(rows), [label for _, label in chosen]


def _input(body: Observation, size: tuple[int, int] | None, max_pixels: int) -> Any:
    from models.images import decode as decode_image  # noqa: PLC0415 - only for images

    if size is None:
        return tabular_row(body.features)
    if body.image is None:
        raise ValueError(f"{body.id}: the observation has no image")
    return decode_image(body.image, size, max_pixels=max_pixels)
