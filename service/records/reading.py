"""The records of a block by their stream: the plain ones as columns, the others decoded."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from service.records.block import Block
from service.records.columns import Columns
from service.records.formats.decoder import Ignored
from service.records.gather import Body, Placed
from service.records.plain import PlainReader
from service.records.record import DecodeError, Record
from service.records.rows import streams_of

_STREAM = re.compile(rb'"stream"\s*:\s*"([^"\\]*)"')
_FIRST_BYTES = 64
_SEARCHED_BYTES = 512
"""Where the name of a stream is looked for; it is only a guess, and costs what it saves."""


class Decodes(Protocol):
    """Decodes any record."""

    def decode(self, record: Record, /) -> Body | Ignored:
        """As of `service.records.formats.decoder.Decoder`."""
        ...


@dataclass(frozen=True, slots=True)
class Given:
    """The records of one stream in a block.

    Attributes
    ----------
    block
        Where they came with.
    bodies
        What the records say that were decoded one after the other, with their places.
    plain
        The others; None if there are none.
    """

    block: Block
    bodies: Sequence[Placed] = ()
    plain: Columns | None = None

    @property
    def records(self) -> list[Record]:
        """All of them, in their order."""
        plain = [] if self.plain is None else self.plain.positions.tolist()
        return [self.block[at] for at in sorted([*plain, *(at for at, _ in self.bodies)])]

    @property
    def ids(self) -> list[str]:
        """All of their ids."""
        own = [] if self.plain is None else self.plain.ids
        return [*own, *(body.id for _, body in self.bodies)]


@dataclass(frozen=True, slots=True)
class Reading:
    """What the records of a block say.

    Attributes
    ----------
    streams
        By stream, in the order in which the streams appear.
    refused
        Places of the records that cannot be used, and what is wrong with each.
    ignored
        How many records nothing here needs, by reason.
    """

    streams: dict[str, Given] = field(default_factory=dict)
    refused: list[tuple[int, DecodeError]] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)


def read(
    block: Block,
    decoder: Decodes,
    configured: Collection[str],
    readers: Mapping[str, PlainReader],
) -> Reading:
    """Read the records of a block.

    Parameters
    ----------
    block
        The records.
    decoder
        Decodes what is not plain.
    configured
        Names of all streams; a record of another one is refused.
    readers
        Of the streams whose schema is known and whose records may be plain.

    Raises
    ------
    TemporaryError
        If whether a record can be used is not known yet; nothing has been done then.
    """
    plain: dict[str, Columns] = {}
    left: list[int] = []
    for name, positions in _guessed(block, configured).items():
        reader = readers.get(name)
        if reader is None:
            left += positions
            continue
        columns, rest = reader.read(block, positions)
        left += rest
        if len(columns):
            plain[name] = columns
    bodies: dict[str, list[Placed]] = {}
    refused: list[tuple[int, DecodeError]] = []
    ignored: Counter[str] = Counter()
    for at in sorted(left):
        record = block[at]
        try:
            body = decoder.decode(record)
        except DecodeError as error:
            refused.append((at, error))
            continue
        if isinstance(body, Ignored):
            ignored[body.reason] += 1
        elif body.stream in configured:
            bodies.setdefault(body.stream, []).append((at, body))
        else:
            what = f"stream: {body.stream!r} is not configured"
            refused.append((at, DecodeError("unknown_stream", what, record)))
    names = dict.fromkeys([*plain, *bodies])
    return Reading(
        {name: Given(block, bodies.get(name, ()), plain.get(name)) for name in names},
        refused,
        ignored,
    )


def _guessed(block: Block, configured: Collection[str]) -> dict[str, Sequence[int]]:
    """Places of the records by the stream that they seem to be of; under "" what seems unusual."""
    if len(configured) == 1:
        [name] = configured
        usual: dict[str, Sequence[int]] = {name: range(len(block))}
    elif block.keys is not None and None not in block.keys:
        usual = _grouped(block.keys)
    elif block.table is not None:
        usual = _grouped(streams_of(block.table))
    else:
        usual = _grouped(_names(block.values))
    if not block.headers and not block.dropped:
        return usual
    odd = block.headers.keys() | block.dropped.keys()
    sorted_out = {n: [at for at in places if at not in odd] for n, places in usual.items()}
    return {**sorted_out, "": [*sorted_out.get("", ()), *odd]}


def _names(values: Iterable[bytes]) -> list[bytes]:
    """The names of the streams; most records say it first, and like the record before."""
    known: dict[bytes, bytes] = {}
    names = []
    for value in values:
        first = value[:_FIRST_BYTES].partition(b",")[0]
        name = known.get(first)
        if name is None:
            name = _named(value)
            if _STREAM.fullmatch(first[1:]):
                known[first] = name
        names.append(name)
    return names


def _named(value: bytes) -> bytes:
    found = _STREAM.search(value, 0, _SEARCHED_BYTES)
    return b"" if found is None else found.group(1)


def _grouped(names: Sequence[bytes | str | None]) -> dict[str, Sequence[int]]:
    if len(set(names)) == 1:
        return {_text(names[0]): range(len(names))}
    found: dict[bytes | str | None, list[int]] = {}
    for at, name in enumerate(names):
        found.setdefault(name, []).append(at)
    return {_text(name): places for name, places in found.items()}


def _text(name: bytes | str | None) -> str:
    return name if isinstance(name, str) else (name or b"").decode("utf-8", "replace")
