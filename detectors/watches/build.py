"""Stage 1 of a stream: score maps learned from the reference, each watched by a calibrated bank."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from detectors.base import Array, Factor, IntArray, Problem, State
from detectors.names import DetectorName
from detectors.watches.bank import Watch
from detectors.watches.contract import Feed, Watching
from detectors.watches.named import NamedWatch, feed_of, wanted

__all__ = ["Feed", "Learned", "Watching", "build_watches", "watch_from_snapshot"]

_BANKS: dict[Problem, dict[str, Factor]] = {
    Problem.X_TO_Y: {"inputs": Factor.COVARIATE, "residuals": Factor.CONCEPT},
    Problem.Y_TO_X: {
        "inputs": Factor.PRIOR,
        "labels": Factor.PRIOR,
        "inputs by class": Factor.CONCEPT,
    },
}


@dataclass(frozen=True, slots=True)
class Learned:
    """What a reference taught.

    Attributes
    ----------
    watches
        Those of the feed, the CUSUM banks first.
    left_out
        For each watch that cannot be learned from this reference, the reason.
    """

    watches: list[Watching]
    left_out: dict[str, str] = field(default_factory=dict)


def build_watches(
    feed: Feed,
    problem: Problem,
    rows: Array,
    labels: IntArray,
    *,
    n_classes: int,
    arl0: float,
    seed: int,
    detectors: Sequence[DetectorName] = (DetectorName.CUSUM,),
    left_out: Collection[str] = (),
) -> Learned:
    """The watches of a problem that read a feed.

    The CUSUM banks: in X->Y problems the inputs for P(X), and the residuals of a frozen model of
    P(Y|X); in Y->X problems the labels for P(Y), the inputs by class for P(X|Y), and the inputs,
    which move with either, for the time until labels come.

    A watch that the reference cannot teach, such as one of too rare a class, is left out. If that
    leaves nothing of what was asked for on this feed, its CUSUM banks step in.

    Parameters
    ----------
    rows, labels
        The reference in time order, shapes (n, d) and (n,).
    n_classes
        Classes that labels may have.
    arl0
        Rows between false alarms of all watches of the stream together, as far as the detectors
        keep a promise.
    seed
        As in `Watch.learn`.
    detectors
        Families, without repetition.
    left_out
        Names of watches that `Feed.SEEN`, which comes first, had to leave out.

    Returns
    -------
    Learned
        The watches share the promise equally. What one leaves free on `Feed.SEEN` goes to all
        others; on `Feed.LABELLED` to the others there, as by then the inputs' are at work. If there
        are none it stays unused, and false alarms are rarer than promised.

    Raises
    ------
    ValueError
        If the reference is too small for the CUSUM bank of the inputs.

    Examples
    --------
    One class is too rare for the e-detector's model, and the bank gets its part of the promise:

    >>> import numpy as np
    >>> rows = np.random.default_rng(0).normal(size=(400, 2))
    >>> labels = np.repeat([0, 1], [390, 10])
    >>> asked = [DetectorName.CUSUM, DetectorName.E_DETECTOR]
    >>> found = build_watches(
    ...     Feed.LABELLED, Problem.X_TO_Y, rows, labels, n_classes=2, arl0=500, seed=0,
    ...     detectors=asked,
    ... )
    >>> [watch.name for watch in found.watches], found.left_out
    (['residuals'], {'e-detector of the rule': 'a reference needs 30 rows of two classes, \
got [390, 10]'})
    """
    other = Feed.LABELLED if feed is Feed.SEEN else Feed.SEEN
    there = len(_plan(other, problem, detectors, left_out))
    counted_on = len(_plan(feed, problem, detectors, left_out))
    gone: dict[str, str] = {}
    while True:
        here = _plan(feed, problem, detectors, {*left_out, *gone})
        if feed is Feed.SEEN:
            counted_on = len(here)
        promise = arl0 * (there + counted_on) * (len(here) / max(counted_on, 1))
        found: dict[str, Watching] = {}
        for name, factor in reversed(here.items()):  # the banks, which hardly ever fail, last
            learn = Watch.learn if name in _BANKS[problem] else NamedWatch
            try:
                found[name] = learn(
                    name, factor, rows, labels, n_classes=n_classes, arl0=promise, seed=seed
                )
            except ValueError as error:
                if name == "inputs":
                    raise  # too small for any detector: a mistake in the settings
                gone[name] = str(error)
                break
        else:
            return Learned([found[name] for name in here], gone)


def _plan(
    feed: Feed, problem: Problem, detectors: Sequence[DetectorName], left_out: Collection[str]
) -> dict[str, Factor]:
    """The watches of a feed by name, and the factor that each one hints at."""
    named = {n: f for n, f in wanted(detectors, problem).items() if feed_of(n) is feed}
    left = {n: f for n, f in named.items() if n not in left_out}
    if DetectorName.CUSUM not in detectors and (left or not named):
        return left
    banks = {
        n: f
        for n, f in _BANKS[problem].items()
        if (n == "inputs") == (feed is Feed.SEEN) and n not in left_out
    }
    return {**banks, **left}


def watch_from_snapshot(state: State) -> Watching:
    """The watch that a snapshot was taken of."""
    return (NamedWatch if "named" in state else Watch).from_snapshot(state)
