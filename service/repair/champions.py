"""The champions that serve: one scorer a stream, shared by its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import structlog

from models.registry import Registry
from models.spec import ModelVersion
from service.repair.scorers import Scorer, load_scorer
from service.store.errors import StoreError
from service.store.reading import Reading
from service.telemetry.metrics import Metrics

log = structlog.get_logger()


class NoChampionError(RuntimeError):
    """A stream is to be scored, but no model was ever trained for it."""


class Part(Protocol):
    """A part of a stream, served by a version."""

    name: str
    version: int | None
    scorer: Scorer | None

    def champion_changed(self, version: int, scorer: Scorer) -> None:
        """Be served by this one from the next observation on."""
        ...


class Champions:
    """Scorers of the store's champions, and of one that is about to become it.

    Parameters
    ----------
    store
        Knows which version is the champion.
    registry
        Has the versions.
    metrics
        Shows which version serves.
    scorer_of
        Loads a version's scorer.
    """

    def __init__(
        self,
        store: Reading,
        registry: Registry,
        metrics: Metrics,
        scorer_of: Callable[[ModelVersion], Scorer] = load_scorer,
    ) -> None:
        self._store = store
        self._registry = registry
        self._metrics = metrics
        self._scorer_of = scorer_of
        self._serving: dict[str, tuple[int, Scorer]] = {}
        self._retired: list[Scorer] = []

    def of(self, stream: str) -> tuple[int, Scorer]:
        """The champion's version and its scorer.

        Raises
        ------
        NoChampionError
            If there is none; says how to train one.
        """
        champion = self._store.champion(stream)
        if champion is None:
            raise NoChampionError(
                f"streams.{stream}.model: there is no trained version yet; train one "
                f"with: shiftwatch models train CONFIG --stream {stream} --input FILE"
            )
        known = self._serving.get(stream)
        if known is not None and known[0] == champion.version:
            return known
        return self._serve(stream, self._registry.get(stream, champion.version))

    def use(self, part: Part, version: ModelVersion) -> None:
        """Serve a part of a stream with a version that is not the champion yet."""
        part.champion_changed(*self._serve(part.name, version))

    def adopt(self, part: Part) -> str | None:
        """Serve a part with the champion that an operator or another process has made.

        Returns
        -------
        str or None
            The reason of the promotion; None where the part is served by the champion already.
        """
        champion = self._store.champion(part.name)
        if champion is None or champion.version == part.version:
            return None
        part.champion_changed(*self.of(part.name))
        return champion.reason

    def load(self, streams: Iterable[str]) -> None:
        """Have the champions of these streams at hand before their first records come.

        Raises
        ------
        NoChampionError
            If a stream has none.
        """
        for stream in streams:
            try:
                self.of(stream)
            except (NoChampionError, StoreError):
                raise
            except Exception as error:
                # It is tried again, and said, when the stream is opened; the others are loaded.
                log.warning("champion not loaded", stream=stream, reason=str(error))

    def retire(self, parts: Iterable[Part]) -> None:
        """Let go of scorers that none of these parts, which are all there are, is served by."""
        if self._retired:
            used = {id(part.scorer) for part in parts}
            idle = [scorer for scorer in self._retired if id(scorer) not in used]
            self._retired = [scorer for scorer in self._retired if id(scorer) in used]
            for scorer in idle:
                scorer.close()

    def close(self) -> None:
        """Stop all scorers."""
        for scorer in [*self._retired, *(scorer for _, scorer in self._serving.values())]:
            scorer.close()

    def _serve(self, stream: str, version: ModelVersion) -> tuple[int, Scorer]:
        scorer = self._scorer_of(version)
        former = self._serving.get(stream)
        if former is not None:
            self._retired.append(former[1])
        self._serving[stream] = serving = (version.version, scorer)
        self._metrics.champion_version.labels(stream).set(version.version)
        return serving
