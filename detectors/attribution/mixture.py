"""Y->X without labels: the new class frequencies, and whether they alone explain the new inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from detectors.attribution.description import BANDWIDTHS
from detectors.base import Array, IntArray
from detectors.learners.features import (
    RIDGE,
    principal,
    quadratic_moments,
    standardise,
    whiten,
)
from detectors.learners.mmd import FourierFeatures, median_bandwidth
from detectors.learners.nuisance import boosted_trees, cross_fit, make_folds, quadratic_logistic
from detectors.learners.prior import FLOOR, PriorCorrection, fit_calibration, reweight
from detectors.rows import bounded

__all__ = ["MixtureResult", "mixture_test"]

N_FOLDS = 3

MIN_PER_CLASS = 2 * N_FOLDS
"""Reference rows a class needs: every fold must learn it, and its spread must be seen."""

N_MULTIPLIERS = 1999
"""Draws of the goodness of fit; they cost one product of matrices, so more than the bootstrap's."""

N_FOURIER = 80

N_MARKS = 15
"""Quantiles at which a column's distribution functions are compared."""

MAX_INDICATORS = 1024
"""Columns x quantiles that one test looks at."""

MAX_SCORES = 10
"""Classes whose log-scores are columns of the goodness of fit."""

MAX_STEPS, TOLERANCE = 100, 1e-6
"""Of the mixture's weights: the last plain step moved none of them farther than the tolerance."""

WEAK = 0.05
"""Part of the largest singular value below which the scores do not tell two classes apart."""


@dataclass(frozen=True, slots=True)
class MixtureResult:
    """What unlabelled rows say about P(Y) and P(X|Y).

    Attributes
    ----------
    prior
        Estimated class frequencies of the recent rows, shape (K,); right only as far as P(X|Y)
        stayed, so read `fit_p_value` first.
    prior_low, prior_high
        Their 95 % intervals, shape (K,).
    prior_p_value
        For "P(Y) is that of the reference", given that P(X|Y) is; in (0, 1].
    fit_p_value
        For "the recent inputs are a mixture of the reference's classes"; in (0, 1].
    fit_statistic
        Largest standardised misfit, in standard deviations of its null distribution.
    fit_effect
        In [0, 1]: 2 AUC - 1 of a discriminant between the recent rows and the reference with its
        classes re-weighted.
    n_reference, n_recent
        Rows that the tests used.
    """

    prior: Array
    prior_low: Array
    prior_high: Array
    prior_p_value: float
    fit_p_value: float
    fit_statistic: float
    fit_effect: float
    n_reference: int
    n_recent: int


def mixture_test(
    reference: Array,
    reference_labels: IntArray,
    recent: Array,
    *,
    n_classes: int,
    seed: int,
    n_bootstraps: int = 199,
) -> MixtureResult:
    """Test, without recent labels, whether P(Y) moved and whether anything else did.

    If only P(Y) moved, the recent inputs are a mixture of the reference's class conditionals. The
    weights of that mixture are estimated by maximum likelihood from cross-fitted and calibrated
    class scores [1]_. Their p-value is from a bootstrap that draws the calibration rows and a
    recent window from the reference: without the first, the size was 0.15 at 0.05.

    What the mixture leaves unexplained is looked for in the means of kernel features, moments and
    distribution functions, after the part of each that goes along with the scores was taken out.
    The remainder has the same mean in every class, so that an error of the estimated weights
    cancels to first order; the null distribution is that of a Gaussian multiplier bootstrap over
    the rows of both windows, class by class. A change of P(X|Y) that looks like another mixture
    cannot be seen, and is taken for one of P(Y).

    Parameters
    ----------
    reference, reference_labels
        Labelled rows, shapes (n, d) and (n,); labels from 0 to `n_classes` - 1.
    recent
        Unlabelled rows, shape (m, d).
    n_classes
        Number of classes, at least 2. Those with fewer than 6 reference rows are left out: their
        frequency is reported as 0, in an interval from 0 to 1.
    seed
        Chooses folds, features, resamples and multipliers.
    n_bootstraps
        Resamples for the prior's p-value, and again for its intervals.

    Returns
    -------
    MixtureResult
        Both p-values are asymptotic; their size is measured in
        tests/detectors/attribution/test_mixture.py.

    Raises
    ------
    ValueError
        If shapes do not fit, a label is out of range, fewer than 2 classes have enough rows, or
        the recent window has fewer than 6 rows.

    References
    ----------
    .. [1] A. Alexandari, A. Kundaje, A. Shrikumar (2020). Maximum likelihood with bias-corrected
       calibration is hard-to-beat at label shift adaptation. ICML, PMLR 119, 222-232.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> def drawn(rate, spread):
    ...     y = (rng.random(500) < rate).astype(np.int64)
    ...     return rng.normal(2.0 * y[:, None], spread, size=(500, 2)), y
    >>> reference, (other_prior, _) = drawn(0.3, 1.0), drawn(0.7, 1.0)
    >>> changed, _ = drawn(0.3, 2.0)
    >>> found = mixture_test(*reference, other_prior, n_classes=2, seed=1)
    >>> found.prior.round(1), found.prior_p_value, found.fit_p_value > 0.05
    (array([0.3, 0.7]), 0.005, True)
    >>> mixture_test(*reference, changed, n_classes=2, seed=1).fit_p_value < 0.01
    True
    """
    _check(reference, reference_labels, recent, n_classes, n_bootstraps)
    counts = np.bincount(reference_labels, minlength=n_classes)
    classes = np.flatnonzero(counts >= MIN_PER_CLASS)
    if len(classes) < 2:
        raise ValueError(
            f"2 classes need {MIN_PER_CLASS} reference rows each, got counts {counts.tolist()}"
        )
    kept = np.isin(reference_labels, classes)
    codes = np.searchsorted(classes, reference_labels[kept]).astype(np.int64)
    with threadpool_limits(limits=1):
        found = _test(
            bounded(reference[kept]),
            codes,
            bounded(recent),
            len(classes),
            np.random.default_rng(seed),
            n_bootstraps,
        )
    if len(classes) == n_classes:
        return found
    prior, low, high = np.zeros(n_classes), np.zeros(n_classes), np.ones(n_classes)
    prior[classes], low[classes], high[classes] = found.prior, found.prior_low, found.prior_high
    return MixtureResult(
        prior,
        low,
        high,
        found.prior_p_value,
        found.fit_p_value,
        found.fit_statistic,
        found.fit_effect,
        found.n_reference,
        found.n_recent,
    )


def _test(
    reference: Array,
    labels: IntArray,
    recent: Array,
    n_classes: int,
    rng: np.random.Generator,
    n_bootstraps: int,
) -> MixtureResult:
    n, m = len(reference), len(recent)
    rows = np.concatenate([reference, recent])
    scores = _scores(rows, labels, n_classes, rng)
    known, new = scores[:n], scores[n:]
    correction = _estimate(known, labels, new)
    prior = correction.target_prior
    low, high = _interval(known, labels, new, prior, rng, n_bootstraps)
    between = (correction.source_prior + prior) / 2.0
    # Scores for a prior half-way: for the estimated one they tell nothing where it is near 0 or 1.
    regressors = reweight(correction.apply(scores), prior, between)
    statistic, p_value, effect = _misfit(rows, labels, scores, regressors, prior, rng)
    return MixtureResult(
        prior=prior,
        prior_low=low,
        prior_high=high,
        prior_p_value=_prior_p_value(known, labels, prior, m, rng, n_bootstraps),
        fit_p_value=p_value,
        fit_statistic=statistic,
        fit_effect=effect,
        n_reference=n,
        n_recent=m,
    )


def _scores(rows: Array, labels: IntArray, n_classes: int, rng: np.random.Generator) -> Array:
    """Class probabilities of all rows by models that saw only reference rows of other folds."""
    n = len(labels)
    unknown = np.zeros(len(rows) - n, np.int64)
    folds = make_folds(np.concatenate([labels, unknown + n_classes]), N_FOLDS, rng)
    classes, taught = np.concatenate([labels, unknown]), np.arange(len(rows)) < n
    # One learner a call: a stack would be chosen by the loss on labels that do not exist.
    fitted = [
        cross_fit(rows, classes, n_classes, folds, (learner,), taught)
        for learner in (quadratic_logistic, boosted_trees)
    ]
    return np.asarray(sum(fitted) / len(fitted))


def _estimate(scores: Array, labels: IntArray, recent: Array) -> PriorCorrection:
    """`PriorCorrection.estimate` with the mixture's weights at their maximum.

    Plain EM needs hundreds of steps where the inputs hardly tell the classes, and hundreds of
    resamples cannot wait for it.
    """
    temperature, bias = fit_calibration(scores, labels)
    counts = np.bincount(labels, minlength=scores.shape[1]) + 0.5
    source = counts / counts.sum()
    calibrated = PriorCorrection(source, source, temperature, bias)
    ratios = calibrated.apply(recent) / source
    return replace(calibrated, target_prior=_weights(ratios, source))


def _weights(ratios: Array, start: Array) -> Array:
    """Weights w that maximise sum(log(ratios @ w)), by EM with squared extrapolation [1]_.

    References
    ----------
    .. [1] R. Varadhan, C. Roland (2008). Simple and globally convergent methods for accelerating
       the convergence of any EM algorithm. Scandinavian Journal of Statistics 35, 335-353.
    """

    def step(w: Array) -> Array:
        return np.asarray(w * ((1.0 / (ratios @ w)) @ ratios) / len(ratios))

    w = start
    for _ in range(MAX_STEPS):
        first = step(w)
        second = step(first)
        moved, bent = first - w, second - 2.0 * first + w
        if np.abs(moved).max() <= TOLERANCE or not bent.any():
            return second
        length = max(1.0, float(np.linalg.norm(moved) / np.linalg.norm(bent)))
        far = w + 2.0 * length * moved + length**2 * bent
        # Weights must not become negative, nor 0, which EM never leaves.
        far = np.maximum(far, second / 10.0)
        w = step(far / far.sum())
    return w


def _prior_p_value(
    scores: Array,
    labels: IntArray,
    prior: Array,
    m: int,
    rng: np.random.Generator,
    n_bootstraps: int,
) -> float:
    """Share of windows drawn from the reference whose prior is as far from it as the recent."""
    n, n_classes = scores.shape

    def distance(estimated: Array, known: IntArray) -> Array:
        return estimated - np.bincount(known, minlength=n_classes) / n

    drawn = np.empty((n_bootstraps, n_classes))
    for b in range(n_bootstraps):
        calibration, window = rng.integers(n, size=n), rng.integers(n, size=m)
        known = labels[calibration]
        found = _estimate(scores[calibration], known, scores[window])
        drawn[b] = distance(found.target_prior, known)
    scale = np.maximum(drawn.std(axis=0), 1e-9)
    observed = np.abs(distance(prior, labels) / scale).max()
    return float((1 + (np.abs(drawn / scale).max(axis=1) >= observed).sum()) / (n_bootstraps + 1))


def _interval(
    scores: Array,
    labels: IntArray,
    recent: Array,
    prior: Array,
    rng: np.random.Generator,
    n_bootstraps: int,
) -> tuple[Array, Array]:
    """Normal 95 % intervals with the spread over resamples of both windows, cut to [0, 1]."""
    n, m = len(scores), len(recent)
    drawn = np.empty((n_bootstraps, len(prior)))
    for b in range(n_bootstraps):
        calibration, window = rng.integers(n, size=n), rng.integers(m, size=m)
        found = _estimate(scores[calibration], labels[calibration], recent[window])
        drawn[b] = found.target_prior
    half = 1.96 * drawn.std(axis=0)
    return np.maximum(prior - half, 0.0), np.minimum(prior + half, 1.0)


def _misfit(
    rows: Array,
    labels: IntArray,
    scores: Array,
    regressors: Array,
    prior: Array,
    rng: np.random.Generator,
) -> tuple[float, float, float]:
    """Statistic, p-value and effect of what a mixture of the reference's classes leaves over."""
    n, m = len(labels), len(rows) - len(labels)
    one_hot = np.eye(len(prior))[labels]
    averages = (one_hot / one_hot.sum(axis=0)).T  # (K, n): to class means
    weight = np.concatenate([-(prior @ averages), np.full(m, 1.0 / m)])
    # As the mean of deviations from a sample's own mean is too small by one degree of freedom.
    inflation = np.append(np.sqrt(one_hot.sum(axis=0) / (one_hot.sum(axis=0) - 1)), 1.0)
    noise_weight = weight * np.append(inflation[labels], np.full(m, np.sqrt(m / max(m - 1, 1))))
    directions = np.linalg.pinv(averages @ regressors[:n], rcond=WEAK)
    multipliers = rng.standard_normal((N_MULTIPLIERS, len(rows)), dtype=np.float32)

    def residual(features: Array) -> Array:
        """Features without what a change of prior alone would move."""
        return np.asarray(features - regressors @ (directions @ (averages @ features[:n])))

    def contrast(features: Array) -> Array:
        """Misfit of the means, then its draws under the null: shape (B + 1, q)."""
        left = residual(features)
        observed = weight @ left
        centre = np.concatenate([(averages @ left[:n])[labels], np.tile(left[n:].mean(0), (m, 1))])
        noise = ((left - centre) * noise_weight[:, None]).astype(np.float32)
        return np.concatenate([observed[None], multipliers @ noise])

    logs = np.log(np.maximum(scores, FLOOR))
    logs = (logs - logs.mean(axis=1, keepdims=True))[:, 1 : MAX_SCORES + 1]
    dense = principal(standardise(rows))
    moments = quadratic_moments(np.column_stack([dense, standardise(logs)]))
    width = median_bandwidth(dense, seed=int(rng.integers(2**63)))
    statistics = []
    for factor in BANDWIDTHS:
        fourier = FourierFeatures.draw(
            dense.shape[1],
            bandwidth=factor * width,
            n_features=N_FOURIER,
            seed=int(rng.integers(2**63)),
        )
        statistics.append(np.square(contrast(fourier(dense))).sum(axis=1))
    statistics.append(np.square(contrast(whiten(moments))).sum(axis=1))
    moved = contrast(moments)
    statistics.append(np.abs(moved / np.maximum(moved[1:].std(axis=0), 1e-12)).max(axis=1))
    marks = _indicators(np.column_stack([rows, logs]))
    statistics.append(np.abs(contrast(marks)).max(axis=1))
    # The cube root makes sums of squares nearly normal, so that no long tail sets the bar for all.
    values = np.cbrt(np.column_stack(statistics))
    spread = values[1:].std(axis=0)
    standardised = (values - values[1:].mean(axis=0)) / np.where(spread > 1e-9, spread, 1.0)
    largest = standardised.max(axis=1)
    p_value = (1 + int((largest[1:] >= largest[0] - 1e-6).sum())) / len(largest)
    return float(largest[0]), p_value, _separation(residual(moments), np.abs(weight), n)


def _indicators(rows: Array) -> Array:
    """Whether each value is at most each of its column's quantiles, shape (n, d * marks)."""
    n_marks = int(np.clip(MAX_INDICATORS // rows.shape[1], 3, N_MARKS))
    marks = np.quantile(rows, np.arange(1, n_marks + 1) / (n_marks + 1), axis=0, method="lower")
    return np.asarray((rows[:, None, :] <= marks[None]).reshape(len(rows), -1), np.float64)


def _separation(features: Array, weight: Array, n_reference: int) -> float:
    """2 AUC - 1 of a ridge discriminant between weighted windows, each half judged by the other."""
    recent = np.arange(len(features)) >= n_reference
    odd = np.arange(len(features)) % 2 == 1
    values = []
    for judged in (odd, ~odd):
        centred, centres = np.zeros_like(features[~judged]), []
        window = recent[~judged]
        for tag in (False, True):
            part, w = features[~judged][window == tag], weight[~judged][window == tag]
            centres.append(np.average(part, axis=0, weights=w))
            centred[window == tag] = part - centres[-1]
        spread = centred.T @ centred / len(centred)
        spread[np.diag_indices_from(spread)] += RIDGE + features.shape[1] / len(centred)
        rule = np.linalg.solve(spread, centres[1] - centres[0])
        values.append(_weighted_auc(features[judged] @ rule, recent[judged], weight[judged]))
    return max(0.0, 2.0 * float(np.mean(values)) - 1.0)


def _weighted_auc(scores: Array, positive: npt.NDArray[np.bool_], weight: Array) -> float:
    """Probability that a positive row scores above a negative one, rows drawn by their weights."""
    values, position = np.unique(scores, return_inverse=True)
    up = np.bincount(position, weights=weight * positive, minlength=len(values))
    down = np.bincount(position, weights=weight * ~positive, minlength=len(values))
    below = np.cumsum(down) - down / 2.0
    return float((up * below).sum() / (up.sum() * down.sum()))


def _check(
    reference: Array, labels: IntArray, recent: Array, n_classes: int, n_bootstraps: int
) -> None:
    shapes = reference.shape, recent.shape
    if reference.ndim != 2 or recent.ndim != 2 or shapes[0][1] != shapes[1][1] or not shapes[0][1]:
        raise ValueError(
            f"windows must have shapes (n, d) and (m, d), got {shapes[0]}, {shapes[1]}"
        )
    if labels.shape != (len(reference),):
        raise ValueError(
            f"every reference row needs a label, got shape {labels.shape} for {len(reference)} rows"
        )
    if n_classes < 2 or n_bootstraps < 1:
        raise ValueError(
            f"n_classes must be at least 2 and n_bootstraps at least 1, "
            f"got {n_classes} and {n_bootstraps}"
        )
    wrong = labels[(labels < 0) | (labels >= n_classes)]
    if wrong.size:
        raise ValueError(f"reference labels must be in [0, {n_classes}), got {wrong[0]}")
    if len(recent) < MIN_PER_CLASS:
        raise ValueError(f"the recent window needs {MIN_PER_CLASS} rows, got {len(recent)}")
