from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.training import Recipe, TrainingError, _schedule, fit

RECIPE = Recipe(
    epochs=4,
    steps=0,
    learning_rate=0.02,
    batch_size=16,
    validation_share=0.2,
    patience=0,
    time_box_s=None,
    seed=5,
)


def rows(n: int = 160) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, n)
    return (rng.normal(size=(n, 4)) + 1.5 * np.eye(4)[y]).astype(np.float32), y


@pytest.fixture
def small(keras: Any) -> Callable[[], Any]:
    """Makes equal small networks."""

    def make() -> Any:
        inputs = keras.Input((4,))
        x = keras.layers.Dense(
            8, activation="relu", kernel_initializer=keras.initializers.HeNormal(seed=1)
        )(inputs)
        x = keras.layers.Dropout(0.2, seed=2)(x)
        start = keras.initializers.HeNormal(seed=3)
        return keras.Model(
            inputs, keras.layers.Dense(3, activation="softmax", kernel_initializer=start)(x)
        )

    return make


def ignore(event: Mapping[str, Any]) -> None:
    pass


class Killed(BaseException):
    """Stands for SIGKILL: nothing is cleaned up."""


def kill_at(epoch: int, step: int) -> Callable[[Mapping[str, Any]], None]:
    def progress(event: Mapping[str, Any]) -> None:
        if (event["epoch"], event["step"]) == (epoch, step):
            raise Killed

    return progress


class Clock:
    """Advances by one second whenever it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def weights(model: Any) -> list[Any]:
    # without the dropout layer's random state, which counts its own calls
    return [w for layer in model.layers if hasattr(layer, "kernel") for w in layer.get_weights()]


def test_training_learns_and_says_how_it_went(small: Callable[[], Any], tmp_path: Path) -> None:
    x, y = rows()
    model = small()
    events: list[Mapping[str, Any]] = []
    done = fit(model, x, y, replace(RECIPE, epochs=12), tmp_path, events.append, clock=Clock())
    assert done.stopped == "epochs"
    assert done.epochs == 12
    assert done.best_accuracy is not None
    assert done.best_accuracy > 0.7
    last = events[-1]
    assert last["event"] == "progress"
    assert (last["epoch"], last["epochs"], last["step"], last["steps"]) == (12, 12, 8, 8)
    assert last["loss"] < events[0]["loss"]


def test_few_rows_are_passed_more_often_so_that_the_steps_are_enough(
    small: Callable[[], Any], tmp_path: Path
) -> None:
    x, y = rows(80)  # too few to validate on: 5 steps an epoch
    events: list[Mapping[str, Any]] = []
    recipe = replace(RECIPE, epochs=2, steps=21)
    done = fit(small(), x, y, recipe, tmp_path / "few", events.append, clock=Clock())
    assert (done.epochs, done.stopped) == (5, "epochs")
    assert (events[-1]["epochs"], events[-1]["steps"]) == (5, 5)
    enough = fit(small(), x, y, replace(recipe, steps=8), tmp_path / "enough", ignore)
    assert enough.epochs == 2


@pytest.mark.parametrize("n_steps", [1, 7, 90, 1000])
def test_the_learning_rate_rises_for_a_tenth_of_the_steps_and_falls_to_nothing(
    n_steps: int,
) -> None:
    rates = np.array([_schedule(n, n_steps) for n in range(n_steps)])
    top = int(rates.argmax())
    assert top <= n_steps / 10
    assert (np.diff(rates[: top + 1]) > 0).all()
    assert (np.diff(rates[top:]) < 0).all()
    assert 0.9 < rates[top] <= 1
    assert rates[-1] > 0


def test_a_seed_gives_one_result(small: Callable[[], Any], tmp_path: Path) -> None:
    x, y = rows()
    made = []
    for run in "ab":
        model = small()
        fit(model, x, y, RECIPE, tmp_path / run, ignore)
        made.append(weights(model))
    for first, second in zip(*made, strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_killed_training_goes_on_with_the_next_epoch(
    small: Callable[[], Any], tmp_path: Path
) -> None:
    x, y = rows()
    with pytest.raises(Killed):
        fit(small(), x, y, RECIPE, tmp_path, kill_at(3, 8), clock=Clock())
    events: list[Mapping[str, Any]] = []
    done = fit(small(), x, y, RECIPE, tmp_path, events.append, clock=Clock())
    assert (events[0]["epoch"], events[0]["step"]) == (3, 1)
    assert done.epochs == 4

    untrained = small()
    again = fit(untrained, x, y, RECIPE, tmp_path, ignore)
    assert again == done
    kept = {p.name for p in tmp_path.glob("epoch-*")}
    assert kept == {f"epoch-{n}.weights.h5" for n in {done.best, done.epochs}}


def test_a_kill_while_a_checkpoint_is_written_loses_only_that_epoch(
    small: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = rows()

    def half_written(path: Path, state: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("models.training.write_json", half_written)
        with pytest.raises(Killed):
            fit(small(), x, y, RECIPE, tmp_path, ignore)
    events: list[Mapping[str, Any]] = []
    fit(small(), x, y, RECIPE, tmp_path, events.append)
    assert events[0]["epoch"] == 1


def test_the_time_box_ends_training_after_the_step_and_counts_over_restarts(
    small: Callable[[], Any], tmp_path: Path
) -> None:
    x, y = rows()
    boxed = replace(RECIPE, epochs=50, time_box_s=60)
    events: list[Mapping[str, Any]] = []
    done = fit(small(), x, y, boxed, tmp_path / "one", events.append, clock=Clock())
    assert done.stopped == "time_box"
    assert 60 <= done.elapsed_s <= 66
    assert done.epochs < 50
    assert done.best_loss is not None

    with pytest.raises(Killed):
        fit(small(), x, y, boxed, tmp_path / "two", kill_at(3, 8), clock=Clock())
    again = fit(small(), x, y, boxed, tmp_path / "two", ignore, clock=Clock())
    assert again.stopped == "time_box"
    assert again.elapsed_s <= 66
    assert again.epochs <= done.epochs + 1


def test_the_best_epoch_counts_and_no_better_one_for_long_ends_training(
    small: Callable[[], Any], tmp_path: Path
) -> None:
    x, y = rows(60)
    y = np.random.default_rng(3).integers(0, 3, 60)  # nothing to learn: it only gets worse
    model = small()
    recipe = replace(RECIPE, epochs=60, patience=3, learning_rate=0.05, validation_share=0.4)
    done = fit(model, x, y, recipe, tmp_path, ignore)
    assert done.stopped == "no_improvement"
    assert done.epochs == done.best + 3
    best = small()
    best.load_weights(tmp_path / f"epoch-{done.best}.weights.h5")
    for ours, theirs in zip(weights(model), weights(best), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_few_rows_train_in_one_smaller_batch_without_validation(
    small: Callable[[], Any], tmp_path: Path
) -> None:
    x, y = rows(11)
    done = fit(small(), x, y, RECIPE, tmp_path, ignore)
    assert (done.epochs, done.best, done.best_loss) == (4, 4, None)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_end_the_job_and_leave_no_checkpoint(
    small: Callable[[], Any], tmp_path: Path, value: float
) -> None:
    x, y = rows()
    x[:, 3] = value
    with pytest.raises(TrainingError, match=r"epoch 1.* learning rate 0\.02 is too high"):
        fit(small(), x, y, RECIPE, tmp_path, ignore)
    assert list(tmp_path.iterdir()) == []
