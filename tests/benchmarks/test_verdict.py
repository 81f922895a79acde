from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from benchmarks import monitoring, verdict
from benchmarks.confusion import Confusion, heat_maps, name_of
from benchmarks.intervals import count_interval, share_interval
from benchmarks.peers import RULES, FrozenModel, KsErrorRise, error_rise, why_not
from benchmarks.report import markdown_table
from benchmarks.runner import Workers, run_table, workers
from benchmarks.stream_peers import (
    ERROR_DETECTORS,
    FALSE_ALARM,
    SETTINGS,
    Name,
    false_alarm_share,
    first_error_alarm,
)
from benchmarks.table import Outcome, Summary, Table, Target, Trial
from benchmarks.tables import attribution, cost, drift_free, end_to_end
from detectors.attribution.windows import Sample
from detectors.base import Factor, Kind, Problem
from detectors.synthetic import Stream

ALL = (attribution.TABLE, end_to_end.TABLE, drift_free.TABLE, cost.TABLE)


class Tiny:
    """A table of ten draws. It may fail at one seed, or be cut after some trials."""

    name = "cost"
    title = "Tiny"

    def __init__(self, *, fails_at: int | None = None, cut_after: int = 99) -> None:
        self.fails_at = fails_at
        self.left = cut_after

    def missing(self) -> str:
        return ""

    def trials(self, *, quick: bool) -> list[Trial]:
        return [{"seed": seed} for seed in range(1000, 1004 if quick else 1010)]

    def run(self, trial: Trial) -> Outcome:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        if trial["seed"] == self.fails_at:
            raise ValueError("no such world")
        return {"value": float(np.random.default_rng(trial["seed"]).normal()), "pair": (1, 2)}

    def summarise(self, results: Sequence[tuple[Trial, Outcome]]) -> Summary:
        figure = Figure()
        figure.subplots().plot([o["value"] for _, o in results])
        mean = sum(o["value"] for _, o in results) / len(results)
        target = Target("mean", "<= 1", f"{mean:.3f}", mean <= 1, far_off=mean > 5)
        figures = {"mean": mean, "pairs": [o["pair"] for _, o in results]}
        return Summary(f"mean {mean}", figures, [target], {self.name: figure})


def _run(table: Table, out: Path, *, quick: bool = False) -> int:
    return verdict.run(
        {"cost": table}, out, Workers(0), quick=quick, fresh=False, console=Console(quiet=True)
    )


def _files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}


def test_a_cut_run_goes_on_to_the_same_report(tmp_path: Path) -> None:
    assert _run(Tiny(), tmp_path / "whole") == 0
    with pytest.raises(KeyboardInterrupt):
        _run(Tiny(cut_after=4), tmp_path / "cut")
    trials = tmp_path / "cut/trials/cost.jsonl"
    assert len(trials.read_text().splitlines()) == 4
    with trials.open("a") as file:
        file.write('{"trial": {"seed": 1004}, "outc')  # what a killed process leaves
    resumed = Tiny(cut_after=6)
    assert _run(resumed, tmp_path / "cut") == 0
    assert resumed.left == 0
    assert _files(tmp_path / "cut") == _files(tmp_path / "whole")
    assert set(_files(tmp_path / "cut")) == {"README.md", "cost.md", "cost.png", "verdict.json"}


def test_a_failing_trial_is_reported_and_the_others_count(tmp_path: Path) -> None:
    assert _run(Tiny(fails_at=1003), tmp_path) == 1
    entry = json.loads((tmp_path / "verdict.json").read_text())["tables"]["cost"]
    assert entry["n_trials"] == 9
    assert entry["failures"] == [{"trial": {"seed": 1003}, "error": "ValueError: no such world"}]
    assert "no such world" in (tmp_path / "README.md").read_text()
    assert _run(Tiny(), tmp_path) == 0  # it runs again the next time


def test_only_what_is_far_off_fails_a_run(tmp_path: Path) -> None:
    class Missed(Tiny):
        far_off = False

        def summarise(self, results: Sequence[tuple[Trial, Outcome]]) -> Summary:
            return Summary("", {}, [Target("a", ">= 1", "0", False, far_off=self.far_off)])

    class FarOff(Missed):
        far_off = True

    assert _run(Missed(), tmp_path) == 0
    assert _run(FarOff(), tmp_path) == 1


def test_a_table_that_cannot_run_is_listed_and_keeps_what_it_said(tmp_path: Path) -> None:
    class Absent(Tiny):
        def missing(self) -> str:
            return "its data are not here"

    _run(Absent(), tmp_path)
    assert "- `cost`: its data are not here" in (tmp_path / "README.md").read_text()
    _run(Tiny(), tmp_path)
    assert "its data" not in (tmp_path / "README.md").read_text()
    before = _files(tmp_path)
    _run(Absent(), tmp_path)
    assert _files(tmp_path) == before


def test_worker_processes_give_what_this_process_gives(tmp_path: Path) -> None:
    with workers(1) as pool:
        there = run_table(_Quick(), tmp_path / "a.jsonl", pool, quick=True)
    here = run_table(_Quick(), tmp_path / "b.jsonl", Workers(0), quick=True)
    assert there == here
    assert len(here.done) == 1


class _Quick(attribution.Attribution):
    """One cheap trial; processor times are not compared."""

    def trials(self, *, quick: bool) -> list[Trial]:
        return super().trials(quick=quick)[20:21]

    def run(self, trial: Trial) -> Outcome:
        return {**super().run(trial), "cpu_s": 0}


@pytest.mark.parametrize("table", ALL, ids=lambda t: t.name)
def test_every_trial_is_different_plain_json_and_has_a_seed_of_the_test_range(table: Table) -> None:
    for quick in (True, False):
        trials = table.trials(quick=quick)
        assert len({json.dumps(t, sort_keys=True) for t in trials}) == len(trials)
        assert min(t["seed"] for t in trials) >= 1000
    assert len(table.trials(quick=True)) <= len(trials)
    assert not table.missing()


def test_attribution_has_the_promised_numbers_of_trials() -> None:
    trials = attribution.TABLE.trials(quick=False)
    for key, setting in attribution.SETTINGS.items():
        for problem in setting.problems:
            own = [t for t in trials if (t["setting"], t["problem"]) == (key, problem)]
            assert sum(t["number"] < attribution.FULL for t in own) >= 160
    marginal = [t for t in trials if t["kind"] in ("covariate", "prior")]
    assert sum(t["setting"] == "n1000" for t in marginal) >= 1000


def test_a_confusion_of_hand_made_outcomes() -> None:
    found = Confusion.of(
        Problem.X_TO_Y,
        [("none", "none")] * 3
        + [("none", "concept")]
        + [("covariate", "covariate")] * 2
        + [("covariate", "both")] * 2
        + [("concept", "concept")] * 3
        + [("concept", "undetermined")]
        + [("both", "both")] * 4,
    )
    # none 6/7, covariate 4/6, concept 6/8, both 8/10
    assert found.macro_f1 == pytest.approx((6 / 7 + 4 / 6 + 6 / 8 + 8 / 10) / 4)
    assert (found.right, found.n, found.abstentions) == (12, 16, 1)
    assert found.false_claims(Factor.CONCEPT) == (3, 8)
    assert found.false_claims(Factor.COVARIATE) == (0, 8)
    low, high = found.macro_f1_interval()
    assert low < found.macro_f1 < high
    assert "| covariate | 0 | **2** | 0 | 2 | 0 |" in found.markdown()
    assert heat_maps([[("here", found), None]]).axes[0].get_title().endswith("0.768")
    with pytest.raises(ValueError, match="prior"):
        Confusion.of(Problem.X_TO_Y, [("none", "prior")])


def test_outcomes_are_named_by_their_factors() -> None:
    assert name_of([], Problem.Y_TO_X) == "none"
    assert name_of(["prior"], Problem.Y_TO_X) == "prior"
    assert name_of(["concept", "prior"], Problem.Y_TO_X) == "both"


def test_intervals_are_the_known_ones() -> None:
    assert share_interval(0, 100) == pytest.approx((0.0, 0.0362), abs=1e-4)
    assert share_interval(5, 100) == pytest.approx((0.0164, 0.1128), abs=1e-4)
    assert count_interval(0) == pytest.approx((0.0, 3.6889), abs=1e-4)
    assert count_interval(10) == pytest.approx((4.7954, 18.3904), abs=1e-4)


def test_a_rise_of_errors_counts_and_a_fall_does_not() -> None:
    few, many = np.repeat([1.0, 0.0], [10, 190]), np.repeat([1.0, 0.0], [40, 160])
    assert error_rise(few, many) < 1e-4
    assert error_rise(many, few) > 0.99


def test_the_usual_rule_takes_a_covariate_shift_that_hurts_for_a_concept_drift() -> None:
    """Why it is beaten: the error of a frozen model rises though P(Y|X) stands still."""
    rng = np.random.default_rng(0)

    def window(centre: float) -> Sample:
        x = rng.normal(centre, 1.0, size=(1000, 2))
        return Sample(x, (rng.random(1000) < 1 / (1 + np.exp(-3 * x[:, 0]))).astype(np.int64))

    rule = KsErrorRise()
    calm, easy, hard = (
        rule.claims(window(2.0), window(c), Problem.X_TO_Y, alpha=0.01, seed=0)
        for c in (2.0, 3.0, 0.0)
    )
    assert calm == frozenset()
    assert easy == {Factor.COVARIATE}
    assert hard == {Factor.COVARIATE, Factor.CONCEPT}
    labels_moved = rule.claims(window(0.0), window(0.6), Problem.Y_TO_X, alpha=0.01, seed=0)
    assert Factor.PRIOR in labels_moved


def test_a_rule_says_which_package_it_lacks() -> None:
    assert why_not("numpy") == ""
    assert why_not("no_such_package.inner") == "not installed"
    assert why_not("numpy.no_such_part") == "needs numpy.no_such_part, which is not installed"
    assert not RULES[0].missing()


def test_rules_that_are_not_installed_are_named_in_the_tables() -> None:
    trial = attribution.TABLE.trials(quick=True)[0]
    outcome = {"truth": "none", "said": {"Shiftwatch": "none", "KS + error rise": "none"}}
    text = attribution.TABLE.summarise([(trial, outcome)]).markdown
    absent = [rule.name for rule in RULES if rule.missing()]
    assert all(f"- {name}: " in text for name in absent)


@pytest.mark.parametrize("name", ERROR_DETECTORS)
def test_error_detectors_alarm_as_rarely_as_they_are_set_to(name: Name) -> None:
    share = false_alarm_share(name, SETTINGS[name][2], 0.2, n_streams=60, seed=9)
    # 60 streams at 3.4 % have 2 alarms on average, and more than 7 in one case of a thousand.
    assert pytest.approx(0.0344, abs=1e-4) == FALSE_ALARM
    assert share <= 7 / 60


def test_a_frozen_model_that_gets_worse_is_noticed() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6000, 2))
    y = (x[:, 0] > 0).astype(np.int64)
    y[4000:] = 1 - y[4000:]
    model = FrozenModel(Sample(x[:2000], y[:2000]), seed=0)
    assert model.errors.mean() < 0.05
    claim = first_error_alarm("page_hinkley", model, x, y, start=2000)
    assert claim is not None
    assert 4000 < claim.at < 4300


@pytest.mark.parametrize("width", [0, 500])
def test_a_stream_changes_where_it_should(width: int) -> None:
    stream = Stream(Problem.Y_TO_X, Kind.PRIOR, n_features=2, strength="strong", seed=3)
    setting = end_to_end.SETTINGS["at_once"]._replace(width=width)
    _, labels = end_to_end.rows(stream, setting, seed=3)
    assert len(labels) == 9000
    assert labels[:5000].mean() == pytest.approx(0.5, abs=0.03)
    assert labels[5000 + width :].mean() == pytest.approx(0.8, abs=0.03)
    if width:
        assert labels[5000:5500].mean() == pytest.approx(0.65, abs=0.07)


def test_summaries_count_what_trials_gave() -> None:
    """One stream right, one early, one with nothing said: the tallies say so."""

    def outcome(truth: str, said: str, at: int | None) -> tuple[Trial, Outcome]:
        trial = {"setting": "at_once", "problem": "x_to_y", "kind": "concept", "seed": at or 0}
        answers = {"Shiftwatch": {"said": said, "at": at}}
        return trial, {
            "truth": truth, "answers": answers, "opened_before": 1, "cpu_s": 2.0, "change": "",
        }  # fmt: skip

    summary = end_to_end.TABLE.summarise(
        [
            outcome("concept", "concept", 5400),
            outcome("concept", "concept", 4400),
            outcome("concept", "none", None),
        ]
    )
    found = summary.figures["at_once/Shiftwatch"]
    assert (found["right"], found["early"], found["missed"], found["moved"]) == (1, 1, 1, 3)
    assert found["delay_median"] == 400
    assert summary.targets[0].met is None
    assert summary.targets[0].far_off


@pytest.mark.parametrize("noise", drift_free.NOISES)
@pytest.mark.parametrize("problem", Problem)
def test_drift_free_streams_have_one_distribution(noise: str, problem: Problem) -> None:
    x, y = drift_free.rows(noise, problem, 40_000, 1000)
    assert x.shape == (40_000, 4)
    half = x[:20_000].mean(axis=0) - x[20_000:].mean(axis=0)
    # Of AR(1) with 0.9 the mean of 20,000 rows has a standard error of 0.03.
    assert np.abs(half / x.std(axis=0)).max() < 0.15
    assert abs(y[:20_000].mean() - y[20_000:].mean()) < 0.06
    if noise == "ties":
        assert len(np.unique(x)) < 30


def test_exposure_leaves_out_tests_and_open_incidents() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7000, 2)), rng.integers(2, size=7000)
    x[3000:] += 2.0
    run = monitoring.watch(x, y, Problem.X_TO_Y, seed=1)
    confirmed = run.confirmed[0].confirmed_at
    assert confirmed is not None
    watched, calm = drift_free.exposure(run.incidents, 7000)
    assert calm == confirmed.index + 1 - 2000
    assert watched == run.incidents[0].opened_at.index + 1 - 2000
    assert drift_free.exposure((), 7000) == (5000, 5000)


def test_a_ratio_above_one_is_rarer_than_promised() -> None:
    rate = drift_free.Rate(observed=4, promised=10.0)
    assert rate.ratio == 2.5
    low, high = rate.interval
    assert low < 1
    assert high is not None
    assert high > 5
    assert drift_free.Rate(0, 10.0).text() == "none observed (2.71 to ∞)"


def test_tables_of_markdown_escape_bars() -> None:
    assert markdown_table(("a", "b"), [("x|y", 1)]).splitlines()[2] == "| x\\|y | 1 |"
