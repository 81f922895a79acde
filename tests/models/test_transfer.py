from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.features import predict
from models.job import Job, JobError, Kind, Rows, Split
from models.spec import CAFFE, Family
from models.strategy import Strategy
from models.training import Trained
from models.transfer import (
    FIRST_TRAINED,
    RECIPES,
    _frozen_part_done,
    _spread,
    train,
)
from models.vgg16 import Vgg16, weighted_layers
from tests.models.conftest import CLASSES, SHAPE, halves


def ignore(event: Mapping[str, Any]) -> None:
    pass


def fine_tune(version_dir: Path, **changes: Any) -> Job:
    fields: dict[str, Any] = {
        "kind": Kind.FINE_TUNE,
        "family": Family.VGG16,
        "stream": "halves",
        "classes": CLASSES,
        "champion": str(version_dir),
        "epochs": 1,
        "batch_size": 8,
        "precision": "float32",
    }
    return Job(**fields | changes)


def recent(n: int, **others: int) -> Rows:
    """Training rows, and other splits by name."""
    counts = {"train": n} | others
    images, labels = halves(sum(counts.values()), 7)
    return Rows(images, labels, np.repeat(list(counts), list(counts.values())))


def test_every_strategy_has_a_recipe_and_a_first_layer(model: Any) -> None:
    assert set(RECIPES) == set(FIRST_TRAINED)
    assert set(Strategy) <= set(RECIPES)
    layers = [layer.name for layer in model.layers]
    order = [layers.index(FIRST_TRAINED[s]) for s in Strategy]
    assert order == sorted(order, reverse=True)


@pytest.mark.parametrize("strategy", list(FIRST_TRAINED))
def test_layers_below_the_first_trained_one_are_fixed_and_run_once(
    network: Vgg16, strategy: str
) -> None:
    model, images = network.build(seed=3), halves(4, 8)[0]
    upper, codes = _frozen_part_done(model, FIRST_TRAINED[strategy], images)
    names = [layer.name for layer in weighted_layers(model)]
    first = names.index(FIRST_TRAINED[strategy])
    assert [layer.trainable for layer in weighted_layers(model)] == [
        n >= first for n in range(len(names))
    ]
    assert [layer.name for layer in weighted_layers(upper)] == names[first:]
    np.testing.assert_array_equal(predict(upper, codes, 4)[0], predict(model, images, 4)[0])


def test_what_is_trained_moves_and_what_is_fixed_does_not(
    model: Any, version_dir: Path, tmp_path: Path
) -> None:
    done = train(fine_tune(version_dir, strategy="last_block"), recent(16), tmp_path, ignore)
    for layer in weighted_layers(model):
        after = done.model.get_layer(layer.name).get_weights()[0]
        moved = not np.array_equal(layer.get_weights()[0], after)
        assert moved == (layer.name[:6] not in {"block1", "block2", "block3", "block4"}), layer
    assert (done.strategy, done.reason) == ("last_block", "given by the job")


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Replaces training; collects what it would have been given."""
    asked: list[Any] = []

    def fit(*arguments: Any) -> Trained:
        asked.append(arguments)
        return Trained()

    monkeypatch.setattr("models.transfer.fit", fit)
    return asked


def test_a_given_difference_picks_the_strategy_and_its_recipe(
    version_dir: Path, tmp_path: Path, no_training: list[Any]
) -> None:
    job = fine_tune(version_dir, difference=0.1, medium_from=17, epochs=None)
    done = train(job, recent(16), tmp_path, ignore)
    assert done.strategy == Strategy.FIXED_FEATURES
    assert done.reason.startswith("16 labels (small: limit 17) of a similar domain")
    ((_, codes, labels, recipe, *_),) = no_training
    assert codes.shape == (16, 16)
    assert labels.shape == (16,)
    assert (recipe.epochs, recipe.steps, recipe.learning_rate) == RECIPES[Strategy.FIXED_FEATURES]


def test_the_difference_is_measured_where_it_is_not_given(
    version_dir: Path, tmp_path: Path, no_training: list[Any]
) -> None:
    rows = recent(20, anchor=20)
    rows.x[rows.split == Split.TRAIN] //= 4
    done = train(fine_tune(version_dir, medium_from=99), rows, tmp_path, ignore)
    assert done.difference is not None
    assert done.difference > 0.8
    assert done.strategy == Strategy.LAST_BLOCK


@pytest.mark.parametrize("n", [0, 1, 399, 400, 401, 1375])
def test_the_difference_is_measured_on_some_hundred_images_spread_over_time(n: int) -> None:
    kept = _spread(np.arange(n).reshape(n, 1, 1, 1)).ravel()
    assert len(kept) == min(n, 400)
    expected = np.linspace(0, n, len(kept), endpoint=False)
    np.testing.assert_allclose(kept, expected, atol=1)


def test_without_old_rows_to_measure_on_the_domains_count_as_different(
    version_dir: Path, tmp_path: Path, no_training: list[Any]
) -> None:
    done = train(fine_tune(version_dir), recent(16, replay=9), tmp_path, ignore)
    assert done.strategy == Strategy.LAST_BLOCK
    assert done.reason.endswith("too few old rows to measure the difference, taken as 1")


def test_a_new_class_gets_an_output_and_the_old_ones_keep_theirs(
    model: Any, version_dir: Path, tmp_path: Path, no_training: list[Any]
) -> None:
    job = fine_tune(version_dir, classes=("both", *CLASSES), strategy="fixed_features")
    rows = recent(16)
    done = train(job, Rows(rows.x, rows.labels + 1, rows.split), tmp_path, ignore)
    assert done.network.classes == ("both", "left", "right")
    (scores,) = predict(done.model, rows.x, 16)
    (before,) = predict(model, rows.x, 16)
    np.testing.assert_allclose(scores[:, 1] / scores[:, 2], before[:, 0] / before[:, 1], rtol=1e-4)


@pytest.mark.parametrize(
    ("classes", "images", "message"),
    [
        (("left", "up"), recent(4).x, r"champion's \['right'\] are missing"),
        (CLASSES, np.zeros((4, 48, 48, 3), np.uint8), r"takes \(32, 32, 3\), got \(48, 48, 3\)"),
    ],
)
def test_rows_that_do_not_fit_the_champion_are_named(
    version_dir: Path, tmp_path: Path, classes: Any, images: Any, message: str
) -> None:
    job = fine_tune(version_dir, classes=classes, strategy="all_layers")
    rows = Rows(images, np.zeros(4, np.int64), np.repeat("train", 4))
    with pytest.raises(JobError, match=message):
        train(job, rows, tmp_path, ignore)


def test_a_source_job_on_pretrained_weights_trains_the_head_alone(
    keras: Any, tmp_path: Path, no_training: list[Any]
) -> None:
    base = keras.applications.VGG16(include_top=False, weights=None, input_shape=SHAPE)
    weights = tmp_path / "vgg16.weights.h5"
    base.save_weights(weights)
    job = fine_tune(tmp_path, kind=Kind.SOURCE, champion=None, weights=str(weights), dense_units=8)
    done = train(job, recent(16), tmp_path / "checkpoints", ignore)
    assert done.strategy == "imagenet_head"
    assert done.network.preprocessing == CAFFE
    for name in ("block1_conv1", "block5_conv3"):
        assert not done.model.get_layer(name).trainable
        np.testing.assert_array_equal(
            done.model.get_layer(name).get_weights()[0], base.get_layer(name).get_weights()[0]
        )
