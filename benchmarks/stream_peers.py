"""Monitors that other people use on streams, set to one chance of a false alarm."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchmarks.peers import FrozenModel, KsErrorRise
from detectors.adapters.river import RiverDetector
from detectors.attribution.windows import Sample
from detectors.base import Array, Detector, Factor, IntArray, Problem
from detectors.charts.adwin import Adwin
from detectors.charts.page_hinkley import PageHinkley

WATCHED = 7000
"""Events of a stream after its reference."""
PROMISED = 200_000
"""Events between false confirmed incidents that the product is asked for."""
FALSE_ALARM = -math.expm1(-WATCHED / PROMISED)
"""Chance of a false alarm on a stream of that length at that promise. Detectors are set to it, and
not to a mean run length: that of DDM is infinite where it survives its start, and on streams of one
length it is this chance that makes delays comparable."""

Name = Literal["ddm", "adwin", "page_hinkley"]
ERROR_DETECTORS: dict[Name, str] = {
    "ddm": "DDM on errors",
    "adwin": "ADWIN on errors",
    "page_hinkley": "Page-Hinkley on errors",
}
"""River's detectors and their names for tables."""
RANGE: dict[Name, tuple[float, float]] = {
    "ddm": (2.0, 8.0),
    "adwin": (-1.0, -9.0),
    "page_hinkley": (3.0, 300.0),
}
"""From many alarms to few; for ADWIN the logarithm to base 10."""
ERROR_RATES = (0.05, 0.1, 0.2, 0.3, 0.4)
SETTINGS: dict[Name, tuple[float, ...]] = {
    "ddm": (4.06, 3.78, 3.41, 3.31, 3.31),
    "adwin": (-1.13, -1.38, -1.38, -1.5, -1.5),
    "page_hinkley": (28.5, 42.4, 61.0, 72.6, 79.6),
}
"""On `RANGE`'s scale, for each of the error rates: what `calibrate` found with River 0.26.1, seed 0
and 300 streams."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The first alarm on a stream.

    Attributes
    ----------
    at
        Index of the newest event when it was made.
    factors
        What it says moved.
    """

    at: int
    factors: frozenset[Factor]


def first_error_alarm(
    name: Name, model: FrozenModel, features: Array, labels: IntArray, *, start: int
) -> Claim | None:
    """The first alarm of a River detector on a frozen model's errors from event `start` on."""
    setting = float(np.interp(model.errors.mean(), ERROR_RATES, SETTINGS[name]))
    detector = error_detector(name, setting)
    alarms = detector.update(model.errors_on(features[start:], labels[start:])[:, None])
    if not alarms:
        return None
    return Claim(start + alarms[0].row, frozenset({Factor.CONCEPT}))


def error_detector(name: Name, setting: float) -> Detector:
    """One of River's detectors at a setting on `RANGE`'s scale; two of them by banks that alarm
    at the same rows.
    """
    if name == "adwin":
        return Adwin(1, factor=Factor.CONCEPT, delta=10**setting)
    if name == "page_hinkley":
        return PageHinkley(1, factor=Factor.CONCEPT, threshold=setting)
    # A start of 30 rows, River's default, often holds no error. The minimum of DDM is 0 then, the
    # next error is an alarm, and no threshold keeps any promise. The memory holds the whole
    # stream: River itself never forgets.
    return RiverDetector(
        name,
        factor=Factor.CONCEPT,
        memory=2 * WATCHED,
        drift_threshold=setting,
        warm_start=300,
    )


def false_alarm_share(
    name: Name, setting: float, error_rate: float, *, n_streams: int, seed: int
) -> float:
    """Share of streams of errors at a constant rate on which the detector alarms."""
    rng = np.random.default_rng(seed)
    alarmed = 0
    for _ in range(n_streams):
        errors = (rng.random((WATCHED, 1)) < error_rate).astype(np.float64)
        detector = error_detector(name, setting)
        # In pieces, because most of the time one alarm early is enough to know.
        alarmed += any(len(detector.update(part)) for part in np.split(errors, 7))
    return alarmed / n_streams


def calibrate(name: Name, error_rate: float, *, n_streams: int, n_steps: int, seed: int) -> float:
    """The setting at which the detector alarms on `FALSE_ALARM` of the streams, by bisection."""
    many, few = RANGE[name]
    for _ in range(n_steps):
        middle = (many + few) / 2
        share = false_alarm_share(name, middle, error_rate, n_streams=n_streams, seed=seed)
        many, few = (middle, few) if share > FALSE_ALARM else (many, middle)
    return few


def first_window_claim(
    model: FrozenModel,
    features: Array,
    labels: IntArray,
    problem: Problem,
    *,
    start: int,
    window: int = 1000,
    step: int = 500,
) -> Claim | None:
    """The first claim of `KsErrorRise` on the last `window` events, tested every `step` events.

    The level of one test is the chance of a false alarm over the number of tests. The window that
    raises the alarm may lie half before the change, so the next full window names what moved, at
    the same level and at its own end; where it sees nothing, the first one's word counts.
    """
    rule = KsErrorRise()
    reference = Sample(features[:start], labels[:start])
    ends = range(start + window, len(features) + 1, step)
    alpha = FALSE_ALARM / len(ends)

    def claims(end: int) -> frozenset[Factor]:
        recent = Sample(features[end - window : end], labels[end - window : end])
        return rule.claims_of(model, reference, recent, problem, alpha=alpha)

    for end in ends:
        if first := claims(end):
            later = min(end + window, len(features))
            return Claim(later - 1, claims(later) or first)
    return None
