"""The main job on real data: two streams whose world changes, named and repaired before your eyes.

`shiftwatch demo` trains a source model for each stream, serves them through the one pipeline, lets
the world change phase by phase, and measures what the service made of it. The pixels' phases are
played while the model of the images is trained; then the service starts again, with both streams.
"""

from __future__ import annotations

import json
import secrets
import shutil
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from service.api.app import App, open_app, serving
from service.api.http import HttpServer
from service.demo.act import ACTS, Act
from service.demo.configuration import demo_settings
from service.demo.digits import Shift
from service.demo.first_models import SourceModel
from service.demo.result import PhaseResult
from service.demo.screen import Receiver, Screen
from service.demo.source import IMAGES, PIXELS, STREAMS, DemoSource, Story
from service.domain.incident import Incident, IncidentState
from service.monitor.phase import Phase as MonitorPhase
from service.pipeline.containment import Failure
from service.pipeline.stream import Batch, Stream
from service.settings.service import Settings

QUIET = 600
"""Observations that a stream shows after its reference, with nothing happening."""
AFTER = 500
"""Labelled observations that a repaired model is measured on."""
LONGEST_PHASE = 6000
"""Observations after which a phase ends whatever became of it."""
STEPS = 100
"""Steps allowed at a time; between them the demo looks whether the phase is over."""


class DemoError(RuntimeError):
    """A stream has failed; says which one, at which records and why."""


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
            joined = batch.outcomes.joined
            for index, label, served in zip(
                joined.index.tolist(), joined.labels, joined.served, strict=True
            ):
                if served is not None:
                    self._right[stream.name][index] = label == served
                    file.write(json.dumps([stream.name, index, label == served]) + "\n")
        for incident in batch.outcomes.incidents:
            self.screen.incident(incident)
        self.screen.update(self.app.streams())

    def _accuracy(self, stream: str, start: int, stop: int | None = None) -> float | None:
        return _share(
            [r for i, r in self._right[stream].items() if i >= start and (stop is None or i < stop)]
        )

    # -- the phases ----------------------------------------------------------------------------

    def play(self, stream: str, stop: threading.Event) -> bool:
        """Play the acts of a stream that are not over yet; False if `stop` was set."""
        story = self.source.story
        for number, act in enumerate(ACTS, 1):
            if act.stream != stream or number <= story.n_over:
                continue
            self.screen.act(number, len(ACTS), act.title, stream)
            if act.shift is not Shift.NONE and not self._quiet_enough(stream):
                self.screen.quiet(stream, self._until_quiet(stream))
            self._go_on(partial(self._quiet_enough, stream), stream, stop)
            if act.shift is not Shift.NONE and not stop.is_set():
                self._go_on(partial(self._over, act, self._begin(act)), stream, stop)
            if stop.is_set():
                return False
            self.app.pipeline.write()
            story.n_over = number
            story.save(self._story_file)
            self.screen.result(self._result(act))
        return True

    def results(self) -> list[PhaseResult]:
        """The results of all acts, in order."""
        return [self._result(act) for act in ACTS]

    def _end(self, stream: str, start: int) -> int | None:
        """Where the stream's next act begins, if it has begun."""
        return min((at for at, _ in self.source.story.changes[stream] if at > start), default=None)

    def _begin(self, act: Act) -> int:
        """The first step of the act; written down before its first event is sent."""
        story = self.source.story
        for step, shift in story.changes[act.stream]:
            if shift is act.shift:
                return step
        step = self.source.position(act.stream)
        story.changes[act.stream].append((step, act.shift))
        story.save(self._story_file)
        return step

    def _go_on(self, over: Callable[[], bool], stream: str, stop: threading.Event) -> None:
        """Send steps until the phase is over; while a model is trained the world stands still."""
        pipeline = self.app.pipeline
        while not stop.is_set() and not over():
            training = pipeline.jobs is not None and pipeline.jobs.is_busy
            if not training and self.source.idle:
                self.source.allow(stream, STEPS)
            pipeline.step()

    def _until_quiet(self, stream: str) -> int:
        """Observations of a stream's reference and of its quiet stretch."""
        return self.app.pipeline.view.stream(stream).settings.reference.warm_up + QUIET

    def _quiet_enough(self, stream: str) -> bool:
        seen = self.app.pipeline.view.stream(stream)
        return seen.is_failed or seen.observations >= self._until_quiet(stream)

    def _over(self, act: Act, start: int) -> bool:
        seen = self.app.pipeline.view.stream(act.stream)
        if seen.is_failed or seen.observations >= start + LONGEST_PHASE:
            return True
        since = self._repaired_at(act.stream, start)
        if since is None or seen.phase != MonitorPhase.WATCHING:
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

    def _result(self, act: Act) -> PhaseResult:
        if act.shift is Shift.NONE:
            return self._nothing_moved()
        start = self._begin(act)
        incidents = self._incidents(act.stream, start)
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

    def _nothing_moved(self) -> PhaseResult:
        """What was said of both streams before anything moved in them."""
        incidents = [i for s in STREAMS for i in self._incidents(s, 0)]
        right = [
            r
            for s in STREAMS
            for i, r in self._right[s].items()
            if (end := self._end(s, 0)) is None or i < end
        ]
        return PhaseResult(
            stream="both",
            truth=[],
            verdict=sorted({f for i in incidents for f in i.factors}),
            delay_events=None,
            action=_action(incidents),
            accuracy=dict.fromkeys(("before", "during", "after"), _share(right)),
        )


def _share(right: list[bool]) -> float | None:
    return round(sum(right) / len(right), 4) if right else None


def _action(incidents: list[Incident]) -> str:
    """What was done in the phase, in one word or two."""
    if not incidents or not incidents[-1].actions:
        return "none"
    kind = str(incidents[-1].actions[-1]["kind"])
    if kind == "fine_tune":
        kept = "champion kept" in incidents[-1].detail
        return "fine_tune: champion kept" if kept else "fine_tune: promoted"
    return kind


# -- the command -----------------------------------------------------------------------------------


def address(server: HttpServer | None) -> str:
    """Where the service answers."""
    return "" if server is None else f"http://{server.host}:{server.port}"


@contextmanager
def _served(
    settings: Settings, story: Story, folder: Path, screen: Screen
) -> Iterator[tuple[Demo, HttpServer | None]]:
    """The service with a demo's driver, and where it answers."""
    source = DemoSource(story)

    def on_progress(job: Any, event: Mapping[str, Any]) -> None:
        screen.training(f"fine-tuning {job.stream}", event)

    with open_app(settings, source, on_progress=on_progress) as app, serving(app) as server:
        app.pipeline.step(timeout_s=0)  # it is ready when that is said
        screen.serving(address(server), [stream.name for stream in settings.streams])
        yield Demo(app, source, folder, screen), server


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

    Raises
    ------
    DemoError
        After the last phase, if a stream has failed.
    """
    started = time.monotonic()
    story = Story.load(folder / "story.json")
    if story is None or story.n_over == len(ACTS) or story.seed != seed:
        if folder.exists():
            shutil.rmtree(folder)
        story = Story(seed)
    folder.mkdir(parents=True, exist_ok=True)
    story.save(folder / "story.json")
    failures: list[Failure] = []
    secret = "whsec_" + b64encode(secrets.token_bytes(24)).decode()
    with Screen(console) as screen, Receiver(secret, screen.webhook) as receiver:
        settings = demo_settings(folder, seed, port, secret, receiver.url)
        with (
            SourceModel(settings, IMAGES, folder, screen) as images,
            SourceModel(settings, PIXELS, folder, screen) as pixels,
        ):
            if not pixels.wait(stop):
                return False
            if any(act.stream == PIXELS for act in ACTS[story.n_over :]):
                first = demo_settings(folder, seed, port, secret, receiver.url, names=(PIXELS,))
                with _served(first, story, folder, screen) as (demo, server):
                    if not demo.play(PIXELS, stop):
                        return False
                    failures += demo.app.pipeline.failures
                    # The service that follows answers at the same address.
                    port = port if server is None else server.port
            if not images.wait(stop):
                return False
        settings = demo_settings(folder, seed, port, secret, receiver.url)
        with _served(settings, story, folder, screen) as (demo, server):
            if not demo.play(IMAGES, stop):
                return False
            demo.app.drain()
            results = demo.results()
            wall_s = round(time.monotonic() - started, 1)
            screen.table([(a.title, r) for a, r in zip(ACTS, results, strict=True)], wall_s)
            if report is not None:
                document = {"phases": [asdict(r) for r in results], "wall_s": wall_s, "seed": seed}
                report.write_text(json.dumps(document, indent=2) + "\n")
            failures += demo.app.pipeline.failures
            if failures:
                raise DemoError("\n".join(map(str, failures)))
            if not exit_when_done:
                screen.keeps_serving(address(server))
                while not stop.wait(0.5):
                    pass
    return all(sorted(r.truth) == r.verdict for r in results)
