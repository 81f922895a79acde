"""The demo's source: replayable, late labels included, and honest about what it changes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from service.demo.digits import Regime, Shift, draw_features, draw_image
from service.demo.source import IMAGES, PIXELS, DemoSource, Story
from service.records.decode import decode
from service.records.record import LabelRecord, Observation


def test_a_source_that_starts_again_sends_the_same_records() -> None:
    story = Story(seed=3, changes={IMAGES: [(40, Shift.PRIOR)], PIXELS: []})
    source = DemoSource(story)
    source.allow(IMAGES, 60)
    sent = [r for _ in range(100) for r in source.poll(7)]
    middle = sent[30]
    again = DemoSource(story)
    again.seek({(IMAGES, 0): middle.offset})
    again.allow(IMAGES, 60 - again.position(IMAGES))
    assert [r for _ in range(100) for r in again.poll(500)] == sent[30:]


def test_labels_come_with_the_event_later_or_never() -> None:
    source = DemoSource(Story(seed=0))
    source.allow(PIXELS, 400)
    bodies = [decode(r) for _ in range(40) for r in source.poll(500)]
    seen = {b.id: b for b in bodies if isinstance(b, Observation)}
    late = [b.id for b in bodies if isinstance(b, LabelRecord)]
    inline = sum(b.label is not None for b in seen.values())
    assert len(seen) == 400
    assert 0.35 < inline / 400 < 0.55
    assert 0.2 < len(late) / 400 < 0.4
    assert len(set(late)) == len(late)
    assert all(seen[i].label is None for i in late)


def test_no_two_events_are_equal() -> None:
    rng = np.random.default_rng(0)
    images = {draw_image(rng, Regime())[0].tobytes() for _ in range(200)}
    rows = {draw_features(rng, Regime())[0].tobytes() for _ in range(200)}
    assert len(images) == len(rows) == 200


def test_the_biased_selection_leaves_the_label_rule_alone() -> None:
    # The same digits have the same labels before and after; only how often they come changes.
    rng = np.random.default_rng(0)
    before = [draw_features(rng, Regime()) for _ in range(1500)]
    after = [draw_features(rng, Regime(biased=True)) for _ in range(1500)]
    ink = [np.mean([x.reshape(8, 8)[:, :4].mean() for x, _ in rows]) for rows in (before, after)]
    assert ink[1] < ink[0] - 0.02


def test_a_story_survives_on_disk(tmp_path: Path) -> None:
    story = Story(seed=5, changes={IMAGES: [(100, Shift.WORN_SENSOR)], PIXELS: []}, n_over=4)
    story.save(tmp_path / "story.json")
    assert Story.load(tmp_path / "story.json") == story
    assert Story.load(tmp_path / "none.json") is None
    assert json.loads((tmp_path / "story.json").read_text())["seed"] == 5


def test_a_story_that_another_version_wrote_is_none(tmp_path: Path) -> None:
    (tmp_path / "story.json").write_text('{"seed": 5, "changes": {}, "done": true}')
    assert Story.load(tmp_path / "story.json") is None
