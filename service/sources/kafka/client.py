"""What this service needs of a client of Kafka, whichever it is.

Two connections: a `Member` belongs to the consumer group and only learns which partitions of the
first topic are this process's; it never reads. A `Reader` belongs to no group and reads the
partitions it is told, from the offsets it is told. So a rebalance never touches what is being
read, and a read never holds a rebalance up.
"""

from __future__ import annotations

import ssl
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from service.records.block import Block, Run
from service.records.record import KEPT_BYTES, MAX_RECORD_BYTES
from service.settings.source import SourceSettings
from service.sources.source import Partition


class ClientError(RuntimeError):
    """The broker refuses what is asked, and would refuse it again."""


class AwayError(RuntimeError):
    """The broker cannot be reached now, or the group is being formed again."""


class FencedMemberError(ClientError):
    """Another process uses the same `group_instance_id`."""


class OffsetsGoneError(RuntimeError):
    """Offsets that are not in their partitions: deleted, or of a topic that was created anew."""

    def __init__(self, offsets: Mapping[Partition, int]) -> None:
        super().__init__(str(dict(offsets)))
        self.offsets = offsets


@dataclass(frozen=True, slots=True)
class Bounds:
    """The first offset of a partition, and the one behind its last."""

    first: int
    end: int

    def __str__(self) -> str:
        return f"{self.first} to {self.end}"


def to_block(
    topic: str,
    partition: int,
    offsets: Sequence[int],
    keys: Sequence[bytes | None],
    values: Sequence[bytes | None],
    headers: Sequence[Sequence[tuple[str, bytes | None]] | None],
    times_ms: Sequence[int],
) -> Block:
    """What a client gives of one partition, a column a field; a time is negative for none.

    Of a value that is too large only the beginning is kept. A tombstone has an empty one, which
    `decode` refuses, and so has a header without a value.
    """
    kept = [b"" if v is None else v for v in values]
    dropped = {}
    if sum(map(len, kept)) > MAX_RECORD_BYTES:
        dropped = {n: len(v) for n, v in enumerate(kept) if len(v) > MAX_RECORD_BYTES}
        for n in dropped:
            kept[n] = kept[n][:KEPT_BYTES]
    return Block(
        [Run(topic, partition, len(kept))] if kept else [],
        offsets,
        kept,
        keys=keys if any(key is not None for key in keys) else None,
        headers={
            n: tuple((name, content or b"") for name, content in given)
            for n, given in enumerate(headers)
            if given
        },
        times_ms=times_ms,
        dropped=dropped,
    )


def check_certificates(settings: SourceSettings) -> None:
    """Check the files of certificates and keys, of which the clients say late what is wrong.

    Raises
    ------
    ClientError
        If one cannot be read, is of another kind, or the key's password is wrong.
    SettingsError
        If the file of the password cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    named = f"source.ssl_cafile {settings.ssl_cafile}"
    try:
        if settings.ssl_cafile is not None:
            context.load_verify_locations(settings.ssl_cafile)
        if settings.ssl_certfile is not None:
            named = f"source.ssl_certfile {settings.ssl_certfile}, its key and the key's password"
            # Without any it would be asked for on the terminal.
            password = settings.read_ssl_key_password() or ""
            context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile, password)
    except OSError as error:
        raise ClientError(f"{named}: {error.strerror or error}") from error


class Reader(Protocol):
    """Reads partitions; used by one thread."""

    def partitions(self, topic: str) -> Collection[int]:
        """The numbers of a topic's partitions; none if it does not exist.

        Raises
        ------
        AwayError, ClientError
        """
        ...

    def bounds(self, partitions: Collection[Partition]) -> Mapping[Partition, Bounds]:
        """Ask the broker what there is to read.

        Raises
        ------
        AwayError, ClientError
        """
        ...

    def assign(self, offsets: Mapping[Partition, int]) -> None:
        """Read exactly these partitions from now on, each from its offset."""
        ...

    def poll(self, timeout_s: float) -> Mapping[Partition, Block]:
        """Return what has been fetched; waits up to `timeout_s` seconds for the first record.

        Each block has records of its partition alone, at least one, with their `times_ms`.

        Raises
        ------
        AwayError, ClientError
        OffsetsGoneError
            Until `assign` gives other offsets.
        """
        ...

    def hold(self, partitions: Collection[Partition]) -> None:
        """Fetch nothing of these partitions, and of all others again."""
        ...

    def is_at_end(self, partition: Partition) -> bool:
        """Whether all that the broker has, as last heard, was returned by `poll`."""
        ...

    def end(self, partition: Partition) -> int | None:
        """The offset behind the partition's last record, as last heard."""
        ...

    def close(self) -> None:
        """Release the connection."""
        ...


class GroupListener(Protocol):
    """Hears of partitions, on the thread that polls the member."""

    def assigned(self, partitions: Collection[int]) -> None:
        """These are this process's from now on, besides those it has."""
        ...

    def revoked(self, partitions: Collection[int]) -> None:
        """These go to another process when this returns."""
        ...

    def lost(self, partitions: Collection[int]) -> None:
        """These may be another process's already."""
        ...


class Member(Protocol):
    """A member of the consumer group; used by one thread."""

    def poll(self, timeout_s: float) -> None:
        """Take part in the group for up to `timeout_s` seconds; tells the listener.

        Raises
        ------
        AwayError, ClientError
        """
        ...

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Write offsets to the broker, for people and tools.

        Raises
        ------
        AwayError, ClientError
            Nothing depends on it.
        """
        ...

    def close(self) -> None:
        """Leave the group; a static member only goes away."""
        ...
