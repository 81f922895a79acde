import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml

from service.records.decode import decode
from service.records.record import Observation, Record
from service.settings.service import load
from tests.deploy.test_metrics_named import ROOT

CONFIGS = sorted(ROOT.glob("examples/*.yaml"))


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_stream", ROOT / "examples/make_stream.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(shift: str, n: int = 400, at: int = 200, seed: int = 0) -> list[dict[str, Any]]:
    return list(script().records(n, shift, at, seed))


def write(path: Path, *arguments: str) -> bytes:
    script().main([str(path), *arguments])
    return path.read_bytes()


@pytest.mark.parametrize("config", CONFIGS, ids=[c.name for c in CONFIGS])
def test_every_example_is_a_valid_configuration(config: Path) -> None:
    assert load(config, {}).streams


def test_the_minimal_example_is_the_one_stream_that_is_only_watched() -> None:
    (stream,) = yaml.safe_load((ROOT / "examples/minimal.yaml").read_text())["streams"]
    assert stream == {
        "name": "s",
        "problem": "x_to_y",
        "reference": {"warm_up": 2000},
        "false_alarm_every": 200_000,
        "on_confirmed": dict.fromkeys(("covariate", "prior", "concept"), "alert_only"),
    }


def test_the_digits_example_scores_images_and_tells_people() -> None:
    settings = load(ROOT / "examples/digits.yaml", {})
    model = settings.stream("digits").model
    assert model is not None
    assert model.family == "vgg16"
    assert settings.webhooks


def test_every_record_of_the_script_is_an_observation_of_the_minimal_stream(tmp_path: Path) -> None:
    lines = write(tmp_path / "s.jsonl", "--rows", "50", "--at", "25").splitlines()
    decoded = [decode(Record("s.jsonl", 0, n, None, line)) for n, line in enumerate(lines)]
    assert len(decoded) == 50
    name = load(ROOT / "examples/minimal.yaml", {}).streams[0].name
    for observation in decoded:
        assert isinstance(observation, Observation)
        assert observation.stream == name
        assert observation.label in {"0", "1"}
    assert len({o.id for o in decoded}) == 50


def test_equal_seeds_give_equal_files(tmp_path: Path) -> None:
    arguments = ("--rows", "50", "--at", "25", "--seed")
    first = write(tmp_path / "a.jsonl", *arguments, "1")
    assert first == write(tmp_path / "b.jsonl", *arguments, "1")
    assert first != write(tmp_path / "c.jsonl", *arguments, "2")


@pytest.mark.parametrize("shift", ["covariate", "concept", "mixed"])
def test_rows_before_the_shift_do_not_depend_on_it(shift: str) -> None:
    still, moved = rows("none"), rows(shift)
    assert json.dumps(still[:200]) == json.dumps(moved[:200])
    assert json.dumps(still[200:]) != json.dumps(moved[200:])


@pytest.mark.parametrize(
    ("shift", "x_moves", "accuracy_falls"),
    [
        ("none", False, False),
        ("covariate", True, False),
        ("concept", False, True),
        ("mixed", True, True),
    ],
)
def test_the_shift_moves_what_it_says(shift: str, x_moves: bool, accuracy_falls: bool) -> None:
    after = rows(shift, n=8000, at=4000)[4000:]
    mean = np.mean([r["features"]["a"] for r in after])
    accuracy = np.mean([r["prediction"] == r["label"] for r in after])
    # Standard errors are 0.016 and 0.006; the moves are 1.0 and more than 0.1.
    assert (mean > 0.5) == x_moves
    assert (accuracy < 0.7) == accuracy_falls


def test_a_shift_outside_of_the_rows_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        write(tmp_path / "s.jsonl", "--rows", "50", "--at", "51")
    assert "--at: expected 0 to 50, got 51" in capsys.readouterr().err
