"""The processes that `benchmarks.stream` starts: bare loops, the glue that people write, the
service's source, the service, a replay, and a producer.

Each is `python -m benchmarks.stream_worker MODE`, reads its parameters as JSON from standard
input, and writes what it measures as JSON lines to standard output.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import structlog
from confluent_kafka import Consumer, Producer
from kafka import KafkaConsumer

from service.api.app import open_app
from service.api.wiring import open_source
from service.settings.service import Settings
from service.settings.source import SourceSettings
from service.sources.files import FileSource
from service.sources.source import Partition

SAMPLE_S = 0.25
BARE_SAMPLE_S = 0.02
"""A bare loop has read the records of a quick run within half a second."""
BLOCK = 10_000


def main() -> None:
    """Run the mode that is named."""
    parameters = json.load(sys.stdin)
    if cores := parameters.get("cores"):
        os.sched_setaffinity(0, cores)
    modes: dict[str, Callable[..., None]] = {
        "bare": bare,
        "glue": glue,
        "bare_file": bare_file,
        "replay": replay,
        "source": source,
        "service": service,
        "produce": produce,
        "write_files": write_files,
    }
    modes[sys.argv[1]](**parameters["args"])


def tell(**what: Any) -> None:
    """Write one line to the parent."""
    print(json.dumps(what), flush=True)


def rss_bytes() -> int:
    """Memory that this process has resident."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def bare(servers: str, topic: str, n: int, client: str, decoder: str) -> None:
    """Read `n` records and decode them, or only read them, and nothing else."""
    loads: Any = {"json": json.loads, "orjson": orjson.loads, "nothing": None}[decoder]
    _tell_while(n, _decoded(_batches(client, servers, topic), loads))


def glue(servers: str, topic: str, n: int) -> None:
    """What people write: kafka-python, `json`, and one of River's ADWIN for each feature."""
    from river.drift import ADWIN  # noqa: PLC0415 - slow to import, only needed here

    detectors: dict[str, dict[str, ADWIN]] = {}

    def watched() -> Iterator[int]:
        for values in _batches("kafka-python", servers, topic):
            for value in values:
                body = json.loads(value)
                own = detectors.setdefault(body["stream"], {})
                for name, number in body["features"].items():
                    if name not in own:
                        own[name] = ADWIN()
                    own[name].update(number)
                    if own[name].drift_detected:
                        pass
            yield len(values)

    _tell_while(n, watched())


def bare_file(path: str, n: int) -> None:
    """Decode a file's JSON lines, or a Parquet file's rows, and nothing else."""
    _tell_while(n, _json_lines(path) if path.endswith(".jsonl") else _rows(path))


def _json_lines(path: str) -> Iterator[int]:
    with Path(path).open("rb") as file:
        for line in file:
            json.loads(line)
            yield 1


def _rows(path: str) -> Iterator[int]:
    from pyarrow.parquet import ParquetFile  # noqa: PLC0415 - slow to import, only needed here

    for batch in ParquetFile(path).iter_batches(1000, use_threads=False):
        yield len(batch.to_pylist())


def replay(settings: dict[str, Any], path: str) -> None:
    """Read a file with the service, as `shiftwatch replay` does."""
    _log_warnings()
    source = FileSource(Path(path))
    with open_app(Settings.model_validate(settings), source, durable=False) as app:
        next_sample = 0.0
        while app.pipeline.step(timeout_s=0.05) or not app.pipeline.write():
            if (now := time.perf_counter()) >= next_sample:
                _sample(app.pipeline.n_records)
                next_sample = now + BARE_SAMPLE_S
        _sample(app.pipeline.n_records)


def write_files(folder: str, n: int, streams: list[str], seed: int) -> None:
    """Write n records of each stream by turns as JSON lines, and the same rows as Parquet."""
    import pyarrow as pa  # noqa: PLC0415 - slow to import, only needed here
    from pyarrow import parquet  # noqa: PLC0415

    sources = [events(s, n, seed + k) for k, s in enumerate(streams)]
    rows: list[dict[str, Any]] = []
    with Path(folder, "records.jsonl").open("wb") as file:
        for step in zip(*sources, strict=True):
            for body in step:
                file.write(body + b"\n")
                record = json.loads(body)
                rows.append({k: v for k, v in record.items() if k != "features"})
                rows[-1] |= record["features"]
    parquet.write_table(pa.Table.from_pylist(rows), Path(folder, "records.parquet"))
    tell(sent=len(rows))


def source(settings: dict[str, Any], n: int) -> None:
    """Read `n` records as the service does, and nothing else."""
    _log_warnings()
    with closing(open_source(SourceSettings.model_validate(settings))) as opened:
        opened.start(_Nobody())
        _tell_while(n, (len(opened.poll(500, 0.1)) for _ in count()))


class _Nobody:
    """Takes all lanes from their beginnings, and keeps nothing."""

    def assigned(self, lanes: Collection[int], total: int) -> Mapping[Partition, int]:  # noqa: ARG002 - wants all
        return {}

    def begun(
        self, offsets: Mapping[Partition, int], gone: Mapping[Partition, int] | None = None
    ) -> None:
        pass

    def revoked(self, lanes: Collection[int]) -> None:
        pass

    def lost(self, lanes: Collection[int]) -> None:
        pass


def _decoded(batches: Iterator[list[bytes]], loads: Callable[[bytes], Any] | None) -> Iterator[int]:
    for values in batches:
        if loads is not None:
            for value in values:
                loads(value)
        yield len(values)


def _tell_while(n: int, batches: Iterator[int]) -> None:
    """Say now and then how many records were read, up to `n`."""
    read = 0
    next_sample = 0.0
    for more in batches:
        read += more
        if (now := time.perf_counter()) >= next_sample or read >= n:
            tell(at=time.time(), n=read, cpu=time.process_time())
            next_sample = now + BARE_SAMPLE_S
        if read >= n:
            return


def _batches(client: str, servers: str, topic: str) -> Iterator[list[bytes]]:
    if client == "confluent":
        consumer = Consumer(
            {
                "bootstrap.servers": servers,
                "group.id": f"bare-{os.getpid()}",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
            }
        )
        consumer.subscribe([topic])
        while True:
            yield [message.value() or b"" for message in consumer.consume(500, 0.1)]
    python = KafkaConsumer(
        topic,
        bootstrap_servers=servers,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    while True:
        found = python.poll(100, max_records=500)
        yield [record.value for records in found.values() for record in records]


def service(settings: dict[str, Any], n: float = float("inf"), lanes: int | None = None) -> None:
    """Run the service until it has processed `n` records, or is told to end.

    With `lanes` it begins when it has so many of them, as it would have in the long run.
    """
    _log_warnings()
    checked = Settings.model_validate(settings)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with open_app(checked, open_source(checked.source)) as app:
        pipeline = app.pipeline
        working = threading.Event()

        def watch() -> None:
            while not working.wait(SAMPLE_S):
                _sample(pipeline.n_records)
                if pipeline.n_records >= n:
                    stop.set()

        while lanes is not None and len(pipeline.lanes) != lanes and not stop.is_set():
            pipeline.source.poll(0, SAMPLE_S)
        watching = threading.Thread(target=watch)
        watching.start()
        app.run(stop)
        working.set()
        watching.join()
        _sample(pipeline.n_records)


def _log_warnings() -> None:
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _sample(n: int) -> None:
    tell(at=time.time(), n=n, rss=rss_bytes(), cpu=time.process_time())


def events(
    stream: str, n: int, seed: int, labelled: float = 0.0, shift_at: int | None = None
) -> Iterator[bytes]:
    """Records of about 1 kB: 32 features, a prediction, and for a share of them a label.

    The label follows the features through one logistic rule, and the model is right about it
    most of the time. From `shift_at` on four of the features are larger.
    """
    rng = np.random.default_rng(seed)
    names = [f"feature_{k:02d}" for k in range(32)]
    for first in range(0, n, BLOCK):
        m = min(BLOCK, n - first)
        x = rng.normal(size=(m, len(names)))
        if shift_at is not None:
            x[np.arange(first, first + m) >= shift_at, :4] += 2.0
        p = 1 / (1 + np.exp(-2 * x[:, 0] - x[:, 1]))
        label = (rng.random(m) < p).astype(int)
        known = rng.random(m) < labelled
        rows = np.round(x, 12).tolist()
        for k in range(m):
            body = {
                "stream": stream,
                "id": f"{stream}-{first + k}",
                "features": dict(zip(names, rows[k], strict=True)),
                "prediction": str(int(p[k] > 0.5)),
                "label": str(label[k]) if known[k] else None,
            }
            yield json.dumps(body, separators=(",", ":")).encode()


def produce(
    servers: str,
    topic: str,
    streams: list[str],
    n: int,
    seed: int,
    labelled: float = 0.0,
    rate: float | None = None,
    shift_at: int | None = None,
) -> None:
    """Write `n` records of each stream, stream k to partition k modulo their number.

    With a `rate`, so many records a second over all streams, each stamped with its time.
    """
    producer = Producer(
        {
            "bootstrap.servers": servers,
            "linger.ms": 5,
            "queue.buffering.max.messages": 200_000,
            "acks": "1",
        }
    )
    partitions = len(producer.list_topics(topic, timeout=10).topics[topic].partitions)
    sources = [events(s, n, seed + k, labelled, shift_at) for k, s in enumerate(streams)]
    begin = time.time()
    sent = size = 0
    for step in zip(*sources, strict=True):
        for k, body in enumerate(step):
            value = body
            if rate is not None:
                while (left := begin + sent / rate - time.time()) > 0:
                    producer.poll(min(left, 0.01))
                value = body[:-1] + f',"time":"{datetime.now(UTC).isoformat()}"}}'.encode()
            _send(producer, topic, streams[k], value, k % partitions)
            sent += 1
            size += len(value)
        producer.poll(0)
    producer.flush(60)
    tell(sent=sent, seconds=time.time() - begin, bytes=size / sent)


def _send(producer: Producer, topic: str, key: str, value: bytes, partition: int) -> None:
    while True:
        try:
            producer.produce(topic, value, key.encode(), partition=partition)
        except BufferError:
            producer.poll(0.05)
        else:
            return


if __name__ == "__main__":
    main()
