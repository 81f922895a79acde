"""The demo's in-process source: two streams whose world changes when a phase begins."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from service.demo.digits import Regime, Shift, messages
from service.records.block import Block, Run
from service.sources.source import OneLane

IMAGES = "digits"
PIXELS = "digits-pixels"
STREAMS = (IMAGES, PIXELS)
OFFSETS_PER_STEP = 1000
"""A step sends one event and the labels that are due; its records get offsets of their own."""


@dataclass(slots=True)
class Story:
    """When each stream's world changed; on disk before the first event of the change is sent.

    Attributes
    ----------
    seed
        Seed of every event.
    changes
        By stream: the first step of each shift, and the shift, in order.
    n_over
        Acts that are over.
    """

    seed: int
    changes: dict[str, list[tuple[int, Shift]]] = field(
        default_factory=lambda: {name: [] for name in STREAMS}
    )
    n_over: int = 0

    def regime(self, stream: str, step: int) -> Regime:
        """The world of a stream at a step."""
        regime = Regime()
        for first, shift in self.changes[stream]:
            if step >= first:
                regime = regime.after(shift)
        return regime

    def save(self, path: Path) -> None:
        """Write the story so that a restart tells it again."""
        changes = {k: [[step, str(shift)] for step, shift in v] for k, v in self.changes.items()}
        new = path.with_suffix(".new")
        new.write_text(json.dumps({"seed": self.seed, "changes": changes, "n_over": self.n_over}))
        new.replace(path)

    @classmethod
    def load(cls, path: Path) -> Story | None:
        """The story on disk; None without one, or where another version wrote it."""
        if not path.exists():
            return None
        document = json.loads(path.read_text())
        if set(document) != {"seed", "changes", "n_over"}:
            return None
        changes = {
            k: [(step, Shift(shift)) for step, shift in v] for k, v in document["changes"].items()
        }
        return cls(document["seed"], changes, document["n_over"])


class DemoSource(OneLane):
    """Sends each stream's steps up to where the demo has allowed.

    Parameters
    ----------
    story
        Which world each step lives in.
    """

    def __init__(self, story: Story) -> None:
        self.story = story
        self.allowed = dict.fromkeys(STREAMS, 0)
        self._next = dict.fromkeys(STREAMS, 0)
        self.exhausted = False

    def position(self, stream: str) -> int:
        """The next step that the stream sends."""
        return self._next[stream] // OFFSETS_PER_STEP

    def allow(self, stream: str, steps: int) -> None:
        """Let the stream send so many steps from where it is."""
        self.allowed[stream] = self.position(stream) + steps

    @property
    def idle(self) -> bool:
        """Whether everything allowed has been sent."""
        return all(self.position(s) >= self.allowed[s] for s in STREAMS)

    def poll(self, max_records: int = 500, timeout_s: float = 1.0) -> Block:  # noqa: ARG002 - never waits
        """The next records, whole steps at a time."""
        runs: list[Run] = []
        offsets: list[int] = []
        values: list[bytes] = []
        keys: list[bytes | None] = []
        for stream in STREAMS:
            begin = len(values)
            while self.position(stream) < self.allowed[stream] and len(values) < max_records:
                step, first = divmod(self._next[stream], OFFSETS_PER_STEP)
                regime_at = partial(self.story.regime, stream)
                sent = messages(stream, self.story.seed, step, regime_at, images=stream == IMAGES)
                values += sent[first:]
                offsets += range(
                    step * OFFSETS_PER_STEP + first, step * OFFSETS_PER_STEP + len(sent)
                )
                self._next[stream] = (step + 1) * OFFSETS_PER_STEP
            if n := len(values) - begin:
                runs.append(Run(stream, 0, n))
                keys += [stream.encode()] * n
        return Block(runs, offsets, values, keys=keys)

    def seek(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Go on at the store's offsets."""
        for (topic, _), offset in offsets.items():
            self._next[topic] = offset

    def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Nothing to do: the store's offsets are the only ones."""

    def lag(self) -> int:
        """Steps that are allowed and not sent."""
        return sum(max(0, self.allowed[s] - self.position(s)) for s in STREAMS)

    def close(self) -> None:
        """End the source."""
        self.exhausted = True
