"""The demo's source models, each trained in a thread before its stream begins."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from service.demo.digits import Regime, draw_features, draw_image
from service.demo.screen import Screen
from service.demo.source import IMAGES
from service.repair.first_model import train_first
from service.settings.service import Settings
from service.store.store import Store

SOURCE_IMAGES = 2000
SOURCE_ROWS = 3000


class LeftError(RuntimeError):
    """Nobody waits for the training any more."""


class SourceModel:
    """A stream's first model, trained in a thread of its own unless the stream has one.

    Leaving the block ends a training that was not waited for; the next start goes on with it.

    Parameters
    ----------
    stream
        Name of the stream.
    folder
        Of the demo.
    """

    def __init__(self, settings: Settings, stream: str, folder: Path, screen: Screen) -> None:
        self._settings = settings
        self._stream = stream
        self._folder = folder / "jobs" / f"source-{stream}"
        self._screen = screen
        self._left = threading.Event()
        # Opened before the thread starts: opening may upgrade the store, one at a time.
        self._store = Store(settings.store.url, time.time)
        self._pool = ThreadPoolExecutor(1, f"source-{stream}")
        self._made: Future[None] | None = None

    def __enter__(self) -> Self:
        self._made = self._pool.submit(self._make)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._left.set()
        self._pool.shutdown()
        self._store.close()

    def wait(self, stop: threading.Event) -> bool:
        """Wait for the model; False if `stop` was set first.

        Raises
        ------
        RuntimeError
            If the training failed; with what it said.
        """
        assert self._made is not None
        while not self._made.done() and not stop.wait(0.1):
            pass
        if stop.is_set():
            return False
        self._made.result()
        return True

    def _make(self) -> None:
        if self._store.champion(self._stream) is not None:
            return
        title = f"source model of {self._stream}"

        def on_event(event: Mapping[str, Any]) -> None:
            if self._left.is_set():
                raise LeftError(title)
            self._screen.training(title, event)

        version = train_first(
            self._settings,
            self._store,
            self._stream,
            *_source_rows(self._stream, self._settings.seed),
            self._folder,
            on_event,
        )
        self._screen.training_done(title, str(version.metrics.get("precision", "")))


def _source_rows(stream: str, seed: int) -> tuple[Any, list[str]]:
    """Rows and labels of a stream's source domain."""
    rng = np.random.default_rng([seed, 77, stream == IMAGES])
    draw: Callable[..., tuple[Any, str]] = draw_image if stream == IMAGES else draw_features
    n = SOURCE_IMAGES if stream == IMAGES else SOURCE_ROWS
    drawn = [draw(rng, Regime(), source=True) for _ in range(n)]
    return np.stack([row for row, _ in drawn]), [label for _, label in drawn]
