"""Records that were read and not yet polled."""

from __future__ import annotations

from collections import deque

from service.records.block import Block, Piece


class BlockQueue:
    """Blocks one after the other, from which records are taken in their order."""

    def __init__(self) -> None:
        self._blocks: deque[Block] = deque()
        self._n = 0
        self._at = 0

    def __len__(self) -> int:
        return self._n

    def put(self, block: Block) -> None:
        """Add the records that come next."""
        if block:
            self._blocks.append(block)
            self._n += len(block)

    def take(self, max_records: int) -> Block:
        """Return the next records, and forget them."""
        pieces: list[Piece] = []
        left = min(max_records, self._n)
        self._n -= left
        while left > 0:
            first = self._blocks[0]
            stop = min(self._at + left, len(first))
            pieces.append((first, self._at, stop))
            left -= stop - self._at
            self._at = stop
            if stop == len(first):
                self._blocks.popleft()
                self._at = 0
        return Block.gathered(pieces)
