"""Write a seeded stream of records with a known shift, as JSON lines.

    python examples/make_stream.py events.jsonl --shift concept --at 12000

The stream `s` is an x_to_y problem: five normal features decide a label of two classes. A fixed
model that was right about them before the shift predicts it. From row `--at` on

- covariate: the features a and b move by one standard deviation; P(Y|X) stays;
- concept: a and b change places in P(Y|X); the features stay;
- mixed: both.

The rows before the shift are the same for every shift, so that runs can be compared.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

SHIFTS = ("none", "covariate", "concept", "mixed")
START = datetime(2026, 1, 1, tzinfo=UTC)
FEATURES = ("a", "b", "c", "d", "e")
BEFORE = np.array([2.0, -1.0, 1.0, 0.5, 0.0])
"""Weights of P(Y=1|X) before the shift, and of the model at all times."""
AFTER = np.array([-1.0, 2.0, 1.0, 0.5, 0.0])
MOVE = np.array([1.0, 1.0, 0.0, 0.0, 0.0])


def records(n_rows: int, shift: str, at: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield the stream's records; `shift` begins at row `at`, counted from 0."""
    rng = np.random.default_rng(seed)
    x, chance = rng.normal(size=(n_rows, len(FEATURES))), rng.random(n_rows)
    is_after = (np.arange(n_rows) >= at)[:, None]
    if shift in {"covariate", "mixed"}:
        x += is_after * MOVE
    x = x.round(4)  # what is written decides the label, not what was drawn
    weights = np.where(is_after & (shift in {"concept", "mixed"}), AFTER, BEFORE)
    label = chance < _sigmoid((x * weights).sum(axis=1))
    score = _sigmoid(x @ BEFORE).round(4)
    for row in range(n_rows):
        yes = float(score[row])
        yield {
            "stream": "s",
            "id": f"s-{row}",
            "time": (START + timedelta(seconds=row)).isoformat(),
            "features": dict(zip(FEATURES, x[row].tolist(), strict=True)),
            "prediction": "1" if yes >= 0.5 else "0",
            "scores": {"0": round(1 - yes, 4), "1": yes},
            "label": "1" if label[row] else "0",
        }


def _sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write a stream of records with a known shift.")
    parser.add_argument("output", type=Path, help="file of JSON lines to write")
    parser.add_argument("--rows", type=int, default=20_000, help="records (default: %(default)s)")
    parser.add_argument("--shift", choices=SHIFTS, default="covariate", help="what moves")
    parser.add_argument("--at", type=int, default=10_000, help="first row after the shift, from 0")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds give equal files")
    args = parser.parse_args(arguments)
    if not 0 <= args.at <= args.rows:
        parser.error(f"--at: expected 0 to {args.rows}, got {args.at}")
    with args.output.open("w", encoding="utf-8") as file:
        for record in records(args.rows, args.shift, args.at, args.seed):
            file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
