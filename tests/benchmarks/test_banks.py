"""Stage 1 beside the libraries people would use: what does not need a quiet machine."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import banks


def test_medians_of_the_rounds_decide() -> None:
    ours, theirs = np.array([1.0, 1.0, 9.0]), np.array([3.0, 3.0, 3.0])
    row = banks.at_least("a", "us", ours, theirs, 2.0)
    assert (row.ours, row.theirs, row.ratio, row.met) == (1.0, 3.0, 3.0, True)
    assert banks.at_least("a", "us", ours, theirs, 4.0).met is False


def test_a_row_that_was_not_run_says_so_and_has_no_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(banks.alibi_peers, "missing", lambda: "needs .venv-alibi")
    event, configuration = banks.joint_against_mmd(1)
    for row in (event, configuration):
        assert row.ratio is None
        assert row.met is None
        assert row.note == "not run: needs .venv-alibi"
        assert row.ours > 0
    text = banks.page(
        [event], {10: 1.0}, dict.fromkeys(("rounds", "processor", "python", "river", "numba"), "x")
    )
    assert "not measured" in text


@pytest.mark.slow
def test_banks_take_a_fraction_of_rivers_time() -> None:
    """Far from the targets, which need a quiet machine."""
    adwin, page_hinkley, kswin = (row.ratio or 0.0 for row in banks.banks_against_river(1))
    assert adwin > 2
    assert page_hinkley > 5
    assert kswin > 20
    monitors = banks.monitors_against_adwin(1)
    assert (monitors.ratio or 0.0) > 0.5


@pytest.mark.slow
def test_a_stream_of_many_costs_about_what_it_costs_alone() -> None:
    found = banks.many_streams(10, 50)
    assert found["among_us"] < 3 * found["alone_us"]
    assert found["mib_each"] < 20


def test_a_monitor_is_ready_without_tensorflow_and_scikit_learn() -> None:
    code = (
        "import sys; from benchmarks.ready import monitor_ready; monitor_ready();"
        "print([m for m in ('tensorflow', 'sklearn', 'scipy.stats', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert json.loads(done.stdout.replace("'", '"')) == []


def test_the_plot_shows_what_has_a_target() -> None:
    rows = [
        banks.at_least("a, b", "us", np.array([1.0]), np.array([30.0]), 8.0),
        banks.Row("memory", "MiB", 3.0, None, None, "at most 5 MiB", True),
    ]
    (axes,) = banks.plot(rows).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a,\nb"]
