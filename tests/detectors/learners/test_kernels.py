"""The compiled loops against what numpy says, and against themselves on other cuts."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.base import Array
from detectors.learners.class_model import CLIP, ClassModel
from detectors.learners.embedding import Embedding, Places
from detectors.learners.normal_scores import LIMIT, NormalScores


def reference(n: int = 400, d: int = 7) -> Array:
    """Continuous, two-valued, constant, empty, gappy and heavy-tailed columns."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(n, d))
    rows[:, 1] = rng.integers(0, 2, n)
    rows[:, 2] = 1.0
    rows[:, 3] = np.nan
    rows[rng.random(n) < 0.3, 4] = np.nan
    rows[:, 5] = np.exp(4 * rows[:, 5])
    return rows


def wild_rows(n: int = 100, d: int = 7) -> Array:
    rows = 2 * np.random.default_rng(1).normal(size=(n, d))
    rows[:40] = reference()[:40]
    rows[40:43] = [[np.inf], [-np.inf], [np.nan]]
    rows[50:, 6] = np.where(np.arange(n - 50) % 2, np.nan, rows[50:, 6])
    return rows


def test_values_between_knots_are_those_of_numpys_interpolation() -> None:
    scores = NormalScores.fit(reference())
    rows = wild_rows()
    found = scores.transform(rows)
    for j, (first, n) in enumerate(zip(scores.first, scores.lengths, strict=False)):
        knots, at_knots = (each[first : first + n] for each in (scores.knots, scores.at_knots))
        expected = (
            np.interp(rows[:, j], knots, at_knots, left=-LIMIT, right=LIMIT)
            if n
            else np.full(len(rows), np.nan)
        )
        # numpy has a value for a NaN where there is one knot only.
        expected[np.isnan(rows[:, j])] = np.nan
        np.testing.assert_array_equal(found[:, j], expected)


def test_components_waves_and_norm_are_what_the_formulas_say() -> None:
    embedding = Embedding.fit(reference(), n_components=3, n_waves=5, seed=0)
    rows = wild_rows()
    out = np.full((len(rows), 18), -7.0)
    embedding.fill(out, rows, Places(8, 12, features=0, norm=17).as_array())
    features = embedding.scores.transform(rows)
    z = np.nan_to_num(features)
    components = np.clip(z @ embedding.loadings.T / embedding.spread, -LIMIT, LIMIT)
    waves = np.cos(z @ embedding.frequencies.T + embedding.phases)
    np.testing.assert_array_equal(out[:, :7], features)
    np.testing.assert_allclose(out[:, 8:11], components, atol=1e-13)
    np.testing.assert_allclose(out[:, 12:17], waves, atol=1e-13)
    np.testing.assert_allclose(out[:, 17], np.sqrt((z**2).mean(axis=1)), atol=1e-13)
    assert (out[:, [7, 11]] == -7.0).all()


def test_what_has_no_place_is_not_written() -> None:
    embedding = Embedding.fit(reference(), n_components=2, n_waves=3, seed=0)
    out = np.full((100, 6), -7.0)
    embedding.fill(out, wild_rows(), Places(components=0, waves=3).as_array())
    assert (out[:, 2] == -7.0).all()
    assert (out[:, [0, 1, 3, 4, 5]] != -7.0).all()


@pytest.mark.parametrize("widths", [1e-3, 1.0, 1e3])
def test_the_cosine_is_exact_up_to_rounding(widths: float) -> None:
    angles = np.random.default_rng(2).uniform(-widths, widths, size=(20_000, 1))
    knots = np.array([-widths, widths])
    line = NormalScores.from_knots([knots], [knots])  # the identity in the range
    embedding = Embedding(line, np.empty((0, 1)), np.empty(0), np.ones((1, 1)), np.zeros(1))
    out = np.empty((len(angles), 1))
    embedding.fill(out, angles, Places(0, 0).as_array())
    # A wave's own angle is rounded to 1e-16 of its size.
    np.testing.assert_allclose(out, np.cos(angles), rtol=0, atol=5e-16 * max(widths, 1.0))


@pytest.mark.parametrize("n_classes", [2, 3, 12])
def test_probabilities_are_those_of_the_softmax_regression(n_classes: int) -> None:
    rng = np.random.default_rng(3)
    labels = np.r_[np.arange(n_classes), rng.integers(0, n_classes, 600)]
    rows = rng.normal(size=(len(labels), 5)) + labels[:, None]
    model = ClassModel(n_classes + 1).fit(rows, labels, seed=0)
    s = model.snapshot()
    z = np.clip((rows - s["mean"]) / s["scale"], -CLIP, CLIP)
    waves = np.sqrt(2.0) * np.cos(z @ s["frequencies"] + s["phases"])
    logits = np.hstack([z, z**2 - 1, waves]) @ s["weights"].T + s["bias"]
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    found = model.predict(rows)
    np.testing.assert_allclose(found[:, :-1], odds / odds.sum(axis=1, keepdims=True), atol=1e-13)
    assert not found[:, -1].any()  # no row of that class was learned from


def test_a_row_with_a_gap_has_no_probabilities_and_spoils_no_other() -> None:
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(300, 3))
    model = ClassModel(2).fit(rows, (rows[:, 0] > 0).astype(np.int64), seed=0)
    holed = rows[:5].copy()
    holed[2, 1] = np.nan
    found = model.predict(holed)
    assert np.isnan(found[2]).all()
    others = [0, 1, 3, 4]
    np.testing.assert_array_equal(found[others], model.predict(rows[:5])[others])


def test_a_restored_model_predicts_alike_to_the_last_bit() -> None:
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(300, 3))
    model = ClassModel(2).fit(rows, (rows[:, 0] > 0).astype(np.int64), seed=0)
    state = model.snapshot()
    for value in state.values():
        if isinstance(value, np.ndarray):
            value.setflags(write=False)  # as a decoded checkpoint may be
    again = ClassModel.from_snapshot(state)
    np.testing.assert_array_equal(again.predict(rows), model.predict(rows))
