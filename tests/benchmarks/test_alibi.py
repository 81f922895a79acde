"""alibi-detect as a peer: asked in another environment, on trials that the others have too."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from benchmarks import alibi_peers, alibi_worker, verdict
from benchmarks.alibi_peers import AlibiRule, MmdOnline, ask
from benchmarks.runner import Workers
from benchmarks.table import Outcome, Trial
from benchmarks.tables import alibi, attribution, end_to_end
from detectors.attribution.windows import Sample
from detectors.base import Array, Factor, Problem


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other environment is this one."""
    monkeypatch.setattr(alibi_peers, "PYTHON", Path(sys.executable))


def test_without_its_environment_the_table_says_how_to_make_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(alibi_peers, "PYTHON", tmp_path / ".venv-alibi/bin/python")
    assert alibi.TABLE.missing() == f"needs {tmp_path}/.venv-alibi: make setup-alibi"
    (tmp_path / ".venv-alibi/bin").mkdir(parents=True)
    (tmp_path / ".venv-alibi/bin/python").touch()
    assert alibi.TABLE.missing() == ""


def test_its_version_is_the_one_that_is_pinned() -> None:
    assert tuple(map(int, alibi_peers.pinned("alibi-detect").split(".")[:2])) >= (0, 13)
    with pytest.raises(ValueError, match="does not pin alibi"):
        alibi_peers.pinned("alibi")


def test_a_quick_run_leaves_the_table_out_and_says_so(here: None, tmp_path: Path) -> None:
    code = verdict.run(
        {"alibi": alibi.TABLE},
        tmp_path,
        Workers(0),
        quick=True,
        fresh=False,
        console=Console(quiet=True),
    )
    assert code == 0
    assert "- `alibi`: takes hours, and is no part of a quick run" in (
        (tmp_path / "README.md").read_text()
    )


def test_its_trials_are_trials_of_the_other_tables() -> None:
    own = {alibi.WINDOWS: attribution.TABLE, alibi.STREAMS: end_to_end.TABLE}
    known = {part: table.trials(quick=False) for part, table in own.items()}
    trials = alibi.TABLE.trials(quick=False)
    assert len({json.dumps(t, sort_keys=True) for t in trials}) == len(trials)
    for trial in trials:
        assert {k: v for k, v in trial.items() if k != "part"} in known[trial["part"]]


@pytest.mark.parametrize("part", [alibi.WINDOWS, alibi.STREAMS])
def test_its_trials_are_balanced(part: str) -> None:
    trials = [t for t in alibi.TABLE.trials(quick=False) if t["part"] == part]
    for what in ("problem", "kind", "strength", "family", "n_features"):
        counts = {t[what]: 0 for t in trials}
        for trial in trials:
            counts[trial[what]] += 1
        if what == "kind":  # concept, mixed and none are asked in both problems
            counts = {k: n * (2 if k in ("covariate", "prior") else 1) for k, n in counts.items()}
        assert len(set(counts.values())) == 1, (what, counts)


def test_an_error_there_is_an_error_here_with_its_last_line(here: None) -> None:
    with pytest.raises(RuntimeError, match=r"alibi_worker nonsense: KeyError: 'nonsense'"):
        ask("nonsense", seed=np.zeros(1))


@pytest.mark.parametrize("problem", list(Problem))
def test_what_is_tested_given_what_depends_on_the_problem(
    monkeypatch: pytest.MonkeyPatch, problem: Problem
) -> None:
    """Labels given features where features decide, features given labels where labels cause."""
    asked: dict[str, Any] = {}

    def answer(task: str, **arrays: Any) -> dict[str, Any]:
        asked.update(arrays, task=task)
        return {"inputs": 0.5, "concept": 0.0, "cpu_s": 1.0}

    monkeypatch.setattr(alibi_peers, "ask", answer)
    rng = np.random.default_rng(0)

    def window(rate: float) -> Sample:
        return Sample(rng.normal(size=(300, 2)), (rng.random(300) < rate).astype(np.int64))

    factors, _ = AlibiRule().claims(window(0.5), window(0.9), problem, alpha=0.01, seed=3)
    decided = problem is Problem.X_TO_Y
    assert asked["task"] == "windows"
    assert asked["one_hot"] == ("tested" if decided else "context")
    assert asked["tested_after"].shape == (300, 2)
    assert np.isin(asked["tested_after" if decided else "context_after"], [0, 1]).all()
    assert ("inputs_before" in asked) == decided
    # The labels moved: only a Y->X problem tests those by themselves.
    assert factors == {Factor.CONCEPT} | (set() if decided else {Factor.PRIOR})


def test_alarms_are_events_of_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def answer(task: str, **arrays: Any) -> dict[str, Any]:
        given.update(arrays)
        return {"alarms": [5, 120], "setup_s": 2.0, "row_ms": 3.0}

    monkeypatch.setattr(alibi_peers, "ask", answer)
    features = np.arange(3000.0)[:, None]
    found = MmdOnline().watch(features, start=1000, change=1100, seed=1)
    assert found.at == (1005, 1120)
    assert given["reference"].max() < 1000 == given["rows"].min()
    assert given["change"] == 100


def _window(problem: str, truth: str, said: str) -> tuple[Trial, Outcome]:
    trial = {"part": alibi.WINDOWS, "problem": problem, "kind": truth, "seed": 1}
    names = {"Shiftwatch": truth, alibi.RULE.name: said}
    return trial, {"truth": truth, "said": names, "cpu_s": 0.5, "alibi": {"cpu_s": 40.0}}


def _stream(kind: str, at: list[int], seed: int) -> tuple[Trial, Outcome]:
    trial = {"part": alibi.STREAMS, "problem": "x_to_y", "kind": kind, "seed": seed}
    answers = {
        "Shiftwatch": {"said": kind, "at": None if kind == "none" else 5400},
        alibi.ONLINE.name: {"said": "covariate" if at else "none", "at": min(at, default=None)},
    }
    cost = {"at": at, "setup_s": 100.0, "row_ms": 4.0}
    outcome = {"truth": kind, "answers": answers, "opened_before": 0, "cpu_s": 2.0, "alibi": cost}
    return trial, outcome


def test_the_summary_counts_what_trials_gave() -> None:
    summary = alibi.TABLE.summarise(
        [
            _window("x_to_y", "concept", "concept"),
            _window("x_to_y", "none", "covariate"),
            _stream("covariate", [5030], 7),
            _stream("covariate", [2500, 4000, 5050], 8),
            _stream("concept", [3000, 5900], 9),
            _stream("none", [], 10),
        ]
    )
    windows = summary.figures[f"windows/x_to_y/{alibi.RULE.name}"]
    assert windows["false_claims"] == {"covariate": [1, 2], "concept": [0, 1]}
    streams = summary.figures[f"streams/{alibi.ONLINE.name}"]
    assert (streams["n"], streams["right"], streams["early"]) == (4, 2, 2)
    alarms = summary.figures["streams/alarms"]
    assert (alarms["early"], alarms["promised"]) == (3, 12.0)
    assert alarms["delays_where_inputs_moved"] == [30, 50]
    assert alarms["delays_where_inputs_stood"] == [900]
    assert "seeds 7 to 10" in summary.markdown


# -- with alibi-detect -------------------------------------------------------------------------


def normal(seed: int, n: int, d: int, mean: float = 0.0) -> Array:
    return np.random.default_rng(seed).normal(mean, size=(n, d))


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of their context-aware test, as it is again afterwards."""
    import alibi_detect.cd.tensorflow.context_aware as module

    monkeypatch.setattr(module, "tf", module.tf)
    detector = module.ContextMMDDriftTF
    monkeypatch.setattr(detector, "_pick_lam", detector._pick_lam)
    return module


@pytest.mark.alibi
def test_one_matrix_product_is_the_mean_of_their_outer_products(theirs: Any) -> None:
    tensorflow = theirs.tf
    mended = alibi_worker.Mended(theirs)
    left, right = (tensorflow.constant(normal(seed, 40, d)) for seed, d in ((0, 5), (1, 3)))
    ours, slow = (
        tf.reduce_mean(tf.einsum("ij,ik->ijk", left, right), axis=0).numpy()
        for tf in (mended, tensorflow)
    )
    np.testing.assert_allclose(ours, slow, rtol=1e-12)
    assert mended.reduce_mean(left) == tensorflow.reduce_mean(left)
    assert (mended.einsum("ij->ji", left) == tensorflow.transpose(left)).numpy().all()


@pytest.mark.alibi
def test_the_regularisation_is_chosen_from_both_kernel_matrices(theirs: Any) -> None:
    """What the context decides needs less of it than noise; as shipped both have the least."""
    tensorflow = theirs.tf

    def kernel(values: Array) -> Any:
        return tensorflow.constant(np.exp(-((values - values.T) ** 2)).astype(np.float32))

    x, noise = normal(3, 60, 1), normal(4, 60, 1)
    lams = tensorflow.constant([2.0**-i for i in range(20)], tensorflow.float64)

    def picked(values: Array) -> float:
        return float(theirs.ContextMMDDriftTF._pick_lam(None, lams, kernel(values), kernel(x)))

    assert picked(noise) == picked(np.sin(x)) == 2.0**-19
    alibi_worker.Mended(theirs)
    assert picked(noise) > picked(np.sin(x))


@pytest.mark.alibi
@pytest.mark.parametrize("reversed_", [True, False])
def test_the_rule_names_a_reversed_rule_of_labels(here: None, reversed_: bool) -> None:
    def window(seed: int, slope: float) -> Sample:
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(200, 2))
        return Sample(x, (rng.random(200) < 1 / (1 + np.exp(-slope * x[:, 0]))).astype(np.int64))

    factors, answer = AlibiRule().claims(
        window(0, 3.0), window(1, -3.0 if reversed_ else 3.0), Problem.X_TO_Y, alpha=0.01, seed=0
    )
    assert factors == ({Factor.CONCEPT} if reversed_ else set())
    assert answer["cpu_s"] > 0


@pytest.mark.alibi
def test_the_online_detector_is_set_again_and_ends_with_the_change(
    here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MmdOnline, "ERT", 40)
    monkeypatch.setattr(MmdOnline, "WINDOW", 10)
    monkeypatch.setattr(MmdOnline, "N_REFERENCE", 100)
    features = np.concatenate([normal(5, 400, 2), normal(6, 100, 2, mean=2.0)])
    found = MmdOnline().watch(features, start=150, change=400, seed=0)
    assert found.at[-1] in range(400, 415)
    assert all(at in range(150, 400) for at in found.at[:-1])
    # 250 rows before the change at one alarm in 40, not one that stands for ever.
    assert 1 <= len(found.at) - 1 <= 20
