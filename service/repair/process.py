"""The training process: how it is started, and what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_STDERR = "stderr.txt"


def start_training(folder: Path) -> subprocess.Popen[bytes]:
    """Start the training process of a job folder."""
    with (folder / _STDERR).open("ab") as errors:
        return subprocess.Popen(  # noqa: S603 - our own module, no shell
            [sys.executable, "-m", "models.finetune", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        )


def last_words(folder: Path, max_chars: int = 2000) -> str:
    """The end of what a training process wrote to its standard error."""
    try:
        return (folder / _STDERR).read_text(errors="replace")[-max_chars:]
    except OSError:
        return ""


def progress_of(process: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    """What a training process reports, event by event, until it ends."""
    if process.stdout is None:
        return
    with process.stdout as lines:
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield event
