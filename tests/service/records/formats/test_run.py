"""A stream in every format at once is the stream that it is in plain JSON."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from detectors.base import Problem
from service.api.wiring import open_decoder
from service.domain.decision import ActionKind
from service.pipeline.pipeline import Pipeline
from service.pipeline.stream import Stream
from service.records.formats.decoder import Decoder
from service.records.formats.kserve import REQUEST, RESPONSE
from service.records.record import Record
from service.settings.service import ImageSettings, Settings
from service.settings.stream import StreamSettings
from service.sources.listed import ListSource
from service.store import states as checkpoint
from service.store.store import Store
from tests.service.pipeline.test_pipeline import CHANGE, run
from tests.service.records.formats.registry import StubRegistry, encoded, serving
from tests.service.runs import confirmed, pipeline_of, settings_of, work_off
from tests.service.streams import always, take, x_to_y_records

AVRO: dict[str, Any] = {
    "type": "record",
    "name": "E",
    "fields": [
        {"name": "stream", "type": "string"},
        {"name": "id", "type": "int"},
        {"name": "x", "type": "double"},
    ],
}
ATTRIBUTES = {"specversion": "1.0", "source": "/shop", "type": "t"}


def zipped(record: Record) -> Record:
    return replace(record, value=gzip.compress(record.value, 1))


def event(record: Record) -> Record:
    """A structured event that takes over what an event can say for its record."""
    body = json.loads(record.value)
    attributes = {**ATTRIBUTES, "id": "ce", "subject": body.pop("stream")}
    if "features" in body:
        attributes["id"] = body.pop("id")
    if "time" in body:
        attributes["time"] = body.pop("time")
    return replace(record, value=json.dumps({**attributes, "data": body}).encode())


def binary(record: Record) -> Record:
    whole = json.loads(event(record).value)
    value = json.dumps(whole.pop("data")).encode()
    headers = tuple((f"ce_{name}", text.encode()) for name, text in whole.items())
    return replace(record, value=value, headers=headers)


FORMATS: Sequence[Callable[[Record], Record]] = (lambda record: record, zipped, event, binary)


def mixed(records: Sequence[Record]) -> list[Record]:
    return [FORMATS[n % len(FORMATS)](record) for n, record in enumerate(records)]


def test_the_incidents_are_those_of_the_plain_stream(tmp_path: Path) -> None:
    plain = x_to_y_records(1300, shift="covariate", at=CHANGE, delay=20, seed=8)
    (tmp_path / "plain").mkdir()
    (tmp_path / "mixed").mkdir()
    expected = run(plain, tmp_path / "plain")
    assert confirmed(expected)
    assert run(mixed(plain), tmp_path / "mixed") == expected


def opened() -> Stream:
    return Stream(
        StreamSettings(name="s", problem=Problem.X_TO_Y),
        always(ActionKind.ALERT_ONLY),
        scorer=None,
        images=ImageSettings(),
        seed=0,
        decode=Decoder().decode,
    )


def test_records_that_are_held_back_survive_a_restart_with_their_headers() -> None:
    records = mixed(x_to_y_records(60, seed=1))
    whole, first, second = opened(), opened(), opened()
    take(whole, records)
    take(first, records[:20])
    second.restore(checkpoint.loads(checkpoint.dumps(first.snapshot())))
    assert checkpoint.dumps(second.snapshot()) == checkpoint.dumps(first.snapshot())
    take(second, records[20:])
    assert second.monitor.n_seen == 60
    assert checkpoint.dumps(second.snapshot()) == checkpoint.dumps(whole.snapshot())


def test_a_state_of_before_there_were_headers_is_read() -> None:
    records = x_to_y_records(20, seed=1)
    first, second = opened(), opened()
    take(first, records)
    state = first.snapshot()
    second.restore({**state, "held": [fields[:5] for fields in state["held"]]})
    assert checkpoint.dumps(second.snapshot()) == checkpoint.dumps(state)


def test_a_registry_that_is_away_is_waited_for_and_nothing_is_refused(tmp_path: Path) -> None:
    stub = StubRegistry()
    stub.add(1, AVRO)
    stub.status = 503
    with serving(stub) as url, avro_pipeline(url, tmp_path, 30) as (pipeline, store):

        def work() -> None:
            while pipeline.n_records < 30:
                pipeline.step()

        working = threading.Thread(target=work)
        working.start()
        until = time.monotonic() + 60
        while len(stub.asked) < 2:
            assert time.monotonic() < until
            time.sleep(0.01)
        stub.status = 200
        working.join(60)
        pipeline.write()
        assert (pipeline.n_records, pipeline.n_refused) == (30, 0)
        assert store.offsets() == {("avro", 0): 30}


def test_a_service_that_is_to_stop_does_not_wait_for_the_registry(tmp_path: Path) -> None:
    stub = StubRegistry()
    stub.status = 503
    with serving(stub) as url, avro_pipeline(url, tmp_path, 30) as (pipeline, store):
        stop = threading.Event()
        working = threading.Thread(target=pipeline.run, args=(stop,))
        working.start()
        until = time.monotonic() + 60
        while not stub.asked:
            assert time.monotonic() < until
            time.sleep(0.01)
        stop.set()
        working.join(60)
        assert not working.is_alive()
        assert store.offsets() == {}


@contextmanager
def avro_pipeline(url: str, folder: Path, n: int) -> Iterator[tuple[Pipeline, Store]]:
    """A pipeline over `n` records in Avro."""
    plain = settings_of(folder).model_dump(exclude_unset=True)
    source = {
        "kind": "kafka",
        "bootstrap_servers": "127.0.0.1:1",
        "topics": {"features": "avro"},
        "schema_registry": {"url": url},
    }
    settings = Settings.model_validate({**plain, "source": source})
    data = [{"stream": "s", "id": k, "x": k % 7} for k in range(n)]
    records = [Record("avro", 0, k, None, encoded(1, AVRO, d)) for k, d in enumerate(data)]
    store = Store(settings.store.url, lambda: 0.0)
    pipeline = pipeline_of(settings, ListSource(records), store, decoder=open_decoder(settings))
    try:
        yield pipeline, store
    finally:
        pipeline.close()
        store.close()


def test_requests_are_observed_and_responses_are_counted(tmp_path: Path) -> None:
    records, n = [], 60
    for k in range(n):
        for kind in (REQUEST, RESPONSE):
            attributes = {**ATTRIBUTES, "id": f"r{k}", "type": kind, "inferenceservicename": "s"}
            body = {"instances": [{"x": k % 7}]} if kind == REQUEST else {"predictions": [1]}
            headers = tuple((f"ce_{name}", text.encode()) for name, text in attributes.items())
            value = json.dumps(body).encode()
            records.append(Record("log", 0, len(records), None, value, headers=headers))
    settings = settings_of(tmp_path)
    store, registry = Store(settings.store.url, lambda: 0.0), CollectorRegistry()
    pipeline = pipeline_of(settings, ListSource(records), store, registry)
    work_off(pipeline)
    assert pipeline.streams["s"].monitor.n_seen == n
    assert pipeline.n_refused == 0
    assert store.offsets() == {("log", 0): 2 * n}
    ignored = {"reason": "inference_response"}
    assert registry.get_sample_value("shiftwatch_records_ignored_total", ignored) == n
    pipeline.close()
    store.close()
