"""Label shift: estimate the new class frequencies without labels, and correct the scores for them.

If P(Y) moved and P(X|Y) did not, the scores of a calibrated classifier stay right up to the ratio
of new to old class frequencies. No retraining is needed: estimate the new ones, then re-weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from detectors.base import Array, IntArray, State

__all__ = [
    "PriorCorrection",
    "PriorMethod",
    "estimate_prior_bbse",
    "estimate_prior_mlls",
    "fit_calibration",
    "reweight",
]

FLOOR = 1e-6
"""Smallest score that is told from 0: one certain mistake must not cost infinite log-loss."""

MAX_ITERATIONS = 1000
TOLERANCE = 1e-6

WHOLE = 1.0 - 1e-3
"""A class that is given more than this has taken all: the likelihood has no maximum inside, which
happens when scores are more certain than they are right."""


class PriorMethod(StrEnum):
    """How a prior was estimated."""

    MLLS = "mlls"
    """Maximum likelihood, from calibrated scores."""
    BBSE = "bbse"
    """From the predicted classes alone."""


def fit_calibration(scores: Array, labels: IntArray) -> tuple[float, Array]:
    """Bias-corrected temperature scaling [1]_: softmax(log(scores) / temperature + bias).

    Without the bias, a classifier that over-predicts a class looks like a shifted prior.

    Parameters
    ----------
    scores
        Class probabilities of held-out rows, shape (n, K).
    labels
        Their classes, shape (n,), from 0 to K - 1.

    Returns
    -------
    temperature, bias
        A positive number, above 1 for an over-confident classifier, and shape (K,), summing to 0.

    Raises
    ------
    ValueError
        If shapes do not fit, or a score or label is out of range; names it.

    References
    ----------
    .. [1] A. Alexandari, A. Kundaje, A. Shrikumar (2020). Maximum likelihood with bias-corrected
       calibration is hard-to-beat at label shift adaptation. ICML, PMLR 119, 222-232.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.dirichlet([1, 1, 1], size=2000)
    >>> labels = np.array([rng.choice(3, p=p) for p in truth])
    >>> sharpened = truth**2 / (truth**2).sum(axis=1, keepdims=True)
    >>> temperature, bias = fit_calibration(sharpened, labels)
    >>> round(temperature, 1)
    2.0
    """
    scores = _checked(scores, "scores")
    n, n_classes = scores.shape
    if labels.shape != (n,) or n == 0 or labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(f"labels must be {n} integers in [0, {n_classes}), got {labels!r}")
    logs = np.log(np.maximum(scores, FLOOR))
    truth = np.eye(n_classes)[labels]
    # A weak pull to "as is": without it, a class that never occurs drives its bias to -infinity.
    strength = 1.0 / n

    def loss(parameters: Array) -> tuple[float, Array]:
        slope, bias = np.exp(parameters[0]), parameters[1:]
        logits = slope * logs + bias
        logits -= logits.max(axis=1, keepdims=True)
        probability = np.exp(logits)
        probability /= probability.sum(axis=1, keepdims=True)
        value = -np.log(np.maximum((probability * truth).sum(axis=1), 1e-300)).mean()
        residual = (probability - truth) / n
        gradient = np.concatenate([[slope * (residual * logs).sum()], residual.sum(axis=0)])
        return (
            float(value + 0.5 * strength * parameters @ parameters),
            gradient + strength * parameters,
        )

    from scipy.optimize import minimize  # noqa: PLC0415 - slow to import, rarely needed

    found = minimize(loss, np.zeros(n_classes + 1), jac=True, method="L-BFGS-B").x
    return float(np.exp(-found[0])), np.asarray(found[1:] - found[1:].mean())


def estimate_prior_mlls(
    scores: Array,
    source_prior: Array,
    *,
    max_iterations: int = MAX_ITERATIONS,
    tolerance: float = TOLERANCE,
) -> Array:
    """Maximum-likelihood class frequencies of unlabelled rows, by the EM of [1]_.

    Parameters
    ----------
    scores
        Calibrated class probabilities of the rows, shape (n, K), for the source prior.
    source_prior
        Class frequencies that the scores assume, shape (K,). A class with frequency 0 keeps it.
    max_iterations, tolerance
        EM ends when no frequency moves by more than the tolerance.

    Returns
    -------
    Array
        Class frequencies, shape (K,), summing to 1.

    Raises
    ------
    ValueError
        If shapes do not fit, or there is no row; names the shapes.

    References
    ----------
    .. [1] M. Saerens, P. Latinne, C. Decaestecker (2002). Adjusting the outputs of a classifier to
       new a priori probabilities. Neural Computation 14, 21-41, equations 2.8 and 2.9.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = rng.random(4000) < 0.8
    >>> x = rng.normal(np.where(y, 1.0, -1.0))
    >>> balanced = 1 / (1 + np.exp(-2 * x))  # P(Y=1|x) where both classes are equally frequent
    >>> scores = np.column_stack([1 - balanced, balanced])
    >>> estimate_prior_mlls(scores, np.array([0.5, 0.5])).round(2)
    array([0.2, 0.8])
    """
    scores, source_prior = _checked(scores, "scores"), _distribution(source_prior, "source_prior")
    if scores.shape[1:] != source_prior.shape or not len(scores):
        raise ValueError(
            f"scores must have shape (n, {len(source_prior)}) with n at least 1, got {scores.shape}"
        )
    return _em(scores, source_prior, max_iterations, tolerance)[0]


def _em(
    scores: Array, source_prior: Array, max_iterations: int, tolerance: float
) -> tuple[Array, bool]:
    """The prior after the last iteration, and whether it had stopped moving."""
    prior = source_prior
    for _ in range(max_iterations):
        updated = np.asarray(reweight(scores, source_prior, prior).mean(axis=0))
        if np.abs(updated - prior).max() <= tolerance:
            return updated, True
        prior = updated
    return prior, False


def estimate_prior_bbse(confusion: Array, predicted: Array, *, ridge: float = 1e-3) -> Array:
    """Class frequencies from the frequencies of the predicted classes (black-box shift [1]_).

    For classifiers that give classes and no probabilities. The weights w = target / source solve
    confusion @ w = predicted, pulled towards 1 by a ridge, as few labels make the matrix
    ill-conditioned.

    Parameters
    ----------
    confusion
        Joint frequencies (predicted class, true class) on held-out source rows, shape (K, K).
    predicted
        Frequencies of the predicted classes on the new rows, shape (K,).
    ridge
        Strength of the pull; 0 inverts the matrix.

    Returns
    -------
    Array
        Class frequencies, shape (K,), summing to 1; negative solutions are cut at 0.

    Raises
    ------
    ValueError
        If shapes do not fit or the frequencies are negative or all 0.

    References
    ----------
    .. [1] Z. Lipton, Y.-X. Wang, A. Smola (2018). Detecting and correcting for label shift with
       black box predictors. ICML, PMLR 80, 3122-3130.

    Examples
    --------
    >>> confusion = np.array([[0.45, 0.10], [0.05, 0.40]])  # source: classes half and half
    >>> estimate_prior_bbse(confusion, np.array([0.34, 0.66]), ridge=0.0).round(2)
    array([0.2, 0.8])
    """
    predicted = _distribution(predicted, "predicted")
    n_classes = len(predicted)
    if confusion.shape != (n_classes, n_classes):
        raise ValueError(
            f"confusion must have shape ({n_classes}, {n_classes}), got {confusion.shape}"
        )
    joint = _distribution(confusion.ravel(), "confusion").reshape(confusion.shape)
    # Solved for w - 1, so that the ridge pulls to "nothing moved" and not to 0.
    gram = joint.T @ joint + ridge * np.eye(n_classes) / n_classes**2
    shift, *_ = np.linalg.lstsq(gram, joint.T @ (predicted - joint.sum(axis=1)), rcond=None)
    target = np.maximum(1.0 + shift, 0.0) * joint.sum(axis=0)
    total = target.sum()
    return np.asarray(target / total) if total > 0 else np.asarray(joint.sum(axis=0))


def reweight(scores: Array, source_prior: Array, target_prior: Array) -> Array:
    """Scores under other class frequencies: proportional to score * target / source.

    Parameters
    ----------
    scores
        Shape (n, K), for the source prior.
    source_prior, target_prior
        Shape (K,). A class that the source never had keeps its score.

    Returns
    -------
    Array
        Shape (n, K), rows sum to 1. A row whose weight is all gone falls back to the target prior.

    Examples
    --------
    >>> reweight(np.array([[0.5, 0.5]]), np.array([0.5, 0.5]), np.array([0.1, 0.9]))
    array([[0.1, 0.9]])
    """
    ratio = np.divide(
        target_prior, source_prior, out=np.ones_like(target_prior), where=source_prior > 0
    )
    weighted = scores * ratio
    total = weighted.sum(axis=1, keepdims=True)
    gone = total <= 0
    return np.asarray(np.where(gone, target_prior, weighted / np.where(gone, 1.0, total)))


@dataclass(frozen=True, slots=True)
class PriorCorrection:
    """A calibration and a change of prior, ready for scores.

    Attributes
    ----------
    source_prior, target_prior
        Class frequencies before and after, shape (K,).
    temperature, bias
        Calibration of the scores before the prior is changed; bias has shape (K,).
    method
        How the target prior was estimated.
    since_index
        Index of the first observation that is corrected.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> def scored(rate):  # a one-column problem and its calibrated classifier
    ...     y = (rng.random(2000) < rate).astype(np.int64)
    ...     p = 1 / (1 + np.exp(-2 * rng.normal(2.0 * y - 1.0)))
    ...     return np.column_stack([1 - p, p]), y
    >>> (reference, labels), (recent, truth) = scored(0.5), scored(0.9)
    >>> correction = PriorCorrection.estimate(reference, labels, recent)
    >>> correction.target_prior.round(1)
    array([0.1, 0.9])
    >>> before = (recent.argmax(axis=1) == truth).mean()
    >>> after = (correction.apply(recent).argmax(axis=1) == truth).mean()
    >>> print(f"{before:.2f} {after:.2f}")
    0.84 0.92
    """

    source_prior: Array
    target_prior: Array
    temperature: float
    bias: Array
    method: PriorMethod = PriorMethod.MLLS
    since_index: int = 0

    @classmethod
    def estimate(
        cls,
        reference_scores: Array,
        reference_labels: IntArray,
        recent_scores: Array,
        *,
        max_iterations: int = MAX_ITERATIONS,
        since_index: int = 0,
    ) -> PriorCorrection:
        """Calibrate on labelled reference rows, then estimate the prior of unlabelled recent ones.

        By maximum likelihood; where that does not settle, or gives everything to one class, by
        the frequencies of the predicted classes (`estimate_prior_bbse`).

        Parameters
        ----------
        reference_scores, reference_labels
            Held-out rows that the classifier was not trained on, shapes (n, K) and (n,).
        recent_scores
            Shape (m, K).
        max_iterations
            Of the likelihood's maximisation.
        since_index
            As the attribute.

        Raises
        ------
        ValueError
            As `fit_calibration` and `estimate_prior_mlls`.
        """
        temperature, bias = fit_calibration(reference_scores, reference_labels)
        # Half a row for each class: a class that the reference happens to lack may still come.
        n_classes = reference_scores.shape[1]
        counts = np.bincount(reference_labels, minlength=n_classes) + 0.5
        source = counts / counts.sum()
        recent = _checked(recent_scores, "recent_scores")
        if recent.shape[1] != n_classes or not len(recent):
            raise ValueError(
                f"recent_scores must have shape (m, {n_classes}) with m at least 1, "
                f"got {recent.shape}"
            )
        calibrated = _calibrate(recent, temperature, bias)
        target, settled = _em(calibrated, source, max_iterations, TOLERANCE)
        method = PriorMethod.MLLS
        if not settled or not np.isfinite(target).all() or target.max() > WHOLE:
            method = PriorMethod.BBSE
            known = _calibrate(reference_scores, temperature, bias).argmax(axis=1)
            confusion = np.eye(n_classes) / 2  # the same half rows as above
            np.add.at(confusion, (known, reference_labels), 1.0)
            predicted = np.bincount(calibrated.argmax(axis=1), minlength=n_classes)
            target = estimate_prior_bbse(confusion, predicted / len(recent))
        return cls(source, target, temperature, bias, method, since_index)

    @property
    def weights(self) -> Array:
        """What a calibrated score is multiplied with before rows are made to sum to 1, (K,)."""
        return np.divide(
            self.target_prior,
            self.source_prior,
            out=np.ones_like(self.target_prior),
            where=self.source_prior > 0,
        )

    def apply(self, scores: Array) -> Array:
        """Corrected scores, shape (n, K), rows sum to 1."""
        calibrated = _calibrate(np.asarray(scores, np.float64), self.temperature, self.bias)
        return reweight(calibrated, self.source_prior, self.target_prior)

    def snapshot(self) -> State:
        """Everything needed to go on."""
        return {
            "source_prior": self.source_prior.copy(),
            "target_prior": self.target_prior.copy(),
            "temperature": self.temperature,
            "bias": self.bias.copy(),
            "method": str(self.method),
            "since_index": self.since_index,
        }

    @classmethod
    def from_snapshot(cls, state: State) -> PriorCorrection:
        """The correction that a snapshot was taken of."""
        return cls(
            source_prior=np.array(state["source_prior"], np.float64),
            target_prior=np.array(state["target_prior"], np.float64),
            temperature=float(state["temperature"]),
            bias=np.array(state["bias"], np.float64),
            method=PriorMethod(state["method"]),
            since_index=int(state["since_index"]),
        )


def _calibrate(scores: Array, temperature: float, bias: Array) -> Array:
    logits = np.log(np.maximum(scores, FLOOR)) / temperature + bias
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def _checked(scores: Array, name: str) -> Array:
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ValueError(f"{name} must have shape (n, K) with K at least 2, got {scores.shape}")
    if not (np.isfinite(scores).all() and (scores >= 0).all()):
        raise ValueError(f"{name} must be finite and not negative, got {scores.min()} as smallest")
    return np.asarray(scores, np.float64)


def _distribution(values: Array, name: str) -> Array:
    total = float(values.sum())
    if not (np.isfinite(total) and total > 0 and (values >= 0).all()):
        raise ValueError(f"{name} must be frequencies with a positive sum, got {values!r}")
    return np.asarray(values / total)
