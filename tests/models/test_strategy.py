import numpy as np
import pytest

from models.strategy import Strategy, choose, domain_difference


@pytest.mark.parametrize(
    ("n_labels", "difference", "strategy"),
    [
        (0, 0.0, Strategy.FIXED_FEATURES),
        (399, 0.49, Strategy.FIXED_FEATURES),
        (399, 0.50, Strategy.LAST_BLOCK),
        (0, 1.0, Strategy.LAST_BLOCK),
        (400, 0.49, Strategy.HIGHER_BLOCKS),
        (100_000, 0.0, Strategy.HIGHER_BLOCKS),
        (400, 0.50, Strategy.ALL_LAYERS),
        (100_000, 1.0, Strategy.ALL_LAYERS),
    ],
)
def test_the_lectures_table(n_labels: int, difference: float, strategy: Strategy) -> None:
    assert choose(n_labels, difference, medium_from=400, different_from=0.5).strategy is strategy


def test_the_reason_shows_the_numbers_and_the_limits() -> None:
    reason = choose(120, 0.83, medium_from=400, different_from=0.5).reason
    assert "\n" not in reason
    for part in ("120 labels", "small: limit 400", "difference 0.83, limit 0.50", "different"):
        assert part in reason


@pytest.mark.parametrize(("n_labels", "difference"), [(-1, 0.5), (1, -0.1), (1, 1.1), (1, np.nan)])
def test_impossible_inputs_are_named(n_labels: int, difference: float) -> None:
    with pytest.raises(ValueError, match=r"n_labels|difference"):
        choose(n_labels, difference)


def test_equal_domains_are_not_told_apart_and_far_ones_are() -> None:
    rng = np.random.default_rng(5)
    old = rng.normal(size=(150, 40))
    assert domain_difference(old, rng.normal(size=(90, 40)), seed=0) < 0.3
    assert domain_difference(old, rng.normal(size=(90, 40)) + 1.5, seed=0) > 0.95
    half = np.concatenate([rng.normal(size=(75, 40)), rng.normal(size=(75, 40)) + 3])
    assert 0.3 < domain_difference(old, half, seed=0) < 0.9


def test_too_few_rows_are_named() -> None:
    with pytest.raises(ValueError, match="got 9 and 30"):
        domain_difference(np.zeros((9, 2)), np.zeros((30, 2)), seed=0)
