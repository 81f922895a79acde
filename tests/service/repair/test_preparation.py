from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.job import Job as TrainingJob
from models.job import Split
from models.registry import Registry
from service.domain.job import Job, JobSpec
from service.repair.preparation import ANCHOR_ROWS, divided, prepare
from service.store.store import Store
from tests.service.repair.models import STREAM, publish, samples, settings_of


def counted(rows: list[tuple[object, Split]]) -> dict[str, int]:
    return {str(split): sum(s is split for _, s in rows) for split in Split}


@pytest.mark.parametrize(
    ("n_before", "n_recent", "replays", "expected"),
    [
        (100, 200, True, {"anchor": 50, "replay": 50, "train": 140, "holdout": 60}),
        (100, 200, False, {"anchor": 50, "replay": 0, "train": 140, "holdout": 60}),
        (0, 200, True, {"anchor": 0, "replay": 0, "train": 140, "holdout": 60}),
        (5000, 200, True, {"anchor": 200, "replay": 200, "train": 140, "holdout": 60}),
    ],
)
def test_samples_are_divided_by_what_they_are_for(
    n_before: int, n_recent: int, replays: bool, expected: dict[str, int]
) -> None:
    rows = divided(samples(n_before), samples(n_recent, n_before), replays=replays)
    assert counted(rows) == expected  # type: ignore[arg-type]
    order = [sample.index for sample, _ in rows]
    assert order == sorted(order)
    assert min(order) >= n_before - ANCHOR_ROWS
    newest = [split for _, split in rows if split in (Split.TRAIN, Split.HOLDOUT)]
    assert newest == sorted(newest, key=lambda split: split is Split.HOLDOUT)


@pytest.mark.parametrize(
    ("problem", "factors", "has_replay", "max_anchor_drop"),
    [
        ("x_to_y", ("covariate",), True, 0.05),
        ("x_to_y", ("concept",), False, None),
        ("y_to_x", ("concept",), True, None),
        ("y_to_x", ("prior",), True, 0.05),
    ],
)
def test_an_old_rule_is_not_taught_again(
    problem: str,
    factors: tuple[str, ...],
    has_replay: bool,
    max_anchor_drop: float | None,
    tmp_path: Path,
) -> None:
    settings = settings_of(tmp_path, problem, max_anchor_drop=0.05)
    store, registry = Store(settings.store.url, lambda: 0.0), Registry(settings.registry.path)
    with store.transaction() as tx:
        tx.put_samples(STREAM, samples(400), keep=1000, lane=2)
    job = Job("j", STREAM, "inc-1", "fine_tune", JobSpec(200, factors, lane=2))
    assert prepare(job, tmp_path / "j", store, publish(registry), settings)
    asked, rows = TrainingJob.read(tmp_path / "j")
    assert asked.gate.max_anchor_drop == max_anchor_drop
    assert (rows.split == Split.REPLAY).any() == has_replay
    assert len(rows.x) == (400 if has_replay else 300)
    np.testing.assert_array_equal(rows.of(Split.HOLDOUT)[0][:, 0], [k % 7 for k in range(340, 400)])
    store.close()


def test_too_few_labels_prepare_nothing(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    store, registry = Store(settings.store.url, lambda: 0.0), Registry(settings.registry.path)
    with store.transaction() as tx:
        tx.put_samples(STREAM, samples(299), keep=1000)
    job = Job("j", STREAM, "inc-1", "fine_tune", JobSpec(200, ("covariate",)))
    assert not prepare(job, tmp_path / "j", store, publish(registry), settings)
    assert not (tmp_path / "j").exists()
    store.close()
