"""The correction for a moved prior, as it is shown and served to others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from detectors.base import Array
from detectors.learners.prior import PriorCorrection
from service.records.shown import short

MAX_ROWS = 10_000
"""Rows of one request: more would keep the service's other work waiting."""


class ScoresError(ValueError):
    """Scores that cannot be corrected; says which and why."""


def prior_document(
    classes: Sequence[str], correction: PriorCorrection | None
) -> dict[str, Any] | None:
    """Describe a correction; None while there is none.

    Parameters
    ----------
    classes
        Of the scores, in their order.
    correction
        What is in force.
    """
    if correction is None:
        return None
    return {
        "classes": list(classes),
        "source": correction.source_prior.tolist(),
        "target": correction.target_prior.tolist(),
        "weights": correction.weights.tolist(),
        "temperature": correction.temperature,
        "bias": correction.bias.tolist(),
        "method": str(correction.method),
        "since_index": correction.since_index,
    }


def correct_scores(
    classes: Sequence[str], correction: PriorCorrection | None, scores: object
) -> dict[str, Any]:
    """Correct scores by the rule that the service applies to its own.

    Parameters
    ----------
    classes
        Of the scores, in their order.
    correction
        What is in force; without one the scores come back as they are.
    scores
        A list of rows, each with a score for every class; or one row as scores by class, where a
        class that is missing has the score 0.

    Returns
    -------
    dict
        `scores` in the form that was given, corrected rows summing to 1; `predictions`, the class
        with the largest score of each row; and `since_index` of the correction, or None.

    Raises
    ------
    ScoresError
        If the shape does not fit, a score is not in [0, 1], or a class is not known; names what,
        which and where.
    """
    is_named = isinstance(scores, Mapping)
    rows = _named_row(scores, classes) if isinstance(scores, Mapping) else _rows(scores, classes)
    if correction is not None and len(rows):
        rows = correction.apply(rows)
    corrected: Any = rows.tolist()
    return {
        "scores": dict(zip(classes, corrected[0], strict=True)) if is_named else corrected,
        "predictions": [classes[k] for k in rows.argmax(axis=1).tolist()],
        "since_index": None if correction is None else correction.since_index,
    }


def _named_row(scores: Mapping[Any, object], classes: Sequence[str]) -> Array:
    for name in scores:
        if name not in classes:
            raise ScoresError(f"scores.{short(name)}: expected one of {_list(classes)}")
    values = [_number(scores.get(name, 0.0), f"scores.{name}") for name in classes]
    return np.array([values], np.float64)


def _rows(scores: object, classes: Sequence[str]) -> Array:
    if not isinstance(scores, list):
        raise ScoresError(
            f"scores: expected a list of rows or an object of class to score, got {short(scores)}"
        )
    if len(scores) > MAX_ROWS:
        raise ScoresError(f"scores: expected at most {MAX_ROWS} rows, got {len(scores)}")
    for n, row in enumerate(scores):
        if not isinstance(row, list):
            raise ScoresError(
                f"scores[{n}]: expected a list of {len(classes)} numbers, got {short(row)}"
            )
        if len(row) != len(classes):
            raise ScoresError(
                f"scores[{n}]: expected {len(classes)} numbers, one for each of {_list(classes)}, "
                f"got {len(row)}"
            )
    values = [
        [_number(value, f"scores[{n}][{k}]") for k, value in enumerate(row)]
        for n, row in enumerate(scores)
    ]
    return np.array(values, np.float64).reshape(-1, len(classes))


def _number(value: object, where: str) -> float:
    # Booleans are integers to Python; to whoever sends one as a score they are a mistake.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ScoresError(f"{where}: expected a number, got {short(value)}")
    if not 0 <= value <= 1:
        raise ScoresError(f"{where}: expected a number in [0, 1], got {short(value)}")
    return float(value)


def _list(classes: Sequence[str]) -> str:
    shown = ", ".join(classes[:10])
    return f"{shown} and {len(classes) - 10} more" if len(classes) > 10 else shown
