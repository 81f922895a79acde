"""Small record streams with a known shift, for the tests of the pipeline."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from service.records.record import Record


def x_to_y_records(
    n: int,
    *,
    shift: str = "none",
    at: int = 0,
    delay: int = 0,
    share: float = 1.0,
    seed: int = 0,
    stream: str = "s",
    d: int = 3,
) -> list[Record]:
    """Records of an X->Y stream: the features decide the label through one logistic rule.

    `shift` (none, covariate, concept, both) holds from observation `at` on; labels come `delay`
    observations later, for a `share` of the observations.
    """
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    moved = np.arange(n) >= at
    if shift in ("covariate", "both"):
        X[moved] += 0.8
    weights = np.where(moved[:, None] & (shift in ("concept", "both")), -2.0, 2.0)
    p = 1 / (1 + np.exp(-(weights[:, 0] * X[:, 0] + 1.0 * X[:, 1])))
    y = rng.random(n) < p
    labelled = rng.random(n) < share
    bodies: list[dict[str, object]] = []
    for i in range(n):
        body: dict[str, object] = {
            "stream": stream,
            "id": f"e{i}",
            "time": f"2026-01-01T{i // 3600 % 24:02d}:{i // 60 % 60:02d}:{i % 60:02d}Z",
            "features": {f"x{j}": round(float(X[i, j]), 6) for j in range(d)},
        }
        if labelled[i] and delay == 0:
            body["label"] = int(y[i])
        bodies.append(body)
        late = i - delay
        if delay and late >= 0 and labelled[late]:
            bodies.append({"stream": stream, "id": f"e{late}", "label": int(y[late])})
    return as_records(bodies)


def as_records(bodies: Sequence[object], topic: str = "events") -> list[Record]:
    """Bodies as records of one partition; bytes stay as they are."""
    return [
        Record(topic, 0, n, None, b if isinstance(b, bytes) else json.dumps(b).encode())
        for n, b in enumerate(bodies)
    ]
