"""Where records go that could not be used: a file, or a topic."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import structlog

from service.domain.dead_letter import DeadLetter
from service.notify.publisher import Message, Publisher, is_too_large
from service.records.record import DecodeError, Record
from service.settings.service import Settings
from service.sources.source import SourceError

log = structlog.get_logger()

HEADER_PREFIX = "shiftwatch."
_CUT_BYTES = 64 * 1024
"""What is kept of a value that the topic does not take."""
_RETRY_S = 1.0
_STEP_S = 0.1


def letter_of(record: Record, error: DecodeError, stream: str = "") -> DeadLetter:
    """The dead letter of a record; `stream` is empty where whose it is could not be read."""
    return DeadLetter(
        record.topic,
        record.partition,
        record.offset,
        stream,
        error.reason,
        str(error),
        record.value,
        record.key,
        record.headers,
        record.timestamp_ms,
    )


class DeadLetters(Protocol):
    """Keeps dead letters before the transaction that goes past their records."""

    def write(self, letters: Sequence[DeadLetter], /) -> None:
        """Write all of them, and return when they are safe.

        A letter may be written again after a crash; its coordinates tell.
        """

    def close(self) -> None:
        """Release what it holds."""


class DeadLetterFile:
    """A file of JSON lines, one a dead letter."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, letters: Sequence[DeadLetter]) -> None:
        """Append them and have them on the disk.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        if not letters:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            for letter in letters:
                file.write(json.dumps(_document(letter), ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        """Nothing is held."""


class DeadLetterTopic:
    """A topic of the records themselves, with headers that say what is wrong.

    Parameters
    ----------
    publisher
        Of the topic; closed with this.
    is_stopping
        Whether the service is to end, so that there is no more waiting for the broker.
    sleep
        Waits the given seconds.
    """

    def __init__(
        self,
        publisher: Publisher,
        is_stopping: Callable[[], bool],
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._publisher = publisher
        self._is_stopping = is_stopping
        self._sleep = sleep

    def write(self, letters: Sequence[DeadLetter]) -> None:
        """Write them; wait for a broker that is away as long as it takes.

        Raises
        ------
        SourceError
            If the service is to stop meanwhile. Nothing is lost: the transaction that goes past
            these records is not written either.
        """
        self._write([to_message(letter) for letter in letters])

    def _write(self, left: list[Message]) -> None:
        while left:
            failed = self._publisher.send(left)
            large = [message for message, error in failed if is_too_large(error)]
            passing = [(message, error) for message, error in failed if not is_too_large(error)]
            left = [message for message, _ in passing]
            if len(large) == 1:
                left.append(cut(large[0]))
            else:  # which of them it is shows when each is sent alone
                for message in large:
                    self._write([message])
            if passing:
                self._wait(len(left), passing[0][1])

    def close(self) -> None:
        """Close the connection."""
        self._publisher.close()

    def _wait(self, n: int, error: Exception) -> None:
        reason = str(error) or type(error).__name__
        log.warning("dead letters not written yet", topic=self._publisher.topic, n=n, reason=reason)
        waited = 0.0
        while waited < _RETRY_S:
            if self._is_stopping():
                raise SourceError(
                    f"{self._publisher.topic}: {n} dead letters are not written ({reason}); their "
                    "records are read again after the next start"
                )
            self._sleep(_STEP_S)
            waited += _STEP_S


def to_message(letter: DeadLetter) -> Message:
    """The record as it was, with what is wrong in headers before its own.

    Of a record that was sent again from the dead letters, the earlier headers of this kind are
    left out.
    """
    said = {
        "reason": letter.reason,
        "message": letter.message,
        "stream": letter.stream,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "timestamp": "" if letter.timestamp_ms is None else letter.timestamp_ms,
    }
    headers = tuple(
        (HEADER_PREFIX + name, str(text).encode("utf-8", "backslashreplace"))
        for name, text in said.items()
    )
    own = tuple(h for h in letter.headers if not h[0].startswith(HEADER_PREFIX))
    return Message(letter.key, letter.value, headers + own)


def cut(message: Message) -> Message:
    """The beginning of a message that is too large, and in a header how large its value was.

    What is still too large then loses the record's own key and headers too.
    """
    size = (f"{HEADER_PREFIX}size", str(len(message.value)).encode())
    if len(message.value) > _CUT_BYTES:
        return Message(message.key, message.value[:_CUT_BYTES], (*message.headers, size))
    said = tuple(h for h in message.headers if h[0].startswith(HEADER_PREFIX))
    return Message(None, message.value[:256], said)


def open_dead_letters(settings: Settings, is_stopping: Callable[[], bool]) -> DeadLetters:
    """The topic if there is one, else the file.

    Raises
    ------
    SourceError
        If the topic cannot be written to.
    """
    topics = settings.source.topics
    if topics is None or topics.dead_letters is None:
        return DeadLetterFile(settings.dead_letters.path)
    return DeadLetterTopic(Publisher(settings.source, topics.dead_letters), is_stopping)


def _document(letter: DeadLetter) -> Mapping[str, Any]:
    document: dict[str, Any] = {
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "stream": letter.stream or None,
        "reason": letter.reason,
        "message": letter.message,
    }
    try:
        document["value"] = letter.value.decode("utf-8")
    except UnicodeDecodeError:
        document["value_base64"] = base64.b64encode(letter.value).decode("ascii")
    return document
