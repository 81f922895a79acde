"""The results of the stream benchmark as a page."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

LEAST_RATIO = {
    ("kafka-python", "0%"): 0.6,
    ("confluent", "0%"): 0.8,
    ("kafka-python", "10%"): 0.5,
    ("confluent", "10%"): 0.5,
    ("kafka-python", "100%"): 0.3,
    ("confluent", "100%"): 0.3,
}
"""Of the bare kafka-python loop with `json`, by client and share of events with a label."""
LEAST_GAIN = 1.7
LEAST_REPLAY, LEAST_PARQUET = 0.6, 3.0


def page(results: Mapping[str, Any]) -> str:
    """The results for people."""
    lines = [
        "# The stream benchmark",
        "",
        "`python -m benchmarks.stream`; its figures for programs are in `stream.json`.",
        f"Python {results['python']}, kafka-python {results['kafka-python']}, confluent-kafka "
        f"{results['confluent-kafka']}, {results['cpus']} cores ({results['processor']}); the "
        "broker (Apache Kafka 4, one node) runs on the same machine.",
        "",
    ]
    if rates := results.get("rate"):
        lines += _rates(rates)
    if replay := results.get("replay"):
        lines += _replay(replay)
    if latency := results.get("latency"):
        lines += _latency(latency)
    if memory := results.get("memory"):
        lines += [
            "## Memory",
            "",
            f"Over {memory['records']:,} records: {memory['mib_second_quarter']:.0f} MiB in the "
            f"second quarter, {memory['mib_last_quarter']:.0f} MiB in the last (medians), "
            f"{memory['mib_highest']:.0f} MiB at most.",
            "",
            "![Resident memory](memory.png)",
            "",
        ]
    return "\n".join(lines)


def _median(rates: Mapping[str, Any], name: str) -> float:
    return float(statistics.median(r["events_per_s"] for r in rates["measured"][name]))


def _rates(rates: Mapping[str, Any]) -> list[str]:
    json_rate = _median(rates, "bare kafka-python, json")
    orjson_rate = _median(rates, "bare kafka-python, orjson")
    lines = [
        "## Rate",
        "",
        f"{rates['records']:,} records of {rates['bytes_per_record']:.0f} bytes of JSON, 32 "
        "features with a prediction, two streams in two partitions, all default "
        "monitors, from the broker to the committed transaction. Each process has one core; "
        "medians of the rounds, their range in brackets. The last quarters count: the first has "
        "the reference windows and the calibration.",
        "",
        "| | events/s | of the bare kafka-python loop with `json` | with `orjson` "
        "| us of processor an event |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, rounds in rates["measured"].items():
        each = sorted(r["events_per_s"] for r in rounds)
        middle = statistics.median(each)
        cpu = statistics.median(r["cpu_us_per_event"] for r in rounds)
        lines.append(
            f"| {name} | {middle:,.0f} ({each[0]:,.0f}-{each[-1]:,.0f}) | "
            f"{middle / json_rate:.2f} | {middle / orjson_rate:.2f} | "
            f"{f'{cpu:.1f}' if cpu else ''} |"
        )
    lines += ["", "| target | wanted | measured | met |", "| --- | --- | ---: | --- |"]
    for client in ("kafka-python", "confluent"):
        for share in ("0%", "10%", "100%"):
            one = _median(rates, f"service, {client}, {share} labelled")
            lines.append(
                _target(
                    f"one core, {client}, {share} labelled, of the bare kafka-python loop",
                    LEAST_RATIO[client, share],
                    one / json_rate,
                )
            )
        one = _median(rates, f"service, {client}, 0% labelled")
        two = _median(rates, f"two processes, {client}, 0% labelled")
        lines.append(
            _target(f"two processes on two cores, {client}, of one", LEAST_GAIN, two / one)
        )
    for name in rates["measured"]:
        if name.startswith("the glue"):
            one = _median(rates, "service, kafka-python, 0% labelled") / _median(rates, name)
            lines.append(_target("one core, kafka-python, 0% labelled, of the glue", 1.0, one))
    return [*lines, ""]


def _target(what: str, wanted: float, measured: float) -> str:
    met = "yes" if measured >= wanted else "**no**"
    return f"| {what} | >= {wanted} | {measured:.2f} | {met} |"


def _replay(replay: Mapping[str, Any]) -> list[str]:
    middle = {name: statistics.median(each) for name, each in replay["measured"].items()}
    lines = [
        "## Replay",
        "",
        f"{replay['records']:,} records of two streams in a file, one core. The bare loop decodes "
        "the lines with `json`, or makes the Parquet file's rows Python objects.",
        "",
        "| file | bare, records/s | replay, records/s | of the bare loop |",
        "| --- | ---: | ---: | ---: |",
    ]
    for kind, name in (("JSON lines", "records.jsonl"), ("Parquet", "records.parquet")):
        bare, own = middle[f"bare, {name}"], middle[f"replay, {name}"]
        lines.append(f"| {kind} | {bare:,.0f} | {own:,.0f} | {own / bare:.2f} |")
    lines += ["", "| target | wanted | measured | met |", "| --- | --- | ---: | --- |"]
    own = middle["replay, records.jsonl"]
    ratio = own / middle["bare, records.jsonl"]
    lines.append(_target("JSON lines, of the bare loop", LEAST_REPLAY, ratio))
    ratio = middle["replay, records.parquet"] / own
    lines.append(_target("Parquet, of JSON lines", LEAST_PARQUET, ratio))
    return [*lines, ""]


def _latency(latency: Mapping[str, Any]) -> list[str]:
    lines = [
        "## Latency",
        "",
        "From the event's own time, when it is handed to the producer, to the transaction that "
        f"holds its alarm, at {latency['events_per_s']:,.0f} events/s over {latency['streams']} "
        "streams, with kafka-python.",
        "",
        "| | alarms | p50 ms | p99 ms | longest ms |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for setting in ("one topic", "with a silent labels topic"):
        row = latency[setting]
        lines.append(
            f"| {setting} | {row['alarms']} | {row['p50_ms']:.0f} | {row['p99_ms']:.0f} | "
            f"{row['max_ms']:.0f} |"
        )
    return [
        *lines,
        "",
        "A labels topic that has nothing to read costs `merge_wait_ms`, 500 ms by default: so "
        "long an event waits for a label that may be older.",
        "",
    ]
