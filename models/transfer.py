"""From a job to a trained VGG-16: where it starts, what is frozen, how it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.arithmetic import choose_precision
from models.features import bulk_size, predict, scorer
from models.job import AUTO, SOURCE, Job, JobError, Kind, Rows, Split
from models.spec import CAFFE, Preprocessing
from models.strategy import MIN_DOMAIN_ROWS, Choice, Strategy, choose, domain_difference
from models.training import Progress, Recipe, Trained, fit
from models.vgg16 import Vgg16, copy_weights, load_imagenet

IMAGENET_HEAD = "imagenet_head"

FIRST_TRAINED: Mapping[str, str] = {
    SOURCE: "block1_conv1",
    IMAGENET_HEAD: "fc1",
    Strategy.FIXED_FEATURES: "predictions",
    Strategy.LAST_BLOCK: "block5_conv1",
    Strategy.HIGHER_BLOCKS: "block4_conv1",
    Strategy.ALL_LAYERS: "block1_conv1",
}
"""The first layer that a strategy trains; the layers before it stay fixed."""

RECIPES: Mapping[str, tuple[int, int, float]] = {
    SOURCE: (3, 135, 3e-4),
    IMAGENET_HEAD: (10, 0, 1e-4),
    Strategy.FIXED_FEATURES: (30, 0, 1e-3),
    Strategy.LAST_BLOCK: (10, 0, 3e-4),
    Strategy.HIGHER_BLOCKS: (6, 0, 2e-4),
    Strategy.ALL_LAYERS: (3, 90, 2e-4),
}
"""Fewest epochs, fewest steps and the learning rate where the job names none; measured on digits at
32 x 32 pixels."""

_MAX_CACHE_BYTES = 2**30
_MAX_DOMAIN_ROWS = 400
"""Of each domain, for their difference: it is compared with one limit, and more rows cost a run of
the network each and move it by some hundredths."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """A trained network and how it came about.

    Attributes
    ----------
    network, model
        The architecture and the trained Keras model.
    strategy, reason
        What was trained, and in one line why.
    trained
        How training went.
    precision
        Keras dtype policy that it was trained in.
    difference
        Of the domains, where it was measured or given.
    """

    network: Vgg16
    model: Any
    strategy: str
    reason: str
    trained: Trained
    precision: str
    difference: float | None


def train(job: Job, rows: Rows, folder: Path, progress: Progress) -> Transfer:
    """Do a job for images; its checkpoints go under `folder`.

    Raises
    ------
    JobError
        If the rows do not fit the champion.
    models.vgg16.WeightsUnavailableError
        If pre-trained weights are asked for and not there.
    models.training.TrainingError
        If the loss or a weight stops being finite.
    """
    precision = choose_precision(job.precision)
    x, y = rows.of(Split.TRAIN, Split.REPLAY)
    difference = job.difference
    if job.kind is Kind.SOURCE:
        network, model, choice = _start_from_source(job, x, precision)
    else:
        network, model, choice, difference = _start_from_champion(job, rows, precision)
    strategy, reason = choice
    epochs, steps, learning_rate = RECIPES[strategy]
    recipe = Recipe(
        epochs=job.epochs or epochs,
        steps=0 if job.epochs else steps,
        learning_rate=job.learning_rate or learning_rate,
        batch_size=job.batch_size,
        validation_share=job.validation_share,
        patience=job.patience,
        time_box_s=job.time_box_s,
        seed=job.seed,
    )
    upper, codes = _frozen_part_done(model, FIRST_TRAINED[strategy], x)
    trained = fit(upper, codes, y, recipe, folder, progress)
    return Transfer(network, model, strategy, reason, trained, precision, difference)


def _start_from_source(
    job: Job, x: npt.NDArray[np.uint8], precision: str
) -> tuple[Vgg16, Any, tuple[str, str]]:
    scratch = job.weights == SOURCE
    height, width, channels = x.shape[1:]
    network = Vgg16(
        job.classes,
        (height, width, channels),
        Preprocessing.of_images(x) if scratch else CAFFE,
        job.dense_units,
        job.dropout,
    )
    model = network.build(seed=job.seed, precision=precision)
    if scratch:
        return network, model, (SOURCE, f"the first model, from {len(x)} images of the source")
    load_imagenet(model, job.weights)
    return network, model, (IMAGENET_HEAD, f"a new head on weights {job.weights}")


def _start_from_champion(
    job: Job, rows: Rows, precision: str
) -> tuple[Vgg16, Any, tuple[str, str], float | None]:
    if job.champion is None:
        raise JobError("champion: a fine-tuning job needs the folder of the version to tune")
    old, champion = Vgg16.load(Path(job.champion))
    if rows.x.shape[1:] != old.input_shape:
        raise JobError(f"images: the champion takes {old.input_shape}, got {rows.x.shape[1:]}")
    lost = set(old.classes) - set(job.classes)
    if lost:
        raise JobError(f"classes: the champion's {sorted(lost)} are missing")
    difference = job.difference
    if job.strategy != AUTO:
        strategy, reason = job.strategy, "given by the job"
    else:
        note = ""
        if difference is None:
            difference = _measured_difference(champion, old, rows, job.seed)
        if difference is None:
            # A repair is asked for because something moved: the cautious reading.
            difference, note = 1.0, "; too few old rows to measure the difference, taken as 1"
        n_labels = int((rows.split == Split.TRAIN).sum())
        choice: Choice = choose(
            n_labels,
            difference,
            medium_from=job.medium_from,
            different_from=job.different_from,
        )
        strategy, reason = choice.strategy.value, choice.reason + note
    network = old.with_classes(job.classes)
    model = network.build(seed=job.seed, precision=precision)
    columns = (list(range(len(old.classes))), [job.classes.index(c) for c in old.classes])
    copy_weights(champion, model, columns=columns)
    return network, model, (strategy, reason), difference


def _measured_difference(champion: Any, network: Vgg16, rows: Rows, seed: int) -> float | None:
    before = _spread(rows.of(Split.ANCHOR, Split.REPLAY)[0])
    after = _spread(rows.of(Split.TRAIN, Split.HOLDOUT)[0])
    if min(len(before), len(after)) < MIN_DOMAIN_ROWS:
        return None
    codes = scorer(champion)
    size = bulk_size(network.input_shape)
    return domain_difference(
        predict(codes, before, size)[1], predict(codes, after, size)[1], seed=seed
    )


def _spread(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """At most `_MAX_DOMAIN_ROWS` images, evenly over time."""
    n = min(len(images), _MAX_DOMAIN_ROWS)
    return images[np.arange(n) * len(images) // max(n, 1)]


def _frozen_part_done(
    model: Any, first_trained: str, x: npt.NDArray[np.uint8]
) -> tuple[Any, npt.NDArray[Any]]:
    """Freeze the lower layers and run the images through them once.

    The frozen layers give the same codes in every epoch, so they are computed once and only the
    layers above are run from then on.

    Returns
    -------
    The part of the network to train, sharing its layers with `model`, and its inputs.
    """
    import keras  # noqa: PLC0415

    names = [layer.name for layer in model.layers]
    frozen = names.index(first_trained)
    for layer in model.layers[:frozen]:
        layer.trainable = False
    if first_trained == FIRST_TRAINED[SOURCE]:
        return model, x
    boundary = model.get_layer(first_trained).input
    if len(x) * 4 * int(np.prod(boundary.shape[1:])) > _MAX_CACHE_BYTES:
        return model, x
    trunk = keras.Model(model.inputs, boundary)
    (codes,) = predict(trunk, x, bulk_size(model.input_shape[1:]))
    return keras.Model(boundary, model.outputs), codes
