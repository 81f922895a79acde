"""kill -9 at a hundred random instants: the same incidents, label joins and detector states."""

from __future__ import annotations

import random
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from service import checkpoint
from service.store import Store
from tests.kafka.broker import new_topic, produce
from tests.kafka.lives import Life
from tests.kafka.runs import Topics, document, incidents, opened, step_until

N_KILLS = 100
N = 2500


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
    # The change comes in the middle, so that kills fall into every phase.
    messages = topics.messages(N, at=N // 2)
    produce(servers, messages)
    settings = document(
        servers, topics, tmp_path / "killed", max_poll_records=5, group_instance_id="one"
    )
    turn = random.Random(11)
    done = []
    with closing(Store(settings["store"]["url"], time.time)) as store:
        for n in range(N_KILLS):
            life = Life(settings)
            if n % 5:
                life.wait_until_begun(60.0)
                time.sleep(turn.uniform(0.0, 0.2))
            else:  # while it takes the lane over
                time.sleep(turn.uniform(0.0, 0.6))
            life.kill()
            done.append(sum(store.offsets().values()))
    assert len(set(done)) > N_KILLS // 3, done
    assert done[-1] < len(messages), "it was done before the last kill"
    with opened(settings) as (pipeline, store):
        step_until(pipeline, lambda: sum(store.offsets().values()) == len(messages))
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
