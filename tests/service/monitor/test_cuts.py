"""Where batches end changes nothing: not what is told, and no bit of what is kept."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from detectors.base import Factor
from service.domain.decision import ActionKind, Means
from service.monitor.monitor import Monitor
from service.monitor.outcomes import Outcomes
from service.monitor.phase import Phase
from service.monitor.representation import Embedding, Tabular
from service.records.columns import Columns
from service.records.decode import decode
from service.records.schema import FeatureSchema
from service.repair.policy import decide
from service.store.states import dumps, loads
from tests.service.cuts import HANDS, LEADER, Others, Told, assert_same, cuts_of, state_of
from tests.service.streams import columns_of, part_of
from tests.service.worlds import WORLDS, World

MEANS = Means(has_model=True, has_scores=True, per_day=1)
ANSWERS = {
    Factor.COVARIATE: ActionKind.ALERT_ONLY,
    Factor.PRIOR: ActionKind.REWEIGHT,
    Factor.CONCEPT: ActionKind.FINE_TUNE,
}


def monitor_of(world: World, others: Others) -> Monitor:
    schema = FeatureSchema.declared(world.kinds)
    return Monitor(
        world.stream_settings(),
        Embedding(4) if world.n_noise else Tabular(schema),
        lambda verdict, means, day: decide(verdict, ANSWERS, means, day),
        score_classes=world.classes,
        seed=1,
        others=others,
    )


def columns(world: World, seed: int) -> Columns:
    bodies = [decode(record) for record in world.records(seed)]
    return columns_of(bodies, FeatureSchema.declared(world.kinds), world.classes)


def lend_a_hand(world: World, monitor: Monitor, others: Others) -> Sequence[Outcomes]:
    """What somebody does about the stream between two records, as its state calls for it."""
    others.found = []
    if monitor.phase is Phase.REPAIRING:
        if world.hand == "repair":
            return [monitor.repaired("version 2")]
        return [monitor.repair_failed("no better model")]
    for incident in monitor.standing.open:
        if world.hand == "close":
            return [monitor.close(incident, "known")]
        if world.hand == "fold":
            others.found = [LEADER]
            return [monitor.fold(incident, LEADER, ["covariate"])]
    return []


def run(world: World, records: Columns, cuts: Sequence[int], restarts: set[int]) -> Told:
    """Take the records in batches that end at these places, and begin again at some of them."""
    others, told = Others(), Told()
    monitor = monitor_of(world, others)
    hands = set(range(HANDS, len(records), HANDS)) if world.hand else set()
    start = 0
    for end in sorted({*cuts, *hands, len(records)}):
        told.note(monitor.update(part_of(records, start, end), MEANS))
        start = end
        if end in hands:
            for outcomes in lend_a_hand(world, monitor, others):
                told.note(outcomes)
            told.states.append(state_of(monitor.snapshot()))
        if end in restarts:
            state = loads(dumps(monitor.snapshot()))
            monitor = monitor_of(world, others)
            monitor.restore(state)
    told.states.append(state_of(monitor.snapshot()))
    return told


@pytest.mark.parametrize("name", WORLDS)
def test_a_monitor_tells_and_keeps_the_same_under_any_cut(name: str) -> None:
    world = WORLDS[name]
    records = columns(world, 100)
    cuts = cuts_of(len(records), 100)
    told = assert_same({n: run(world, records, *cut) for n, cut in cuts.items()})
    assert told.happened >= world.happens


@pytest.mark.slow
@pytest.mark.parametrize("seed", [101, 102])
@pytest.mark.parametrize("name", WORLDS)
def test_so_it_is_on_other_streams_of_each_kind(name: str, seed: int) -> None:
    records = columns(WORLDS[name], seed)
    cuts = cuts_of(len(records), seed)
    assert_same({n: run(WORLDS[name], records, *cut) for n, cut in cuts.items()})
