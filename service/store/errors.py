"""What can go wrong with the store."""

from __future__ import annotations


class StoreError(Exception):
    """The database could not do what was asked; nothing of the transaction was written.

    With one exception: where the connection to PostgreSQL is lost during the commit, the
    transaction is there as a whole or not at all, and only the store itself can tell which.
    """


class FencedError(StoreError):
    """Another process owns the lane now; nothing was written.

    The one that gets it stops working on the lane: it is no longer its own.
    """

    def __init__(self, lane: int, held: int, newest: int) -> None:
        super().__init__(f"lane {lane}: epoch {held} is over, the owner has epoch {newest}")
        self.lane = lane
        self.held = held
        self.newest = newest
