"""Rows on their way into a detector: one check of shape and type for all of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from detectors.base import Array


def as_rows(batch: npt.ArrayLike, width: int, who: str) -> Array:
    """Rows as one block of floats that compiled code can read; the input is never written to.

    Parameters
    ----------
    batch
        Rows in order, shape (n, `width`); n may be 0.
    width
        The number of columns that `who` was made for.
    who
        Name for the error.

    Returns
    -------
    Array
        Shape (n, `width`), float64, contiguous. May share memory with `batch`.

    Raises
    ------
    ValueError
        If the shape is another one; names both.

    Examples
    --------
    >>> as_rows([[1, 2], [3, 4]], 2, "bank").sum()
    np.float64(10.0)
    >>> as_rows([[1, 2]], 3, "bank")
    Traceback (most recent call last):
    ...
    ValueError: bank takes rows of 3 columns, got shape (1, 2)
    """
    # Writeable, because numba compiles a second copy of a kernel for read-only arrays.
    rows = np.require(batch, np.float64, ["C_CONTIGUOUS", "ALIGNED", "WRITEABLE"])
    if rows.ndim != 2 or rows.shape[1] != width:
        raise ValueError(f"{who} takes rows of {width} columns, got shape {rows.shape}")
    return rows
