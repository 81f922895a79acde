"""A stream too hot for one partition, spread over four, read by two processes on one store."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from service.domain.incident import Incident, IncidentState
from service.store.store import Store
from tests.kafka.broker import Message, new_topic, produce
from tests.kafka.runs import Topics, document, incidents, run_whole
from tests.kafka.test_processes import Fleet, fleet, lanes_of, wait_for
from tests.service.streams import x_to_y_records

N_PARTS = 4
CHANGE = N_PARTS * 700
N = N_PARTS * 1500


@pytest.fixture
def topics(servers: str) -> Topics:
    return Topics(new_topic(servers, "features", partitions=N_PARTS))


def hot(topics: Topics, shift: str, n_parts: int = N_PARTS) -> list[Message]:
    """Events round robin over the partitions, each label in the one of its event."""
    found: list[Message] = []
    for k, record in enumerate(x_to_y_records(N, shift=shift, at=CHANGE, delay=80, seed=8)):
        event = int(json.loads(record.value)["id"][1:])
        found.append((topics.features, event % n_parts, record.value, 1000 + 10 * k))
    return found


def both(processes: Fleet) -> None:
    """Start two processes, and wait until each has half of the lanes."""
    first, second = processes.join(), processes.join()
    first.wait_until(lambda: len(lanes_of(first)) == 2 and len(lanes_of(second)) == 2)


def leading(store: Store) -> list[Incident]:
    return [i for i in incidents(store) if i.state is IncidentState.CONFIRMED]


def kinds(found: Sequence[Incident]) -> list[tuple[str, tuple[str, ...]]]:
    return [(str(i.kind), i.factors) for i in found]


@pytest.mark.parametrize("shift", ["covariate", "concept", "none"])
def test_two_processes_find_one_incident_of_the_kind_that_one_finds_unsplit(
    shift: str, servers: str, topics: Topics, tmp_path: Path
) -> None:
    messages = hot(topics, shift)
    with fleet(document(servers, topics, tmp_path / "fleet"), tmp_path) as (processes, store):
        both(processes)
        produce(servers, messages)
        wait_for(store, len(messages), processes)
        for child in list(processes.running):
            processes.stop(child)
        found = leading(store)
        lanes = {i.lane for i in store.incidents(limit=None)}
    one = Topics(new_topic(servers, "features"))
    unsplit = hot(one, shift, n_parts=1)
    produce(servers, unsplit)
    expected = run_whole(document(servers, one, tmp_path / "one"), len(unsplit))
    assert kinds(found) == kinds([i for i in expected if i.state is IncidentState.CONFIRMED])
    assert kinds(found) == ([] if shift == "none" else [(shift, (shift,))])
    assert shift == "none" or lanes == set(range(N_PARTS))


def test_killed_processes_add_no_incident(servers: str, topics: Topics, tmp_path: Path) -> None:
    messages = hot(topics, "covariate")
    # The suspicions are opened and confirmed between the second and the third cut.
    cuts = [0, 2 * CHANGE, 2 * CHANGE + 1100, 2 * CHANGE + 2200, len(messages)]
    with fleet(document(servers, topics, tmp_path / "fleet"), tmp_path) as (processes, store):
        both(processes)
        for start, end in itertools.pairwise(cuts):
            produce(servers, messages[start:end])
            wait_for(store, end - 100, processes)
            processes.kill(processes.running[0])
            processes.join()
        wait_for(store, len(messages), processes)
        for child in list(processes.running):
            processes.stop(child)
        found = incidents(store)
    assert kinds([i for i in found if i.state is IncidentState.CONFIRMED]) == [
        ("covariate", ("covariate",))
    ]
