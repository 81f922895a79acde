"""The command line as a user meets it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.registry import Registry
from models.spec import Family
from service.cli import app
from service.store.states import FORMAT, dumps
from service.store.store import Store
from tests.service.streams import x_to_y_records

MINIMAL = """\
streams:
  - name: s
    problem: x_to_y
    reference: {warm_up: 400}
    false_alarm_every: 50000
    confirm: {looks: [100, 200, 300], max_wait: 1000, min_labels: 60}
    on_confirmed: {covariate: alert_only, prior: alert_only, concept: alert_only}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "shiftwatch.yaml"
    path.write_text(
        MINIMAL + f"store: {{url: 'sqlite:///{tmp_path}/s.db'}}\n"
        f"registry: {{path: '{tmp_path}/models'}}\n"
    )
    return path


def shiftwatch(*args: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in args])
    return result.exit_code, result.output


def test_validate_says_what_a_good_configuration_holds(config: Path) -> None:
    assert shiftwatch("validate", config) == (0, f"{config}: valid, 1 stream(s): s\n")


@pytest.mark.parametrize(
    ("wrong", "line", "field"),
    [
        ("problem: x_to_y", 3, "streams[0].problem"),
        ("warm_up: 400", 4, "streams[0].reference.warm_up"),
        ("alert_only, prior", 7, "streams[0].on_confirmed.covariate"),
    ],
)
def test_validate_names_the_line_and_the_field(
    config: Path, wrong: str, line: int, field: str
) -> None:
    key = wrong.partition(":")[0] if ":" in wrong else wrong.partition(",")[0]
    bad = {"problem": "problem: sideways", "warm_up": "warm_up: 4", "alert_only": "panic"}[key]
    config.write_text(config.read_text().replace(wrong.partition(",")[0], bad, 1))
    code, output = shiftwatch("validate", config)
    assert code == 2
    assert f"{config}:{line}" in output.replace("\n", "")
    assert field in output


def test_a_wrong_configuration_starts_nothing(config: Path, tmp_path: Path) -> None:
    config.write_text(config.read_text() + "nonsense: 1\n")
    code, output = shiftwatch(
        "replay", config, "--input", tmp_path / "none", "--incidents", tmp_path / "out"
    )
    assert code == 2
    assert "nonsense" in output
    assert not (tmp_path / "s.db").exists()


def test_replay_writes_one_line_per_incident_with_the_public_fields(
    config: Path, tmp_path: Path
) -> None:
    records = x_to_y_records(1800, shift="covariate", at=700, seed=5)
    stream, out = tmp_path / "events.jsonl.gz", tmp_path / "incidents.jsonl"
    with gzip.open(stream, "wb") as file:
        file.writelines(r.value + b"\n" for r in records)
    code, output = shiftwatch("replay", config, "--input", stream, "--incidents", out, "--quiet")
    assert code == 0, output
    summary = json.loads(output.splitlines()[-1])
    assert summary["observations"] == summary["labels"] == 1800
    incidents = [json.loads(line) for line in out.read_text().splitlines()]
    assert summary["incidents"] == len(incidents)
    (incident,) = [i for i in incidents if i["confirmed_at"] is not None]
    assert incident["stream"] == "s"
    assert incident["kind"] == "covariate"
    assert incident["factors"] == ["covariate"]
    assert 700 <= incident["opened_at"]["index"] < incident["confirmed_at"]["index"] < 1800
    assert incident["opened_at"]["time"].startswith("2026-01-01T")
    assert abs(incident["change_point"]["index"] - 700) < 150
    assert {e["factor"] for e in incident["evidence"]} == {"covariate", "concept"}
    assert sum(incident["contributions"].values()) == pytest.approx(1)
    assert set(incident["contributions"]) <= {"x0", "x1", "x2"}
    assert [a["kind"] for a in incident["actions"]] == ["alert_only"]
    assert not (tmp_path / "s.db").exists(), "a replay leaves the service's store alone"


def test_replay_takes_the_smallest_configuration(tmp_path: Path) -> None:
    config, stream = tmp_path / "shiftwatch.yaml", tmp_path / "events.jsonl"
    config.write_text("streams:\n  - name: s\n    problem: x_to_y\n")
    stream.write_bytes(b"\n".join(r.value for r in x_to_y_records(300)) + b"\n")
    out = tmp_path / "incidents.jsonl"
    code, output = shiftwatch("replay", config, "--input", stream, "--incidents", out, "--quiet")
    assert code == 0, output
    assert json.loads(output.splitlines()[-1])["observations"] == 300
    assert out.read_text() == ""


def test_replay_needs_nothing_of_the_services_own_source(config: Path, tmp_path: Path) -> None:
    topics = "{features: e, dead_letters: d, incidents: i}"
    config.write_text(
        config.read_text() + f"source: {{kind: kafka, bootstrap_servers: '127.0.0.1:1', "
        f"topics: {topics}, schema_registry: {{url: 'http://127.0.0.1:1', username: me, "
        "password_file: /nowhere/password}}\n"
    )
    stream, out = tmp_path / "events.jsonl", tmp_path / "incidents.jsonl"
    stream.write_bytes(b"not json\n" + b"\n".join(r.value for r in x_to_y_records(300)) + b"\n")
    code, output = shiftwatch("replay", config, "--input", stream, "--incidents", out, "--quiet")
    assert code == 0, output
    assert json.loads(output.splitlines()[-1])["refused"] == 1
    assert len((tmp_path / "incidents.jsonl.dead-letters").read_text().splitlines()) == 1


def test_replay_without_a_trained_model_says_how_to_train_one(tmp_path: Path) -> None:
    config, records = tmp_path / "c.yaml", tmp_path / "r.jsonl"
    config.write_text(
        "streams: [{name: s, problem: x_to_y, classes: [a, b], model: {family: tabular}}]\n"
        f"registry: {{path: '{tmp_path}/models'}}\n"
    )
    records.write_text("")
    code, said = shiftwatch("replay", config, "--input", records, "--incidents", tmp_path / "i")
    assert code != 0
    assert "shiftwatch models train CONFIG --stream s" in " ".join(said.split())
    assert "Traceback" not in said


def test_replay_with_a_stream_that_fails_finishes_the_others_and_says_so(
    config: Path, tmp_path: Path
) -> None:
    reference = tmp_path / "reference.jsonl"
    reference.write_bytes(b"not json\n")
    config.write_text(
        config.read_text().replace(
            "streams:\n",
            f"streams:\n  - {{name: t, problem: x_to_y, reference: {{file: '{reference}'}}}}\n",
            1,
        )
    )
    whole = x_to_y_records(1800, shift="covariate", at=700, seed=5)
    others = x_to_y_records(3, stream="t")
    stream, out = tmp_path / "events.jsonl", tmp_path / "incidents.jsonl"
    stream.write_bytes(b"".join(r.value + b"\n" for r in [*whole, *others]))
    code, output = shiftwatch("replay", config, "--input", stream, "--incidents", out, "--quiet")
    assert code == 1
    failed = "stream 't' failed: DecodeError: reference.jsonl[0]@0: expected a JSON object"
    assert failed in " ".join(output.split())
    summary = json.loads(next(line for line in output.splitlines() if '"observations"' in line))
    assert [said.startswith(failed) for said in summary["failed"]] == [True]
    assert (summary["observations"], summary["refused"]) == (1800, 3)
    incidents = [json.loads(line) for line in out.read_text().splitlines()]
    assert [i["kind"] for i in incidents if i["confirmed_at"] is not None] == ["covariate"]
    letters = (tmp_path / "incidents.jsonl.dead-letters").read_text().splitlines()
    assert [json.loads(line)["reason"] for line in letters] == ["stream_failed"] * 3


def test_a_store_of_another_release_is_named_and_nothing_is_refused(
    config: Path, tmp_path: Path
) -> None:
    events = tmp_path / "events.jsonl"
    events.write_bytes(x_to_y_records(1)[0].value + b"\n")
    config.write_text(config.read_text() + f"source: {{path: '{events}'}}\nhttp: {{port: null}}\n")
    store = Store(f"sqlite:///{tmp_path}/s.db", lambda: 0.0)
    state = bytearray(dumps({}))
    state[4:6] = (FORMAT + 1).to_bytes(2, "little")
    with store.transaction() as tx:
        tx.put_state("s", bytes(state))
    code, output = shiftwatch("run", config)
    assert code == 1
    assert f"has format {FORMAT + 1}, this version of Shiftwatch knows {FORMAT}" in " ".join(
        output.split()
    )
    assert store.offsets() == {}
    store.close()


def test_replay_of_a_missing_file_says_which(config: Path, tmp_path: Path) -> None:
    code, output = shiftwatch(
        "replay", config, "--input", tmp_path / "none.jsonl", "--incidents", tmp_path / "out"
    )
    assert code == 1
    assert "none.jsonl" in output.replace("\n", "")


@pytest.fixture
def two_versions(config: Path, tmp_path: Path) -> Store:
    registry = Registry(tmp_path / "models")
    store = Store(f"sqlite:///{tmp_path}/s.db", lambda: 0.0)
    for n in (1, 2):
        staging = registry.stage("s")
        (staging / "weights").write_text(str(n))
        registry.publish(
            staging,
            stream="s",
            family=Family.TABULAR,
            classes=["0", "1"],
            input_shape=[3],
            preprocessing={},
            strategy="source",
            metrics={"accuracy": 0.9},
            trained_on={},
            created_at="2026-01-01T00:00:00+00:00",
            parent=n - 1 or None,
        )
        with store.transaction() as tx:
            tx.set_champion("s", n, "test", 0)
    return store


def test_a_rollback_makes_the_former_version_the_champion(
    config: Path, two_versions: Store
) -> None:
    assert shiftwatch("models", "rollback", config, "--stream", "s")[0] == 0
    champion = two_versions.champion("s")
    assert champion is not None
    assert champion.version == 1
    assert champion.reason == "rolled back by hand"


def test_promoting_a_version_that_is_not_there_changes_nothing(
    config: Path, two_versions: Store
) -> None:
    code, output = shiftwatch("models", "promote", config, "7", "--stream", "s")
    assert code == 1
    assert "7" in output
    champion = two_versions.champion("s")
    assert champion is not None
    assert champion.version == 2


@pytest.mark.usefixtures("two_versions")
def test_the_list_marks_the_champion(config: Path) -> None:
    code, output = shiftwatch("models", "list", config)
    assert code == 0
    rows = [line for line in output.splitlines() if "tabular" in line]
    assert len(rows) == 2
    assert "*" in rows[1]
    assert "*" not in rows[0]


def test_a_secret_that_cannot_be_read_is_a_mistake_in_the_configuration(
    config: Path, tmp_path: Path
) -> None:
    events = tmp_path / "events.jsonl"
    events.write_text("")
    config.write_text(
        config.read_text() + f"source: {{path: '{events}'}}\n"
        "http: {port: 0, token_file: /nowhere/token}\n"
    )
    code, output = shiftwatch("run", config)
    assert code == 2
    assert "http.token_file: /nowhere/token cannot be read" in output
