from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from models.registry import Registry, RegistryError
from models.spec import ModelVersion
from service.repair.champions import Champions, NoChampionError
from service.repair.scorers import Scorer
from service.store.store import Store
from service.telemetry.metrics import Metrics
from tests.service.repair.models import STREAM, publish, settings_of


class Scores:
    """A scorer that says which version it is."""

    def __init__(self, version: ModelVersion) -> None:
        self.version = version.version
        self.classes = version.classes
        self.input_shape = version.input_shape
        self.is_closed = False

    def score(self, inputs: Any, /) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        self.is_closed = True


@dataclass
class Part:
    """A part of a stream."""

    name: str = STREAM
    version: int | None = None
    scorer: Scorer | None = None

    def champion_changed(self, version: int, scorer: Scorer) -> None:
        self.version, self.scorer = version, scorer


class House:
    """A store with champions, and what was loaded of them."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.registry = Registry(folder / "models")
        self.loaded: list[Scores] = []
        self.numbers = CollectorRegistry()
        self.champions = Champions(store, self.registry, Metrics(self.numbers), self._load)

    def _load(self, version: ModelVersion) -> Scores:
        self.loaded.append(Scores(version))
        return self.loaded[-1]

    def promote(self, version: ModelVersion, reason: str = "tested") -> None:
        with self.store.transaction() as tx:
            tx.set_champion(STREAM, version.version, reason, 0)

    def opened(self) -> Part:
        version, scorer = self.champions.of(STREAM)
        return Part(STREAM, version, scorer)

    @property
    def shown(self) -> float | None:
        return self.numbers.get_sample_value("shiftwatch_champion_version", {"stream": STREAM})


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with closing(Store(settings_of(tmp_path).store.url, lambda: 0.0)) as store:
        yield House(store, tmp_path)


def test_a_stream_without_a_champion_says_how_to_train_one(house: House) -> None:
    with pytest.raises(NoChampionError, match=r"streams\.s\.model: .* models train CONFIG"):
        house.champions.of(STREAM)


def test_all_parts_share_one_scorer(house: House) -> None:
    house.promote(publish(house.registry))
    assert house.opened() == house.opened()
    assert len(house.loaded) == 1
    assert house.shown == 1


def test_a_champion_that_somebody_made_is_adopted_by_every_part_once(house: House) -> None:
    house.promote(publish(house.registry))
    parts = [house.opened(), house.opened()]
    assert [house.champions.adopt(part) for part in parts] == [None, None]
    house.promote(publish(house.registry), "by hand")
    assert [house.champions.adopt(part) for part in parts] == ["by hand", "by hand"]
    assert [house.champions.adopt(part) for part in parts] == [None, None]
    assert [part.version for part in parts] == [2, 2]
    assert len(house.loaded) == 2
    assert house.shown == 2


def test_a_former_champion_is_closed_when_nothing_is_served_by_it_any_more(house: House) -> None:
    house.promote(publish(house.registry))
    parts = [house.opened(), house.opened()]
    second = publish(house.registry)
    house.champions.use(parts[0], second)  # before it is written that it is the champion
    house.champions.retire(parts)
    assert [s.is_closed for s in house.loaded] == [False, False]
    house.promote(second)
    assert [house.champions.adopt(part) for part in parts] == [None, "tested"]
    house.champions.retire(parts)
    assert [s.is_closed for s in house.loaded] == [True, False]
    house.champions.close()
    assert [s.is_closed for s in house.loaded] == [True, True]


def test_a_promotion_that_was_not_written_is_taken_back(house: House) -> None:
    house.promote(publish(house.registry))
    part = house.opened()
    house.champions.use(part, publish(house.registry))
    again = house.opened()  # as the store has it
    assert again.version == 1
    house.champions.retire([again])
    assert [s.is_closed for s in house.loaded] == [True, True, False]


def test_one_model_that_cannot_be_loaded_keeps_no_other_from_being_loaded(house: House) -> None:
    for stream in ("broken", STREAM):
        version = publish(house.registry, stream=stream)
        with house.store.transaction() as tx:
            tx.set_champion(stream, version.version, "tested", 0)
    (house.registry.root / "broken" / "1" / "weights").write_bytes(b"other")
    house.champions.load(["broken", STREAM])
    assert [s.version for s in house.loaded] == [1]
    with pytest.raises(RegistryError, match="broken/1"):
        house.champions.of("broken")
