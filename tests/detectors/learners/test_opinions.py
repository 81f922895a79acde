"""What a reference teaches of P(Y|X): codes of classes, and opinions of rows that it never saw."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.base import Array, IntArray
from detectors.learners.opinions import Codes, Opinions


def drawn(seed: int, n: int) -> tuple[Array, IntArray]:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, 3))
    return rows, (rng.random(n) < 1 / (1 + np.exp(-2 * rows[:, 0]))).astype(np.int64)


def test_frequent_classes_have_codes_of_their_own() -> None:
    labels = np.repeat(np.arange(14), np.arange(30, 16, -1))
    codes = Codes.of_labels(labels, n_classes=16)
    assert codes.of[:10].tolist() == list(range(10))
    assert set(codes.of[10:].tolist()) == {10}
    assert codes.n == 11


@pytest.mark.parametrize(("n_classes", "labels"), [(1, [0, 0]), (3, [2]), (2, [])])
def test_few_classes_and_no_labels_have_codes(n_classes: int, labels: list[int]) -> None:
    codes = Codes.of_labels(np.array(labels, np.int64), n_classes)
    assert len(codes.of) == n_classes
    assert 1 <= codes.n <= max(n_classes, 1)


def test_opinions_of_own_rows_are_as_good_as_of_others() -> None:
    rows, labels = drawn(0, 3000)
    others, their = drawn(1, 3000)
    opinions = Opinions.learn(rows, labels, n_classes=2, seed=0)
    code = opinions.codes.of
    own, of_others = (
        -np.log(p[np.arange(3000), code[y]]).mean()
        for p, y in ((opinions.own, labels), (opinions.of(others), their))
    )
    assert own == pytest.approx(of_others, abs=0.03)
    assert own < 0.6  # a coin has 0.69
    np.testing.assert_allclose(opinions.own.sum(axis=1), 1.0, atol=1e-9)


def test_the_same_window_teaches_the_same() -> None:
    rows, labels = drawn(0, 400)
    one, again = (Opinions.learn(rows, labels, n_classes=2, seed=0) for _ in range(2))
    np.testing.assert_array_equal(one.own, again.own)
    np.testing.assert_array_equal(one.of(rows), again.of(rows))


def test_a_row_s_opinion_does_not_depend_on_the_rows_beside_it() -> None:
    rows, labels = drawn(0, 400)
    opinions = Opinions.learn(rows, labels, n_classes=2, seed=0)
    np.testing.assert_allclose(opinions.of(rows)[:7], opinions.of(rows[:7]), atol=1e-12)
