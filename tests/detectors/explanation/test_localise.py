"""A segment is called the only one that moved if the rest has shown that it did not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from detectors.attribution.windows import Sample
from detectors.base import Kind, Problem
from detectors.explanation.localise import Localisation, localise
from tests.detectors.windows import windows_of

CAMERAS = ["3", "5", "7", "9"]
Window = tuple[Sample, list[str]]


def window(
    rng: np.random.Generator, n: int, moved: Sequence[str], shift: float, shares: Sequence[float]
) -> Window:
    camera = rng.choice(CAMERAS[: len(shares)], n, p=shares)
    x = rng.normal(size=(n, 2)) + shift * np.isin(camera, moved)[:, None]
    return Sample(x, (rng.random(n) < 0.5).astype(np.int64)), camera.tolist()


def found(
    moved: Sequence[str],
    shift: float,
    shares: Sequence[float],
    seed: int,
    *,
    n: int = 1000,
    block_length: int = 1,
) -> Localisation:
    rng = np.random.default_rng(seed)
    before, old = window(rng, 2000, moved, 0.0, shares)
    after, new = window(rng, n, moved, shift, shares)
    windows = windows_of(before, after, Problem.X_TO_Y, min_labels=40, block_length=block_length)
    return localise(windows, old, new, alpha=0.01, seed=1)


@pytest.mark.parametrize("seed", range(100, 105))
def test_one_of_four_that_moved_is_the_only_one(seed: int) -> None:
    place = found(["7"], 0.7, [0.25] * 4, seed)
    assert list(place.moved) == ["7"]
    assert place.only is True


@pytest.mark.parametrize("shift", [0.3, 0.6])
@pytest.mark.parametrize("seed", range(100, 106))
def test_the_largest_of_those_that_all_moved_is_not_the_only_one(seed: int, shift: float) -> None:
    """With a twentieth of the rows each, the others hide a shift that is plain in the first."""
    place = found(CAMERAS[:3], shift, [0.9, 0.05, 0.05], seed)
    assert "3" in place.moved
    assert place.only is False


def test_a_shift_that_no_value_escaped_has_no_only_one() -> None:
    place = found(CAMERAS[:2], 1.0, [0.5, 0.5], 100)
    assert set(place.moved) == {"3", "5"}
    assert place.only is False


def test_too_few_rows_that_are_left_show_nothing() -> None:
    place = found(["3"], 1.0, [0.98, 0.02], 100)
    assert list(place.moved) == ["3"]
    assert place.untested == ("5",)
    assert place.only is False


def test_rows_that_depend_on_each_other_count_as_fewer() -> None:
    shares = [0.8, 0.2]
    assert found(["3"], 1.0, shares, 100).only is True
    assert found(["3"], 1.0, shares, 100, block_length=40).only is False


@pytest.mark.parametrize("everywhere", [False, True])
def test_a_changed_rule_is_looked_for_in_the_rest_by_its_labels(everywhere: bool) -> None:
    """The inputs of all cameras stay as they are."""
    rng = np.random.default_rng(100)
    shares = [0.85, 0.15] if everywhere else [0.5, 0.5]

    def draw(n: int, slope: float) -> Window:
        camera = rng.choice(CAMERAS[:2], n, p=shares)
        x = rng.normal(size=(n, 2))
        slopes = np.where((camera == "3") | everywhere, slope, 1.5)
        y = (rng.random(n) < 1 / (1 + np.exp(-slopes * x[:, 0]))).astype(np.int64)
        return Sample(x, y), camera.tolist()

    (before, old), (after, new) = draw(2000, 1.5), draw(1000, 0.0)
    windows = windows_of(before, after, Problem.X_TO_Y, min_labels=40)
    place = localise(windows, old, new, alpha=0.01, seed=1)
    assert place.moved["3"] is Kind.CONCEPT
    assert place.only is not everywhere


def test_windows_and_values_must_be_of_one_length() -> None:
    before, old = window(np.random.default_rng(0), 100, [], 0.0, [0.5, 0.5])
    with pytest.raises(ValueError, match="100 rows have 99 segment values"):
        localise(windows_of(before, before, Problem.X_TO_Y), old, old[1:], alpha=0.01, seed=1)
