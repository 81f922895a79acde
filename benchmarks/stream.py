"""How fast the service reads a real broker, how late it says so, and whether its memory stays flat.

``python -m benchmarks.stream [--quick] [--parts rate,replay,latency,memory]``

Every rate stands beside a loop of the bare client that only decodes the same records, in the same
run and on one core too. The broker of the tests runs beside them on the other core.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.stream_page import page
from tests.kafka.broker import Broker, new_topic

HERE = Path(__file__).parent / "results" / "stream"
STREAMS = ["a", "b"]
CLIENTS = ("kafka-python", "confluent")
DECODERS = ("nothing", "json", "orjson")
LABELLED = (0.0, 0.1, 1.0)
"""Shares of the events that have their label with them."""
ROUNDS = 3
SAMPLE_S = 0.25
LIMIT_S = 600.0
FILES = ("records.jsonl", "records.parquet")
GLUE = "the glue people write: kafka-python, json, 32 River ADWIN"
WARM = 0.25
"""Part of the records after which a rate is measured: the reference is complete by then."""

Sample = Mapping[str, float]


class Worker:
    """A process of `benchmarks.stream_worker`."""

    def __init__(self, mode: str, *, cores: Sequence[int] | None = None, **args: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.stream_worker", mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        assert self._process.stdin is not None
        json.dump({"cores": cores, "args": args}, self._process.stdin)
        self._process.stdin.close()

    def lines(self) -> Iterator[Sample]:
        """What it says, until it ends."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield json.loads(line)

    def finish(self) -> list[Sample]:
        """Wait for its end; everything that it has not said yet."""
        said = list(self.lines())
        if self._process.wait() not in (0, -15):
            raise RuntimeError(f"a worker ended with {self._process.returncode}")
        return said

    def end(self) -> None:
        """Ask it to end."""
        self._process.terminate()


@contextmanager
def running_broker() -> Iterator[str]:
    """HOST:PORT of a broker of its own."""
    with tempfile.TemporaryDirectory(prefix="shiftwatch-bench-") as folder:
        broker = Broker(Path(folder))
        broker.start()
        try:
            yield broker.servers
        finally:
            broker.stop()


def settings_of(
    servers: str, topic: str, folder: str, client: str, streams: Sequence[str]
) -> dict[str, Any]:
    """The service with its defaults, on this topic."""
    return {
        "store": {"url": f"sqlite:///{folder}/s.db"},
        "registry": {"path": f"{folder}/models"},
        "dead_letters": {"path": f"{folder}/dead.jsonl"},
        "http": {"port": None},
        "source": {
            "kind": "kafka",
            "client": client,
            "bootstrap_servers": servers,
            "topics": {"features": topic},
            "group_id": f"bench-{time.time_ns()}",
            "session_timeout_ms": 6000,
        },
        "streams": [{"name": s, "problem": "x_to_y"} for s in streams],
    }


def say(what: str) -> None:
    """Show progress."""
    print(f"[{time.strftime('%H:%M:%S')}] {what}", file=sys.stderr, flush=True)


# -- rate ---------------------------------------------------------------------------------------


def rate_of(samples: Sequence[Sample], first: float) -> float:
    """Records a second from a count of records on."""
    inside = [s for s in samples if s["n"] >= first]
    return (inside[-1]["n"] - inside[0]["n"]) / (inside[-1]["at"] - inside[0]["at"])


def cpu_us(samples: Sequence[Sample], first: float) -> float:
    """Microseconds of processor time a record."""
    inside = [s for s in samples if s["n"] >= first]
    spent = inside[-1]["cpu"] - inside[0]["cpu"]
    return 1e6 * spent / (inside[-1]["n"] - inside[0]["n"])


class Rates:
    """Rates of the bare loops, of the source, of one process and of two, by turns."""

    def __init__(self, servers: str, n: int) -> None:
        self._servers = servers
        self._total = n * len(STREAMS)
        self._topics: dict[float, str] = {}
        self._bytes = 0.0
        for labelled in LABELLED:
            topic = new_topic(servers, "rate", partitions=len(STREAMS))
            say(f"writing {self._total:,} records, {labelled:.0%} with labels")
            [sent] = Worker(
                "produce",
                servers=servers,
                topic=topic,
                streams=STREAMS,
                n=n,
                seed=1,
                labelled=labelled,
            ).finish()
            self._topics[labelled] = topic
            self._bytes = sent["bytes"]
        self._found: dict[str, list[dict[str, float]]] = {}

    def measure(self, rounds: int) -> dict[str, Any]:
        """Take some rounds of everything."""
        for _ in range(rounds):
            for client in CLIENTS:
                for decoder in DECODERS:
                    self._bare(client, decoder)
                self._source(client)
                for labelled in LABELLED:
                    self._one_process(client, labelled)
                self._two_processes(client, LABELLED[0])
            self._glue()
        return {
            "records": self._total,
            "bytes_per_record": self._bytes,
            "measured": self._found,
        }

    def _note(self, name: str, rate: float, cpu: float | None) -> None:
        self._found.setdefault(name, []).append(
            {"events_per_s": rate, "cpu_us_per_event": cpu or 0}
        )
        say(f"{name}: {rate:,.0f} events/s" + (f", {cpu:.1f} us of processor each" if cpu else ""))

    def _bare(self, client: str, decoder: str) -> None:
        said = Worker(
            "bare",
            cores=[0],
            servers=self._servers,
            topic=self._topics[LABELLED[0]],
            n=self._total,
            client=client,
            decoder=decoder,
        ).finish()
        first = WARM * self._total
        self._note(f"bare {client}, {decoder}", rate_of(said, first), cpu_us(said, first))

    def _glue(self) -> None:
        # It is slow, and as slow from beginning to end.
        total = self._total // 8
        topic = self._topics[LABELLED[0]]
        said = Worker("glue", cores=[0], servers=self._servers, topic=topic, n=total).finish()
        self._note(GLUE, rate_of(said, WARM * total), cpu_us(said, WARM * total))

    def _source(self, client: str) -> None:
        document = settings_of(self._servers, self._topics[LABELLED[0]], "", client, STREAMS)
        said = Worker("source", cores=[0], settings=document["source"], n=self._total).finish()
        first = WARM * self._total
        self._note(f"the source alone, {client}", rate_of(said, first), cpu_us(said, first))

    def _one_process(self, client: str, labelled: float) -> None:
        # A stream with labels is slower; what counts is the rate, not how long it is watched.
        total = self._total if labelled == 0 else self._total // 4
        with tempfile.TemporaryDirectory() as folder:
            topic = self._topics[labelled]
            document = settings_of(self._servers, topic, folder, client, STREAMS)
            said = Worker("service", cores=[0], settings=document, n=total).finish()
        name = f"service, {client}, {labelled:.0%} labelled"
        self._note(name, rate_of(said, WARM * total), cpu_us(said, WARM * total))

    def _two_processes(self, client: str, labelled: float) -> None:
        """Records a second of two processes together, while both work."""
        with tempfile.TemporaryDirectory() as folder:
            topic = self._topics[labelled]
            document = settings_of(self._servers, topic, folder, client, STREAMS)
            pair = [Worker("service", cores=[k], settings=document, lanes=1) for k in (0, 1)]
            said: list[list[Sample]] = [[], []]
            readers = [
                threading.Thread(target=lambda w=w, out=out: out.extend(w.lines()))
                for w, out in zip(pair, said, strict=True)
            ]
            for reader in readers:
                reader.start()
            until = time.monotonic() + LIMIT_S
            while sum(out[-1]["n"] if out else 0 for out in said) < self._total:
                if time.monotonic() > until:
                    raise RuntimeError(f"two processes did not read all within {LIMIT_S} s")
                time.sleep(SAMPLE_S)
            for worker in pair:
                worker.end()
            for reader in readers:
                reader.join()
            for worker in pair:
                worker.finish()
        name = f"two processes, {client}, {labelled:.0%} labelled"
        self._note(name, rate_together(said, WARM * self._total / 2), None)


def rate_together(said: Sequence[Sequence[Sample]], warm: float) -> float:
    """Records a second of all processes, while each of them works after its warm-up."""
    begin = max(next(s["at"] for s in samples if s["n"] > warm) for samples in said)
    last = [max(s["n"] for s in samples) for samples in said]
    end = min(
        next(s["at"] for s in samples if s["n"] == n) for samples, n in zip(said, last, strict=True)
    )
    done = 0.0
    for samples in said:
        at, n = [s["at"] for s in samples], [s["n"] for s in samples]
        done += float(np.interp(end, at, n) - np.interp(begin, at, n))
    return done / (end - begin)


# -- replay -------------------------------------------------------------------------------------


def measure_replay(n: int, rounds: int) -> dict[str, Any]:
    """Records a second of a file, of the loop that only decodes it and of the replay, by turns."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        say(f"writing {n * len(STREAMS):,} records as JSON lines and as Parquet")
        Worker("write_files", folder=folder, n=n, streams=STREAMS, seed=1).finish()
        total = n * len(STREAMS)
        for _ in range(rounds):
            for name in FILES:
                path = str(Path(folder, name))
                said = Worker("bare_file", cores=[0], path=path, n=total).finish()
                found.setdefault(f"bare, {name}", []).append(rate_of(said, WARM * total))
                with tempfile.TemporaryDirectory() as own:
                    document = settings_of("", "", own, "", STREAMS) | {"source": {}}
                    document["checkpoint"] = {"every_records": 100_000, "every_s": 60.0}
                    said = Worker("replay", cores=[0], settings=document, path=path).finish()
                found.setdefault(f"replay, {name}", []).append(rate_of(said, WARM * total))
                say(f"{name}: {found[f'replay, {name}'][-1]:,.0f} records/s")
    return {"records": total, "measured": found}


# -- latency ------------------------------------------------------------------------------------


def measure_latency(servers: str, n_streams: int, rate: float) -> dict[str, Any]:
    """From the moment an event is handed to the producer to its alarm in the store."""
    found: dict[str, Any] = {"events_per_s": rate, "streams": n_streams}
    for setting, has_labels in (("one topic", False), ("with a silent labels topic", True)):
        late = sorted(_latencies(servers, n_streams, rate, has_labels=has_labels))
        found[setting] = {
            "alarms": len(late),
            "p50_ms": 1e3 * late[len(late) // 2],
            "p99_ms": 1e3 * late[int(0.99 * (len(late) - 1))],
            "max_ms": 1e3 * late[-1],
        }
        say(f"latency, {setting}: {found[setting]}")
    return found


def _latencies(servers: str, n_streams: int, rate: float, *, has_labels: bool) -> list[float]:
    """Seconds from an alarm's event to the transaction that holds its incident."""
    names = [f"s{k:03d}" for k in range(n_streams)]
    topic = new_topic(servers, "latency", partitions=2)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        document = settings_of(servers, topic, folder, CLIENTS[0], names)
        if has_labels:
            document["source"]["topics"]["labels"] = new_topic(servers, "labels", partitions=2)
        for stream in document["streams"]:
            stream["reference"] = {"warm_up": 200}
        worker = Worker("service", cores=[0], settings=document)
        stack.callback(worker.end)
        Worker(
            "produce",
            cores=[1],
            servers=servers,
            topic=topic,
            streams=names,
            n=420,
            seed=7,
            labelled=1.0,
            rate=rate,
            shift_at=300,
        ).finish()
        time.sleep(3)
        worker.end()
        worker.finish()
        with closing(sqlite3.connect(f"{folder}/s.db")) as store:
            # The time is that of the first write: it stays when an incident changes.
            rows = store.execute("SELECT recorded_at, document FROM incidents").fetchall()
    return [
        at - datetime.fromisoformat(json.loads(document)["opened_at"]["time"]).timestamp()
        for at, document in rows
    ]


# -- memory -------------------------------------------------------------------------------------


def measure_memory(servers: str, n: int) -> dict[str, Any]:
    """Resident memory while the service reads `n` records."""
    topic = new_topic(servers, "memory", partitions=len(STREAMS))
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory() as folder:
        document = settings_of(servers, topic, folder, CLIENTS[1], STREAMS)
        worker = Worker("service", cores=[0], settings=document, n=n)
        producer = Worker(
            "produce",
            cores=[1],
            servers=servers,
            topic=topic,
            streams=STREAMS,
            n=n // len(STREAMS),
            seed=3,
            rate=MEMORY_RATE,
        )
        told = 0.0
        for sample in worker.lines():
            samples.append(sample)
            if sample["n"] >= told:
                say(f"{sample['n']:,.0f} records, {sample['rss'] / 2**20:.0f} MiB")
                told += n / 20
        worker.finish()
        producer.finish()
    second = [s["rss"] for s in samples if n / 4 <= s["n"] < n / 2]
    last = [s["rss"] for s in samples if s["n"] >= 3 * n / 4]
    thinned = samples[:: max(len(samples) // 500, 1)]
    return {
        "records": n,
        "mib_second_quarter": statistics.median(second) / 2**20,
        "mib_last_quarter": statistics.median(last) / 2**20,
        "mib_highest": max(s["rss"] for s in samples) / 2**20,
        "curve": [[s["n"], round(s["rss"] / 2**20, 1)] for s in thinned],
    }


MEMORY_RATE = 20_000.0
"""Records a second that are written while the memory is watched: more than are read."""


def draw_memory(memory: Mapping[str, Any], path: Path) -> None:
    """The curve of the resident memory."""
    n, mib = np.array(memory["curve"]).T
    figure = Figure(figsize=(8, 3.5))
    axes = figure.subplots()
    axes.plot(n / 1e6, mib, color="#1f5fa8", linewidth=1.2)
    axes.set_xlabel("records read, millions")
    axes.set_ylabel("resident memory, MiB")
    axes.set_ylim(0, 1.15 * mib.max())
    axes.set_xlim(0, n.max() / 1e6)
    axes.grid(alpha=0.3)
    axes.set_title("Memory of one process over two streams of 32 features", fontsize=10)
    figure.savefig(path, dpi=150, bbox_inches="tight", metadata={"Software": None})


# -- all of it ----------------------------------------------------------------------------------


def processor() -> str:
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description="The stream benchmark.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the records")
    parser.add_argument("--parts", default="rate,replay,latency,memory", help="which of them")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of the rates")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the results")
    options = parser.parse_args()
    share = 10 if options.quick else 1
    file = options.out / "stream.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    results |= {
        "python": platform.python_version(),
        "kafka-python": version("kafka-python"),
        "confluent-kafka": version("confluent-kafka"),
        "cpus": os.cpu_count(),
        "processor": processor(),
    }
    parts = options.parts.split(",")
    with running_broker() as servers:
        if "rate" in parts:
            rounds = 1 if options.quick else options.rounds
            results["rate"] = Rates(servers, 200_000 // share).measure(rounds)
        if "replay" in parts:
            rounds = 1 if options.quick else options.rounds
            results["replay"] = measure_replay(200_000 // share, rounds)
        if "latency" in parts:
            results["latency"] = measure_latency(servers, 50 // share, 200.0)
        if "memory" in parts:
            results["memory"] = measure_memory(servers, 5_000_000 // share)
    options.out.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=1) + "\n")
    (options.out / "README.md").write_text(page(results))
    if "memory" in results:
        draw_memory(results["memory"], options.out / "memory.png")
    say("written")


if __name__ == "__main__":
    main()
