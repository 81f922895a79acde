"""Streams with all a stream may have: every way of a label, gaps, categories, scores, parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from service.records.record import Record
from service.settings.stream import StreamSettings
from tests.service.streams import as_records

Body = dict[str, Any]
WARM_UP = 300
CHANGE = 650
"""Observation from which on the stream is another one."""
RETURN = 1400
"""Observation from which on it is again as it was."""
BEGIN = 1_767_225_600.0
"""2026-01-01."""
ALONG = {"along": 1.0}
LATE = {"late": 1.0}
MUDDLED = {
    "along": 0.25,
    "late": 0.3,
    "early": 0.15,
    "twice": 0.1,
    "contradicted": 0.05,
    "unknown": 0.05,
    "never": 0.1,
}
"""Ways of a label and how often each is taken."""


@dataclass(frozen=True, slots=True)
class World:
    """A kind of stream.

    Attributes
    ----------
    problem
        The causal direction.
    moved
        What is another one between `CHANGE` and `RETURN`: `inputs`, `rule` or `classes`.
    later
        What is besides from 300 observations after `CHANGE` on.
    bursts
        Observations before `CHANGE` at which a few in a row are far off, so that an alarm is false.
    ways
        Of the labels.
    delay
        Observations between an observation and its label, at most.
    n
        Observations.
    is_mixed
        Whether there are gaps, a category and a flag among the features.
    has_scores
        Whether observations have scores of two classes.
    without_scores
        Share of those behind the reference that have none, or not of all classes, all the same.
    n_noise
        Further numeric features.
    clocks
        Whether records have times, some of them wrong.
    hand
        What somebody does about an open incident: `fold`, `close`, `repair`, or `fail` to repair.
    happens
        What comes to pass, by the names of `tests.service.cuts.Told.happened`.
    settings
        Further fields of the stream's settings.
    """

    problem: str = "x_to_y"
    moved: Sequence[str] = ("inputs",)
    later: Sequence[str] = ()
    bursts: Sequence[int] = ()
    ways: Mapping[str, float] = field(default_factory=lambda: MUDDLED)
    delay: int = 90
    n: int = 1800
    is_mixed: bool = True
    has_scores: bool = False
    without_scores: float = 0.0
    n_noise: int = 0
    clocks: bool = True
    hand: str = ""
    happens: frozenset[str] = frozenset()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kinds(self) -> dict[str, str]:
        """The features and their kinds."""
        kinds = {"a": "numeric", "b": "numeric"}
        if self.is_mixed:
            kinds = {"a": "numeric", "country": "categorical", "b": "numeric", "flag": "boolean"}
        return kinds | {f"noise {j}": "numeric" for j in range(self.n_noise)}

    @property
    def classes(self) -> tuple[str, ...]:
        """Of the scores."""
        return ("0", "1") if self.has_scores else ()

    def stream_settings(self, **fields: Any) -> StreamSettings:
        """Settings with which much happens in few observations."""
        return StreamSettings.model_validate(
            {
                "name": "s",
                "problem": self.problem,
                "reference": {"warm_up": WARM_UP},
                "classes": self.classes or None,
                "false_alarm_every": 3_000,
                "cool_down": 50,
                "confirm": {"looks": [60, 120], "max_wait": 260, "min_labels": 30},
                **self.settings,
                **fields,
            }
        )

    def bodies(self, seed: int) -> list[Body]:
        """The records as they are sent, in their order."""
        rng = np.random.default_rng(seed)
        ways, weights = list(self.ways), np.array(list(self.ways.values()))
        timed: list[tuple[float, Body]] = []
        for i in range(self.n):
            id_ = f"e{i - 40 if i > 40 and rng.random() < 0.02 else i}"
            moved = set(self.moved) if CHANGE <= i < RETURN else set()
            moved |= set(self.later) if CHANGE + 300 <= i < RETURN else set()
            features, label, scores = self._event(rng, moved)
            if any(at <= i < at + 12 for at in self.bursts):
                features["b"] = 4.0
            if i > WARM_UP and rng.random() < self.without_scores:
                scores = {"1": 1.0} if rng.random() < 0.5 else None
            body: Body = {"stream": "s", "id": id_, "features": features}
            if rng.random() < 0.8:
                body["prediction"] = int(features["b"] is not None and features["b"] > 0)
            if scores is not None:
                body["scores"] = scores
            camera = str(rng.choice(["3", "7", ""], p=[0.45, 0.45, 0.1]))
            if camera:
                body["segment"] = {"camera": camera, "site": camera * 2}
            told = {"stream": "s", "id": id_, "label": label}
            way = str(rng.choice(ways, p=weights / weights.sum()))
            if way == "along":
                body["label"] = label
            elif way == "unknown":
                timed.append((i, {**told, "id": f"unknown {i}"}))
            elif way != "never":
                timed.append((i + (-30 if way == "early" else self.delay) * rng.random(), told))
                if way in ("twice", "contradicted"):
                    again = {**told, "label": label if way == "twice" else 1 - label}
                    timed.append((i + 2 * self.delay * rng.random(), again))
            timed.append((i, body))
        timed.sort(key=lambda pair: pair[0])
        if self.clocks:
            for at, body in timed:
                if rng.random() < 0.9:
                    wrong = rng.choice([0.0, 0.0, 1e9, -1e9]) if rng.random() < 0.04 else 0.0
                    body["time"] = iso(BEGIN + 600.0 * at + float(wrong))
        return [body for _, body in timed]

    def records(self, seed: int) -> list[Record]:
        """The same as they arrive."""
        return as_records(self.bodies(seed))

    def _event(
        self, rng: np.random.Generator, moved: set[str]
    ) -> tuple[Body, int, dict[str, float] | None]:
        sign = -1.0 if "rule" in moved else 1.0
        if self.problem == "x_to_y":
            a, b = rng.normal(1.3 if "inputs" in moved else 0.0, 1.0, 2).tolist()
            label = int(rng.random() < 1 / (1 + np.exp(-2.0 * sign * (a + 0.5 * b))))
        else:
            label = int(rng.random() < (0.85 if "classes" in moved else 0.35))
            a, b = rng.normal((2 * label - 1) * sign, 1.0, 2).tolist()
        features: Body = {"a": a, "b": b}
        if self.is_mixed:
            country = str(rng.choice(["de", "fr", "it"], p=[0.5, 0.3, 0.2]))
            features |= {"country": country, "flag": bool(rng.random() < 0.4)}
            features = {
                name: None if rng.random() < 0.03 else features[name] for name in self.kinds
            }
        features |= {f"noise {j}": float(x) for j, x in enumerate(rng.normal(size=self.n_noise))}
        one = float(1 / (1 + np.exp(-2 * (a + b) - np.log(0.35 / 0.65))))
        return features, label, {"0": 1 - one, "1": one} if self.has_scores else None


def iso(seconds: float) -> str:
    """A time as records have it."""
    return f"{np.datetime64(int(seconds), 's')}Z"


PRIOR = {"problem": "y_to_x", "moved": ("classes",), "delay": 40, "has_scores": True}
BURST: Mapping[str, Any] = {
    "bursts": (590,),
    "settings": {"confirm": {"looks": [30, 50, 200], "max_wait": 600, "min_labels": 30}},
}

WORLDS: Mapping[str, World] = {
    "covariate, muddled labels": World(hand="fold"),
    "concept, labels soon": World(
        moved=("rule",), ways=LATE, delay=20, is_mixed=False, clocks=False
    ),
    "concept, labels along": World(moved=("rule",), ways=ALONG, is_mixed=False, hand="fail"),
    "both, late labels": World(moved=("inputs", "rule"), ways=LATE, delay=150, hand="repair"),
    "few labels": World(
        ways={"along": 0.08, "never": 0.92}, settings={"labels": {"max_pending": 40}}, hand="close"
    ),
    "asked for, labels come": World(ways={"along": 0.2, "late": 0.8}, delay=700),
    "very late labels": World(
        "y_to_x", ("classes",), ways=LATE, delay=320, settings={"labels": {"max_age_s": 240_000.0}}
    ),
    "prior, no scores": World("y_to_x", ("classes",), is_mixed=False, clocks=False),
    "prior, re-weighted": World(**PRIOR),
    "prior, some scores": World(**PRIOR, without_scores=0.1, is_mixed=False),
    "re-weighting that is not enough": World(**PRIOR, later=("rule",), hand="repair"),
    "one factor after the other": World(later=("rule",), ways=ALONG, is_mixed=False),
    "no labels": World(ways={"never": 1.0}, hand="fold"),
    "a change during a false suspicion": World(moved=("rule",), ways=ALONG, **BURST),
    "the same without labels": World(ways={"never": 1.0}, **BURST),
    "named detectors": World(
        settings={"detectors": ["newma", "conformal", "e_detector", "sd_ewma", "adwin"]}
    ),
    "components": World(n_noise=6, is_mixed=False, hand="repair", moved=("inputs", "rule")),
}
