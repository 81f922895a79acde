"""alibi-detect as a peer. It does not live with the newest of what is measured, so it is asked in
an environment of its own, which `make setup-alibi` makes.
"""

from __future__ import annotations

import io
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import chi2, claimed
from detectors.attribution.windows import Sample
from detectors.base import Array, Factor, Problem

PYTHON = Path(".venv-alibi/bin/python")
"""The other environment's, from the root of the repository."""
PINS = Path("requirements-alibi.txt")
"""What is installed there."""


def missing() -> str:
    """Why it cannot be asked here; empty if it can."""
    return "" if PYTHON.exists() else f"needs {PYTHON.parents[1]}: make setup-alibi"


def pinned(package: str) -> str:
    """The version of a package there.

    Raises
    ------
    ValueError
        If it is not pinned.
    """
    for line in PINS.read_text("utf-8").splitlines():
        name, _, version = line.partition("==")
        if name == package:
            return version
    raise ValueError(f"{PINS} does not pin {package}")


def ask(task: str, **arrays: Any) -> dict[str, Any]:
    """What `benchmarks.alibi_worker` answers.

    Raises
    ------
    RuntimeError
        If it ends with an error; holds the last line of it.
    """
    given = io.BytesIO()
    np.savez(given, **arrays)
    command = [str(PYTHON), "-m", "benchmarks.alibi_worker", task]
    done = subprocess.run(command, input=given.getvalue(), capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise RuntimeError(f"{' '.join(command)}: {said[-1] if said else done.returncode}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


class AlibiRule:
    """Maximum mean discrepancy for inputs, its context-aware form for the concept.

    The context-aware test [1]_ is of the labels given the features in X->Y problems, and of the
    features given the labels in Y->X problems, where the labels themselves have the chi-squared
    test. Holm's method over the two. All at its defaults, but for the kernel of labels, whose width
    is 1: the median distance of theirs is 0 with two classes, which gives no p-value. What is
    mended of theirs stands at `benchmarks.alibi_worker.Mended`.

    References
    ----------
    .. [1] O. Cobb, A. Van Looveren (2022). Context-aware drift detection. ICML.
    """

    name = "alibi-detect: MMD + context-aware MMD"
    N_PERMUTATIONS = 199
    """Their p-values are the share of permutations with at least the statistic, which may be 0. At
    1 % Holm's method asks for at most half of that, which is none of 199."""

    def claims(
        self, reference: Sample, recent: Sample, problem: Problem, *, alpha: float, seed: int
    ) -> tuple[frozenset[Factor], dict[str, Any]]:
        """The factors that it says moved, and the answer with its p-values and processor time."""
        before, after = reference.labelled(), recent.labelled()
        classes = 1 + int(max(before.labels.max(), after.labels.max()))
        features = _single(before.features), _single(after.features)
        labels = _single(np.eye(classes)[before.labels]), _single(np.eye(classes)[after.labels])
        decided = problem is Problem.X_TO_Y
        tested, context = (labels, features) if decided else (features, labels)
        inputs = (
            {
                "inputs_before": _single(reference.features),
                "inputs_after": _single(recent.features),
            }
            if decided
            else {}
        )
        answer = ask(
            "windows",
            tested_before=tested[0],
            tested_after=tested[1],
            context_before=context[0],
            context_after=context[1],
            one_hot="tested" if decided else "context",
            permutations=self.N_PERMUTATIONS,
            seed=seed,
            **inputs,
        )
        marginal = answer["inputs"] if decided else chi2(before.labels, after.labels)
        return claimed(problem, marginal, answer["concept"], alpha), answer


@dataclass(frozen=True, slots=True)
class Alarms:
    """What an online detector said about a stream, set again after each alarm.

    Attributes
    ----------
    at
        The events; none after the first one from the change on.
    setup_s
        Processor time of the simulation of its thresholds.
    row_ms
        Processor time of an event.
    """

    at: tuple[int, ...]
    setup_s: float
    row_ms: float


class MmdOnline:
    """Online maximum mean discrepancy on the features.

    Its thresholds are simulated, with ten times as many streams as the expected run has rows, as
    its documentation advises. An expected run beyond some thousands cannot be configured in that
    way: it has more false alarms than the other monitors of streams.
    """

    ERT, WINDOW, N_REFERENCE = 1000, 20, 500
    name = f"alibi-detect MMDDriftOnline ({ERT:,} events between false alarms)"

    def watch(self, features: Array, *, start: int, change: int, seed: int) -> Alarms:
        """Watch a stream from event `start` on; takes minutes.

        Parameters
        ----------
        features
            Shape (n, d); `N_REFERENCE` of the first `start` rows, at random, are the reference.
        start, change
            Events.
        seed
            Of the choice of the reference and of the simulation.
        """
        chosen = np.random.default_rng(seed).choice(start, self.N_REFERENCE, replace=False)
        answer = ask(
            "stream",
            reference=_single(features[chosen]),
            rows=_single(features[start:]),
            change=change - start,
            ert=self.ERT,
            window=self.WINDOW,
            simulations=10 * self.ERT,
            seed=seed,
        )
        at = tuple(start + row for row in answer["alarms"])
        return Alarms(at, answer["setup_s"], answer["row_ms"])


def _single(values: Array) -> Any:
    return np.asarray(values, np.float32)
