"""A source model is trained beside what goes on, once, and not longer than somebody waits."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from service.demo import first_models
from service.demo.configuration import demo_settings
from service.demo.first_models import LeftError, SourceModel
from service.demo.screen import Screen
from service.demo.source import PIXELS
from service.settings.service import Settings
from service.store.store import Store


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return demo_settings(tmp_path, 0, 0, "whsec_" + "A" * 32, "http://127.0.0.1:1/hook")


def _model(settings: Settings, folder: Path) -> SourceModel:
    return SourceModel(settings, PIXELS, folder, Screen(Console(file=io.StringIO())))


def test_a_stream_that_has_a_model_is_not_trained(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(settings.store.url, lambda: 0.0)
    with store.transaction() as tx:
        tx.set_champion(PIXELS, 1, "first version", 0)
    store.close()

    def train(*_: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(first_models, "train_first", train)
    with _model(settings, tmp_path) as model:
        assert model.wait(threading.Event())


def test_a_training_that_nobody_waits_for_ends_at_its_next_event(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = threading.Event(), []

    def train(*arguments: Any) -> None:
        begun.set()
        try:
            while True:
                arguments[-1]({"event": "other"})
        except LeftError:
            ended.append(True)
            raise

    monkeypatch.setattr(first_models, "train_first", train)
    with _model(settings, tmp_path) as model:
        assert begun.wait(60)
        stop = threading.Event()
        stop.set()
        assert not model.wait(stop)
    assert ended == [True]


def test_a_training_that_fails_is_told_to_who_waits_for_it(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*_: Any) -> None:
        raise RuntimeError("the rows are broken")

    monkeypatch.setattr(first_models, "train_first", train)
    with (
        _model(settings, tmp_path) as model,
        pytest.raises(RuntimeError, match="the rows are broken"),
    ):
        model.wait(threading.Event())
