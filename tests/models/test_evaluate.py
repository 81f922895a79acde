import re
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from models.evaluate import compare, gain_lower_bound, log_loss


def columns(wins: int, losses: int, both: int, neither: int = 0) -> tuple[Any, Any, Any]:
    """Labels, champion, candidate with so many rows that only the candidate has right, ..."""
    n = wins + losses + both + neither
    truth = np.array(["a", "b"] * n)[:n]
    wrong = np.where(truth == "a", "b", "a")
    kind = np.repeat(["win", "loss", "both", "neither"], [wins, losses, both, neither])
    champion = np.where(np.isin(kind, ["loss", "both"]), truth, wrong)
    candidate = np.where(np.isin(kind, ["win", "both"]), truth, wrong)
    return truth, champion, candidate


ANCHOR_KEPT = columns(3, 4, 93)
ANCHOR_LOST = columns(1, 12, 87)


@pytest.mark.parametrize(
    ("rows", "settings", "promote", "reason"),
    [
        (columns(60, 4, 136), {}, True, r"gain \+0.280 \(lower bound \+0.2.. at 95%\) on 200"),
        (columns(5, 0, 95), {}, True, r"gain \+0.050"),
        (columns(4, 0, 96), {}, False, r"not above 0 on 100 hold-out rows; about \d+ would show"),
        (columns(4, 6, 90), {}, False, r"gain -0.020 .* is not above 0 on 100 hold-out rows$"),
        (columns(30, 30, 40), {}, False, "not above 0"),
        (columns(0, 0, 100), {}, False, "not above 0"),
        (columns(60, 4, 136), {"min_gain": 0.3}, False, "not above 0.3"),
        (columns(60, 4, 136), {"confidence": 0.999999}, True, "at 100%"),
        (columns(2, 3, 495), {"min_gain": -0.02}, True, "gain -0.002"),
        (columns(2, 3, 45), {"min_gain": -0.02}, False, "not above -0.02"),
        (columns(30, 0, 19), {}, False, "49 hold-out rows are too few, 50 are needed"),
        (columns(30, 0, 19), {"min_rows": 49}, True, "gain"),
        (columns(0, 0, 0), {}, False, "0 hold-out rows are too few"),
        (columns(60, 4, 136), {"anchor": ANCHOR_KEPT, "max_anchor_drop": 0.05}, True, "gain"),
        (
            columns(60, 4, 136),
            {"anchor": ANCHOR_LOST, "max_anchor_drop": 0.05},
            False,
            r"on 100 anchor rows the accuracy falls from 0.990 to 0.880, more than 0.05",
        ),
        (columns(60, 4, 136), {"anchor": ANCHOR_LOST, "max_anchor_drop": 0.2}, True, "gain"),
        (columns(60, 4, 136), {"anchor": ANCHOR_LOST}, True, "gain"),
    ],
)
def test_the_gate(rows: Any, settings: dict[str, Any], promote: bool, reason: str) -> None:
    gate = compare(*rows, **settings)
    assert gate.promote is promote
    assert re.search(reason, gate.reason), gate.reason


def test_the_gate_shows_its_numbers() -> None:
    gate = compare(*columns(20, 5, 60, 15), anchor=ANCHOR_LOST)
    assert (gate.n, gate.champion_accuracy, gate.candidate_accuracy) == (100, 0.65, 0.8)
    assert gate.gain == pytest.approx(0.15)
    assert 0 < gate.gain_lower < gate.gain
    assert (gate.anchor_n, gate.anchor_champion_accuracy) == (100, 0.99)
    assert gate.anchor_candidate_accuracy == 0.88
    for c in "ab":
        n, old, new = gate.by_class[c]
        assert n == 50
        assert new > old
    assert sum(n * new for n, _, new in gate.by_class.values()) == pytest.approx(80)


def test_json_has_null_where_there_is_no_number() -> None:
    data = compare([], [], []).to_json()
    assert data["gain"] is None
    assert data["promote"] is False


@pytest.mark.parametrize(("wins", "losses"), [(5, 0), (4, 0), (9, 1), (10, 3), (60, 40), (55, 45)])
def test_a_bound_above_zero_is_mcnemars_exact_test(wins: int, losses: int) -> None:
    p = binomtest(wins, wins + losses, 0.5, alternative="greater").pvalue
    assert (gain_lower_bound(wins, losses, 200, 0.95) > 0) == (p < 0.05)


@pytest.mark.parametrize("gain", [-0.04, 0.0, 0.05])
def test_the_bound_is_above_the_true_gain_at_most_as_often_as_promised(gain: float) -> None:
    rng = np.random.default_rng(11)
    share, n, runs = 0.16, 150, 800
    wins, losses = (share + gain) / 2, (share - gain) / 2
    drawn = rng.multinomial(n, [wins, losses, 1 - share], size=runs)
    above = np.mean([gain_lower_bound(int(w), int(o), n, 0.95) > gain for w, o, _ in drawn])
    # 0.05 promised; three standard errors of 800 runs are 0.023
    assert above <= 0.073


def test_the_bound_closes_on_the_gain() -> None:
    bounds = [gain_lower_bound(12 * k, 4 * k, 100 * k) for k in (1, 4, 16, 64)]
    assert bounds == sorted(bounds)
    assert 0.07 < bounds[-1] < 0.08


def test_wrong_counts_and_shapes_are_named() -> None:
    with pytest.raises(ValueError, match="got 5, 6 and n = 10"):
        gain_lower_bound(5, 6, 10)
    with pytest.raises(ValueError, match="confidence"):
        gain_lower_bound(5, 4, 10, 1.0)
    with pytest.raises(ValueError, match=r"hold-out: .*\(2,\), \(1,\)"):
        compare(["a", "b"], ["a"], ["a", "b"])
    with pytest.raises(ValueError, match=r"max_anchor_drop 0\.1"):
        compare(["a"] * 60, ["a"] * 60, ["a"] * 60, max_anchor_drop=0.1)


def test_log_loss_is_the_mean_negative_log_of_the_true_classes_score() -> None:
    scores = np.array([[0.5, 0.5], [0.9, 0.1], [1.0, 0.0]])
    expected = (np.log(2) - np.log(0.1) - np.log(1e-7)) / 3
    assert log_loss(scores, np.array([0, 1, 1])) == pytest.approx(expected)
