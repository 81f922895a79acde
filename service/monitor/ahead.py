"""What a join knows that its reader has not come to yet."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence


class Ahead:
    """Records are joined a batch at a time; this answers as of the event that was read last.

    Attributes
    ----------
    n_joined
        Events that have been joined since the last start.
    read_time
        The stream's time as of the event that was read last.
    """

    def __init__(self) -> None:
        self.read_time = -math.inf
        self.n_joined = 0
        self._n_read = 0
        # Waits that end in events which are not all read yet: their numbers, which increase, and
        # the observations' ids and indices.
        self._ending: deque[tuple[Sequence[int], Sequence[tuple[str, int]]]] = deque()
        # The stream's time from an event on which is not read yet, by the event's number.
        self._coming: deque[tuple[int, float]] = deque()

    def ends(self, index: int, id_: str) -> None:
        """The wait of an observation ends with the event that comes next."""
        self._ending.append(((self.n_joined + 1,), ((id_, index),)))

    def all_end(self, events: Sequence[int], observations: Sequence[tuple[str, int]]) -> None:
        """Waits end with events of these numbers, which increase: of these ids and indices."""
        if events:
            self._ending.append((events, observations))

    def time_is(self, now: float) -> None:
        """From the event on that comes next the stream's time is this."""
        if self._coming and self._coming[-1][0] == self.n_joined + 1:
            self._coming.pop()
        self._coming.append((self.n_joined + 1, now))

    def forget_time(self) -> None:
        """The stream has no time any more."""
        self._coming.clear()
        self.read_time = -math.inf

    def read(self, n: int) -> None:
        """The reader has come `n` events further."""
        self._n_read += n
        while self._ending and self._ending[0][0][-1] <= self._n_read:
            self._ending.popleft()
        while self._coming and self._coming[0][0] <= self._n_read:
            self.read_time = self._coming.popleft()[1]

    def ids(self, indices: Sequence[int], waiting: Mapping[str, int]) -> list[str]:
        """Ids of observations that waited when the last event was read, in the order asked for.

        `waiting` are the indices, by id, of those that wait now.
        """
        wanted = set(indices)
        found = {i: k for k, i in waiting.items() if i in wanted}
        for events, observations in self._ending:
            for number, (id_, index) in zip(events, observations, strict=True):
                if number > self._n_read and index in wanted:
                    found[index] = id_
        return [found[i] for i in indices if i in found]

    def restart(self, read_time: float, now: float) -> None:
        """Begin anew, with everything read but the stream's time of now."""
        self._ending.clear()
        self._coming.clear()
        self.n_joined = self._n_read = 0
        self.read_time = read_time
        if now != read_time:
            self._coming.append((1, now))
