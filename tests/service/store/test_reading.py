from collections.abc import Callable

import pytest

from service.domain.incident import Point
from service.store.store import Store
from tests.service.store.values import Clock, incident


def test_incidents_can_be_read_page_by_page(store: Store, clock: Clock) -> None:
    for n in range(6):
        clock.now += n % 2  # some share their time
        with store.transaction() as tx:
            tx.put_incident(incident(f"inc-{n}", opened_at=Point(n), stream=f"s{n % 2}"))
    pages: list[list[str]] = []
    before = None
    while page := [i.id for i in store.incidents(limit=2, before=before)]:
        pages.append(page)
        before = page[-1]
    assert pages == [["inc-5", "inc-4"], ["inc-3", "inc-2"], ["inc-1", "inc-0"]]
    assert [i.id for i in store.incidents("s1")] == ["inc-5", "inc-3", "inc-1"]
    assert store.incidents(before="unknown") == []


def test_the_last_row_of_the_history_is_the_champion(store: Store) -> None:
    assert store.champion("digits") is None
    with store.transaction() as tx:
        tx.set_champion("digits", 1, "trained", 0)
        tx.set_champion("digits", 2, "promoted", 900)
        tx.set_champion("fraud", 7, "trained", 0)
        tx.set_champion("digits", 1, "rolled back", 950)
    champion = store.champion("digits")
    assert champion is not None
    assert (champion.version, champion.reason, champion.index) == (1, "rolled back", 950)
    assert [(c.sequence, c.version) for c in store.champion_history("digits")] == [
        (1, 1),
        (2, 2),
        (3, 1),
    ]


@pytest.mark.parametrize("read", [Store.offsets, Store.incidents, Store.actions, Store.jobs])
def test_an_empty_store_reads_as_empty(store: Store, read: Callable[[Store], object]) -> None:
    assert not read(store)
