"""Write a seeded stream of inspected parts from several cameras, as JSON lines.

    python examples/make_cameras.py parts.jsonl --fault lens --camera 7 --at 20000

The stream `parts` is a y_to_x problem: a part is ok, scratched or dented, and five measurements of
its picture show it, in standard units. A fixed model that was right about them predicts the class.
From row `--at` on

- lens: pictures are less sharp by one unit, and defects leave traces of half the size;
- scratches: half of the parts are scratched, where a fifth was before; the pictures stay.

A label is a record of its own, `--label-delay` parts later. From row `--labels-until` on parts get
none, and from row `--checks-from` on every fifth, at random, does again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

FAULTS = ("none", "lens", "scratches")
START = datetime(2026, 1, 1, tzinfo=UTC)
FEATURES = ("brightness", "contrast", "sharpness", "length", "depth")
CLASSES = ("ok", "scratch", "dent")
TRACES = np.array(
    [
        [0.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 1.0, 0.0, 2.5, 0.0],
        [-1.0, 0.0, 0.0, 0.0, 2.5],
    ]
)
"""Mean measurements of each class; the variances are 1."""
SHARES = np.array([0.7, 0.2, 0.1])
MANY_SCRATCHES = np.array([0.4, 0.5, 0.1])


def records(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the stream's records in the order in which they arrive."""
    rng = np.random.default_rng(args.seed)
    n = args.rows
    camera = rng.integers(1, args.cameras + 1, n)
    chance, noise = rng.random(n), rng.normal(size=(n, len(FEATURES)))
    is_after = np.arange(n) >= args.at
    shares = np.where(is_after[:, None] & (args.fault == "scratches"), MANY_SCRATCHES, SHARES)
    part = (chance[:, None] >= shares.cumsum(axis=1)).sum(axis=1)
    blurred = is_after & (args.fault == "lens")
    if args.camera is not None:
        blurred &= camera == args.camera
    x = noise + TRACES[part] * np.where(blurred, 0.5, 1.0)[:, None]
    x[:, FEATURES.index("sharpness")] -= blurred
    x = x.round(3)
    score = x @ TRACES.T - (TRACES**2).sum(axis=1) / 2 + np.log(SHARES)
    predicted = score.argmax(axis=1)
    row_of = np.arange(n)
    is_checked = (row_of >= args.checks_from) & (rng.random(n) < 0.2)
    has_label = (row_of < args.labels_until) | is_checked
    for row in range(n + args.label_delay):
        time = (START + timedelta(seconds=row)).isoformat()
        if row < n:
            yield {
                "stream": "parts",
                "id": f"part-{row}",
                "time": time,
                "features": dict(zip(FEATURES, x[row].tolist(), strict=True)),
                "prediction": CLASSES[predicted[row]],
                "segment": {"camera": str(camera[row])},
            }
        known = row - args.label_delay
        if known >= 0 and has_label[known]:
            label = CLASSES[part[known]]
            yield {"stream": "parts", "id": f"part-{known}", "label": label, "time": time}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write a stream of inspected parts.")
    parser.add_argument("output", type=Path, help="file of JSON lines to write")
    parser.add_argument("--rows", type=int, default=40_000, help="parts (default: %(default)s)")
    parser.add_argument("--fault", choices=FAULTS, default="lens", help="what moves")
    parser.add_argument("--at", type=int, default=20_000, help="first row of the fault, from 0")
    parser.add_argument("--cameras", type=int, default=12, help="they share the parts evenly")
    parser.add_argument("--camera", type=int, help="the only one with the fault (default: all)")
    parser.add_argument("--label-delay", type=int, default=0, help="parts until a label comes")
    parser.add_argument("--labels-until", type=int, default=10**9, help="first row without a label")
    parser.add_argument("--checks-from", type=int, default=10**9, help="first row of spot checks")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds give equal files")
    args = parser.parse_args(arguments)
    if not 0 <= args.at <= args.rows:
        parser.error(f"--at: expected 0 to {args.rows}, got {args.at}")
    with args.output.open("w", encoding="utf-8") as file:
        for record in records(args):
            file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
