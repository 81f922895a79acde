"""The parts of a stream watched by themselves: only camera 7, whatever the batches."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from models.scorer import Scored
from service.domain.decision import ActionKind
from service.domain.incident import Incident, IncidentState, Point
from service.monitor import segments
from service.monitor.events import Events
from service.monitor.label_outcomes import Change
from service.monitor.outcomes import Outcomes
from service.pipeline.stream import Stream
from service.records.decode import decode
from service.records.record import Observation, Record
from service.records.schema import FeatureSchema
from service.repair.scorers import Scorer
from service.settings.service import ImageSettings
from service.settings.stream import StreamSettings
from service.store.states import dumps, loads
from tests.service.streams import always, as_records, columns_of, joined_of, take

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


def stream_of(own: StreamSettings, scorer: Scorer | None = None) -> Stream:
    return Stream(
        own,
        always(ActionKind.ALERT_ONLY),
        scorer=scorer,
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
    return run_cut(stream, taken, range(batch, len(taken), batch))


def run_cut(
    stream: Stream, taken: Sequence[Record], cuts: Iterable[int], *, restart: bool = False
) -> list[Incident]:
    """The incidents of a stream that is cut at these records, and restarted there."""
    shown: list[Incident] = []
    start = 0
    for end in (*cuts, len(taken)):
        if start < end:
            shown += take(stream, taken[start:end]).outcomes.incidents
        start = end
        if restart:
            state = loads(dumps(stream.snapshot()))
            stream = stream_of(stream.settings, stream.scorer)
            stream.restore(state)
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


@pytest.mark.parametrize("end", ["closed", "repaired"])
def test_segments_are_watched_again_when_the_streams_incident_has_ended(end: str) -> None:
    stream = stream_of(settings())
    shown = confirmed(run(stream, events(set(CAMERAS))))
    later = Point(stream.monitor.n_seen + 100)
    assert stream.segments._is_stream_open(later)
    if end == "closed":
        stream.close(shown[0].id, "known")
    else:
        stream.repaired("version 2 promoted")
    assert not stream.segments._is_stream_open(later)


def test_a_segments_incident_can_be_given_up_for_that_of_another_part() -> None:
    stream = stream_of(settings())
    run(stream, events({"7"}, n=9000, shares="rare 7"))
    [incident] = [i for i in stream.open.values() if i.segment]
    into = dataclasses.replace(incident, id="inc-other", lane=3)
    [folded] = stream.fold(incident, into, []).incidents
    assert folded.state is IncidentState.FOLDED
    assert incident.id not in stream.open


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


class SumScorer:
    """Keeps the contract of the scoring process: says "1" where the features sum to more than 0."""

    classes: tuple[str, ...] = ("0", "1")
    input_shape: tuple[int, ...] = (2,)

    def score(self, inputs: npt.NDArray[Any], /) -> Scored:
        one = np.where(inputs.sum(axis=1) > 0, 0.9, 0.1)
        return Scored(np.stack([1 - one, one], axis=1))

    def close(self) -> None:
        pass


@pytest.mark.parametrize("late", [0, 150])
@pytest.mark.parametrize("scored_by", ["the records", "a champion"])
def test_a_segment_is_right_and_wrong_as_the_stream_that_serves_is(
    scored_by: str, late: int
) -> None:
    wrong: dict[str, list[bool]] = {}
    bodies = [json.loads(r.value) for r in events(set(), n=1200, late=late)]
    own: dict[str, dict[str, Any]] = {}
    for body in bodies:
        if "features" in body:
            says = int(sum(body["features"].values()) > 0)
            own[body["id"]] = {"camera": body["segment"]["camera"], "says": says}
            if scored_by == "the records":
                # What is said by the scores is served, whatever else was predicted.
                body |= {"scores": {"0": 1.0 - says, "1": says}, "prediction": 1 - says}
        if "label" in body:
            of = own[body["id"]]
            wrong.setdefault(of["camera"], []).append(of["says"] != body["label"])
    if scored_by == "the records":
        stream = stream_of(settings(classes=["0", "1"]))
    else:
        stream = stream_of(settings(model={"family": "tabular"}), SumScorer())
    run_cut(stream, as_records(bodies), (300, 301, 950), restart=True)
    stream_once = stream_of(stream.settings, stream.scorer)
    run(stream_once, as_records(bodies), 400)
    for camera in CAMERAS:
        accuracy = stream_once.segments._parts["camera", camera].monitor.served.accuracy
        assert accuracy == pytest.approx(1 - np.mean(wrong[camera]))


def muddled(n: int = 1600, seed: int = 11) -> list[Record]:
    """Labels along, late, early, twice, contradicting, never and of unknown ids; ids that repeat.

    Camera 7 moves halfway, and its labels are the rarest.
    """
    rng = np.random.default_rng(seed)
    timed: list[tuple[float, dict[str, object]]] = []
    for i in range(n):
        camera = str(rng.choice(["3", "7", "unseen"], p=[0.4, 0.5, 0.1]))
        moved = 1.2 if camera == "7" and i >= n // 2 else 0.0
        x = rng.normal(moved, 1, 2)
        id_ = f"e{i - 40 if i > 40 and rng.random() < 0.05 else i}"
        body: dict[str, object] = {
            "stream": "s",
            "id": id_,
            "time": f"2026-01-01T{i // 3600:02d}:{i // 60 % 60:02d}:{i % 60:02d}Z",
            "features": {"a": float(x[0]), "b": float(x[1])},
            "prediction": int(x[0] > 0),
            "segment": {} if camera == "unseen" else {"camera": camera, "site": camera * 2},
        }
        label = int(rng.random() < 1 / (1 + np.exp(-2 * x[0])))
        told = {"stream": "s", "id": id_, "label": label}
        way = rng.choice(["along", "late", "early", "twice", "contradicted", "never", "unknown"])
        if moved and rng.random() < 0.9:
            way = "never"
        if way == "along":
            body["label"] = label
        elif way == "unknown":
            timed.append((i, {**told, "id": f"unknown{i}"}))
        elif way != "never":
            timed.append((i + (-30 if way == "early" else 90) * rng.random(), told))
            if way in ("twice", "contradicted"):
                again = {**told, "label": label if way == "twice" else 1 - label}
                timed.append((i + 200 * rng.random(), again))
        timed.append((i, body))
    return as_records([body for _, body in sorted(timed, key=lambda pair: pair[0])])


MUDDLED = {
    "reference": {"warm_up": 400},
    "segments": {"by": ["camera", "site"], "warm_up": 200},
    "confirm": {"looks": [60, 120], "max_wait": 300, "min_labels": 30},
    "false_alarm_every": 2_000,
}


@pytest.mark.parametrize("max_pending", [10_000, 100])
def test_whatever_becomes_of_labels_the_cuts_and_restarts_change_nothing(max_pending: int) -> None:
    own = settings(**MUDDLED, labels={"max_pending": max_pending, "spill_from_start": True})
    taken = muddled()
    rng = np.random.default_rng(0)
    cuts = [
        range(1, len(taken)),
        [],
        np.flatnonzero(rng.random(len(taken)) < 0.02).tolist(),
        np.flatnonzero(rng.random(len(taken)) < 0.1).tolist(),
    ]
    told, states = [], []
    for n, cut in enumerate(cuts):
        stream = stream_of(own)
        shown = run_cut(stream, taken, cut, restart=n == 2)
        told.append(sorted(json.dumps(i.to_json()) for i in shown))
        if n != 2:
            states.append(stream.segments.snapshot()["waiting"][0].tolist())
    assert told[0] == told[1] == told[2] == told[3]
    assert states[0] == states[1] == states[2]
    assert any(json.loads(i)["segment"] for i in told[0])


@pytest.mark.parametrize("max_pending", [10_000, 40])
def test_segments_tell_of_the_same_labels_as_the_stream(max_pending: int) -> None:
    stream = stream_of(
        settings(**MUDDLED, labels={"max_pending": max_pending, "spill_from_start": True})
    )
    taken = muddled(1200)
    camera: dict[int, str] = {}
    joined: dict[str, int] = {}
    n_seen = 0
    for record in taken:
        body = decode(record)
        if isinstance(body, Observation):
            camera[n_seen] = body.segment.get("camera", "")
            n_seen += 1
        for index, _, _ in joined_of(take(stream, [record]).outcomes):
            joined[camera[index]] = joined.get(camera[index], 0) + 1
    for value in ("3", "7"):
        part = stream.segments._parts["camera", value]
        assert part.monitor.n_labelled == joined[value]
        ids = stream.monitor.waiting.ids(range(n_seen))
        waiting = [i for i in range(n_seen) if stream.monitor.waiting.ids([i])]
        own = [i for i in waiting if camera[i] == value]
        assert [
            part.places[i] for i in range(len(part.places)) if part.monitor.waiting.ids([i])
        ] == (own)
        assert part.monitor.waiting.n_waiting == len(own) <= len(ids)


def test_a_label_that_comes_before_its_observation_is_one_of_its_segment() -> None:
    bodies: list[object] = []
    rng = np.random.default_rng(0)
    for i in range(300):
        bodies.append({"stream": "s", "id": f"e{i}", "label": int(rng.random() < 0.5)})
        features = {"a": float(rng.normal()), "b": float(rng.normal())}
        segment = {"camera": "7"}
        bodies.append({"stream": "s", "id": f"e{i}", "features": features, "segment": segment})
    stream = stream_of(settings())
    run(stream, as_records(bodies))
    part = stream.segments._parts["camera", "7"].monitor
    assert part.n_labelled == stream.monitor.n_labelled == 300
    assert part.baseline.labelled


def test_an_open_incident_stays_where_it_was_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "REMEMBERED", 40)
    taken = events({"7"}, n=9000, shares="rare 7")
    told = []
    for batch in (400, 3000):
        stream = stream_of(settings())
        run(stream, taken, batch)
        (own,) = (i for i in stream.open.values() if i.segment)
        assert own.confirmed_at is not None
        first = stream.segments._parts["camera", "7"].places[0]
        assert own.opened_at.index < first  # the place is forgotten
        (closed,) = stream.close(own.id, "closed by hand").incidents
        assert (closed.opened_at, closed.confirmed_at) == (own.opened_at, own.confirmed_at)
        told.append(own.opened_at)
    assert told[0] == told[1]


def test_labels_before_the_next_observation_are_for_the_old_reference() -> None:
    stream = stream_of(settings())
    run(stream, events(set(), n=1000))
    before = dict(stream.segments.values)
    nothing = np.empty(0, np.int64)
    events_of = functools.partial(Events, nothing, nothing.astype(bool), nothing, [])
    columns = functools.partial(
        columns_of, schema=FeatureSchema.declared(dict.fromkeys("ab", "numeric"))
    )
    renewed = Outcomes(renewed=[1000, 1002])
    shown = stream.segments.update(columns([]), events_of(), renewed, 1000)
    assert (shown, stream.segments.values) == ([], before)
    restored = stream_of(settings())
    restored.restore(loads(dumps(stream.snapshot())))
    row = {"a": 0.0, "b": 0.0}
    observation = columns([Observation("s", "x", None, row, segment={"camera": "7"})])
    for n_seen, n_own in ((1000, 1), (1001, 2), (1002, 1), (1003, 2)):
        restored.segments.update(observation, events_of(changes=[Change()]), Outcomes(), n_seen)
        assert set(restored.segments.values) == {("camera", "7")}
        assert restored.segments._parts["camera", "7"].monitor.n_seen == n_own


def test_where_a_segment_stands_in_the_stream_takes_little_room() -> None:
    stream = stream_of(settings())
    run(stream, events(set(), n=400))
    before = len(dumps(stream.snapshot()))
    part = stream.segments._parts["camera", "7"]
    gaps = np.random.default_rng(0).geometric(0.02, segments.REMEMBERED)
    part.places.extend((part.places[-1] + np.cumsum(gaps)).tolist())
    state = dumps(stream.snapshot())
    assert len(state) - before < 2.1 * segments.REMEMBERED
    restored = stream_of(settings())
    restored.restore(loads(state))
    assert restored.segments._parts["camera", "7"].places == part.places
