"""The main job on real data: two streams whose world changes, named and repaired before your eyes.

`shiftwatch demo` trains a source model for each stream, serves both through the one pipeline, lets
the world change phase by phase, and measures what the service made of it.
"""

from __future__ import annotations

import json
import secrets
import shutil
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from service.api.app import App, open_app, serving
from service.api.http import HttpServer
from service.demo.digits import Regime, Shift, draw_features, draw_image
from service.demo.screen import Receiver, Screen
from service.demo.source import IMAGES, PIXELS, STREAMS, DemoSource, Story
from service.domain.incident import Incident, IncidentState
from service.monitor.phase import Phase as MonitorPhase
from service.pipeline.stream import Batch, Stream
from service.repair.first_model import train_first
from service.settings.service import Settings
from service.store.store import Store

SOURCE_IMAGES = 2000
SOURCE_ROWS = 3000
QUIET = 600
"""Observations that both streams show after their reference, with nothing happening."""
AFTER = 500
"""Labelled observations that a repaired model is measured on."""
LONGEST_PHASE = 6000
"""Observations after which a phase ends whatever became of it."""
STEPS = 100
"""Steps allowed at a time; between them the demo looks whether the phase is over."""


@dataclass(frozen=True, slots=True)
class Act:
    """A phase of the demo: what happens to which stream, and the truth about it."""

    title: str
    stream: str
    shift: Shift
    truth: tuple[str, ...]


ACTS = (
    Act("nothing moves", IMAGES, Shift.NONE, ()),
    Act("P(Y): four digits rule", IMAGES, Shift.PRIOR, ("prior",)),
    Act("P(X|Y): worn sensor", IMAGES, Shift.WORN_SENSOR, ("concept",)),
    Act("P(X): biased selection", PIXELS, Shift.BIASED_SELECTION, ("covariate",)),
    Act("P(Y|X): new label rule", PIXELS, Shift.NEW_RULE, ("concept",)),
)


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """A row of the report."""

    stream: str
    truth: list[str]
    verdict: list[str]
    delay_events: int | None
    action: str
    accuracy: dict[str, float | None]


def demo_settings(folder: Path, seed: int, port: int, secret: str, hook_url: str) -> Settings:
    """The demo's configuration, as a user would write it."""
    return Settings.model_validate(
        {
            "seed": seed,
            "store": {"url": f"sqlite:///{folder / 'shiftwatch.db'}"},
            "registry": {"path": str(folder / "models")},
            "dead_letters": {"path": str(folder / "dead-letters.jsonl")},
            "http": {"port": port},
            "webhooks": [
                {
                    "url": hook_url,
                    "secret": secret,
                    "allow_private": True,
                    "events": [
                        "incident.confirmed",
                        "incident.repairing",
                        "incident.resolved",
                    ],
                }
            ],
            "streams": [
                {
                    "name": IMAGES,
                    "problem": "y_to_x",
                    "reference": {"warm_up": 800},
                    "false_alarm_every": 100_000,
                    "confirm": {"looks": [150, 300, 500], "max_wait": 2500},
                    "model": {
                        "family": "vgg16",
                        "weights": "source",
                        "input_size": [32, 32],
                        "dense_units": 256,
                        "min_labels": 1300,
                    },
                },
                {
                    "name": PIXELS,
                    "problem": "x_to_y",
                    "reference": {"warm_up": 1500},
                    "false_alarm_every": 100_000,
                    "confirm": {"looks": [250, 500, 800], "max_wait": 4000},
                    "model": {"family": "tabular", "min_labels": 1500},
                },
            ],
        }
    )


class Demo:
    """The demo's driver: opens each phase, waits for the service, and keeps the score.

    Parameters
    ----------
    app
        The service, with a `DemoSource`.
    source
        Its source.
    folder
        Where the story and the score are kept.
    screen
        What people see.
    """

    def __init__(self, app: App, source: DemoSource, folder: Path, screen: Screen) -> None:
        self.app = app
        self.source = source
        self.screen = screen
        self._story_file = folder / "story.json"
        self._score_file = folder / "score.jsonl"
        self._right: dict[str, dict[int, bool]] = {name: {} for name in STREAMS}
        self._read_score()
        app.pipeline.on_batch = self._on_batch

    # -- the score -----------------------------------------------------------------------------

    def _read_score(self) -> None:
        if self._score_file.exists():
            for line in self._score_file.read_text().splitlines():
                try:
                    stream, index, right = json.loads(line)
                except ValueError:  # cut short by a kill; the event is replayed and written again
                    continue
                self._right[stream][index] = right

    def _on_batch(self, stream: Stream, batch: Batch) -> None:
        with self._score_file.open("a") as file:
            for index, label, served in batch.outcomes.joined:
                if served is not None:
                    self._right[stream.name][index] = label == served
                    file.write(json.dumps([stream.name, index, label == served]) + "\n")
        for incident in batch.outcomes.incidents:
            self.screen.incident(incident)
        self.screen.update(self.app.streams())

    def _accuracy(self, stream: str, start: int, stop: int | None = None) -> float | None:
        right = [
            r for i, r in self._right[stream].items() if i >= start and (stop is None or i < stop)
        ]
        return round(sum(right) / len(right), 4) if right else None

    # -- the phases ----------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> list[PhaseResult]:
        """Run all phases that are not over yet; their results in order."""
        results = []
        for number, act in enumerate(ACTS, 1):
            self.screen.act(number, len(ACTS), act.title, act.stream)
            start = self._begin(act)
            if self._followed(number - 1):
                pass  # a demo that was killed has been here before
            elif act.shift is Shift.NONE:
                self._go_on(lambda: all(self._quiet_enough(s) for s in STREAMS), STREAMS, stop)
            else:
                self._go_on(partial(self._over, act, start), (act.stream,), stop)
            if stop.is_set():
                break
            self.app.pipeline.write()
            results.append(self._result(act, start))
            self.screen.result(results[-1])
        return results

    def _followed(self, place: int) -> bool:
        """Whether a later act has begun already."""
        begun = {(s, shift) for s, all_ in self.source.story.changes.items() for _, shift in all_}
        return any((act.stream, act.shift) in begun for act in ACTS[place + 1 :])

    def _end(self, stream: str, start: int) -> int | None:
        """Where the stream's next act begins, if it has begun."""
        return min((at for at, _ in self.source.story.changes[stream] if at > start), default=None)

    def _begin(self, act: Act) -> int:
        """The first step of the act; written down before its first event is sent."""
        story = self.source.story
        if act.shift is Shift.NONE:
            return 0
        for step, shift in story.changes[act.stream]:
            if shift is act.shift:
                return step
        step = self.source.position(act.stream)
        story.changes[act.stream].append((step, act.shift))
        story.save(self._story_file)
        return step

    def _go_on(
        self, over: Callable[[], bool], streams: tuple[str, ...], stop: threading.Event
    ) -> None:
        """Send steps until the phase is over; while a model is trained the world stands still."""
        pipeline = self.app.pipeline
        while not stop.is_set() and not over():
            training = pipeline.jobs is not None and pipeline.jobs.is_busy
            if not training and self.source.idle:
                for stream in streams:
                    if len(streams) == 1 or not self._quiet_enough(stream):
                        self.source.allow(stream, STEPS)
            pipeline.step()

    def _quiet_enough(self, stream: str) -> bool:
        monitor = self.app.pipeline.streams[stream].monitor
        warm_up = self.app.pipeline.streams[stream].settings.reference.warm_up
        return monitor.n_seen >= warm_up + QUIET

    def _over(self, act: Act, start: int) -> bool:
        monitor = self.app.pipeline.streams[act.stream].monitor
        if monitor.n_seen >= start + LONGEST_PHASE:
            return True
        since = self._repaired_at(act.stream, start)
        if since is None or monitor.phase is not MonitorPhase.WATCHING:
            return False
        measured = sum(i >= since for i in self._right[act.stream])
        return measured >= AFTER and not self.app.pipeline.jobs_pending

    def _incidents(self, stream: str, start: int) -> list[Incident]:
        """Incidents of the phase that were confirmed, oldest first."""
        self.app.pipeline.write()
        found = self.app.store.incidents(stream, limit=None)
        end = self._end(stream, start)
        ours = [
            i
            for i in found
            if i.confirmed_at
            and start <= i.confirmed_at.index
            and (end is None or i.confirmed_at.index < end)
        ]
        return sorted(ours, key=lambda i: i.opened_at.index)

    def _repaired_at(self, stream: str, start: int) -> int | None:
        """Index from which the repair of the phase's incidents serves."""
        incidents = self._incidents(stream, start)
        if not incidents or any(i.state is not IncidentState.RESOLVED for i in incidents):
            return None
        last = incidents[-1]
        at = last.resolved_at
        if last.actions and last.actions[-1]["kind"] == "reweight":
            return int(last.actions[-1]["index"]) + 1
        return at.index + 1 if at else None

    def _result(self, act: Act, start: int) -> PhaseResult:
        streams = STREAMS if act.shift is Shift.NONE else (act.stream,)
        incidents = [i for s in streams for i in self._incidents(s, start)]
        if act.shift is Shift.NONE:
            return PhaseResult(
                stream=act.stream,
                truth=[],
                verdict=sorted({f for i in incidents for f in i.factors}),
                delay_events=None,
                action="none" if not incidents else incidents[0].actions[-1]["kind"],
                accuracy=dict.fromkeys(
                    ("before", "during", "after"),
                    self._accuracy(act.stream, 0, self._end(act.stream, start)),
                ),
            )
        repaired = self._repaired_at(act.stream, start)
        end = self._end(act.stream, start)
        confirmed = incidents[0].confirmed_at if incidents else None
        return PhaseResult(
            stream=act.stream,
            truth=list(act.truth),
            verdict=sorted({f for i in incidents for f in i.factors}),
            delay_events=None if confirmed is None else confirmed.index - start,
            action=_action(incidents),
            accuracy={
                "before": self._accuracy(act.stream, max(0, start - 500), start),
                "during": self._accuracy(act.stream, start, repaired or end),
                "after": None if repaired is None else self._accuracy(act.stream, repaired, end),
            },
        )


def _action(incidents: list[Incident]) -> str:
    """What was done in the phase, in one word or two."""
    if not incidents or not incidents[-1].actions:
        return "none"
    kind = str(incidents[-1].actions[-1]["kind"])
    if kind == "fine_tune":
        kept = "champion kept" in incidents[-1].detail
        return "fine_tune: champion kept" if kept else "fine_tune: promoted"
    return kind


# -- source models ---------------------------------------------------------------------------------


def train_sources(settings: Settings, folder: Path, screen: Screen) -> None:
    """Train each stream's first model, unless it has one."""
    store = Store(settings.store.url, time.time)
    try:
        for name in STREAMS:
            if store.champion(name) is None:
                title = f"source model of {name}"
                train_first(
                    settings,
                    store,
                    name,
                    *_source_rows(name, settings.seed),
                    folder / "jobs" / f"source-{name}",
                    partial(screen.training, title),
                )
                screen.training_done(title)
    finally:
        store.close()


def _source_rows(stream: str, seed: int) -> tuple[Any, list[str]]:
    """Rows and labels of a stream's source domain."""
    rng = np.random.default_rng([seed, 77, stream == IMAGES])
    draw: Callable[..., tuple[Any, str]] = draw_image if stream == IMAGES else draw_features
    n = SOURCE_IMAGES if stream == IMAGES else SOURCE_ROWS
    drawn = [draw(rng, Regime(), source=True) for _ in range(n)]
    return np.stack([row for row, _ in drawn]), [label for _, label in drawn]


# -- the command -----------------------------------------------------------------------------------


def address(server: HttpServer | None) -> str:
    """Where the service answers."""
    return "" if server is None else f"http://{server.host}:{server.port}"


def run_demo(
    folder: Path,
    *,
    seed: int,
    port: int,
    report: Path | None,
    exit_when_done: bool,
    console: Console,
    stop: threading.Event,
) -> bool:
    """Run the demo; True when every phase was named right.

    A demo that was killed goes on where it was; a finished one, or one of another seed, starts
    again.
    """
    started = time.monotonic()
    story = Story.load(folder / "story.json")
    if story is None or story.done or story.seed != seed:
        if folder.exists():
            shutil.rmtree(folder)
        story = Story(seed)
    folder.mkdir(parents=True, exist_ok=True)
    story.save(folder / "story.json")
    secret = "whsec_" + b64encode(secrets.token_bytes(24)).decode()
    with Screen(console) as screen, Receiver(secret, screen.webhook) as receiver:
        settings = demo_settings(folder, seed, port, secret, receiver.url)
        train_sources(settings, folder, screen)
        source = DemoSource(story)

        def on_progress(job: Any, event: Mapping[str, Any]) -> None:
            screen.training(f"fine-tuning {job.stream}", event)

        with open_app(settings, source, on_progress=on_progress) as app, serving(app) as server:
            app.started = True
            screen.serving(address(server))
            results = Demo(app, source, folder, screen).run(stop)
            if stop.is_set():
                return False
            story.done = True
            story.save(folder / "story.json")
            app.drain()
            wall_s = round(time.monotonic() - started, 1)
            screen.table([(a.title, r) for a, r in zip(ACTS, results, strict=True)], wall_s)
            if report is not None:
                document = {"phases": [asdict(r) for r in results], "wall_s": wall_s, "seed": seed}
                report.write_text(json.dumps(document, indent=2) + "\n")
            if not exit_when_done:
                screen.keeps_serving(address(server))
                while not stop.wait(0.5):
                    pass
    return all(sorted(r.truth) == r.verdict for r in results)
