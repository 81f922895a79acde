import itertools

import pytest

from service.domain.action import Action, ActionState
from service.domain.incident import IncidentState, Point
from service.domain.job import Job, JobState
from service.store import shared_part
from service.store.errors import StoreError
from service.store.store import Store
from tests.service.store.values import (
    ACTION,
    JOB,
    Clock,
    force_second_job,
    in_several_stores,
    incident,
    letter,
)


def test_an_incident_is_replaced_and_keeps_its_place(store: Store, clock: Clock) -> None:
    for n in range(3):
        clock.now += 1
        with store.transaction() as tx:
            tx.put_incident(incident(f"inc-{n}", opened_at=Point(n)))
    clock.now += 1
    changed = incident("inc-0", opened_at=Point(0), state=IncidentState.CONFIRMED, kind="concept")
    with store.transaction() as tx:
        tx.put_incident(changed)
    assert [i.id for i in store.incidents()] == ["inc-2", "inc-1", "inc-0"]
    assert store.incident("inc-0") == changed
    assert store.incidents(state="confirmed") == [changed]
    assert store.incident("inc-9") is None


def test_a_finished_action_is_never_pending_again(store: Store) -> None:
    with store.transaction() as tx:
        tx.add_action(ACTION)
        tx.finish_action("a-1", ActionState.FAILED, "no")
        tx.retry_action("a-1", 0.0, "again")
        tx.hurry_actions("digits", "webhook:0")
        assert not tx.add_action(ACTION)
    (action,) = store.actions()
    assert (action.state, action.detail, action.attempts) == (ActionState.FAILED, "no", 1)
    assert action.created_at == 1000.0


def test_a_promotion_that_is_written_again_is_not_another_one(store: Store) -> None:
    for reason in ("first", "first", "second"):
        with store.transaction() as tx:
            tx.set_champion("digits", 3, reason, 500)
    assert [(c.sequence, c.reason) for c in store.champion_history("digits")] == [
        (1, "first"),
        (2, "second"),
    ]


def test_promotions_at_once_all_stand_in_the_history(store: Store, url: str) -> None:
    def promote(own: Store, k: int) -> list[tuple[int, int]]:
        made = []
        for version in range(10 * k, 10 * k + 10):
            with own.transaction() as tx:
                entry = tx.set_champion("digits", version, "promoted", version)
            made.append((entry.sequence, entry.version))
        return made

    made = sorted(itertools.chain(*in_several_stores(url, promote)))
    assert [sequence for sequence, _ in made] == list(range(1, 41))
    assert [(c.sequence, c.version) for c in store.champion_history("digits")] == made


def test_jobs_that_are_added_at_once_leave_one_pending(store: Store, url: str) -> None:
    def add(own: Store, k: int) -> list[str]:
        added = []
        for n in range(10):
            with own.transaction() as tx:
                job = Job(f"j-{n}-{k}", f"s{n}", "inc-1", "fine_tune")
                if tx.add_job(job) and tx.start_job(job.id):
                    added.append(job.stream)
        return added

    added = sorted(itertools.chain(*in_several_stores(url, add)))
    assert added == sorted(f"s{n}" for n in range(10))
    assert sorted(j.stream for j in store.jobs(state=JobState.RUNNING)) == added


def test_one_process_starts_a_job(store: Store, url: str) -> None:
    with store.transaction() as tx:
        tx.add_job(JOB)

    def start(own: Store, k: int) -> bool:
        with own.transaction() as tx:
            return tx.start_job(JOB.id)

    assert sorted(in_several_stores(url, start)) == [False, False, False, True]
    assert store.jobs()[0].attempts == 1


def test_a_stream_has_one_pending_job(store: Store) -> None:
    other = Job("j-2", "digits", "inc-2", "fine_tune")
    with store.transaction() as tx:
        assert tx.add_job(JOB)
        assert not tx.add_job(other)
        assert tx.add_job(Job("j-3", "fraud", "inc-3", "fine_tune"))
        assert tx.start_job("j-1")
        assert not tx.add_job(other)
        assert tx.finish_job("j-1", JobState.SUCCEEDED, {"accuracy": 0.9})
        assert tx.add_job(other)
    assert [(j.id, j.state) for j in store.jobs("digits")] == [
        ("j-1", "succeeded"),
        ("j-2", "queued"),
    ]
    assert store.jobs(state=JobState.SUCCEEDED)[0].result == {"accuracy": 0.9}


def test_the_database_itself_refuses_a_second_pending_job(store: Store) -> None:
    with store.transaction() as tx:
        tx.add_job(JOB)
    with pytest.raises(StoreError, match=r"(?i)unique"), store.transaction() as tx:
        force_second_job(tx)


def test_a_job_moves_forward_only(store: Store, clock: Clock) -> None:
    with store.transaction() as tx:
        tx.add_job(JOB)
        assert not tx.requeue_job("j-1")
        assert tx.start_job("j-1")
        assert not tx.start_job("j-1")
    clock.now += 60
    with store.transaction() as tx:
        assert tx.requeue_job("j-1")
        assert tx.start_job("j-1")
        with pytest.raises(ValueError, match="running is not an end"):
            tx.finish_job("j-1", JobState.RUNNING)
        assert tx.finish_job("j-1", JobState.CANCELLED)
        assert not tx.finish_job("j-1", JobState.SUCCEEDED)
        assert not tx.start_job("j-1")
    (job,) = store.jobs()
    assert (job.state, job.attempts) == (JobState.CANCELLED, 2)
    assert (job.created_at, job.started_at, job.finished_at) == (1000.0, 1060.0, 1060.0)
    assert store.jobs(since=1000.5) == []


def test_dead_letters_are_bounded_in_size_and_number(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_part, "MAX_DEAD_LETTERS", 5)
    with store.transaction() as tx:
        tx.put_dead_letters([letter(n) for n in range(7)])
        tx.put_dead_letters([letter(n) for n in range(2, 7)] * 2)  # a replay takes no one's place
        tx.put_dead_letters([])
        tx.put_dead_letters([letter(7, value=bytes(100_000), message="x" * 5000)])
    kept = store.dead_letters()
    assert [k.offset for k in kept] == [7, 6, 5, 4, 3]
    assert len(kept[0].value) == 64 * 1024
    assert len(kept[0].message) == 1000
    assert len(store.dead_letters(limit=2)) == 2


def test_text_that_a_database_cannot_hold_is_changed_and_not_an_error(store: Store) -> None:
    with store.transaction() as tx:
        tx.add_action(ACTION)
        tx.retry_action("a-1", 2000.0, "said \x00 and \ud800")
        tx.put_dead_letters([letter(0, message="got '\x00'")])
        tx.set_champion("digits", 1, "be\x00cause", 0)
    assert store.actions()[0].detail == "said \ufffd and ?"
    assert store.dead_letters()[0].message == "got '\ufffd'"
    assert store.champion_history("digits")[0].reason == "be\ufffdcause"


def test_values_that_json_cannot_hold_are_refused(store: Store) -> None:
    action = Action("a", "s", "i", "k", {"p": float("nan")})
    with pytest.raises(ValueError, match="JSON"), store.transaction() as tx:
        tx.add_action(action)
