"""Which factor moved, asked at a known change point: the tests alone, without stage 1."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from benchmarks.confusion import UNDETERMINED, Confusion, arrow, heat_maps, name_of
from benchmarks.intervals import share_interval, share_text
from benchmarks.peers import RULES, KsErrorRise
from benchmarks.report import markdown_table
from benchmarks.table import Outcome, Summary, Target, Trial
from detectors.attribution.attribution import conclude, examine
from detectors.attribution.windows import UNLABELLED, Reference, Sample, Windows
from detectors.base import Factor, Kind, Problem
from detectors.synthetic import Stream

ALPHA = 0.01
FIRST_SEED = 100_000
N_FEATURES = (2, 8, 32)
RARE = 0.35
"""Share of the trials whose second class is rare."""
FULL, EXTRA, QUICK = 80, 420, 5
"""Trials of each kind and setting; more under a shift of the marginal factor alone, for the rare
event of a false claim; trials of a quick run."""
F1_BROKEN = 0.8
FALSE_CONCEPT_BROKEN = 0.1
"""Beyond these a handful of trials shows that something is broken."""
MIN_TRIALS = 100
"""Fewer do not say whether a promise is kept."""


class Setting(NamedTuple):
    """Sizes of the two windows."""

    title: str
    n_reference: int
    n_recent: int
    n_labels: int | None
    """Labels of the recent window, at random; None for all."""
    problems: tuple[Problem, ...]
    wanted_f1: float | None


SETTINGS = {
    "n1000": Setting("1,000 + 1,000", 1000, 1000, None, tuple(Problem), 0.97),
    "n2000": Setting("2,000 + 2,000", 2000, 2000, None, tuple(Problem), 0.99),
    "labels200": Setting("2,000 + 2,000, 200 labels", 2000, 2000, 200, (Problem.X_TO_Y,), 0.95),
    "default": Setting("2,000 + 1,000 (as shipped)", 2000, 1000, None, tuple(Problem), None),
}
PRODUCT = "Shiftwatch"
MEASURES = ("macro-F1", "right", "false marginal claims", "false concept claims", "abstained")
WITH_OTHERS = "n1000"
"""The setting in which rules that need a package of their own run too."""


def kinds(problem: Problem) -> tuple[Kind, ...]:
    """What can be true of a problem."""
    return Kind.NONE, Kind(problem.marginal.value), Kind.CONCEPT, Kind.MIXED


@dataclass(frozen=True, slots=True)
class Attribution:
    """See the module."""

    name: str = "attribution"
    title: str = "Attribution at a known change point"

    def missing(self) -> str:
        """Never."""
        return ""

    def trials(self, *, quick: bool) -> list[Trial]:
        """Equal worlds in every setting."""
        out = []
        for key, setting in SETTINGS.items():
            for problem in setting.problems:
                for kind in kinds(problem):
                    extra = EXTRA if key == "n1000" and kind == problem.marginal.value else 0
                    # Every seventh, which go through all sizes, families and strengths.
                    numbers = range(0, 7 * QUICK, 7) if quick else range(FULL + extra)
                    out += [trial_of(key, problem, kind, number) for number in numbers]
        return out

    def run(self, trial: Trial) -> Outcome:
        """Both windows of a world, and what each rule says of them."""
        problem, seed = Problem(trial["problem"]), trial["seed"]
        stream = world(trial)
        reference, recent = windows(stream, trial)
        started = time.process_time()
        known = Reference(
            reference, n_classes=2, columns=[f"x{j}" for j in range(trial["n_features"])]
        )
        evidence = examine(Windows(known, recent, problem), seed=seed, level=ALPHA).evidence
        verdict = conclude(evidence, problem, ALPHA)
        cpu_s = time.process_time() - started
        vague = verdict.kind is Kind.UNDETERMINED
        said = {PRODUCT: UNDETERMINED if vague else name_of(sorted(verdict.factors), problem)}
        for rule in RULES:
            own = isinstance(rule, KsErrorRise)
            wanted = own or (trial["setting"] == WITH_OTHERS and trial["number"] < FULL)
            if wanted and not rule.missing():
                claims = rule.claims(reference, recent, problem, alpha=ALPHA, seed=seed)
                said[rule.name] = name_of(sorted(claims), problem)
        return {
            "truth": name_of(sorted(stream.factors), problem),
            "change": stream.change,
            "said": said,
            "p_values": [e.p_value for e in evidence],
            "cpu_s": round(cpu_s, 4),
        }

    def summarise(self, results: Sequence[tuple[Trial, Outcome]]) -> Summary:
        """Confusion tables and their scores, and the pooled false claims of a concept drift."""
        absent = [f"{r.name}: {why}" for r in RULES if (why := r.missing())]
        names = [PRODUCT, *(r.name for r in RULES if not r.missing())]
        figures: dict[str, Any] = {"alpha": ALPHA, "not_run": absent}
        rows, tables, targets = [], [], []
        panels: dict[tuple[str, Problem], list[tuple[str, Confusion] | None]] = {
            (name, problem): [] for problem in Problem for name in names[:2]
        }
        for key, setting in SETTINGS.items():
            for problem in Problem:
                for name in names:
                    found = _confusion(results, key, problem, name)
                    if (name, problem) in panels:
                        title = f"{name}, {arrow(problem)}\n{setting.title}"
                        panels[name, problem].append((title, found) if found.n else None)
                    if not found.n:
                        continue
                    label = f"{arrow(problem)}, {setting.title}"
                    figures[f"{key}/{problem}/{name}"] = found.to_json()
                    rows.append((label, name, *scores(found)))
                    if name in names[:2]:
                        tables.append(f"**{label}: {name}**\n\n{found.markdown()}")
                    if name == PRODUCT and setting.wanted_f1 is not None:
                        targets.append(_f1_target(label, found, setting.wanted_f1))
        pooled = {name: _false_concepts(results, name) for name in names}
        figures["false_concept_under_marginal_shift"] = {n: list(c) for n, c in pooled.items()}
        targets.append(_false_concept_target(*pooled[PRODUCT]))
        text = [
            "Two windows with the change between them, both fully labelled unless said; the tests "
            f"at alpha {ALPHA}. Worlds: 2, 8 or 32 features, linear or not, a third of them with a "
            "rare class, moderate or strong. Every rule at the same nominal level. Undetermined "
            "counts as wrong in macro-F1. Intervals are of 95 %. alibi-detect has "
            "[a table of its own](alibi.md).",
            markdown_table(("setting", "rule", *MEASURES), rows),
            "Claims of a concept drift where only P(X) or P(Y) moved, over all settings:",
            markdown_table(
                ("rule", "false concept claims"), [(n, share_text(*c)) for n, c in pooled.items()]
            ),
            *(["Not run:\n\n" + "\n".join(f"- {line}" for line in absent)] if absent else []),
            *tables,
        ]
        return Summary(
            "\n\n".join(text), figures, targets, {self.name: heat_maps(list(panels.values()))}
        )


TABLE = Attribution()


def world(trial: Trial) -> Stream:
    """What a trial draws from."""
    return Stream(
        Problem(trial["problem"]),
        Kind(trial["kind"]),
        n_features=trial["n_features"],
        family=trial["family"],
        imbalance=trial["rare"],
        strength=trial["strength"],
        seed=trial["seed"],
    )


def windows(stream: Stream, trial: Trial) -> tuple[Sample, Sample]:
    """The reference and the recent window, with the labels that came."""
    setting = SETTINGS[trial["setting"]]
    reference = Sample(*stream.draw(setting.n_reference, shifted=False))
    features, labels = stream.draw(setting.n_recent, shifted=True)
    if setting.n_labels is not None:
        order = np.random.default_rng([trial["seed"], 6]).permutation(setting.n_recent)
        labels[order[setting.n_labels :]] = UNLABELLED
    return reference, Sample(features, labels)


def trial_of(key: str, problem: Problem, kind: Kind, number: int) -> Trial:
    """The trial of a setting with a number, which decides its world."""
    block = 4 * list(Problem).index(problem) + kinds(problem).index(kind)
    seed = FIRST_SEED + block * (FULL + EXTRA) + number
    return {
        "setting": key,
        "problem": str(problem),
        "kind": str(kind),
        "number": number,
        "n_features": N_FEATURES[number % 3],
        "family": ("linear", "nonlinear")[number // 3 % 2],
        "strength": ("moderate", "strong")[number // 6 % 2],
        "rare": bool(np.random.default_rng([seed, 5]).random() < RARE),
        "seed": seed,
    }


def _confusion(
    results: Sequence[tuple[Trial, Outcome]], key: str, problem: Problem, name: str
) -> Confusion:
    """Of equally many trials of each kind: the extra ones would outweigh the others."""
    return Confusion.of(
        problem,
        (
            (outcome["truth"], outcome["said"][name])
            for trial, outcome in results
            if trial["setting"] == key
            and trial["problem"] == problem
            and trial["number"] < FULL
            and name in outcome["said"]
        ),
    )


def _false_concepts(results: Sequence[tuple[Trial, Outcome]], name: str) -> tuple[int, int]:
    """Claims of a concept drift in trials where only the marginal factor moved, and all these."""
    said = [
        outcome["said"][name]
        for trial, outcome in results
        if trial["kind"] == Problem(trial["problem"]).marginal.value and name in outcome["said"]
    ]
    return sum(claim in (str(Factor.CONCEPT), "both") for claim in said), len(said)


def scores(found: Confusion) -> tuple[str, ...]:
    """The cells that belong to `MEASURES`."""
    low, high = found.macro_f1_interval()
    false = [share_text(*found.false_claims(f)) for f in found.problem.factors]
    return (
        f"{found.macro_f1:.3f} ({low:.3f} to {high:.3f})",
        f"{found.right} of {found.n}",
        *false,
        str(found.abstentions),
    )


def _f1_target(label: str, found: Confusion, wanted: float) -> Target:
    low, high = found.macro_f1_interval()
    return Target(
        f"macro-F1 of four verdicts, {label}",
        f">= {wanted}",
        f"{found.macro_f1:.3f} ({low:.3f} to {high:.3f})",
        found.macro_f1 >= wanted if found.n >= MIN_TRIALS else None,
        far_off=found.macro_f1 < F1_BROKEN,
    )


def _false_concept_target(count: int, of: int) -> Target:
    return Target(
        "claims of a concept drift where only P(X) or P(Y) moved",
        "<= 1 %",
        share_text(count, of),
        count <= 0.01 * of if of >= MIN_TRIALS else None,
        far_off=share_interval(count, of)[0] > FALSE_CONCEPT_BROKEN,
    )
