"""Columns and labels as nobody plans them, and as real tables have them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from service.records.record import Scalar

LARGEST = sys.float_info.max
SMALLEST = 5e-324
WARM_UP = 200

Values = list[Scalar]
Make = Callable[[np.random.Generator, int], Values]
"""(generator, how many observations) -> values; the first `WARM_UP` of them are the reference."""


def _normal(rng: np.random.Generator, n: int, scale: float = 1.0) -> Values:
    return [float(x) for x in scale * rng.normal(size=n)]


def _coin(rng: np.random.Generator, n: int, share: float = 0.5) -> list[bool]:
    return [bool(hit) for hit in rng.random(n) < share]


def _with(values: Values, at: int, value: Scalar) -> Values:
    values[at] = value
    return values


def _mixed(values: Values, hits: Sequence[bool], other: Scalar) -> Values:
    return [other if hit else value for hit, value in zip(hits, values, strict=True)]


def _joined(before: Values, after: Values, at: int) -> Values:
    return before[:at] + after[at:]


def _scales(rng: np.random.Generator, n: int) -> Values:
    signs = rng.choice([-1.0, 1.0], n)
    return [float(s * 10.0**e) for s, e in zip(signs, rng.uniform(-320, 308, n), strict=True)]


def _signs(rng: np.random.Generator, n: int) -> Values:
    ends = [LARGEST if up else -LARGEST for up in _coin(rng, n)]
    hits = _coin(rng, n, 0.2)
    return [e if hit else x for e, hit, x in zip(ends, hits, _normal(rng, n), strict=True)]


STILL: Mapping[str, Make] = {
    "constant": lambda rng, n: [7.0] * n,
    "constant, as large as can be": lambda rng, n: [-LARGEST] * n,
    "constant but for one": lambda rng, n: _with([7.0] * n, int(rng.integers(WARM_UP)), 8.0),
    "constant but for a sentinel": lambda rng, n: _with([0.0] * n, int(rng.integers(99)), LARGEST),
    "a flag that is set once": lambda rng, n: _with([False] * n, int(rng.integers(WARM_UP)), True),
    "a level that comes once": lambda rng, n: _with(["a"] * n, int(rng.integers(WARM_UP)), "b"),
    "levels, one of which comes once": lambda rng, n: _with(
        [str(v) for v in rng.choice(["a", "b", "c"], n)], int(rng.integers(WARM_UP)), "z"
    ),
    "levels that all come once": lambda rng, n: [f"id{i}" for i in range(n)],
    "levels, most of them rare": lambda rng, n: [
        f"level {min(int(v), 10**6)}" for v in rng.zipf(1.3, n)
    ],
    "missing": lambda rng, n: [None] * n,
    "missing but for one": lambda rng, n: _with([None] * n, int(rng.integers(WARM_UP)), 1.0),
    "missing half": lambda rng, n: _mixed(_normal(rng, n), _coin(rng, n), None),
    "a flag, sometimes missing": lambda rng, n: _mixed(
        list(_coin(rng, n)), _coin(rng, n, 0.3), None
    ),
    "a sentinel": lambda rng, n: _mixed(_normal(rng, n), _coin(rng, n, 0.03), LARGEST),
    "sentinels of both signs": _signs,
    "a sentinel of -999": lambda rng, n: _mixed(_normal(rng, n), _coin(rng, n, 0.1), -999.0),
    "as large as can be": lambda rng, n: _normal(rng, n, 2e307),
    "of all scales": _scales,
    "as small as can be": lambda rng, n: [float(k) * SMALLEST for k in rng.integers(0, 9, n)],
    "tiny": lambda rng, n: _normal(rng, n, 1e-300),
    "far from 0": lambda rng, n: [float(x) for x in 1e15 + rng.normal(size=n)],
    "heavy tails": lambda rng, n: [float(x) for x in rng.standard_cauchy(n)],
}
"""Columns whose distribution stays."""

MOVING: Mapping[str, Make] = {
    "a flag that is set once, later": lambda rng, n: _with([False] * n, WARM_UP + 5, True),
    "levels that are new": lambda rng, n: _joined(
        ["a"] * n, [f"new {i % 7}" if i % 3 == 0 else "a" for i in range(n)], WARM_UP
    ),
    "constant in half of the reference": lambda rng, n: _joined(
        [0.0] * n, _normal(rng, n), WARM_UP // 2
    ),
    "constant in the reference": lambda rng, n: _joined([0.0] * n, _normal(rng, n), WARM_UP),
    "in runs": lambda rng, n: [float(i // 40 % 2) for i in range(n)],
    "missing in the reference": lambda rng, n: _joined([None] * n, _normal(rng, n), WARM_UP + 40),
    "missing from some time on": lambda rng, n: _joined(_normal(rng, n), [None] * n, WARM_UP + 60),
    "a sentinel from some time on": lambda rng, n: _joined(
        _normal(rng, n), _mixed(_normal(rng, n), _coin(rng, n, 0.05), LARGEST), WARM_UP
    ),
    "the time": lambda rng, n: [1.76e9 + 60.0 * i for i in range(n)],
}
"""Columns whose distribution moves, or that come in runs."""

COLUMNS = {**STILL, **MOVING}

LABELS: Mapping[str, Make] = {
    "none": lambda rng, n: [None] * n,
    "two classes": lambda rng, n: [str(int(v)) for v in _coin(rng, n)],
    "one class": lambda rng, n: ["y"] * n,
    "one class and another once": lambda rng, n: _with(["y"] * n, int(rng.integers(WARM_UP)), "z"),
    "two classes and a third once": lambda rng, n: _with(
        [str(int(v)) for v in _coin(rng, n)], int(rng.integers(WARM_UP)), "z"
    ),
    "each its own class": lambda rng, n: [f"class {i}" for i in range(n)],
    "few": lambda rng, n: _mixed([str(int(v)) for v in _coin(rng, n)], _coin(rng, n, 0.9), None),
    "another class from some time on": lambda rng, n: _joined(
        [str(int(v)) for v in _coin(rng, n)], ["new"] * n, WARM_UP
    ),
    "in runs": lambda rng, n: [str(i // 60 % 2) for i in range(n)],
}

SCORES: Mapping[str, Callable[[np.random.Generator], float]] = {
    "even": lambda rng: 0.5,
    "any": lambda rng: float(rng.random()),
    "certain": lambda rng: float(rng.integers(0, 2)),
    "never": lambda rng: 0.0,
    "as small as can be": lambda rng: SMALLEST,
}
"""The score of one of two classes."""


def observations(
    columns: Sequence[str],
    labels: str,
    rng: np.random.Generator,
    n: int,
    *,
    change: int | None = None,
    shift: float = 1.5,
    separated: bool = False,
) -> list[dict[str, Any]]:
    """Bodies of observations with a healthy feature, which may shift, and columns by name.

    The labels come in the bodies. `separated` ones follow the first column without an exception.
    """
    healthy = rng.normal(size=n)
    if change is not None:
        healthy[change:] += shift
    features = {"healthy": [float(x) for x in healthy]}
    features |= {f"c{k}": COLUMNS[name](rng, n) for k, name in enumerate(columns)}
    given = LABELS[labels](rng, n)
    if separated and given[0] is not None:
        given = [str(int(x > 0)) for x in healthy]
    found = []
    for i in range(n):
        row = {name: values[i] for name, values in features.items()}
        body: dict[str, Any] = {"stream": "s", "id": str(i), "features": row}
        if given[i] is not None:
            body["label"] = given[i]
        found.append(body)
    return found


def late(bodies: Sequence[Mapping[str, Any]], by: int) -> list[dict[str, Any]]:
    """The same with each label in a record of its own, so many observations later."""
    placed: list[tuple[int, dict[str, Any]]] = []
    for i, body in enumerate(bodies):
        seen = {key: value for key, value in body.items() if key != "label"}
        placed.append((2 * i, seen))
        if "label" in body:
            told = {"stream": "s", "id": body["id"], "label": body["label"]}
            placed.append((2 * (i + by) + 1, told))
    return [body for _, body in sorted(placed, key=lambda item: item[0])]
