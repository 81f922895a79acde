"""Maximum mean discrepancy: the kernel width, random Fourier features and the unbiased estimate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from detectors.base import Array

__all__ = ["FourierFeatures", "median_bandwidth", "mmd2"]

_Float = TypeVar("_Float", np.float32, np.float64)


def median_bandwidth(sample: Array, *, seed: int, max_rows: int = 300) -> float:
    """Median distance between rows: the usual width of a Gaussian kernel [1]_.

    Parameters
    ----------
    sample
        Rows, shape (n, d); at least 2 rows. More than `max_rows` are subsampled.
    seed
        Chooses the subsample.
    max_rows
        Rows looked at; the cost is quadratic in it.

    Returns
    -------
    float
        Always positive. Where more than half of the distances are 0 (integer or one-hot columns)
        it is the median of the positive ones, and 1 where all rows are equal.

    Raises
    ------
    ValueError
        If the sample is not a matrix of at least 2 rows; names the shape.

    References
    ----------
    .. [1] A. Gretton et al. (2012). A kernel two-sample test. JMLR 13, 723-773, section 8.

    Examples
    --------
    >>> line = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> median_bandwidth(line, seed=0)
    1.5
    >>> median_bandwidth(np.zeros((5, 3)), seed=0)
    1.0
    """
    if sample.ndim != 2 or len(sample) < 2:
        raise ValueError(f"sample must have shape (n, d) with n at least 2, got {sample.shape}")
    rows = sample
    if len(sample) > max_rows:
        rng = np.random.default_rng(seed)
        rows = sample[rng.choice(len(sample), max_rows, replace=False)]
    distance2 = _squared_distances(rows, rows)[np.triu_indices(len(rows), 1)]
    # Rounding leaves tiny positive values between equal rows; they must not pass for distances.
    noise = 1e-12 * float(np.square(rows - rows.mean(axis=0)).sum(axis=1).max())
    median = float(np.median(np.sqrt(distance2)))
    if median * median > noise:
        return median
    positive = distance2[distance2 > noise]
    return float(np.median(np.sqrt(positive))) if positive.size else 1.0


@dataclass(frozen=True, slots=True)
class FourierFeatures:
    """Random cosines whose inner products approximate a Gaussian kernel [1]_.

    Means of the features over a window stand for the window's kernel mean embedding, so the squared
    distance of two such means approximates the (biased) squared MMD at a cost linear in the rows.

    Attributes
    ----------
    frequencies
        Shape (d, m).
    phases
        Shape (m,), in [0, 2 pi).

    References
    ----------
    .. [1] A. Rahimi, B. Recht (2007). Random features for large-scale kernel machines. NIPS 20.

    Examples
    --------
    >>> features = FourierFeatures.draw(2, bandwidth=1.0, n_features=4000, seed=1)
    >>> a, b = features(np.array([[0.0, 0.0], [1.0, 0.0]]))
    >>> print(f"{a @ b:.2f}, exactly {np.exp(-0.5):.2f}")
    0.63, exactly 0.61
    """

    frequencies: Array
    phases: Array

    @classmethod
    def draw(
        cls, n_columns: int, *, bandwidth: float, n_features: int, seed: int
    ) -> FourierFeatures:
        """Draw features for the kernel exp(-|x - y|^2 / (2 bandwidth^2)).

        Raises
        ------
        ValueError
            If a number is not positive; names it.
        """
        for name, value in (
            ("n_columns", n_columns),
            ("bandwidth", bandwidth),
            ("n_features", n_features),
        ):
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        rng = np.random.default_rng(seed)
        return cls(
            frequencies=rng.normal(size=(n_columns, n_features)) / bandwidth,
            phases=rng.uniform(0.0, 2.0 * np.pi, n_features),
        )

    def __call__(self, rows: npt.NDArray[_Float]) -> npt.NDArray[_Float]:
        """Map rows, shape (n, d), to features, shape (n, m), in the rows' precision."""
        kind = rows.dtype
        angles = rows @ self.frequencies.astype(kind) + self.phases.astype(kind)
        features: npt.NDArray[_Float] = np.cos(angles, out=angles)
        features *= np.sqrt(2.0 / len(self.phases))
        return features


def mmd2(x: Array, y: Array, bandwidth: float) -> float:
    """Unbiased squared maximum mean discrepancy with a Gaussian kernel [1]_.

    Parameters
    ----------
    x, y
        Rows, shapes (n, d) and (m, d); n and m at least 2.
    bandwidth
        Kernel width, in the unit of the rows; positive.

    Returns
    -------
    float
        Near 0 if both come from one distribution; can be slightly negative.

    Raises
    ------
    ValueError
        If the shapes do not fit or the bandwidth is not positive; names them.

    References
    ----------
    .. [1] A. Gretton et al. (2012). A kernel two-sample test. JMLR 13, 723-773, Lemma 6.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x, y, moved = rng.normal(size=(3, 500, 2))
    >>> print(f"{mmd2(x, y, 1.0):.3f} {mmd2(x, moved + 1.0, 1.0):.3f}")
    0.002 0.189
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(
            f"x and y must have shapes (n, d) and (m, d) with at least 2 rows, "
            f"got {x.shape} and {y.shape}"
        )
    if not bandwidth > 0:
        raise ValueError(f"bandwidth must be positive, got {bandwidth}")

    def kernel(a: Array, b: Array) -> Array:
        return np.asarray(np.exp(-_squared_distances(a, b) / (2.0 * bandwidth * bandwidth)))

    n, m = len(x), len(y)
    within_x = (kernel(x, x).sum() - n) / (n * (n - 1))
    within_y = (kernel(y, y).sum() - m) / (m * (m - 1))
    return float(within_x + within_y - 2.0 * kernel(x, y).mean())


def _squared_distances(a: Array, b: Array) -> Array:
    """Squared Euclidean distances, shape (n, m), never negative."""
    # Centring both on one point keeps the expansion below exact for data far from the origin.
    centre = a.mean(axis=0)
    a, b = a - centre, b - centre
    norms = np.square(a).sum(1)[:, None] + np.square(b).sum(1)[None, :]
    return np.asarray(np.maximum(norms - 2.0 * (a @ b.T), 0.0))
