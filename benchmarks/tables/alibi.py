"""alibi-detect beside the product and the other monitors, on trials of their own tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import alibi_peers
from benchmarks.alibi_peers import AlibiRule, MmdOnline
from benchmarks.confusion import Confusion, arrow, name_of
from benchmarks.intervals import count_interval
from benchmarks.report import markdown_table
from benchmarks.stream_peers import PROMISED
from benchmarks.table import Outcome, Summary, Trial
from benchmarks.tables import attribution, end_to_end
from detectors.base import Kind, Problem

WINDOWS, STREAMS = "windows", "streams"
NUMBERS = (0, 4, 2, 9, 7, 11)
"""Of each kind of pairs of windows: every size, moderate and strong, with both families in each."""
PACKAGES = ("alibi-detect", "tensorflow", "numpy", "scikit-learn")
RULE = AlibiRule()
ONLINE = MmdOnline()
STILL = {(Problem.X_TO_Y, Kind.NONE), (Problem.X_TO_Y, Kind.CONCEPT), (Problem.Y_TO_X, Kind.NONE)}
"""Where the inputs' own distribution does not move; that of P(X|Y) or P(Y) moves them too."""
CALM = end_to_end.CHANGE - end_to_end.WARM_UP


@dataclass(frozen=True, slots=True)
class Alibi:
    """See the module."""

    name: str = "alibi"
    title: str = "alibi-detect, on the same windows and streams"

    def missing(self) -> str:
        """Whether it can be asked."""
        return alibi_peers.missing()

    def trials(self, *, quick: bool) -> list[Trial]:
        """A part of the trials of `attribution` and `end_to_end`; none of them is quick."""
        if quick:
            return []
        cells = [(problem, kind) for problem in Problem for kind in attribution.kinds(problem)]
        return [
            {"part": WINDOWS} | attribution.trial_of(attribution.WITH_OTHERS, *cell, number)
            for cell in cells
            for number in NUMBERS
        ] + [
            {"part": STREAMS} | end_to_end.trial_of("at_once", *cell, number)
            for block, cell in enumerate(cells)
            for number in stream_numbers(block)
        ]

    def run(self, trial: Trial) -> Outcome:
        """What the trial's own table runs, and alibi-detect on the same rows."""
        return _run_windows(trial) if trial["part"] == WINDOWS else _run_stream(trial)

    def summarise(self, results: Sequence[tuple[Trial, Outcome]]) -> Summary:
        """Everybody's scores on the trials that have run."""
        figures: dict[str, Any] = {}
        text = [
            "alibi-detect does not install beside the newest versions of what is measured here. It "
            "has the same rows, in an environment of its own (`make bench-alibi`: "
            + ", ".join(f"{name} {alibi_peers.pinned(name)}" for name in PACKAGES)
            + "), on one processor thread, for a part of the trials of "
            "[attribution](attribution.md) and of [whole streams](end_to_end.md), in which sizes, "
            "strengths and families take turns. What the others say of the same trials stands "
            "beside it."
        ]
        for part, summarise in ((WINDOWS, _windows), (STREAMS, _streams)):
            own = [(t, o) for t, o in results if t["part"] == part]
            if own:
                text += summarise(own, figures)
        return Summary("\n\n".join(text), figures)


TABLE = Alibi()


def stream_numbers(block: int) -> tuple[int, int]:
    """The numbers of a cell's streams: one moderate, one strong, of other sizes in the next cell.

    The number of a stream decides its size, strength and family; the eight cells have sixteen
    different ones.
    """
    half, place = divmod(block, 4)
    return 8 * half + place, 8 * half + 4 + (place + 2) % 4


def _run_windows(trial: Trial) -> Outcome:
    problem = Problem(trial["problem"])
    reference, recent = attribution.windows(attribution.world(trial), trial)
    outcome = attribution.TABLE.run(trial)
    factors, answer = RULE.claims(
        reference, recent, problem, alpha=attribution.ALPHA, seed=trial["seed"]
    )
    said = outcome["said"] | {RULE.name: name_of(sorted(factors), problem)}
    return outcome | {"said": said, "alibi": answer}


def _run_stream(trial: Trial) -> Outcome:
    problem, seed = Problem(trial["problem"]), trial["seed"]
    setting = end_to_end.SETTINGS[trial["setting"]]
    outcome = end_to_end.TABLE.run(trial)
    features, _ = end_to_end.rows(end_to_end.world(trial), setting, seed)
    found = ONLINE.watch(features, start=end_to_end.WARM_UP, change=end_to_end.CHANGE, seed=seed)
    first = min(found.at, default=None)
    said = name_of([] if first is None else [problem.marginal], problem)
    answers = outcome["answers"] | {ONLINE.name: end_to_end.answer_of(said, first)}
    return outcome | {"answers": answers, "alibi": dataclasses.asdict(found)}


def _windows(results: Sequence[tuple[Trial, Outcome]], figures: dict[str, Any]) -> list[str]:
    rows = []
    for problem in Problem:
        own = [o for t, o in results if t["problem"] == problem]
        for name in dict.fromkeys(name for outcome in own for name in outcome["said"]):
            found = Confusion.of(problem, [(o["truth"], o["said"][name]) for o in own])
            figures[f"{WINDOWS}/{problem}/{name}"] = found.to_json()
            rows.append((arrow(problem), name, *attribution.scores(found)))
    cpu = {
        attribution.PRODUCT: [o["cpu_s"] for _, o in results],
        RULE.name: [o["alibi"]["cpu_s"] for _, o in results],
    }
    medians = {name: round(float(np.median(values)), 2) for name, values in cpu.items()}
    figures[f"{WINDOWS}/cpu_s"] = medians
    setting = attribution.SETTINGS[attribution.WITH_OTHERS]
    return [
        f"**Pairs of windows** ({setting.title} rows, all labelled, {_seeds(results)}). Its "
        "maximum mean discrepancy tests P(X), in Y→X problems the chi-squared test P(Y); its "
        "context-aware test the other factor, of labels given features or of features given "
        f"labels, with {RULE.N_PERMUTATIONS} permutations and at its defaults, but for the kernel "
        "of labels, whose width is set to 1 (theirs is 0 with two classes, and then there is no "
        "p-value). A slip of version 0.13.0 is mended here, without which it sees less: where its "
        "TensorFlow backend chooses the regularisation, it takes one kernel matrix for the other. "
        "All at the same nominal level.",
        markdown_table(("problem", "rule", *attribution.MEASURES), rows),
        "Processor seconds of a pair, median: "
        + ", ".join(f"{name} {value:,}" for name, value in medians.items())
        + ".",
    ]


def _streams(results: Sequence[tuple[Trial, Outcome]], figures: dict[str, Any]) -> list[str]:
    rows = []
    for name in dict.fromkeys(name for _, o in results for name in o["answers"]):
        found = end_to_end.tally(results, name)
        figures[f"{STREAMS}/{name}"] = found
        rows.append((name, *end_to_end.tally_cells(found)))
    early = sum(at < end_to_end.CHANGE for _, o in results for at in o["alibi"]["at"])
    promised = len(results) * CALM / ONLINE.ERT
    low, high = count_interval(early)
    moved, still = (
        [
            at - end_to_end.CHANGE
            for t, o in results
            if ((Problem(t["problem"]), Kind(t["kind"])) in STILL) is quiet
            for at in o["alibi"]["at"]
            if at >= end_to_end.CHANGE
        ]
        for quiet in (False, True)
    )
    cost = {
        key: round(float(np.median([o["alibi"][key] for _, o in results])), 1)
        for key in ("setup_s", "row_ms")
    }
    figures[f"{STREAMS}/alarms"] = {
        "early": early,
        "promised": promised,
        "delays_where_inputs_moved": sorted(moved),
        "delays_where_inputs_stood": sorted(still),
        **cost,
    }
    return [
        f"**Whole streams** ({end_to_end.SETTINGS['at_once'].title}, {_seeds(results)}). Its "
        "online detector watches the inputs and names the marginal factor, whatever moved. Its "
        f"thresholds are simulated for a run of {ONLINE.ERT:,} events, by the ten times as many "
        f"streams that its documentation advises; for {PROMISED:,} events, which the others are "
        "set to, that would take ten hours a stream. So nearly every stream has an alarm before "
        "its change.",
        markdown_table(("monitor", *end_to_end.MEASURES), rows),
        f"Set again after each alarm: {early} alarms before the changes, where {promised:.0f} are "
        f"promised (interval of their mean {low:.0f} to {high:.0f}). From the change to its next "
        f"alarm, in the median, {_median(moved)} events where the inputs moved "
        f"({len(moved)} streams), and {_median(still)} where they did not ({len(still)} with an "
        f"alarm). Its simulation took {cost['setup_s']} processor seconds a stream, and an event "
        f"{cost['row_ms']} ms.",
    ]


def _seeds(results: Sequence[tuple[Trial, Outcome]]) -> str:
    seeds = [trial["seed"] for trial, _ in results]
    return f"{len(seeds)} of them, seeds {min(seeds)} to {max(seeds)}"


def _median(values: Sequence[float]) -> str:
    return f"{np.median(values):,.0f}" if values else "–"
