"""Where the observations and labels of one stream's lane wait that have no room in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from service.domain.waiting import Side, Spilled
from service.store.store import Store

IDS_AT_ONCE = 5000
"""Databases limit the parameters of a query; a poll's records are fewer."""


class StoreSpill:
    """A `Spill` that reads the store; the lane's transactions write it.

    Parameters
    ----------
    store
        The store.
    stream, lane
        Whose entries they are.
    """

    def __init__(self, store: Store, stream: str, lane: int) -> None:
        self._store = store
        self._stream = stream
        self._lane = lane

    def find(self, ids: Collection[str]) -> list[Spilled]:
        """Those of these ids that wait.

        Raises
        ------
        StoreError
            If the database does not answer.
        """
        asked = list(ids)
        return [
            entry
            for n in range(0, len(asked), IDS_AT_ONCE)
            for entry in self._store.spilled(self._stream, asked[n : n + IDS_AT_ONCE], self._lane)
        ]

    def count(self) -> Mapping[Side, int]:
        """How many wait, by what they are."""
        return self._store.count_spilled(self._stream, self._lane)
