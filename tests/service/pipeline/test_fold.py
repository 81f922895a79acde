"""A hot stream in several partitions: evidence is pooled, and one cause is one incident."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from service.domain.action import Action
from service.domain.incident import Incident, IncidentState
from service.monitor import elsewhere as parts
from service.pipeline.pipeline import Pipeline
from service.records.record import Record
from service.sources.listed import Abort, ListSource
from service.sources.source import Owner
from service.store.store import Store
from tests.service.runs import (
    incidents_of,
    open_store,
    pipeline_of,
    run_to_end,
    settings_of,
    work_off,
)
from tests.service.streams import as_records, x_to_y_records

N_PARTS = 4
CHANGE = N_PARTS * 700
N = N_PARTS * 1600


def spread(records: Sequence[Record], n_parts: int = N_PARTS) -> list[Record]:
    """The records round robin over partitions."""
    return [
        dataclasses.replace(r, partition=k % n_parts, offset=k // n_parts)
        for k, r in enumerate(records)
    ]


class Half(ListSource):
    """A process that has only some of the lanes."""

    def __init__(self, items: Sequence[Record], lanes: set[int]) -> None:
        super().__init__(items)
        self._lanes = lanes

    def start(self, owner: Owner) -> None:
        self.seek(owner.assigned(sorted(self._lanes), N_PARTS) or {})


@contextmanager
def two_processes(
    records: Sequence[Record], folder: Path, store_of: type[Store] = Store
) -> Iterator[tuple[Store, list[Pipeline]]]:
    settings = settings_of(folder)
    store = store_of(settings.store.url, lambda: 0.0)
    halves = [Half(records, lanes) for lanes in ({0, 1}, {2, 3})]
    yield store, [pipeline_of(settings, half, store) for half in halves]
    store.close()


def run(
    items: Sequence[Record | Abort],
    folder: Path,
    registry: CollectorRegistry | None = None,
    **stream: Any,
) -> tuple[list[Incident], list[Action]]:
    """Run to the end, starting again after each abort; the incidents, oldest first, and actions."""
    return run_to_end(
        settings_of(folder, **stream),
        lambda: ListSource(items),
        lambda _, store: (incidents_of(store), store.actions()),
        registry=registry,
    )


def leading(found: Sequence[Incident]) -> list[Incident]:
    return [i for i in found if i.state is IncidentState.CONFIRMED]


def of_state(found: Sequence[Incident], state: IncidentState) -> list[Incident]:
    return [i for i in found if i.state is state]


@pytest.mark.parametrize("shift", ["covariate", "concept", "both"])
def test_a_stream_over_four_partitions_has_one_incident_of_the_kind_it_has_unsplit(
    shift: str, tmp_path: Path
) -> None:
    whole = x_to_y_records(N, shift=shift, at=CHANGE, seed=5)
    (tmp_path / "whole").mkdir()
    [unsplit] = leading(run(whole, tmp_path / "whole")[0])
    found, actions = run(spread(whole), tmp_path)
    [incident] = leading(found)
    assert (incident.kind, incident.factors) == (unsplit.kind, unsplit.factors)
    assert incident.change_point is not None
    assert abs(incident.change_point - CHANGE // N_PARTS) < 200
    given_up = of_state(found, IncidentState.FOLDED)
    assert given_up
    for other in given_up:
        assert other.lane != incident.lane
        assert incident.id in other.detail
        assert other.actions == ()
    events = [a.payload["event"] for a in actions]
    assert events.count("incident.confirmed") == 1
    assert "incident.folded" not in events


def test_a_part_that_moves_alone_is_the_incident(tmp_path: Path) -> None:
    still = spread(x_to_y_records(N, seed=5))
    moved = spread(x_to_y_records(N, shift="covariate", at=CHANGE, seed=5))
    records = [m if m.partition == 2 else s for s, m in zip(still, moved, strict=True)]
    found, _ = run(records, tmp_path)
    assert [(i.lane, str(i.kind)) for i in leading(found)] == [(2, "covariate")]
    assert of_state(found, IncidentState.FOLDED) == []


def test_where_nothing_moves_nothing_is_confirmed(tmp_path: Path) -> None:
    found, _ = run(spread(x_to_y_records(N, seed=5)), tmp_path)
    assert leading(found) == []


def test_a_part_that_confirms_later_has_pooled_its_evidence(tmp_path: Path) -> None:
    found, _ = run(spread(x_to_y_records(N, shift="covariate", at=CHANGE, seed=5)), tmp_path)
    pooled = [i for i in found if "parts" in i.explanation]
    assert pooled
    for incident in pooled:
        told = incident.explanation["parts"]
        assert incident.lane not in told["lanes"]
        assert any("over" in e["note"] for e in incident.evidence)
        # What others pool must be the part's own: pooled evidence would count twice.
        assert all("over" not in e.note for e in parts.evidence_of(incident))
        assert parts.evidence_of(incident)[0].n_recent < incident.evidence[0]["n_recent"]


def test_two_processes_in_step_have_one_incident(tmp_path: Path) -> None:
    records = spread(x_to_y_records(N, shift="covariate", at=CHANGE, seed=5))
    with two_processes(records, tmp_path) as (store, pipelines):
        while sum(pipeline.step(timeout_s=0) for pipeline in pipelines):
            pass
        for pipeline in pipelines:
            pipeline.write()
        found = store.incidents(limit=None)
    assert [str(i.kind) for i in leading(found)] == ["covariate"]
    assert len({i.lane for i in of_state(found, IncidentState.FOLDED)}) == N_PARTS - 1


class Deaf(Store):
    """A store from which nobody hears of the incidents of other parts."""

    def incidents_of_parts(self) -> list[Incident]:
        return []


def test_a_process_that_has_heard_nothing_folds_all_the_same(tmp_path: Path) -> None:
    """Two processes may confirm in the same moment: only the transaction can tell."""
    records = spread(x_to_y_records(N, shift="covariate", at=CHANGE, seed=5))
    with two_processes(records, tmp_path, Deaf) as (store, pipelines):
        for pipeline in pipelines:
            work_off(pipeline)
        found = store.incidents(limit=None)
    [incident] = leading(found)
    assert incident.lane in {0, 1}
    assert {2, 3} <= {i.lane for i in of_state(found, IncidentState.FOLDED)}
    assert not any("parts" in i.explanation for i in found)


@pytest.mark.parametrize("at", [3500, 4300, 5100])
def test_a_kill_adds_no_incident(at: int, tmp_path: Path) -> None:
    records: list[Record | Abort] = [
        *spread(x_to_y_records(N, shift="covariate", at=CHANGE, seed=5))
    ]
    records.insert(at, Abort())
    found, _ = run(records, tmp_path)
    assert [str(i.kind) for i in leading(found)] == ["covariate"]
    suspected = of_state(found, IncidentState.SUSPECTED)
    assert len({i.lane for i in suspected}) == len(suspected)


def test_metrics_count_the_stream_once(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    records = spread(x_to_y_records(N, shift="covariate", at=CHANGE, seed=5))
    run(records, tmp_path, registry)
    labels = {"stream": "s", "kind": "covariate"}
    assert registry.get_sample_value("shiftwatch_incidents_total", labels) == 1.0


def test_a_folded_part_that_returns_is_watched_again(tmp_path: Path) -> None:
    moved = x_to_y_records(N_PARTS * 1700, shift="covariate", at=CHANGE, seed=5)
    back = x_to_y_records(N_PARTS * 2600, seed=6)
    late = [
        dataclasses.replace(
            r,
            offset=len(moved) + k,
            value=r.value.replace(b'"id": "e', b'"id": "late').replace(
                b"2026-01-01", b"2026-01-02"
            ),
        )
        for k, r in enumerate(back)
    ]
    found, _ = run(spread([*moved, *late]), tmp_path)
    assert leading(found) == []
    [resolved] = of_state(found, IncidentState.RESOLVED)
    assert str(resolved.kind) == "covariate"
    given_up = of_state(found, IncidentState.FOLDED)
    assert given_up
    assert all(i.resolved_at is not None for i in given_up)


def scored(n: int) -> list[Record]:
    """A Y->X stream with scores, in which the prior moves from 0.3 to 0.7."""
    rng = np.random.default_rng(4)
    y = (rng.random(n) < np.where(np.arange(n) < CHANGE, 0.3, 0.7)).astype(int)
    x = rng.normal(2.0 * y, 1.0)
    p = 1 / (1 + np.exp(-(2 * x - 2 + np.log(0.3 / 0.7))))
    return as_records(
        [
            {
                "stream": "s",
                "id": f"e{i}",
                "features": {"x": float(x[i])},
                "scores": {"0": float(1 - p[i]), "1": float(p[i])},
                "label": int(y[i]),
            }
            for i in range(n)
        ]
    )


def test_every_part_is_reweighted_by_its_own_prior_and_one_incident_tells(tmp_path: Path) -> None:
    reweight = {"on_confirmed": {"prior": "reweight"}, "classes": ["0", "1"]}
    found, actions = run(spread(scored(N)), tmp_path, problem="y_to_x", **reweight)
    own = [i for i in found if i.confirmed_at is not None]
    assert {i.lane for i in own} == set(range(N_PARTS))
    assert {str(i.kind) for i in own} == {"prior"}
    assert len([i for i in own if i.state is not IncidentState.FOLDED]) == 1
    priors = [a["prior"]["1"] for i in own for a in i.actions if a["kind"] == "reweight"]
    assert len(priors) == N_PARTS
    assert all(0.6 < prior < 0.8 for prior in priors)
    assert len(set(priors)) > 1
    events = [a.payload["event"] for a in actions]
    assert events.count("incident.repairing") == 1


def test_a_webhook_gets_folded_incidents_if_it_asks_for_them(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    hook = settings.webhooks[0].model_copy(update={"events": ("incident.folded",)})
    settings = settings.model_copy(update={"webhooks": (hook,)})
    records = spread(x_to_y_records(N, shift="covariate", at=CHANGE, seed=5))
    store = open_store(settings.store.url)
    pipeline = pipeline_of(settings, ListSource(records), store)
    work_off(pipeline)
    n_folded = len(store.incidents(state=IncidentState.FOLDED))
    assert n_folded
    assert [a.payload["event"] for a in store.actions()] == ["incident.folded"] * n_folded
