from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from detectors.attribution.permutation import two_sample
from detectors.attribution.pooling import pool
from detectors.base import Evidence, Factor


def evidence(p_value: float | None, n: int = 250, **fields: object) -> Evidence:
    return Evidence("two-sample", Factor.COVARIATE, 1.0, p_value, 0.1, 1000, n, **fields)  # type: ignore[arg-type]


def pooled(own: Evidence, *others: Evidence) -> Evidence:
    [found] = pool([own], [[e] for e in others])
    return found


def p_of(*p_values: float) -> float:
    found = pooled(*(evidence(p) for p in p_values)).p_value
    assert found is not None
    return found


def test_without_other_parts_the_evidence_is_what_it_was() -> None:
    own = [evidence(0.3), evidence(None)]
    assert pool(own, []) == tuple(own)


@pytest.mark.parametrize(
    "other",
    [
        evidence(None),
        Evidence("covariance", Factor.COVARIATE, 1.0, 0.001, 0.1, 1000, 250),
        Evidence("two-sample", Factor.CONCEPT, 1.0, 0.001, 0.1, 1000, 250),
    ],
    ids=["untested", "another test", "another factor"],
)
def test_only_the_same_test_of_the_same_factor_counts(other: Evidence) -> None:
    assert pooled(evidence(0.3), other) == evidence(0.3)


def test_parts_that_agree_say_more_than_each() -> None:
    assert p_of(0.02, 0.02, 0.02, 0.02) < 1e-4
    assert p_of(0.02, 0.02) > p_of(0.02, 0.02, 0.02)


def test_one_part_that_has_moved_alone_is_not_hidden_by_the_others() -> None:
    others = [evidence(p, n=1000) for p in (0.9, 0.5, 1.0, 0.8)]
    found = pooled(evidence(0.0004), *others).p_value
    assert found is not None
    assert found <= 2.01 * 0.0004


def test_a_p_value_of_one_is_no_veto() -> None:
    assert p_of(0.001, 0.001, 0.001, 1.0) < 0.002
    assert p_of(1.0, 0.001, 0.001, 0.001) < 0.003


def test_more_rows_weigh_more() -> None:
    heavy = pooled(evidence(0.5), evidence(0.01, n=1000)).p_value
    light = pooled(evidence(0.5), evidence(0.01, n=100)).p_value
    assert heavy is not None
    assert light is not None
    assert heavy < light


def test_what_could_not_be_tested_here_is_told_by_the_others() -> None:
    own = evidence(None, note="needs 100 labels in each window", hopeless=True)
    found = pooled(own, evidence(0.004))
    assert found.p_value == pytest.approx(0.004)
    assert found.note == "over 1 partition"
    assert not found.hopeless


def test_effects_are_averaged_by_rows_and_their_interval_gets_narrower() -> None:
    own = Evidence("t", Factor.PRIOR, 1.0, 0.01, 0.2, 1000, 100, "", 0.1, 0.3)
    other = Evidence("t", Factor.PRIOR, 1.0, 0.01, 0.3, 1000, 300, "", 0.2, 0.4)
    found = pooled(own, other)
    assert found.effect == pytest.approx(0.275)
    assert found.effect_low == pytest.approx(0.275 - 0.1 / np.sqrt(2))
    assert found.effect_high == pytest.approx(0.275 + 0.1 / np.sqrt(2))
    assert (found.n_reference, found.n_recent, found.note) == (2000, 400, "over 2 partitions")


def test_without_one_of_the_intervals_there_is_none() -> None:
    own = Evidence("t", Factor.PRIOR, 1.0, 0.01, 0.2, 1000, 100, "", 0.1, 0.3)
    other = Evidence("t", Factor.PRIOR, 1.0, 0.01, 0.3, 1000, 300)
    assert pooled(own, other).effect_low is None


def _discrete(rng: np.random.Generator, n: int, n_draws: int) -> np.ndarray:
    """P-values of permutation tests where nothing moved: 1 more than the larger draws, of one
    more than all."""
    return (1 + rng.integers(0, n_draws + 1, size=n)) / (1 + n_draws)


@pytest.mark.parametrize("n_parts", [2, 4, 8])
@pytest.mark.parametrize("level", [0.05, 0.005])
def test_the_level_holds_with_the_p_values_of_permutations(n_parts: int, level: float) -> None:
    rng = np.random.default_rng(n_parts)
    n = 4000
    parts = [_discrete(rng, n, 999) for _ in range(n_parts)]
    rows = rng.integers(100, 1000, size=(n, n_parts))
    rejected = 0
    for i in range(n):
        own, *others = (evidence(float(p[i]), int(rows[i, k])) for k, p in enumerate(parts))
        found = pooled(own, *others).p_value
        rejected += found is not None and found <= level
    assert binomtest(rejected, n, 1.1 * level, alternative="greater").pvalue > 0.01


@pytest.mark.statistical
@pytest.mark.parametrize("n_parts", [2, 6])
def test_the_level_holds_with_real_tests_of_small_parts(n_parts: int) -> None:
    n, level = 400, 0.05
    rejected = sum(_of_rows(n_parts, shift=0.0, seed=s)[1] <= level for s in range(n))
    assert binomtest(rejected, n, level, alternative="greater").pvalue > 0.01


@pytest.mark.statistical
def test_four_parts_find_more_than_one() -> None:
    found = np.array([_of_rows(4, shift=0.25, seed=s) for s in range(100)])
    alone, together = (found <= 0.01).mean(axis=0)
    assert together > alone + 0.2


def _of_rows(n_parts: int, shift: float, seed: int) -> tuple[float, float]:
    """P-values of one part alone and of all; parts differ from each other, rows are rounded."""
    rng = np.random.default_rng([seed, n_parts])
    found: list[Evidence] = []
    for part in range(n_parts):
        place = 3.0 * part
        reference = np.round(rng.normal(place, 1.0, size=(200, 2)), 1)
        recent = np.round(rng.normal(place + shift, 1.0, size=(100, 2)), 1)
        result = two_sample(reference, recent, seed=seed * 100 + part, n_permutations=199)
        assert result.p_value is not None
        found.append(evidence(result.p_value, len(recent)))
    together = pooled(*found).p_value
    assert found[0].p_value is not None
    assert together is not None
    return found[0].p_value, together
