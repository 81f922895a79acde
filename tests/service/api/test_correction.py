from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from detectors.learners.prior import PriorCorrection, PriorMethod
from service.api.correction import MAX_ROWS, ScoresError, correct_scores, prior_document
from service.monitor.reference import Baseline
from service.monitor.representation import Tabular
from service.monitor.reweighting import prior_in_force
from service.records.schema import FeatureSchema

CLASSES = ("ham", "spam")
CORRECTION = PriorCorrection(
    source_prior=np.array([0.5, 0.5]),
    target_prior=np.array([0.1, 0.9]),
    temperature=1.0,
    bias=np.zeros(2),
    method=PriorMethod.BBSE,
    since_index=41,
)


def test_a_correction_is_shown_as_plain_data_from_which_it_can_be_repeated() -> None:
    shown = prior_document(CLASSES, CORRECTION)
    assert json.loads(json.dumps(shown)) == {
        "classes": ["ham", "spam"],
        "source": [0.5, 0.5],
        "target": [0.1, 0.9],
        "weights": [0.2, 1.8],
        "temperature": 1.0,
        "bias": [0.0, 0.0],
        "method": "bbse",
        "since_index": 41,
    }
    assert prior_document(CLASSES, None) is None


def test_rows_are_corrected_as_the_service_corrects_its_own() -> None:
    rows = [[0.5, 0.5], [0.99, 0.01], [0.8, 0.2]]
    found = correct_scores(CLASSES, CORRECTION, rows)
    np.testing.assert_array_equal(found["scores"], CORRECTION.apply(np.array(rows)))
    assert found["predictions"] == ["spam", "ham", "spam"]
    assert found["since_index"] == 41


def test_one_row_may_be_given_by_class_in_any_order_and_without_zeros() -> None:
    found = correct_scores(CLASSES, CORRECTION, {"spam": 0.5, "ham": 0.5})
    assert found["scores"] == pytest.approx({"ham": 0.1, "spam": 0.9})
    assert found["predictions"] == ["spam"]
    assert correct_scores(CLASSES, None, {"spam": 1}) == {
        "scores": {"ham": 0.0, "spam": 1.0},
        "predictions": ["spam"],
        "since_index": None,
    }


def test_without_a_correction_scores_come_back_as_they_are() -> None:
    rows = [[0.2, 0.7], [0.0, 0.0]]
    found = correct_scores(CLASSES, None, rows)
    assert found == {"scores": rows, "predictions": ["spam", "ham"], "since_index": None}
    assert correct_scores(CLASSES, CORRECTION, [])["scores"] == []


WRONG: Mapping[str, tuple[Any, str]] = {
    "text": ("0.5", "scores: expected a list of rows or an object of class to score, got '0.5'"),
    "a flat list": ([0.5, 0.5], r"scores\[0\]: expected a list of 2 numbers, got 0.5"),
    "a short row": (
        [[0.5, 0.5], [1.0]],
        r"scores\[1\]: expected 2 numbers, one for each of ham, spam, got 1",
    ),
    "a negative": ([[0.5, -0.5]], r"scores\[0\]\[1\]: expected a number in \[0, 1\], got -0.5"),
    "more than 1": ([[0.5, 7]], r"scores\[0\]\[1\]: expected a number in \[0, 1\], got 7"),
    "no number": ([[0.5, float("nan")]], r"scores\[0\]\[1\]: .* got nan"),
    "infinite": ({"ham": float("inf")}, r"scores.ham: expected a number in \[0, 1\], got inf"),
    "huge": ([[10**400, 0]], r"scores\[0\]\[0\]: expected a number in \[0, 1\], got "),
    "a boolean": ({"ham": True}, "scores.ham: expected a number, got true"),
    "null": ([[None, 1]], r"scores\[0\]\[0\]: expected a number, got null"),
    "an unknown class": ({"eggs": 0.5}, "scores.'eggs': expected one of ham, spam"),
    "too many rows": ([[0.5, 0.5]] * (MAX_ROWS + 1), "scores: expected at most 10000 rows"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_scores_are_refused_by_what_which_and_where(wrong: str) -> None:
    scores, message = WRONG[wrong]
    for correction in (None, CORRECTION):
        with pytest.raises(ScoresError, match=message):
            correct_scores(CLASSES, correction, scores)


def baseline(labels: list[int], *, with_scores: bool = True) -> Baseline:
    found = Baseline(0, len(labels), 10, Tabular(FeatureSchema.empty()))
    found._name(("ham", "spam"))
    found.codes = np.array(labels)
    found.labelled = True
    if with_scores:
        found.scores = np.full((len(labels), 2), 0.5)
    return found


def test_the_prior_in_force_is_the_references_until_scores_are_corrected() -> None:
    reference = baseline([0, 0, 0, 1, -1, 2])  # one label is missing, one of an unknown class
    assert prior_in_force(CLASSES, None, reference) == {"ham": 0.75, "spam": 0.25}
    assert prior_in_force(CLASSES, CORRECTION, reference) == {"ham": 0.1, "spam": 0.9}


def test_without_scores_or_labels_there_is_no_prior() -> None:
    assert prior_in_force(CLASSES, None, baseline([0, 1], with_scores=False)) == {}
    assert prior_in_force(CLASSES, None, baseline([-1, 2])) == {}
    assert prior_in_force((), None, baseline([0, 1])) == {}


def test_the_document_is_enough_to_correct_scores_without_the_service() -> None:
    correction = PriorCorrection(
        np.array([0.7, 0.3]), np.array([0.2, 0.8]), 1.4, np.array([0.1, -0.1])
    )
    prior = prior_document(CLASSES, correction)
    assert prior is not None
    for row in ([0.6, 0.4], [1.0, 0.0]):
        logs = np.log(np.maximum(row, 1e-6))
        calibrated = np.exp(logs / prior["temperature"] + prior["bias"])
        by_hand = calibrated * prior["weights"]
        expected = correct_scores(CLASSES, correction, [row])["scores"][0]
        np.testing.assert_allclose(by_hand / by_hand.sum(), expected)
