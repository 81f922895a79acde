from __future__ import annotations

import json
from pathlib import Path

from benchmarks.runner import Results
from benchmarks.spread import write
from benchmarks.table import Outcome, Trial
from benchmarks.tables.spread import PARTS, TABLE, is_right
from detectors.base import Kind


def outcome(*kinds: str, delay: int | None = 300) -> Outcome:
    return {"kinds": list(kinds), "folded": 0, "pooled": 0, "delay": delay}


def test_right_is_one_incident_of_the_kind_that_moved() -> None:
    assert is_right(Kind.COVARIATE, outcome("covariate"))
    assert not is_right(Kind.COVARIATE, outcome("covariate", "covariate"))
    assert not is_right(Kind.COVARIATE, outcome("mixed"))
    assert not is_right(Kind.COVARIATE, outcome())
    assert is_right(Kind.NONE, outcome(delay=None))


def test_a_strong_shift_over_four_partitions_is_one_incident() -> None:
    [trial] = [
        t
        for t in TABLE.trials(quick=True)
        if (t["kind"], t["strength"], t["parts"]) == ("covariate", "strong", 4)
    ]
    found = TABLE.run({**trial, "seed": 100})
    assert found["kinds"] == ["covariate"]
    assert found["folded"] == 3
    assert 0 < found["delay"] < 4000


def _results(split: Outcome) -> list[tuple[Trial, Outcome]]:
    trials = [t for t in TABLE.trials(quick=False) if t["kind"] == "prior"]
    return [(t, outcome("prior") if t["parts"] == 1 else split) for t in trials]


def test_a_split_stream_that_is_as_right_as_the_whole_meets_the_promise() -> None:
    summary = TABLE.summarise(_results(outcome("prior", delay=900)))
    assert len(summary.targets) == 2 * (len(PARTS) - 1)
    assert all(t.met and not t.far_off for t in summary.targets)


def test_two_incidents_for_one_cause_are_far_off() -> None:
    summary = TABLE.summarise(_results(outcome("prior", "prior")))
    assert all(not t.met and t.far_off for t in summary.targets)


def test_the_page_and_the_figures_are_written(tmp_path: Path) -> None:
    done = _results(outcome("prior"))
    write(tmp_path, Results(done, [], len(done)), TABLE.summarise(done), quick=False)
    assert "prior, strong" in (tmp_path / "README.md").read_text()
    assert json.loads((tmp_path / "spread.json").read_text())["n_trials"] == len(done)
