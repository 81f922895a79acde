"""A service that is killed again and again: each life is a process forked from a warm one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

PAUSE_S = 0.01
"""After each step, so that kills fall everywhere in the work and not between two idle polls."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["service.api.app", "tests.kafka.runs"])


def _live(settings: Mapping[str, Any], begun: Connection) -> None:
    from tests.kafka.runs import opened

    with opened(settings) as (pipeline, _):
        while not pipeline.n_records:
            pipeline.step(timeout_s=0.02)
        begun.send_bytes(b"")
        while True:
            time.sleep(PAUSE_S)
            pipeline.step(timeout_s=0.02)


class Life:
    """One process that works until it is killed."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._begun, theirs = _context.Pipe(duplex=False)
        self._process = _context.Process(target=_live, args=(settings, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def wait_until_begun(self, timeout_s: float) -> None:
        """Wait until it has read a record, if there is one to read."""
        assert self._begun.poll(timeout_s), f"it has read nothing in {timeout_s} s"

    def kill(self) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.join()
        self._begun.close()
        assert self._process.exitcode == -signal.SIGKILL, "it ended by itself"
