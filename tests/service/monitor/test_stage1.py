"""A detector that cannot learn is left out: people see why, and the stream goes on."""

from __future__ import annotations

import numpy as np

from service.monitor.phase import Phase
from service.pipeline.stream import Stream
from service.records.record import Record
from service.settings.stream import StreamSettings
from service.store.states import dumps, loads
from tests.service.monitor.test_segments import stream_of
from tests.service.streams import as_records, take

WARM_UP = 600


def settings(*detectors: str) -> StreamSettings:
    return StreamSettings.model_validate(
        {
            "name": "s",
            "problem": "x_to_y",
            "reference": {"warm_up": WARM_UP},
            "false_alarm_every": 20_000,
            "detectors": list(detectors),
            "confirm": {"looks": [100, 200], "max_wait": 2000, "min_labels": 40},
        }
    )


def events(n: int, *, share: float) -> list[Record]:
    """Inputs move at 700; each class is as frequent as `share` says."""
    rng = np.random.default_rng(7)
    bodies = [
        {
            "stream": "s",
            "id": f"e{i}",
            "features": {
                "a": float(rng.normal(1.5 * (i >= 700))),
                "b": None if rng.random() < 0.99 else float(rng.normal()),
            },
            "label": int(rng.random() < share),
        }
        for i in range(n)
    ]
    return as_records(bodies)


def taken(stream: Stream, given: list[Record]) -> list[str]:
    return [str(i.to_json()) for i in take(stream, given).outcomes.incidents]


def test_the_stream_goes_on_and_says_which_one_is_left_out_and_why() -> None:
    stream = stream_of(settings("cusum", "e_detector"))
    ((watch, reason),) = take(stream, events(WARM_UP + 50, share=0.02)).outcomes.left_out.items()
    assert watch == "e-detector of the rule"
    assert reason.startswith("a reference needs 30 rows of two classes")
    watches = stream.monitor.watches
    assert stream.monitor.phase is Phase.WATCHING
    assert {w.name for w in watches.all} == {"inputs", "residuals"}
    assert list(watches.left_out) == ["e-detector of the rule"]


def test_a_nearly_empty_column_leaves_no_detector_out() -> None:
    stream = stream_of(settings("cusum", "newma", "conformal", "sd_ewma", "adwin"))
    take(stream, events(WARM_UP + 50, share=0.5))
    assert not stream.monitor.watches.left_out


def test_a_restart_leaves_out_the_same_and_changes_nothing() -> None:
    given = events(1200, share=0.02)
    whole = stream_of(settings("newma", "e_detector"))
    seen = taken(whole, given)
    first = stream_of(settings("newma", "e_detector"))
    cut = WARM_UP + 50
    begun = taken(first, given[:cut])
    second = stream_of(settings("newma", "e_detector"))
    second.restore(loads(dumps(first.snapshot())))
    assert second.monitor.watches.left_out == first.monitor.watches.left_out != {}
    rest = take(second, given[cut:]).outcomes
    assert begun + [str(i.to_json()) for i in rest.incidents] == seen
    assert seen
    assert not rest.left_out
