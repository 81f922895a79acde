"""The file of records that were refused: one JSON object a line, with the reason."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from service.rows import DeadLetter


def append_dead_letters(path: Path, letters: Sequence[DeadLetter]) -> None:
    """Append records that were refused to the dead-letter file, one JSON object a line."""
    if not letters:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for letter in letters:
            file.write(json.dumps(_dead_letter(letter), ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _dead_letter(letter: DeadLetter) -> Mapping[str, Any]:
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
