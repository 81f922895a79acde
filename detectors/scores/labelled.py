"""What the scores of labelled rows share."""

from __future__ import annotations

import numpy as np

from detectors.base import Array, IntArray
from detectors.rows import as_labels, bounded

MAX_BLOCKS = 10
"""Classes with columns of their own, the most frequent ones; more only raise the thresholds."""
CLIP = 4.0
"""Standardised scores are cut here: a rare class has residuals without a useful bound."""


def reference_labels(labels: IntArray, n_rows: int, n_classes: int) -> IntArray:
    """Class codes of a reference, shape (n,): every row has one.

    Raises
    ------
    ValueError
        If a code is no class or missing; names it and its row.

    Examples
    --------
    >>> reference_labels(np.array([0, -1]), 2, 2)
    Traceback (most recent call last):
    ...
    ValueError: every row of a reference needs a label, got -1 at row 1
    """
    codes = as_labels(labels, n_rows, n_classes, "a reference")
    if (codes < 0).any():
        row = int(np.flatnonzero(codes < 0)[0])
        raise ValueError(f"every row of a reference needs a label, got {codes[row]} at row {row}")
    return codes


def leading_axes(rows: Array, n: int) -> tuple[Array, Array]:
    """Mean, and leading axes scaled to unit variance; shapes (d,) and (d, at most n).

    Columns are standardised first; a constant one has no part in an axis.

    Examples
    --------
    >>> rows = np.random.default_rng(0).normal(size=(500, 3)) * [1.0, 50.0, 0.0]
    >>> mean, axes = leading_axes(rows, 6)
    >>> ((rows - mean) @ axes).std(axis=0).round(3).tolist()
    [1.0, 1.0]
    """
    rows = bounded(rows)
    mean = rows.mean(axis=0)
    scale = rows.std(axis=0)
    scale[scale < 1e-12] = np.inf
    _, singular, axes = np.linalg.svd((rows - mean) / scale, full_matrices=False)
    spread = singular / np.sqrt(len(rows))
    keep = min(n, int((spread > 1e-6 * max(spread[0], 1e-30)).sum()))
    return mean, np.ascontiguousarray((axes[:keep] / scale).T / spread[:keep])
