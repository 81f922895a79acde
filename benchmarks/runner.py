"""Runs a table's trials in worker processes, and goes on where an earlier run was cut."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, as_completed
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.table import Outcome, Table, Trial

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
"""Variables that keep a worker on one processor, so that processor times compare."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A trial that raised.

    Attributes
    ----------
    trial
        Its parameters; it runs again the next time.
    error
        The error in one line.
    """

    trial: Trial
    error: str


@dataclass(frozen=True, slots=True)
class Results:
    """What a table's trials gave.

    Attributes
    ----------
    done
        Trials and their outcomes, in the order of the trials: equal however often the run was cut.
    failures
        Trials that raised.
    n_trials
        All trials of the table, those that were left for another time too.
    """

    done: list[tuple[Trial, Outcome]]
    failures: list[Failure]
    n_trials: int


class Workers:
    """Processes that run trials.

    Parameters
    ----------
    jobs
        How many; 0 runs the trials in this process.
    """

    def __init__(self, jobs: int) -> None:
        if jobs < 0:
            raise ValueError(f"jobs must be at least 0, got {jobs}")
        self._pool = (
            ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _die_on_interrupt)
            if jobs
            else None
        )

    def run(
        self, table: Table, trials: Sequence[Trial]
    ) -> Generator[tuple[Trial, Outcome | Exception], None, None]:
        """Run trials; yields each as it ends, with its outcome or what it raised.

        Raises
        ------
        BrokenExecutor
            If a worker died, for example for want of memory.
        """
        if self._pool is None:
            for trial in trials:
                yield trial, _outcome(lambda t=trial: table.run(t))  # type: ignore[misc]
            return
        futures: dict[Future[Outcome], Trial] = {
            self._pool.submit(table.run, trial): trial for trial in trials
        }
        try:
            for future in as_completed(futures):
                yield futures[future], _outcome(future.result)
        finally:  # whoever stops listening wants no more of them
            for future in futures:
                future.cancel()

    def close(self) -> None:
        """Drop what has not begun, and wait for what has."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


@contextmanager
def workers(jobs: int) -> Iterator[Workers]:
    """Workers with one thread each, until the block ends."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    pool = Workers(jobs)
    try:
        yield pool
    finally:
        pool.close()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def run_table(
    table: Table,
    file: Path,
    pool: Workers,
    *,
    quick: bool,
    progress: Callable[[int, int], None] = lambda done, of: None,
    enough: Callable[[], bool] = lambda: False,
) -> Results:
    """Run those of a table's trials that `file` does not hold, and append each as it ends.

    They run in a random order, the same each time: whatever has run when a run is cut is a fair
    sample of all.

    Parameters
    ----------
    table
        Whose trials.
    file
        One JSON line for each trial that has run; need not exist.
    pool
        Where they run.
    quick
        Which trials, as in `Table.trials`.
    progress
        Told the trials that are done, and all.
    enough
        Asked after each trial; the others are left for another time.

    Raises
    ------
    ValueError
        If two trials have equal parameters, or an outcome is not JSON.
    """
    trials = {_key(trial): trial for trial in table.trials(quick=quick)}
    if len(trials) < len(table.trials(quick=quick)):
        raise ValueError(f"{table.name}: two trials have equal parameters")
    outcomes = {key: o for key, o in _read(file).items() if key in trials}
    failures: list[Failure] = []
    progress(len(outcomes), len(trials))
    file.parent.mkdir(parents=True, exist_ok=True)
    missing = [trial for key, trial in trials.items() if key not in outcomes]
    random.Random(0).shuffle(missing)
    with file.open("a", encoding="utf-8") as out, closing(pool.run(table, missing)) as running:
        for trial, outcome in running:
            if isinstance(outcome, Exception):
                failures.append(Failure(trial, f"{type(outcome).__name__}: {outcome}"))
            else:
                line = json.dumps({"trial": trial, "outcome": outcome}, allow_nan=False)
                out.write(line + "\n")
                out.flush()
                # Through JSON, as if it had been read: a cut run must not differ by a tuple.
                outcomes[_key(trial)] = json.loads(line)["outcome"]
            progress(len(outcomes) + len(failures), len(trials))
            if enough():
                break
    done = [(trial, outcomes[key]) for key, trial in trials.items() if key in outcomes]
    return Results(done, failures, len(trials))


def _read(file: Path) -> dict[str, Outcome]:
    """The outcomes of a file by trial. A line that a killed run left torn is cut off."""
    if not file.exists():
        return {}
    text = file.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        with file.open("r+b") as torn:
            torn.truncate(len(whole))
    lines = [json.loads(line) for line in whole.splitlines()]
    return {_key(line["trial"]): line["outcome"] for line in lines}


def _key(trial: Trial) -> str:
    return json.dumps(trial, sort_keys=True, allow_nan=False)


def _outcome(run: Callable[[], Outcome]) -> Outcome | Exception:
    try:
        return run()
    except BrokenExecutor:
        raise  # a worker died: every other trial would say the same
    except Exception as error:
        return error


def _die_on_interrupt() -> None:
    """A worker ends silently on Ctrl-C, which a terminal sends to the whole group."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
