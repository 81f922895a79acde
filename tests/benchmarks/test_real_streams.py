import gzip
import json

import numpy as np
import pytest

from benchmarks import datasets
from benchmarks.tables.real_streams import CASES, RETURN, SEED, TABLE, Change, match
from detectors.base import Problem


def outcome(*incidents, n_rows=4000):
    return {
        "n_rows": n_rows,
        "n_alarms": len(incidents),
        "n_dismissed": 1,
        "dismissed": [50],
        "incidents": [
            {
                "opened": confirmed - 9,
                "confirmed": confirmed,
                "change_point": confirmed - 20,
                "kind": kind,
                "factors": [],
                "resolved": resolved,
            }
            for confirmed, kind, resolved in incidents
        ],
    }


CHANGES = (Change(100, 100, "concept"), Change(200, 220, "mixed"))


def test_an_incident_belongs_to_the_last_change_before_it_and_the_first_one_finds_it():
    said = outcome((40, "prior", 45), (130, "concept", 140), (190, "mixed", 199))
    found, others = match(CHANGES, said)
    assert found == [
        (CHANGES[0], {"kind": "concept", "confirmed": 130}),
        (CHANGES[1], None),
    ]
    assert [other["confirmed"] for other in others] == [40, 190]


def test_an_incident_in_the_row_of_a_change_belongs_to_it():
    found, others = match(CHANGES, outcome((200, "mixed", None)))
    assert found[1][1] is not None
    assert not others


def test_a_return_is_found_by_a_resolution_and_a_drift_by_a_confirmation():
    changes = (Change(100, 100, "concept"), Change(200, 200, RETURN))
    found, others = match(changes, outcome((150, "concept", 260)))
    assert [hit["confirmed"] for _, hit in found] == [150, 260]
    assert not others
    found, others = match(changes, outcome((150, "concept", 180), (230, "concept", None)))
    assert [hit and hit["confirmed"] for _, hit in found] == [150, None]
    assert [(other["kind"], other["confirmed"]) for other in others] == [
        (RETURN, 180),
        ("concept", 230),
    ]


def test_every_case_has_its_changes_in_order_and_room_for_its_reference():
    for name, case in CASES.items():
        starts = [change.start for change in case.changes]
        assert starts == sorted(set(starts)), name
        assert case.warm_up < starts[0], name
        known = {f.value for f in case.problem.factors} | {"mixed", RETURN}
        assert {change.kind for change in case.changes} <= known, name


@pytest.fixture
def data(tmp_path, monkeypatch):
    """One aedes file: the sexes' signals move apart at row 1400."""
    monkeypatch.setenv(datasets.VARIABLE, str(tmp_path))
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 2800)
    late = np.arange(2800) >= 1400
    x = rng.normal(size=(2800, 2)) + (1 + 2 * late)[:, None] * y[:, None]
    lines = ["wbf,eh_1,class,context"]
    lines += [f"{a},{b},{c},{1 + int(z)}" for (a, b), c, z in zip(x, y, late, strict=True)]
    (tmp_path / "aedes_sex").mkdir()
    file = tmp_path / CASES["aedes 0.2_0.8, y_to_x"].file
    file.write_bytes(gzip.compress("\n".join(lines).encode()))
    return tmp_path


def test_a_stream_is_watched_from_its_file_and_repeats(data):
    trial = {"case": "aedes 0.2_0.8, y_to_x", "seed": SEED}
    found = TABLE.run(trial)
    assert json.loads(json.dumps(found)) == found == TABLE.run(trial)
    first = found["incidents"][0]
    assert 1400 < first["confirmed"] < 2500
    assert first["kind"] == "concept"
    # The new reference begins at the end of the batch in which the incident was confirmed.
    assert first["confirmed"] <= first["resolved"] < first["confirmed"] + 50


def test_missing_names_a_file(data):
    assert "aedes_sex_test_0.5_0.5" in TABLE.missing()


def test_the_summary_says_what_was_found_named_and_confirmed_besides():
    name = "aedes 0.5_0.5, y_to_x"
    summary = TABLE.summarise(
        [({"case": name, "seed": SEED}, outcome((700, "prior", 750), (2400, "concept", 2450)))]
    )
    assert f"| {name} | 1 of 1 | 1 of 1 | prior at 700 | 1 |" in summary.markdown
    assert f"| {name} | 2,000 | concept | **concept** | 400 |" in summary.markdown
    assert set(summary.plots) == {"real_streams_aedes"}
    json.dumps(summary.figures, allow_nan=False)


def test_a_stream_is_watched_in_every_direction_in_which_its_truth_is_known():
    trials = TABLE.trials(quick=False)
    assert len(trials) == len(CASES)
    assert {CASES[t["case"]].group for t in TABLE.trials(quick=True)} == {"aedes", "usenet"}
    both = {case.problem for name, case in CASES.items() if name.startswith("aedes")}
    assert both == set(Problem)
