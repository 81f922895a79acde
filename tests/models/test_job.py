import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.job import GateSettings, Job, JobError, JobResult, Kind, Split
from models.spec import Family

IMAGES = np.arange(4 * 32 * 32 * 3, dtype=np.uint32).astype(np.uint8).reshape(4, 32, 32, 3)
LABELS = np.array([0, 1, 1, 0])
SPLIT = np.array([Split.ANCHOR, Split.REPLAY, Split.TRAIN, Split.HOLDOUT])


def job(**changes: Any) -> Job:
    fields: dict[str, Any] = {
        "kind": Kind.FINE_TUNE,
        "family": Family.VGG16,
        "stream": "digits",
        "classes": ("a", "ü"),
        "champion": "/models/digits/1",
        "gate": GateSettings(confidence=0.9, max_anchor_drop=0.05),
    }
    return Job(**fields | changes)


def test_written_and_read_is_the_same_job(tmp_path: Path) -> None:
    job(time_box_s=30.0, difference=0.25).write(tmp_path / "j", IMAGES, LABELS, SPLIT)
    again, rows = Job.read(tmp_path / "j")
    assert again == job(time_box_s=30.0, difference=0.25)
    np.testing.assert_array_equal(rows.x, IMAGES)
    np.testing.assert_array_equal(rows.labels, LABELS)


def test_rows_come_out_by_split_in_time_order(tmp_path: Path) -> None:
    job().write(tmp_path, IMAGES, LABELS, SPLIT)
    _, rows = Job.read(tmp_path)
    x, y = rows.of(Split.TRAIN, Split.REPLAY)
    np.testing.assert_array_equal(x, IMAGES[1:3])
    assert y.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"champion": None}, "champion"),
        ({"strategy": "magic"}, "strategy: expected auto or one of .* got 'magic'"),
        ({"precision": "float16"}, "precision"),
        ({"epochs": 0}, "epochs: expected a positive number, got 0"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"time_box_s": 0.0}, "time_box_s"),
        ({"batch_size": 0}, "batch_size"),
        ({"threads": 0}, "threads"),
        ({"validation_share": 0.5}, "validation_share"),
        ({"stream": "../x"}, "stream"),
    ],
)
def test_a_job_that_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        job(**changes)


@pytest.mark.parametrize(
    ("x", "labels", "split", "message"),
    [
        (IMAGES, LABELS[:3], SPLIT, "expected 4 labels"),
        (IMAGES.astype(float), LABELS, SPLIT, "expected uint8"),
        (IMAGES[..., 0], LABELS, SPLIT, "expected uint8"),
        (IMAGES, LABELS + 1, SPLIT, "indices of 2 classes, got 1 to 2"),
        (IMAGES, LABELS, np.array(["train", "test", "anchor", "train"]), r"got \['test'\]"),
        (IMAGES, LABELS, np.array(["holdout"] * 3 + ["anchor"]), "no rows to train on"),
        (IMAGES, LABELS, np.array(["train"] * 3 + ["holdout"]), "asks for anchor rows"),
    ],
)
def test_rows_that_do_not_fit_are_refused_before_anything_is_written(
    tmp_path: Path, x: Any, labels: Any, split: Any, message: str
) -> None:
    with pytest.raises(JobError, match=message):
        job().write(tmp_path / "j", x, labels, split)
    assert not (tmp_path / "j").exists()


@pytest.mark.parametrize("damage", ["no job", "no data", "unknown field", "missing field", "text"])
def test_a_damaged_folder_is_named(tmp_path: Path, damage: str) -> None:
    job().write(tmp_path, IMAGES, LABELS, SPLIT)
    path = tmp_path / "job.json"
    data = json.loads(path.read_text())
    match damage:
        case "no job":
            path.unlink()
        case "no data":
            (tmp_path / "data.npz").unlink()
        case "unknown field":
            path.write_text(json.dumps(data | {"learning_rat": 1}))
        case "missing field":
            path.write_text(json.dumps({k: v for k, v in data.items() if k != "family"}))
        case _:
            path.write_text("{")
    with pytest.raises(JobError, match="job"):
        Job.read(tmp_path)


def test_the_result_reads_back_and_replaces_the_old_one_in_one_step(tmp_path: Path) -> None:
    result = JobResult(
        family=Family.TABULAR,
        classes=("a", "b"),
        input_shape=(3,),
        preprocessing={},
        strategy="refit",
        reason="why",
        metrics={"holdout_accuracy": 0.5},
        gate=None,
        candidate=tmp_path / "candidate",
        elapsed_s=1.5,
    )
    with pytest.raises(FileNotFoundError):
        JobResult.read(tmp_path)
    result.write(tmp_path)
    result.write(tmp_path)
    assert JobResult.read(tmp_path) == result
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]
