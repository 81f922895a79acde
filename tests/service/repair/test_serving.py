from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from models.registry import Registry, RegistryError
from models.spec import ModelVersion
from service.repair.serving import RETRY_S, Serving, expose_champion
from service.settings.service import Settings
from service.store.store import Store
from tests.service.repair.models import STREAM, publish, settings_of


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path, saved_model=True)


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with closing(Store(settings.store.url, lambda: 0.0)) as store:
        yield store


def promote(store: Store, version: ModelVersion) -> None:
    with store.transaction() as tx:
        tx.set_champion(version.stream, version.version, "tested", 0)


def served(settings: Settings) -> list[tuple[str, str]]:
    """The numbers under which a server finds versions, and which versions they are."""
    assert settings.registry.serving is not None
    folder = settings.registry.serving / STREAM
    numbers = sorted(p.name for p in folder.iterdir() if p.name.isdecimal())
    mark = Path("assets.extra") / "shiftwatch-version"
    return [(n, (folder / n / mark).read_text()) for n in numbers]


def test_a_champion_that_changes_is_the_newest_that_a_server_finds(
    store: Store, settings: Settings
) -> None:
    registry = Registry(settings.registry.path)
    versions = [publish(registry), publish(registry)]
    serving = Serving(store, registry, settings)
    serving.settle()  # no champion yet
    for version in (versions[0], versions[1], versions[0]):  # the last one is a roll-back
        promote(store, version)
        serving.owe(STREAM)
        serving.settle()
        serving.settle()
    assert served(settings) == [("1", "1"), ("2", "2"), ("3", "1")]


def test_what_a_killed_process_did_not_expose_the_next_one_does(
    store: Store, settings: Settings
) -> None:
    registry = Registry(settings.registry.path)
    promote(store, publish(registry))
    # Killed here: the promotion is written, and nothing is exposed.
    for _ in range(2):
        Serving(store, registry, settings).settle()
        assert served(settings) == [("1", "1")]


class Overtaken(Store):
    """A store in which another process promotes while this one exposes."""

    later: ModelVersion | None = None

    def champion(self, stream: str) -> object:  # type: ignore[override]
        found = super().champion(stream)
        later, self.later = self.later, None
        if later is not None:
            promote(self, later)
        return found


def test_the_last_that_is_exposed_is_the_last_that_was_promoted(settings: Settings) -> None:
    registry = Registry(settings.registry.path)
    first, second = publish(registry), publish(registry)
    assert settings.registry.serving is not None
    with closing(Overtaken(settings.store.url, lambda: 0.0)) as store:
        promote(store, first)
        store.later = second
        expose_champion(store, registry, STREAM, settings.registry.serving)
    assert served(settings) == [("1", "1"), ("2", "2")]


class Failing(Registry):
    """A registry whose serving folder is on a full disk, a few times."""

    left = 2
    attempts = 0

    def expose(self, version: ModelVersion, serving: Path) -> Path:
        self.attempts += 1
        if self.attempts <= self.left:
            raise OSError(28, "No space left on device")
        return super().expose(version, serving)


def test_what_cannot_be_exposed_is_tried_again_and_ends_nothing(
    store: Store, settings: Settings
) -> None:
    registry, now = Failing(settings.registry.path), [0.0]
    promote(store, publish(registry))
    serving = Serving(store, registry, settings, lambda: now[0])
    for attempts in (1, 2, 3, 3):
        serving.settle()
        serving.settle()  # not before the pause is over
        assert registry.attempts == attempts
        now[0] += RETRY_S
    assert served(settings) == [("1", "1")]


def test_files_that_are_not_what_was_published_are_not_served(
    store: Store, settings: Settings
) -> None:
    registry = Registry(settings.registry.path)
    version = publish(registry)
    promote(store, version)
    (version.path / "saved_model" / "saved_model.pb").write_bytes(b"other")
    assert settings.registry.serving is not None
    with pytest.raises(RegistryError, match=r"saved_model.pb: expected SHA-256"):
        expose_champion(store, registry, STREAM, settings.registry.serving)
    assert not (settings.registry.serving / STREAM).exists()


@pytest.mark.parametrize("has_folder", [True, False])
def test_without_a_folder_or_a_saved_model_nothing_is_exposed(
    has_folder: bool, store: Store, settings: Settings, tmp_path: Path
) -> None:
    registry = Registry(settings.registry.path)
    promote(store, publish(registry, saved_model=not has_folder))
    if not has_folder:
        place = settings.registry.model_copy(update={"serving": None})
        settings = settings.model_copy(update={"registry": place})
    Serving(store, registry, settings).settle()
    assert not (tmp_path / "serving").exists()
