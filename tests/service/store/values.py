"""What the tests of the store write, and how they look at what is there."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import sqlalchemy as sa

from service.domain.action import Action
from service.domain.dead_letter import DeadLetter
from service.domain.incident import Incident, IncidentState, Point
from service.domain.job import Job, JobSpec
from service.domain.sample import ContentKind, StoredSample
from service.store import tables
from service.store.store import Store
from service.store.transaction import Transaction

T = TypeVar("T")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def incident(id_: str = "inc-1", **changes: Any) -> Incident:
    values: dict[str, Any] = {
        "id": id_,
        "stream": "digits",
        "state": IncidentState.SUSPECTED,
        "kind": "none",
        "factors": ("concept",),
        "opened_at": Point(205, "2026-11-23T10:00:00Z"),
    }
    return Incident(**(values | changes))


def sample(index: int, **changes: Any) -> StoredSample:
    values: dict[str, Any] = {
        "index": index,
        "id": f"e-{index}",
        "time": "2026-11-23T10:00:00Z",
        "content": b"{}",
        "kind": ContentKind.FEATURES,
    }
    return StoredSample(**(values | changes))


def letter(offset: int, **changes: Any) -> DeadLetter:
    values: dict[str, Any] = {
        "topic": "events",
        "partition": 0,
        "offset": offset,
        "stream": "",
        "reason": "not_json",
        "message": "expected a JSON object",
        "value": b"{",
    }
    return DeadLetter(**(values | changes))


ACTION = Action("a-1", "digits", "inc-1", "webhook:0", {"event": "incident.confirmed"})
JOB = Job("j-1", "digits", "inc-1", "fine_tune", JobSpec(205, ("concept",), day="2026-11-23"))


def write_everything(tx: Transaction) -> None:
    tx.put_offsets({("events", 0): 7})
    tx.put_state("digits", b"state")
    tx.put_incident(incident())
    tx.add_action(ACTION)
    tx.add_job(JOB)
    tx.set_champion("digits", 1, "trained", 0)
    tx.put_samples("digits", [sample(0)], keep=10)
    tx.label_samples("digits", [(0, "3")])
    tx.put_dead_letters([letter(3)])


def fail(tx: Transaction) -> None:
    write_everything(tx)
    raise RuntimeError("boom")


def force_second_job(tx: Transaction) -> None:
    row = tx._connection.execute(sa.select(tables.jobs)).mappings().one()
    tx._connection.execute(tables.jobs.insert().values({**row, "id": "j-2", "sequence": 2}))


def everything(store: Store) -> list[object]:
    return [
        store.offsets(),
        store.state("digits"),
        store.incidents(),
        store.actions(),
        store.jobs(),
        store.champion("digits"),
        store.samples("digits"),
        store.dead_letters(),
    ]


def in_several_stores(url: str, do: Callable[[Store, int], T], n: int = 4) -> list[T]:
    """Does something at once in stores of their own, as several processes would."""
    stores = [Store(url, lambda: 1000.0) for _ in range(n)]
    start = threading.Barrier(n)

    def run(k: int) -> T:
        start.wait(10)
        return do(stores[k], k)

    with ThreadPoolExecutor(n) as pool:
        done = list(pool.map(run, range(n)))
    for store in stores:
        store.close()
    return done
