"""Champions where a server of models looks for them, such as TensorFlow Serving."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from models.registry import SAVED_MODEL, Registry, RegistryError
from service.settings.service import Settings
from service.store.reading import Reading

log = structlog.get_logger()

RETRY_S = 60.0
"""Between two attempts: each reads the whole model to compare it with its check sums."""


def expose_champion(store: Reading, registry: Registry, stream: str, folder: Path) -> Path | None:
    """Make a stream's champion the newest model that a server finds.

    It is the store's champion that is exposed, once it is written there. A caller that was killed
    in between repeats the call; repeating it for what is exposed already changes nothing.

    Parameters
    ----------
    store
        Knows the champion.
    registry
        Has its files.
    stream
        Whose champion.
    folder
        The server's base path of all streams.

    Returns
    -------
    Path or None
        The numbered folder; None where the stream has no champion, or its champion was trained
        without a SavedModel.

    Raises
    ------
    RegistryError, OSError
        If its files are not what was published, or cannot be copied.
    """
    path, exposed = None, None
    # Asked again afterwards: another process may have promoted meanwhile, and the last one to
    # expose must be the last one that was promoted.
    while (champion := store.champion(stream)) is not None and champion.version != exposed:
        version = registry.get(stream, champion.version)
        path = registry.expose(version, folder) if SAVED_MODEL in version.files else None
        exposed = champion.version
    return path


class Serving:
    """Exposes the champions of a running service, and tries again what did not work.

    Parameters
    ----------
    store, registry
        As for `expose_champion`.
    settings
        Say where, and of which streams.
    monotonic
        Seconds by a clock that is never set; only for when to try again.
    """

    def __init__(
        self,
        store: Reading,
        registry: Registry,
        settings: Settings,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._registry = registry
        self._folder = settings.registry.serving
        self._owed: dict[str, str] = {}
        """Streams whose champion may not be exposed, with why that did not work the last time."""
        self._monotonic = monotonic
        self._again_at = -math.inf
        self._exposed = {s.name for s in settings.streams if s.model and s.model.saved_model}
        for stream in self._exposed:
            self.owe(stream)

    def owe(self, stream: str) -> None:
        """The stream may have a champion that is not exposed yet."""
        if self._folder is not None and stream in self._exposed:
            self._owed.setdefault(stream, "")
            self._again_at = -math.inf

    def settle(self) -> None:
        """Expose what is owed; what cannot be exposed now stays owed."""
        if self._monotonic() < self._again_at:
            return
        for stream, said in list(self._owed.items()):
            reason = self._expose(stream)
            if not reason:
                del self._owed[stream]
                continue
            self._again_at = self._monotonic() + RETRY_S
            if reason != said:
                self._owed[stream] = reason
                log.error("champion not exposed", stream=stream, reason=reason)

    def _expose(self, stream: str) -> str:
        """Why it did not work; empty if it did."""
        assert self._folder is not None
        try:
            path = expose_champion(self._store, self._registry, stream, self._folder)
        except (RegistryError, OSError) as error:
            return str(error)
        if path is None:
            log.warning("champion has no SavedModel to expose", stream=stream)
        else:
            log.info("champion exposed", stream=stream, path=str(path))
        return ""
