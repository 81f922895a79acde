from pathlib import Path

from service.domain.job import Job, JobSpec
from service.repair.budget import Budget
from service.store.store import Store


def job(n: int, day: str, stream: str = "s") -> Job:
    return Job(f"j-{n}", stream, f"inc-{n}", "fine_tune", JobSpec(day=day))


def test_trainings_are_counted_by_the_streams_day_and_without_asking_the_store(
    tmp_path: Path,
) -> None:
    store = Store(f"sqlite:///{tmp_path}/s.db", lambda: 0.0)
    with store.transaction() as tx:
        tx.add_job(job(1, "2026-11-23"))
        tx.add_job(job(2, "2026-11-23", "t"))
    budget = Budget(store)
    assert budget.asked("s", ()) == {}, "it has not been told to ask"
    budget.learn("s")
    store.close()
    unwritten = [job(3, "2026-11-23"), job(4, "2026-11-24"), job(5, "2026-11-23", "t")]
    assert budget.asked("s", ()) == {"2026-11-23": 1}
    assert budget.asked("s", unwritten) == {"2026-11-23": 2, "2026-11-24": 1}
    assert budget.asked("s", unwritten)["2026-11-25"] == 0
