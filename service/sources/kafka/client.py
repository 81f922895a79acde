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

from service.records.record import KEPT_BYTES, MAX_RECORD_BYTES, Record
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


Fetched = Sequence[tuple[Record, int]]
"""Records of one partition in order, each with its time: Unix milliseconds, or -1 for none."""


def to_record(
    topic: str,
    partition: int,
    offset: int,
    key: bytes | None,
    value: bytes | None,
    headers: Sequence[tuple[str, bytes | None]] | None = None,
    timestamp_ms: int = -1,
) -> Record:
    """What a client gives, as a record of the service; -1 stands for no time."""
    dropped = 0
    if value is None:  # a tombstone, which `decode` refuses as empty
        value = b""
    elif len(value) > MAX_RECORD_BYTES:
        dropped, value = len(value), value[:KEPT_BYTES]
    # A header may have no value.
    given = tuple((name, content or b"") for name, content in headers) if headers else ()
    time = timestamp_ms if timestamp_ms >= 0 else None
    return Record(topic, partition, offset, key, value, dropped, given, time)


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

    def poll(self, timeout_s: float) -> Mapping[Partition, Fetched]:
        """Return what has been fetched; waits up to `timeout_s` seconds for the first record.

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
