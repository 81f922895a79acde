"""The whole product on streams with one change: is the verdict right, and when does it come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from benchmarks import monitoring
from benchmarks.confusion import UNDETERMINED, Confusion, Pair, arrow, name_of
from benchmarks.intervals import share_text
from benchmarks.peers import FrozenModel
from benchmarks.report import markdown_table
from benchmarks.stream_peers import (
    ERROR_DETECTORS,
    PROMISED,
    WATCHED,
    Claim,
    first_error_alarm,
    first_window_claim,
)
from benchmarks.table import Outcome, Summary, Target, Trial
from benchmarks.tables.attribution import MIN_TRIALS, kinds
from detectors.attribution.windows import Sample
from detectors.base import Array, IntArray, Kind, Problem
from detectors.synthetic import Stream

WARM_UP = 2000
CHANGE = 5000
FIRST_SEED = 300_000
N_FEATURES = (2, 4, 8, 12)
QUICK = (14, 9)
"""Numbers of a quick run: they differ in size, strength and family. Settings without a promise get
the first one only."""
RIGHT_BROKEN = 0.7
"""A smaller share of right verdicts shows even in a handful of trials that something is broken."""
MEASURES = (
    "right", "claims before the change", "undetermined", "no claim", "delay: median", "90 %",
    "suspicions before the change", "CPU s",
)  # fmt: skip
PRODUCT = "Shiftwatch"
WINDOWS = "KS on the last 1,000 + error rise"


class Setting(NamedTuple):
    """How a stream changes, and how its labels come."""

    title: str
    label_delay: int
    label_share: float
    width: int
    """Events over which the new distribution takes over; 0 for an abrupt change."""
    n_events: int
    n_seeds: int
    """Streams of each problem and kind."""
    peers: bool
    wanted: float | None
    """Share of right verdicts that is promised."""


# Peers run where labels come at once and with every event: their error detectors have one setting
# for streams of one length, and a delay would only add itself to theirs.
SETTINGS = {
    "at_once": Setting("labels at once", 0, 1.0, 0, CHANGE + 4000, 24, True, 0.95),
    "late": Setting("labels 500 late", 500, 1.0, 0, CHANGE + 4000, 24, False, 0.90),
    # The last look needs 1,000 labels, which are 4,000 events here: the stream is longer.
    "quarter": Setting("a quarter of labels", 0, 0.25, 0, CHANGE + 7000, 8, False, None),
    "quarter_late": Setting(
        "a quarter of labels, 500 late", 500, 0.25, 0, CHANGE + 7000, 8, False, None
    ),
    "gradual": Setting("gradual over 500", 0, 1.0, 500, CHANGE + 4000, 8, True, None),
    "gradual_late": Setting(
        "gradual over 500, labels 500 late", 500, 1.0, 500, CHANGE + 4000, 8, False, None
    ),
}


@dataclass(frozen=True, slots=True)
class EndToEnd:
    """See the module."""

    name: str = "end_to_end"
    title: str = "From events to a verdict"

    def missing(self) -> str:
        """Never."""
        return ""

    def trials(self, *, quick: bool) -> list[Trial]:
        """Equal worlds in every setting."""
        return [
            trial_of(key, problem, kind, number)
            for key, setting in SETTINGS.items()
            for problem in Problem
            for kind in kinds(problem)
            for number in _numbers(setting, quick=quick)
        ]

    def run(self, trial: Trial) -> Outcome:
        """One stream, and what each monitor said about it and when."""
        problem, seed = Problem(trial["problem"]), trial["seed"]
        setting = SETTINGS[trial["setting"]]
        stream = world(trial)
        features, labels = rows(stream, setting, seed)
        run = monitoring.watch(
            features,
            labels,
            problem,
            warm_up=WARM_UP,
            label_delay=setting.label_delay,
            label_share=setting.label_share,
            seed=seed,
            false_alarm_every=PROMISED,
        )
        confirmed = [i.confirmed_at.index for i in run.confirmed if i.confirmed_at is not None]
        # By its last state: an incident that was vague at first may have been settled.
        incidents = [i for i in run.incidents if i.confirmed_at is not None]
        factors = {f for i in incidents for f in i.factors}
        vague = any(i.kind == Kind.UNDETERMINED for i in incidents)
        said = UNDETERMINED if vague else name_of(sorted(factors), problem)
        answers = {PRODUCT: answer_of(said, min(confirmed, default=None))}
        if setting.peers:
            for name, claim in _peers(features, labels, problem, seed):
                factors_said = [] if claim is None else sorted(claim.factors)
                answers[name] = answer_of(
                    name_of(factors_said, problem), None if claim is None else claim.at
                )
        return {
            "truth": name_of(sorted(stream.factors), problem),
            "change": stream.change,
            "answers": answers,
            "opened_before": sum(i.opened_at.index < CHANGE for i in run.incidents),
            "cpu_s": round(run.cpu_s, 3),
        }

    def summarise(self, results: Sequence[tuple[Trial, Outcome]]) -> Summary:
        """Right verdicts, delays and false alarms, setting by setting."""
        figures: dict[str, Any] = {"false_alarm_every": PROMISED}
        summaries: list[list[object]] = []
        cells: list[list[object]] = []
        tables, targets = [], []
        delays: dict[str, list[float]] = {}
        for key, setting in SETTINGS.items():
            own = [(t, o) for t, o in results if t["setting"] == key]
            for name in _names(own):
                found = tally(own, name)
                figures[f"{key}/{name}"] = found
                summaries.append([setting.title, name, *tally_cells(found)])
                if setting.peers and not setting.width:
                    delays[name] = _delays(own, name)
                if name == PRODUCT and setting.wanted is not None:
                    targets.append(_target(setting, found))
            for problem in Problem:
                by_problem = [(t, o) for t, o in own if t["problem"] == problem]
                for kind in kinds(problem):
                    chosen = [(t, o) for t, o in by_problem if t["kind"] == kind]
                    if chosen:
                        found = tally(chosen, PRODUCT)
                        cells.append(
                            [setting.title, arrow(problem), str(kind), *tally_cells(found)]
                        )
                if by_problem:
                    confusion = Confusion.of(problem, _pairs(by_problem, PRODUCT))
                    tables.append(
                        f"**{setting.title}, {arrow(problem)}**\n\n{confusion.markdown()}"
                    )
        text = [
            f"Streams of 9,000 events (12,000 where labels are few), {WARM_UP:,} of them the "
            f"reference, with one change at {CHANGE:,} or none: 2, 4, 8 or 12 features, moderate "
            "or strong, linear or not. Right means: all confirmed incidents together name exactly "
            "what moved, nothing before it moved, and nothing stayed undetermined. Delays are in "
            "events from the change to the first confirmation, also where that one left open what "
            "moved; the rule on windows has alarmed a window before. Asked for: one false incident "
            f"in {PROMISED:,} events; the other monitors are set to the same chance of a false "
            f"alarm on the {WATCHED:,} events after the reference. They watch the errors of a "
            "frozen random forest and can name only a concept drift, except for the rule on "
            "windows: that names what moved when the window after its alarm is full. alibi-detect "
            "has [a table of its own](alibi.md).",
            markdown_table(("setting", "monitor", *MEASURES), summaries),
            "Shiftwatch, cell by cell:",
            markdown_table(("setting", "problem", "what moves", *MEASURES), cells),
            "Its verdicts against the truth (verdicts before the change count as they were given):",
            *tables,
        ]
        plots = {self.name: _plot(figures, delays)} if delays else {}
        return Summary("\n\n".join(text), figures, targets, plots)


TABLE = EndToEnd()


def world(trial: Trial) -> Stream:
    """What a trial draws from."""
    return Stream(
        Problem(trial["problem"]),
        Kind(trial["kind"]),
        n_features=trial["n_features"],
        family=trial["family"],
        strength=trial["strength"],
        seed=trial["seed"],
    )


def rows(stream: Stream, setting: Setting, seed: int) -> tuple[Array, IntArray]:
    """A stream's rows in time order, shape (n, d), and their labels, shape (n,)."""
    n_after = setting.n_events - CHANGE
    before = stream.draw(setting.n_events, shifted=False)
    after = stream.draw(n_after, shifted=True)
    # During the takeover each event is of the new distribution with a growing chance.
    share = np.minimum(1.0, (np.arange(n_after) + 1) / max(setting.width, 1))
    new = np.zeros(setting.n_events, bool)
    new[CHANGE:] = np.random.default_rng([seed, 8]).random(n_after) < share
    features, labels = before
    features[CHANGE:] = np.where(new[CHANGE:, None], after[0], features[CHANGE:])
    labels[CHANGE:] = np.where(new[CHANGE:], after[1], labels[CHANGE:])
    return features, labels


def _numbers(setting: Setting, *, quick: bool) -> Sequence[int]:
    if quick:
        return QUICK if setting.wanted is not None else QUICK[:1]
    return range(setting.n_seeds)


def trial_of(key: str, problem: Problem, kind: Kind, number: int) -> Trial:
    """The trial of a setting with a number, which decides its world."""
    block = 4 * list(Problem).index(problem) + kinds(problem).index(kind)
    return {
        "setting": key,
        "problem": str(problem),
        "kind": str(kind),
        "n_features": N_FEATURES[number % 4],
        # The smaller half of the seeds already has every size with every strength.
        "strength": ("moderate", "strong")[number // 4 % 2],
        "family": ("linear", "nonlinear")[(number + number // 8) % 2],
        "number": number,
        "seed": FIRST_SEED + 100 * block + number,
    }


def _peers(
    features: Array, labels: IntArray, problem: Problem, seed: int
) -> list[tuple[str, Claim | None]]:
    model = FrozenModel(Sample(features[:WARM_UP], labels[:WARM_UP]), seed)
    claims = [
        (title, first_error_alarm(name, model, features, labels, start=WARM_UP))
        for name, title in ERROR_DETECTORS.items()
    ]
    claims.append((WINDOWS, first_window_claim(model, features, labels, problem, start=WARM_UP)))
    return claims


def answer_of(said: str, at: int | None) -> dict[str, Any]:
    """What a monitor said moved, and the event when it first said something."""
    return {"said": said, "at": at}


def _names(results: Sequence[tuple[Trial, Outcome]]) -> list[str]:
    return list(dict.fromkeys(name for _, outcome in results for name in outcome["answers"]))


def _pairs(results: Sequence[tuple[Trial, Outcome]], name: str) -> list[Pair]:
    return [(o["truth"], o["answers"][name]["said"]) for _, o in results]


def _is_right(outcome: Outcome, name: str) -> bool:
    answer = outcome["answers"][name]
    early = answer["at"] is not None and answer["at"] < CHANGE
    return bool(answer["said"] == outcome["truth"] and not early)


def _delays(results: Sequence[tuple[Trial, Outcome]], name: str) -> list[float]:
    """Events from the change to the first claim, where there was a change and none came early."""
    at = [
        o["answers"][name]["at"]
        for _, o in results
        if o["truth"] != "none" and name in o["answers"]
    ]
    return [float(a - CHANGE) for a in at if a is not None and a >= CHANGE]


def tally(results: Sequence[tuple[Trial, Outcome]], name: str) -> dict[str, Any]:
    """Counts and delays of a monitor by name, over the streams that it watched."""
    results = [(t, o) for t, o in results if name in o["answers"]]
    answers = [(o["truth"], o["answers"][name]) for _, o in results]
    delays = _delays(results, name)
    own = name == PRODUCT
    return {
        "n": len(results),
        "right": sum(_is_right(o, name) for _, o in results),
        "early": sum(a["at"] is not None and a["at"] < CHANGE for _, a in answers),
        "undetermined": sum(a["said"] == UNDETERMINED for _, a in answers),
        "missed": sum(a["at"] is None and truth != "none" for truth, a in answers),
        "moved": sum(truth != "none" for truth, _ in answers),
        "delay_median": float(np.median(delays)) if delays else None,
        "delay_p90": float(np.quantile(delays, 0.9)) if delays else None,
        "opened_before": sum(o["opened_before"] for _, o in results) if own else None,
        "cpu_s": round(float(np.median([o["cpu_s"] for _, o in results])), 2) if own else None,
    }


def tally_cells(found: dict[str, Any]) -> list[object]:
    """The cells that belong to `MEASURES`."""

    def whole(value: float | None) -> str:
        return "–" if value is None else f"{value:,.0f}"

    return [
        share_text(found["right"], found["n"]),
        found["early"],
        found["undetermined"],
        f"{found['missed']} of {found['moved']}",
        whole(found["delay_median"]),
        whole(found["delay_p90"]),
        "–" if found["opened_before"] is None else found["opened_before"],
        "–" if found["cpu_s"] is None else found["cpu_s"],
    ]


def _target(setting: Setting, found: dict[str, Any]) -> Target:
    share = found["right"] / found["n"]
    return Target(
        f"verdicts of whole streams that are exactly right, {setting.title}",
        f">= {100 * (setting.wanted or 0):.0f} %",
        share_text(found["right"], found["n"]),
        share >= (setting.wanted or 0) if found["n"] >= MIN_TRIALS else None,
        far_off=share < RIGHT_BROKEN,
    )


def _plot(figures: dict[str, Any], delays: dict[str, list[float]]) -> Figure:
    """Right verdicts of every monitor, and how their delays are spread."""
    names = list(delays)
    tallies = [figures[f"at_once/{name}"] for name in names]
    colours = ["#1a7f4b" if name == PRODUCT else "#8c9aa8" for name in names]
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    bars = left.barh(names, [100 * t["right"] / t["n"] for t in tallies], color=colours)
    left.bar_label(bars, fmt="%.0f %%", padding=3)
    left.set(xlim=(0, 112), xlabel="verdicts exactly right, %", title="What moved?")
    for name, colour, tally in zip(names, colours, tallies, strict=True):
        at = np.sort(delays[name])
        right.step(
            [0.0, *at, 4000.0],
            [0.0, *(np.arange(1, len(at) + 1) / tally["moved"]), len(at) / tally["moved"]],
            where="post",
            color=colour if name == PRODUCT else None,
            linewidth=2.4 if name == PRODUCT else 1.3,
            label=name,
        )
    right.set(
        xlim=(0, 4000),
        ylim=(0, 1.02),
        xlabel="events since the change",
        ylabel="share of changes claimed",
        title="When, at an equal rate of false alarms?",
    )
    right.legend(fontsize=8, frameon=False)
    left.invert_yaxis()
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure
