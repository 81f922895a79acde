"""A quick comparison has the last word only where the full test would hardly have rejected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from detectors.attribution.grades import NO_SHARES, Tested, TwoGrades, goes_on, in_one, in_two
from detectors.base import Evidence, Factor

NOTHING = Evidence("a test", Factor.PRIOR, 1.0, None, 0.0, 9, 9)


def evidence(p_value: float | None, test: str = "full") -> Evidence:
    return replace(NOTHING, test=test, p_value=p_value)


class Graded:
    """A test of two grades that counts how often each was asked."""

    def __init__(self, quick: float | None, full: float | None, *, says: bool = True) -> None:
        self.asked: list[str] = []
        self.test = TwoGrades(
            self._note("quick", lambda: evidence(quick, "quick") if says else None),
            self._note("full", lambda: (evidence(full), np.ones(2))),
        )

    def _note(self, name: str, answer: Callable[[], Any]) -> Callable[[], Any]:
        def asked() -> Any:
            self.asked.append(name)
            return answer()

        return asked


@pytest.mark.parametrize(
    ("quick", "level", "open_"),
    [
        (0.5, 0.01, False),
        (0.05, 0.01, False),
        (0.04, 0.01, True),
        (0.02, 0.001, True),
        (0.021, 0.001, False),
        (0.02, 0.02, True),
        (0.005, 0.01, True),
        (None, 0.01, False),
    ],
)
def test_the_limit_is_several_times_the_level_and_never_below_two_percent(
    quick: float | None, level: float, *, open_: bool
) -> None:
    assert goes_on(quick, level) is open_


def test_a_quick_answer_spares_the_full_test() -> None:
    graded = Graded(0.4, 0.001)
    found, shares = in_one(graded.test, 0.01)
    assert (found.test, found.p_value) == ("quick", 0.4)
    assert shares is NO_SHARES
    assert graded.asked == ["quick"]


@pytest.mark.parametrize("graded", [Graded(0.01, 0.6), Graded(0.9, 0.6, says=False)])
def test_an_open_question_goes_to_the_full_test_whose_answer_counts(graded: Graded) -> None:
    found, shares = in_one(graded.test, 0.01)
    assert (found.test, found.p_value) == ("full", 0.6)
    assert shares.sum() == 2
    assert graded.asked == ["quick", "full"]


def test_what_cannot_be_tested_is_not_tested_in_full() -> None:
    graded = Graded(None, 0.001)
    assert in_one(graded.test, 0.01)[0].p_value is None
    assert graded.asked == ["quick"]


@pytest.mark.parametrize("level", [0.001, 0.01, 0.05])
@pytest.mark.parametrize("dependence", ["independent", "equal", "opposite"])
def test_the_level_is_kept_whatever_the_quick_comparison_does(
    level: float, dependence: str
) -> None:
    """A valid full test stays one, be the quick one as wrong as it may."""
    rng = np.random.default_rng(0)
    full = rng.random(100_000)
    quick = {"independent": rng.random(100_000), "equal": full, "opposite": 1 - full}[dependence]
    rejected = sum(
        (in_one(Graded(q, f).test, level)[0].p_value or 0.0) <= level
        for q, f in zip(quick[:20_000].tolist(), full[:20_000].tolist(), strict=True)
    )
    assert rejected <= 20_000 * level + 4 * np.sqrt(20_000 * level)


def test_one_rejection_has_both_tested_in_full() -> None:
    first, second = Graded(0.01, 0.001), Graded(0.5, 0.3)
    found = in_two(first.test, second.test, 0.01)
    assert [e.test for e, _ in found] == ["full", "full"]
    assert (first.asked, second.asked) == (["quick", "full"], ["quick", "full"])


def test_without_a_rejection_nothing_more_is_computed() -> None:
    first, second = Graded(0.01, 0.2), Graded(0.5, 0.001)
    found: tuple[Tested, Tested] = in_two(first.test, second.test, 0.01)
    assert [e.p_value for e, _ in found] == [0.2, 0.5]
    assert second.asked == ["quick"]


def test_an_impossible_test_stays_so_beside_a_rejection() -> None:
    first, second = Graded(0.01, 0.001), Graded(None, 0.001)
    found = in_two(first.test, second.test, 0.01)
    assert [e.p_value for e, _ in found] == [0.001, None]
    assert second.asked == ["quick"]
