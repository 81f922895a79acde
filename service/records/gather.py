"""From decoded records to columns, one record after the other: the careful way.

It takes whatever was decoded, from any format, and says of each record that does not follow the
stream's schema what is wrong. `service.records.plain` reads the records that need no such care,
with the same result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np

from detectors.base import Array
from service.records.block import Block
from service.records.columns import LABEL, OBSERVATION, Columns, Features, Levels
from service.records.decode import canonical
from service.records.record import DecodeError, LabelRecord, Observation, Scalar
from service.records.schema import FeatureSchema

Body = Observation | LabelRecord
Placed = tuple[int, Body]
"""The place of a record in its block, and what it says."""


def gather(
    block: Block, bodies: Sequence[Placed], schema: FeatureSchema, classes: Sequence[str] = ()
) -> tuple[Columns, list[tuple[int, DecodeError]]]:
    """Columns of the records that follow a schema.

    Parameters
    ----------
    block
        Where the records came with.
    bodies
        What they say, in the order of their places.
    schema
        Of the observations' features.
    classes
        Of the scores; those of an observation count only if they have all of them.

    Returns
    -------
    tuple
        The columns, and the places of the records that are refused with what is wrong with each.
    """
    good: list[Placed] = []
    refused: list[tuple[int, DecodeError]] = []
    for at, body in bodies:
        if isinstance(body, Observation):
            try:
                schema.check(body)
            except DecodeError as error:
                refused.append((at, error.at(block[at])))
                continue
        good.append((at, body))
    return _columns(block, good, schema, classes), refused


def _columns(
    block: Block, bodies: Sequence[Placed], schema: FeatureSchema, classes: Sequence[str]
) -> Columns:
    observed = [body for _, body in bodies if isinstance(body, Observation)]
    times = [body.time for _, body in bodies]
    labels = [body.label for _, body in bodies]
    predictions = [b.prediction if isinstance(b, Observation) else None for _, b in bodies]
    segments: list[Mapping[str, str]] = [
        b.segment if isinstance(b, Observation) else {} for _, b in bodies
    ]
    return Columns(
        block,
        np.array([at for at, _ in bodies], np.int64),
        np.array(
            [OBSERVATION if isinstance(b, Observation) else LABEL for _, b in bodies], np.int8
        ),
        [body.id for _, body in bodies],
        seconds_of(times),
        times if any(times) else None,
        labels if any(label is not None for label in labels) else None,
        predictions if any(p is not None for p in predictions) else None,
        segments if any(segments) else None,
        features_of([body.features for body in observed], schema),
        scores_of([body.scores for body in observed], classes),
    )


def seconds_of(times: Sequence[datetime | None]) -> Array:
    """Times in Unix seconds, NaN where there is none."""
    return np.array([math.nan if t is None else t.timestamp() for t in times], np.float64)


def features_of(rows: Sequence[Mapping[str, Scalar]], schema: FeatureSchema) -> Features:
    """The features of observations that follow the schema."""
    numbers = np.array(
        [[row[name] for name in schema.numeric] for row in rows], np.float64
    ).reshape(len(rows), len(schema.numeric))  # None becomes NaN
    # There is one zero: whether it has a sign depends on how it was written.
    numbers += 0.0
    levels = tuple([canonical_level(row[name]) for row in rows] for name in schema.categorical)
    return Features(numbers, levels)


def canonical_level(value: Scalar) -> str | None:
    """The one spelling of a level, as for classes; a number may be a level's code."""
    # Empty text is a level too, although it is no class.
    return value if value is None or isinstance(value, str) else canonical(value)


def scores_of(given: Sequence[Mapping[str, float] | None], classes: Sequence[str]) -> Array | None:
    """Scores by class, shape (m, K), NaN where there are none that count; None if there are none.

    Scores that lack a class say nothing of it, and the largest of what is left may be any: then
    the prediction that came along is what was served.
    """
    if not classes or not any(given):
        return None
    wanted = set(classes)
    scores = np.full((len(given), len(classes)), math.nan)
    for row, own in zip(scores, given, strict=True):
        if own is not None and own.keys() >= wanted:
            row[:] = [own[c] for c in classes]
    total = scores.sum(axis=1)
    scores[~((total > 0) & (total < math.inf))] = math.nan
    return scores if np.isfinite(scores).any() else None


__all__ = ["Body", "Levels", "Placed", "canonical_level", "gather"]
