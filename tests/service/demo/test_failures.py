"""A stream that fails in the demonstration: the other one's phases are played all the same."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from rich.console import Console

from service.api.app import open_app
from service.demo import driver
from service.demo.act import ACTS
from service.demo.digits import Shift
from service.demo.driver import Demo
from service.demo.screen import Screen
from service.demo.source import IMAGES, PIXELS, DemoSource, Story
from service.settings.service import Settings


def test_a_stream_that_fails_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "QUIET", 20)
    monkeypatch.setattr(driver, "LONGEST_PHASE", 60)
    reference = tmp_path / "reference.jsonl"
    reference.write_text("not json\n")
    settings = Settings.model_validate(
        {
            "store": {"url": f"sqlite:///{tmp_path}/s.db"},
            "registry": {"path": tmp_path / "models"},
            "dead_letters": {"path": tmp_path / "dead.jsonl"},
            "http": {"port": None},
            "streams": [
                {"name": IMAGES, "problem": "y_to_x", "reference": {"file": reference}},
                {"name": PIXELS, "problem": "x_to_y", "reference": {"warm_up": 200}},
            ],
        }
    )
    story = Story(seed=0)
    source = DemoSource(story)
    with (
        Screen(Console(quiet=True)) as screen,
        open_app(settings, source) as app,
    ):
        demo, stop = Demo(app, source, tmp_path, screen), threading.Event()
        assert demo.play(PIXELS, stop)
        assert demo.play(IMAGES, stop)
        results = demo.results()
        (failure,) = app.pipeline.failures
        assert failure.stream == IMAGES
        assert "reference.jsonl[0]@0" in failure.reason
        seen = app.pipeline.view.stream(PIXELS)
        assert not seen.is_failed
        assert seen.observations >= 200
    assert len(results) == len(ACTS)
    assert [shift for _, shift in story.changes[PIXELS]] == [
        Shift.BIASED_SELECTION,
        Shift.NEW_RULE,
    ]
