"""The training loop: resumable after every epoch, time-boxed, repeatable from its seed."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.evaluate import log_loss
from models.features import predict
from models.job import write_json

Progress = Callable[[Mapping[str, Any]], None]
"""Takes one event: a mapping with ``event`` and its fields."""

_STATE = "state.json"
_MIN_VALIDATION_ROWS = 20
"""Fewer rows than this choose an epoch by chance."""
_WARM_UP = 0.1
"""Share of the steps in which the learning rate rises: Adam's first steps are all of full length,
whatever the gradient, and at a rate that is good later they kill rectifiers."""


class TrainingError(RuntimeError):
    """Training ended in numbers that are no model."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained; the names are those of `models.job.Job`.

    Attributes
    ----------
    epochs
        Passes over the training rows, at least.
    steps
        Steps, at least: where the rows are few there are more passes. What a network learns goes
        by its steps, and so does the time that they take.
    """

    epochs: int
    steps: int
    learning_rate: float
    batch_size: int
    validation_share: float
    patience: int
    time_box_s: float | None
    seed: int


@dataclass(frozen=True, slots=True)
class Trained:
    """Where training stands; also what a restart continues from.

    Attributes
    ----------
    epochs
        Epochs begun and evaluated.
    best
        The epoch whose weights count, from 1: the one with the smallest validation loss, or the
        last one without validation rows.
    best_loss, best_accuracy
        On the validation rows at that epoch; None without them.
    elapsed_s
        Training time over all restarts, in seconds.
    stopped
        ``epochs``, ``time_box`` or ``no_improvement``; empty while training.
    """

    epochs: int = 0
    best: int = 0
    best_loss: float | None = None
    best_accuracy: float | None = None
    elapsed_s: float = 0.0
    stopped: str = ""


def fit(
    model: Any,
    x: npt.NDArray[Any],
    y: npt.NDArray[np.int64],
    recipe: Recipe,
    folder: Path,
    progress: Progress,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Trained:
    """Train the trainable layers of a classifier and leave it with its best weights.

    Adam [1]_ with a learning rate that rises linearly over the first tenth of the steps and follows
    half a cosine [2]_; a batch is always full, so one graph serves all.

    Parameters
    ----------
    model
        Keras classifier with softmax outputs; `x`, shape (n, ...), to (n, K).
    y
        Class indices, shape (n,).
    folder
        For checkpoints. After a kill the same call goes on with the next epoch; the optimiser's
        moments start anew.
    progress
        Gets an event for about every step.
    clock
        Seconds that never run backwards.

    Raises
    ------
    TrainingError
        If the loss or a weight stops being finite.

    References
    ----------
    .. [1] D. P. Kingma, J. Ba (2015). Adam: a method for stochastic optimization. ICLR.
    .. [2] I. Loshchilov, F. Hutter (2017). SGDR: stochastic gradient descent with warm restarts.
       ICLR, equation 5.
    """
    import keras  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    state = _resume(folder)
    if state.epochs:
        model.load_weights(_weights(folder, state.epochs))
    started = clock() - state.elapsed_s

    order = np.random.default_rng(recipe.seed).permutation(len(x))
    n_validation = int(len(x) * recipe.validation_share)
    if n_validation < _MIN_VALIDATION_ROWS:
        n_validation = 0
    validation, train = order[:n_validation], order[n_validation:]
    batch = min(recipe.batch_size, len(train))
    steps = len(train) // batch
    epochs = max(recipe.epochs, math.ceil(recipe.steps / steps))

    optimizer = keras.optimizers.Adam(recipe.learning_rate)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    report = _Throttled(progress, clock)
    while not state.stopped:
        epoch = state.epochs + 1
        order = np.random.default_rng([recipe.seed, epoch]).permutation(train)
        for step in range(1, steps + 1):
            n_done, n_steps = (epoch - 1) * steps + step - 1, epochs * steps
            optimizer.learning_rate.assign(recipe.learning_rate * _schedule(n_done, n_steps))
            rows = np.sort(order[(step - 1) * batch : step * batch])
            now = model.train_on_batch(x[rows].astype(np.float32), y[rows], return_dict=True)
            loss, accuracy = float(now["loss"]), float(now["accuracy"])
            if not math.isfinite(loss):
                raise _broken(f"loss is {loss} in epoch {epoch}, step {step}", recipe)
            late = recipe.time_box_s is not None and clock() - started >= recipe.time_box_s
            report(
                {
                    "event": "progress",
                    "epoch": epoch,
                    "epochs": epochs,
                    "step": step,
                    "steps": steps,
                    "loss": round(loss, 5),
                    "accuracy": round(accuracy, 5),
                },
                force=late or step == steps,
            )
            if late:
                break
        if not all(np.isfinite(w).all() for w in model.get_weights()):
            # The loss does not always show it: a rectifier turns NaN into 0.
            raise _broken(f"weights are not finite after epoch {epoch}", recipe)
        state = replace(state, epochs=epoch, elapsed_s=clock() - started)
        state = _judged(state, model, x[validation], y[validation], batch)
        if late:
            state = replace(state, stopped="time_box")
        elif epoch == epochs:
            state = replace(state, stopped="epochs")
        elif recipe.patience and epoch - state.best >= recipe.patience:
            state = replace(state, stopped="no_improvement")
        _checkpoint(folder, model, state)
    if state.best != state.epochs:
        model.load_weights(_weights(folder, state.best))
    return state


def _schedule(n_done: int, n_steps: int) -> float:
    """Share of the learning rate for the step after `n_done` of `n_steps`."""
    rise = min(1.0, (n_done + 1) / (_WARM_UP * n_steps))
    return rise * (1 + math.cos(math.pi * n_done / n_steps)) / 2


def _broken(what: str, recipe: Recipe) -> TrainingError:
    return TrainingError(
        f"{what}: the learning rate {recipe.learning_rate:g} is too high or the rows are broken"
    )


def _judged(
    state: Trained, model: Any, x: npt.NDArray[Any], y: npt.NDArray[np.int64], batch: int
) -> Trained:
    if not len(x):
        return replace(state, best=state.epochs)
    scores = predict(model, x, batch)[0]
    loss = log_loss(scores, y)
    if state.best_loss is not None and loss >= state.best_loss:
        return state
    accuracy = float((scores.argmax(axis=1) == y).mean())
    return replace(state, best=state.epochs, best_loss=loss, best_accuracy=accuracy)


def _weights(folder: Path, epoch: int) -> Path:
    return folder / f"epoch-{epoch}.weights.h5"


def _resume(folder: Path) -> Trained:
    try:
        return Trained(**json.loads((folder / _STATE).read_bytes()))
    except FileNotFoundError:
        return Trained()


def _checkpoint(folder: Path, model: Any, state: Trained) -> None:
    """Weights first, then the state that names them, then the weights that nothing names."""
    partial = folder / "partial.weights.h5"
    model.save_weights(partial)
    partial.replace(_weights(folder, state.epochs))
    write_json(folder / _STATE, asdict(state))
    keep = {_weights(folder, state.epochs), _weights(folder, state.best)}
    for path in set(folder.glob("epoch-*.weights.h5")) - keep:
        path.unlink()


class _Throttled:
    """At most two events a second, but those that are forced."""

    def __init__(self, progress: Progress, clock: Callable[[], float]) -> None:
        self._progress, self._clock = progress, clock
        self._last = -math.inf

    def __call__(self, event: Mapping[str, Any], *, force: bool) -> None:
        now = self._clock()
        if force or now - self._last >= 0.5:
            self._last = now
            self._progress(event)
