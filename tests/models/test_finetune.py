import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.finetune import run
from models.job import GateSettings, Job, JobResult, Kind, Split
from models.spec import Family
from models.vgg16 import Vgg16
from tests.models.conftest import CLASSES, halves

ROOT = Path(__file__).parents[2]


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "models.finetune", str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, list[dict[str, Any]]]:
    out, _ = process.communicate(timeout=300)
    return process.returncode, [json.loads(line) for line in out.splitlines()]


def ignore(event: Mapping[str, Any]) -> None:
    pass


@pytest.fixture(scope="module")
def killed_source_job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A source job that was killed in its second epoch and started again."""
    folder = tmp_path_factory.mktemp("source")
    images, labels = halves(160, 1)
    Job(
        kind=Kind.SOURCE,
        family=Family.VGG16,
        stream="halves",
        classes=CLASSES,
        dense_units=16,
        dropout=0.0,
        epochs=2,
        batch_size=16,
        learning_rate=3e-4,
        validation_share=0.0,
    ).write(folder, images, labels, np.repeat([Split.TRAIN, Split.HOLDOUT], [100, 60]))
    first = start(folder)
    assert first.stdout is not None
    for line in first.stdout:
        if json.loads(line)["epoch"] == 2:
            break
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    first.stdout.close()
    assert not (folder / "result.json").exists()
    return folder, finish(start(folder))


def test_a_killed_job_goes_on_with_the_next_epoch_and_finishes(
    killed_source_job: tuple[Path, Any],
) -> None:
    folder, (code, events) = killed_source_job
    assert code == 0
    assert {event["epoch"] for event in events[:-1]} == {2}
    assert events[-1] == {"event": "done", "promote": None}
    result = JobResult.read(folder)
    assert result.strategy == "source"
    assert result.gate is None
    assert result.metrics["epochs"] == 2
    assert result.metrics["holdout_accuracy"] > 0.9
    assert result.preprocessing["kind"] == "scale"
    assert Vgg16.read(result.candidate).classes == CLASSES


def test_a_finished_job_does_nothing_again(killed_source_job: tuple[Path, Any]) -> None:
    folder, _ = killed_source_job
    before = (folder / "result.json").stat()
    assert run(folder, ignore) == JobResult.read(folder)
    assert (folder / "result.json").stat().st_mtime_ns == before.st_mtime_ns


def test_fine_tuning_repairs_a_swapped_concept_and_passes_the_gate(
    keras: Any, killed_source_job: tuple[Path, Any], tmp_path: Path
) -> None:
    source, _ = killed_source_job
    images, labels = halves(190, 2)
    split = np.repeat([Split.ANCHOR, Split.TRAIN, Split.HOLDOUT], [30, 100, 60])
    labels[split != Split.ANCHOR] = 1 - labels[split != Split.ANCHOR]
    Job(
        kind=Kind.FINE_TUNE,
        family=Family.VGG16,
        stream="halves",
        classes=CLASSES,
        champion=str(source / "candidate"),
        strategy="fixed_features",
        learning_rate=0.02,
        batch_size=16,
        precision="float32",
        gate=GateSettings(confidence=0.99),
    ).write(tmp_path, images, labels, split)
    result = run(tmp_path, ignore)
    assert result.gate is not None
    assert result.gate["promote"] is True
    assert result.gate["champion_accuracy"] < 0.1
    assert result.gate["candidate_accuracy"] > 0.9
    assert result.gate["anchor_champion_accuracy"] > 0.9
    assert result.gate["anchor_candidate_accuracy"] < 0.1
    assert result.metrics["train_rows"] == 100
    champion, candidate = (Vgg16.read(f / "candidate") for f in (source, tmp_path))
    assert candidate == champion


def test_a_processor_that_onednn_may_use_only_avx2_of_trains_in_float32(tmp_path: Path) -> None:
    # On processors with bfloat16 this is how a plain one is imitated.
    images, labels = halves(40, 3)
    Job(
        kind=Kind.SOURCE,
        family=Family.VGG16,
        stream="halves",
        classes=CLASSES,
        epochs=1,
        batch_size=16,
        dense_units=16,
    ).write(tmp_path, images, labels, np.repeat(Split.TRAIN, 40))
    subprocess.run(
        [sys.executable, "-m", "models.finetune", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    assert JobResult.read(tmp_path).metrics["precision"] == "float32"


def features(n: int, seed: int, turned: bool) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4))
    y = (x[:, 0] + x[:, 1] > 0).astype(np.int64)
    return x, 1 - y if turned else y


def tabular_job(folder: Path, **changes: Any) -> Path:
    (x, y), (new_x, new_y) = features(300, 0, False), features(500, 1, True)
    split = np.repeat([Split.TRAIN, Split.HOLDOUT], [350, 150])
    if changes["kind"] is Kind.SOURCE:
        new_x, new_y, split = x, y, np.repeat([Split.TRAIN], 300)
    fields: dict[str, Any] = {
        "family": Family.TABULAR,
        "stream": "pixels",
        "classes": ("low", "high"),
    }
    Job(**fields | changes).write(folder, new_x, new_y, split)
    return folder


def test_a_tabular_job_needs_no_tensorflow(tmp_path: Path) -> None:
    source = tabular_job(tmp_path / "source", kind=Kind.SOURCE)
    tuned = tabular_job(tmp_path / "tuned", kind=Kind.FINE_TUNE, champion=str(source / "candidate"))
    code = (
        "import sys, pathlib, models.finetune as f\n"
        "for d in sys.argv[1:]: f.run(pathlib.Path(d), print)\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(source), str(tuned)],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    result = JobResult.read(tuned)
    assert result.strategy == "refit"
    assert result.input_shape == (4,)
    assert result.gate is not None
    assert result.gate["promote"] is True
    assert result.gate["champion_accuracy"] < 0.1
    assert result.gate["candidate_accuracy"] > 0.9


def test_a_candidate_that_is_no_better_is_not_promoted(tmp_path: Path) -> None:
    source = tabular_job(tmp_path / "source", kind=Kind.SOURCE)
    run(source, ignore)
    x, y = features(500, 4, False)
    again = tmp_path / "again"
    Job(
        kind=Kind.FINE_TUNE,
        family=Family.TABULAR,
        stream="pixels",
        classes=("low", "high"),
        champion=str(source / "candidate"),
    ).write(again, x, y, np.repeat([Split.TRAIN, Split.HOLDOUT], [350, 150]))
    result = run(again, ignore)
    assert result.gate is not None
    assert result.gate["promote"] is False
    assert "is not above 0" in result.gate["reason"]


def test_a_job_that_fails_says_so_on_its_last_line(tmp_path: Path) -> None:
    job = tabular_job(tmp_path / "job", kind=Kind.SOURCE)
    with np.load(job / "data.npz") as data:
        arrays = dict(data)
    np.savez(job / "data.npz", **arrays | {"labels": np.zeros(300, np.int64)})
    code, events = finish(start(job))
    assert code == 1
    assert events[-1]["event"] == "error"
    assert events[-1]["message"].startswith("JobError: rows: y: expected indices of at least two")
    assert not (job / "result.json").exists()
