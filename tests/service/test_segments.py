"""The parts of a stream watched by themselves: only camera 7, whatever the batches."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from service import records
from service.checkpoint import dumps, loads
from service.incidents import Incident, IncidentState
from service.policy import ActionKind, Decision
from service.records import Record
from service.settings import ImageSettings, StreamSettings
from service.stream import Stream
from tests.service.streams import as_records

CAMERAS = ["3", "5", "6", "7"]
SHARES = {"even": [0.25, 0.25, 0.25, 0.25], "rare 7": [0.32, 0.32, 0.31, 0.05]}
CHANGE = 4500


def settings(**fields: object) -> StreamSettings:
    return StreamSettings.model_validate(
        {
            "name": "s",
            "problem": "x_to_y",
            "reference": {"warm_up": 2000},
            "false_alarm_every": 20_000,
            "segments": {"by": ["camera"], "warm_up": 200},
            "confirm": {"looks": [100, 200], "max_wait": 2000, "min_labels": 40},
            **fields,
        }
    )


def stream_of(own: StreamSettings) -> Stream:
    return Stream(
        own,
        lambda verdict: Decision(ActionKind.ALERT_ONLY, "tested only"),
        scorer=None,
        images=ImageSettings(),
        seed=1,
    )


def events(
    moved: set[str], *, n: int = 5500, seed: int = 5, late: int = 0, shares: str = "even"
) -> list[Record]:
    """Two features that decide the label; from `CHANGE` on some cameras see other ones."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    camera = rng.choice(CAMERAS, n, p=SHARES[shares])
    x[np.isin(camera, list(moved)) & (np.arange(n) >= CHANGE)] += 1.5
    y = rng.random(n) < 1 / (1 + np.exp(-2 * x[:, 0]))
    bodies: list[dict[str, object]] = []
    for i in range(n):
        body: dict[str, object] = {
            "stream": "s",
            "id": f"e{i}",
            "features": {"a": float(x[i, 0]), "b": float(x[i, 1])},
            "segment": {"camera": str(camera[i])},
        }
        if not late:
            body["label"] = int(y[i])
        bodies.append(body)
        if late and i >= late:
            bodies.append({"stream": "s", "id": f"e{i - late}", "label": int(y[i - late])})
    return as_records(bodies)


def run(stream: Stream, taken: Sequence[Record], batch: int = 500) -> list[Incident]:
    shown: list[Incident] = []
    for start in range(0, len(taken), batch):
        decoded = [(r, records.decode(r)) for r in taken[start : start + batch]]
        shown += stream.take(decoded).outcomes.incidents
    return shown


def confirmed(incidents: Sequence[Incident]) -> list[Incident]:
    return [i for i in incidents if i.state is IncidentState.CONFIRMED]


@pytest.mark.parametrize("late", [0, 200])
def test_what_the_whole_stream_saw_is_traced_to_one_camera(late: int) -> None:
    found = confirmed(run(stream_of(settings()), events({"7"}, late=late)))
    whole = [i for i in found if not i.segment]
    assert len(whole) == 1
    place = whole[0].explanation["segments"]["camera"]
    assert list(place["moved"]) == ["7"]
    assert place["only"]
    assert "only camera 7" in whole[0].detail


def test_the_fault_of_a_rare_camera_is_its_own_incident() -> None:
    found = confirmed(run(stream_of(settings()), events({"7"}, n=9000, shares="rare 7")))
    own = [i for i in found if i.segment]
    assert [i.segment for i in own] == [{"camera": "7"}]
    assert own[0].stream == "s"
    assert own[0].kind == "covariate"
    assert own[0].confirmed_at is not None
    assert CHANGE < own[0].confirmed_at.index < 9000
    assert own[0].change_point is not None
    assert abs(own[0].change_point - CHANGE) < 600


def test_a_shift_of_the_whole_stream_is_told_once_and_not_by_every_camera() -> None:
    found = confirmed(run(stream_of(settings()), events(set(CAMERAS))))
    whole = [i for i in found if not i.segment]
    assert len(whole) == 1
    place = whole[0].explanation["segments"]["camera"]
    assert len(place["moved"]) >= 3
    assert len(found) <= 2  # a camera may have been quicker than the stream


def test_results_do_not_depend_on_how_the_stream_is_cut() -> None:
    taken = events({"7"}, late=100)
    runs = [run(stream_of(settings()), taken, batch) for batch in (97, 500, 8000)]
    told = [[i.to_json() for i in confirmed(r)] for r in runs]
    assert told[0] == told[1] == told[2]
    assert told[0]


def test_a_restored_stream_goes_on_as_if_never_interrupted() -> None:
    taken = events({"7"})
    expected = [i.to_json() for i in confirmed(run(stream_of(settings()), taken))]
    first, second = stream_of(settings()), stream_of(settings())
    shown = run(first, taken[:4700])
    second.restore(loads(dumps(first.snapshot())))
    shown += run(second, taken[4700:])
    assert [i.to_json() for i in confirmed(shown)] == expected


def test_more_values_than_are_watched_are_counted() -> None:
    stream = stream_of(settings(segments={"by": ["camera"], "warm_up": 300, "max_values": 2}))
    run(stream, events(set(), n=400))
    assert len(stream.segments.values) == 2
    assert stream.segments.unwatched > 100


def test_a_segments_incident_can_be_closed_by_hand() -> None:
    stream = stream_of(settings())
    run(stream, events({"7"}, n=9000, shares="rare 7"))
    own = [i for i in stream.open.values() if i.segment]
    closed = stream.close(own[0].id, "closed by hand").incidents
    assert [i.state for i in closed] == [IncidentState.RESOLVED]
    assert closed[0].segment == {"camera": "7"}
    assert own[0].id not in stream.open


def test_a_new_reference_of_the_stream_is_one_of_its_segments() -> None:
    stream = stream_of(settings())
    run(stream, events(set(), n=2500))
    assert "warming_up" not in stream.segments.values.values()
    stream.repaired("a new champion")
    assert not stream.segments.values
    run(stream, events(set(), n=300))
    assert set(stream.segments.values.values()) == {"warming_up"}


def test_the_promise_is_shared_by_the_stream_and_its_segments() -> None:
    alone = stream_of(settings(segments={"by": []})).monitor.suspicion_interval
    shared = stream_of(settings(segments={"by": ["camera", "site"]})).monitor.suspicion_interval
    assert shared == pytest.approx(3 * alone)


def test_json_holds_an_incident_with_its_explanation() -> None:
    for incident in run(stream_of(settings()), events(set(CAMERAS), n=5000)):
        assert Incident.from_json(json.loads(json.dumps(incident.to_json()))).id == incident.id
