"""kill -9 at a hundred random instants: the same incidents, label joins and detector states."""

from __future__ import annotations

import random
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from service.store import states as checkpoint
from service.store.store import Store
from tests.kafka.broker import new_topic, produce
from tests.kafka.lives import Life
from tests.kafka.runs import Topics, document, incidents, n_stored, opened, step_until

N_KILLS = 100
N = 2500
CHANGE = 700
"""Where less than half of the lives have been, so that kills fall into every phase."""
MOST = 60
"""Records that a life may store before it is killed: a hundred such lives do not read all."""
WAIT_S = 60.0
"""Only ever reached by a failure."""


def is_equal(a: Any, b: Any) -> bool:
    """Whether two states are the same to the last bit; NaN is itself."""
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(is_equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(is_equal, a, b))
    if isinstance(a, np.ndarray | np.generic):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return type(a) is type(b) and (a == b or (a != a and b != b))  # noqa: PLR0124 - NaN


def test_killed_at_a_hundred_random_instants_it_ends_as_if_nothing_had_happened(
    servers: str, tmp_path: Path
) -> None:
    topics = Topics(new_topic(servers, "features"), new_topic(servers, "labels"))
    messages = topics.messages(N, at=CHANGE)
    produce(servers, messages)
    settings = document(
        servers, topics, tmp_path / "killed", max_poll_records=5, group_instance_id="one"
    )
    turn = random.Random(11)
    done = [0]
    with closing(Store(settings["store"]["url"], time.time)) as store:
        for n in range(N_KILLS):
            life = Life(settings)
            goal, limit_s = done[-1] + turn.randint(0, MOST), WAIT_S
            if n % 5:
                life.wait_until_begun(WAIT_S)
            else:  # while it takes the lane over
                limit_s = turn.uniform(0.0, 0.6)
            until = time.monotonic() + limit_s
            while n_stored(store) < goal and time.monotonic() < until:
                time.sleep(0.002)
            time.sleep(turn.uniform(0.0, 0.03))
            life.kill()
            done.append(n_stored(store))
            assert n % 5 == 0 or done[-1] >= goal, f"kill {n}: nothing more in {WAIT_S} s: {done}"
    assert len(set(done)) > N_KILLS // 2, done
    assert done[N_KILLS // 4] < 2 * CHANGE < done[-1] < len(messages), done
    with opened(settings) as (pipeline, store):
        step_until(pipeline, lambda: n_stored(store) == len(messages))
        found, state = incidents(store), store.state("s")
    with opened(document(servers, topics, tmp_path / "whole")) as (pipeline, store):
        step_until(pipeline, lambda: pipeline.n_records >= len(messages))
        pipeline.write()
        expected, expected_state = incidents(store), store.state("s")
    assert any(i.confirmed_at for i in expected)
    assert found == expected
    assert state is not None
    assert expected_state is not None
    assert is_equal(checkpoint.loads(state), checkpoint.loads(expected_state))
