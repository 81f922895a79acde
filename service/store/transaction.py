"""What one write transaction can do; `Store.transaction` is the only way to get one."""

from __future__ import annotations

from service.store.lane_part import LanePart, TopicPartition
from service.store.shared_part import SharedPart

__all__ = ["TopicPartition", "Transaction"]


class Transaction(LanePart, SharedPart):
    """Writes that become visible together when the transaction ends, or not at all.

    Whatever carries an id can be added twice: the second time changes nothing, so a replay after
    a crash writes what the first run wrote.

    On PostgreSQL several processes write at a time. What belongs to a lane is its owner's alone;
    what belongs to none (incidents, actions, jobs, champions, dead letters) is written by one
    transaction at a time, from the first such write to the commit. So write the lanes' part first:
    then no two transactions wait for each other, and each holds the others up for a short time.

    Parameters
    ----------
    connection
        A connection whose transaction has begun and holds the write lock.
    now
        Unix seconds, the one time of everything in this transaction.
    lanes
        The lanes this transaction is fenced by; empty for one that writes no offsets.
    """
