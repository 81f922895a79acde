"""Rows and labels on their way into a detector: one check of shape and type for all of them."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from detectors.base import Array, IntArray

_Float = TypeVar("_Float", np.float32, np.float64)

LARGEST = 2.0**120
"""Larger values count as this one, 1.3e36: sums of squares are finite then, and single precision,
in which trees compare, holds it. It is more than a count or a measurement can be."""


def bounded(rows: npt.NDArray[_Float]) -> npt.NDArray[_Float]:
    """Rows whose values are at most `LARGEST` in size; the input itself where all are.

    What is not finite stays so, as it means "nothing seen".

    Examples
    --------
    >>> bounded(np.array([[1.0, -1.8e307, np.nan, np.inf]])).tolist()
    [[1.0, -1.329227995784916e+36, nan, inf]]
    """
    if not (np.abs(rows) > LARGEST).any():
        return rows
    return np.where(np.isfinite(rows), np.clip(rows, -LARGEST, LARGEST), rows)


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
        Shape (n, `width`), float64, contiguous, `bounded`. May share memory with `batch`.

    Raises
    ------
    ValueError
        If the shape is another one; names both.

    Examples
    --------
    >>> float(as_rows([[1, 2], [3, 4]], 2, "bank").sum())
    10.0
    >>> as_rows([[1, 2]], 3, "bank")
    Traceback (most recent call last):
    ...
    ValueError: bank takes rows of 3 columns, got shape (1, 2)
    """
    # Writeable, because numba compiles a second copy of a kernel for read-only arrays.
    if isinstance(batch, np.ndarray) and batch.dtype == np.float64 and batch.flags.carray:
        rows = batch  # as a rule; `require` takes longer than a short batch's whole kernel
    else:
        rows = np.require(batch, np.float64, ["C_CONTIGUOUS", "ALIGNED", "WRITEABLE"])
    if rows.ndim != 2 or rows.shape[1] != width:
        raise ValueError(f"{who} takes rows of {width} columns, got shape {rows.shape}")
    return bounded(rows)


def as_labels(labels: npt.ArrayLike, n_rows: int, n_classes: int, who: str) -> IntArray:
    """Class codes, checked.

    Parameters
    ----------
    labels
        Codes below `n_classes`, shape (`n_rows`,); a negative code means "no label".
    n_rows
        How many rows they belong to.
    n_classes
        How many classes `who` knows.
    who
        Name for the error.

    Returns
    -------
    IntArray
        Shape (`n_rows`,). May share memory with `labels`.

    Raises
    ------
    ValueError
        If the number differs from that of the rows, or a code is no class; names the values.

    Examples
    --------
    >>> as_labels([0, 1, -1], 3, 2, "scores").tolist()
    [0, 1, -1]
    >>> as_labels([0, 2], 2, 2, "scores")
    Traceback (most recent call last):
    ...
    ValueError: scores knows class codes below 2, got 2 at row 1
    """
    codes: IntArray = np.asarray(labels, dtype=np.int64)
    if codes.shape != (n_rows,):
        raise ValueError(
            f"{who} takes one label per row, got shape {codes.shape} for {n_rows} rows"
        )
    if n_rows and codes.max() >= n_classes:
        row = int(np.argmax(codes >= n_classes))
        raise ValueError(
            f"{who} knows class codes below {n_classes}, got {codes[row]} at row {row}"
        )
    return codes


def label_column(rows: Array, n_classes: int, who: str) -> IntArray:
    """Class codes from the last column of rows, shape (n,); -1 where there is none.

    Raises
    ------
    ValueError
        If a value is neither a class code nor negative nor not finite; names it and its row.

    Examples
    --------
    >>> label_column(np.array([[0.3, 1.0], [0.1, np.nan]]), 2, "mondrian").tolist()
    [1, -1]
    """
    column = rows[:, -1]
    given = np.isfinite(column) & (column >= 0)
    codes: IntArray = np.where(given, column, -1.0).astype(np.int64)
    wrong = np.flatnonzero(given & ((codes != column) | (codes >= n_classes)))
    if wrong.size:
        row = int(wrong[0])
        raise ValueError(
            f"{who} knows class codes below {n_classes}, got {column[row]} at row {row}"
        )
    return codes
