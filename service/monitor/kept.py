"""Values of observations by their index, kept until they are needed no longer."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.base import IntArray

_LEAST = 256
"""Places to begin with."""


class Kept:
    """A value for each of some observations, found by the observation's index.

    Indices come in increasing order, and which ones go does not matter; both take constant time
    over many calls, whatever is held meanwhile. It holds what it was given and not told to drop:
    the bound is whose who drops.

    Parameters
    ----------
    shape, dtype
        Of one value.

    Examples
    --------
    >>> kept = Kept((2,))
    >>> kept.add(np.array([4, 7]), np.array([[1.0, 2.0], [3.0, 4.0]]))
    >>> values, found = kept.of(np.array([7, 5]))
    >>> found.tolist(), values[found].tolist()
    ([True, False], [[3.0, 4.0]])
    """

    def __init__(self, shape: tuple[int, ...] = (), dtype: npt.DTypeLike = np.float64) -> None:
        self._index = np.empty(_LEAST, np.int64)
        self._alive = np.zeros(_LEAST, np.bool_)
        self._values: npt.NDArray[Any] = np.empty((_LEAST, *shape), dtype)
        self._begin = self._end = 0
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def clear(self) -> None:
        """Drop all."""
        self._begin = self._end = self._n = 0

    def add(self, index: IntArray, values: npt.NDArray[Any]) -> None:
        """Keep values of observations that come behind all that were added before.

        Raises
        ------
        ValueError
            If an index is not larger than the one before it.
        """
        if not len(index):
            return
        newest = self._index[self._end - 1] if self._end > self._begin else -1
        if index[0] <= newest or (np.diff(index) <= 0).any():
            raise ValueError(f"indices must increase, got {index[:5].tolist()} behind {newest}")
        if self._end + len(index) > len(self._index):
            self._make_room(len(index))
        place = slice(self._end, self._end + len(index))
        self._index[place] = index
        self._values[place] = values
        self._alive[place] = True
        self._end += len(index)
        self._n += len(index)

    def of(self, index: IntArray) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Values of some observations, and which of them are kept; the others' mean nothing."""
        place, found = self._find(index)
        return self._values[place], found

    def drop(self, index: IntArray) -> None:
        """Keep the values of these observations no longer; there may be none."""
        if not len(index) or not self._n:
            return
        place, found = self._find(index)
        # One that is named twice is there once.
        gone = np.unique(place[found])
        self._alive[gone] = False
        self._n -= len(gone)
        if not self._n:
            self._begin = self._end
            return
        # What went from the front is searched no more.
        if not self._alive[self._begin]:
            self._begin += int(np.argmax(self._alive[self._begin : self._end]))

    @property
    def index(self) -> IntArray:
        """The indices of all that are kept, in order."""
        return self._index[self._begin : self._end][self._alive[self._begin : self._end]]

    @property
    def values(self) -> npt.NDArray[Any]:
        """Their values."""
        held = slice(self._begin, self._end)
        if self._n == self._end - self._begin:
            return self._values[held].copy()
        return self._values[held][self._alive[held]]

    def _find(self, index: IntArray) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        held = self._index[self._begin : self._end]
        if not len(held):
            return np.zeros(len(index), np.int64), np.zeros(len(index), np.bool_)
        place = np.minimum(np.searchsorted(held, index), len(held) - 1) + self._begin
        return place, (self._index[place] == index) & self._alive[place]

    def _make_room(self, n: int) -> None:
        """Move what is kept to the front, of larger arrays where that is not half of them."""
        index, values = self.index, self.values
        size = len(self._index)
        while 2 * (self._n + n) > size:
            size *= 2
        if size > len(self._index):
            self._index = np.empty(size, np.int64)
            self._values = np.empty((size, *values.shape[1:]), values.dtype)
            self._alive = np.empty(size, np.bool_)
        self._alive[:] = False
        self._index[: self._n], self._values[: self._n] = index, values
        self._alive[: self._n] = True
        self._begin, self._end = 0, self._n
