"""Which metrics, labels and label values a text of PromQL or Markdown names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from service.telemetry.metrics import PREFIX, SPECS, Spec, Type

_NAME = re.compile(rf"\b{PREFIX}_[a-z0-9_]+\b")
_SELECTOR = re.compile(rf"\b({PREFIX}_[a-z0-9_]+){{([^}}]*)}}")
_MATCHER = re.compile(r'(\w+)\s*(=~|=|!=|!~)\s*"([^"]*)"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")

OF_PROMETHEUS = {"job", "instance", "le"}
"""Labels that scraping and histograms add."""


def exposed() -> Mapping[str, Spec]:
    """Every series name that the service exposes."""
    names = {}
    for spec in SPECS:
        histogram = spec.type is Type.HISTOGRAM
        for suffix in ("_bucket", "_sum", "_count") if histogram else ("",):
            names[f"{PREFIX}_{spec.name}{suffix}"] = spec
    return names


def problems(text: str) -> Iterator[str]:
    """What the text names and the service does not have; the value `...` stands for any."""
    specs = exposed()
    for name in set(_NAME.findall(text)) - specs.keys():
        yield f"{name} is no metric"
    for name, inside in _SELECTOR.findall(text):
        labels = specs[name].labels if name in specs else {}
        for label, sign, value in _MATCHER.findall(inside):
            if label not in labels and label not in OF_PROMETHEUS:
                yield f"{name} has no label {label}"
            allowed = labels.get(label)  # none where the data decides
            if allowed and sign in {"=", "!="} and value not in {*allowed, "..."}:
                yield f"{name} has no {label} {value!r}"
    known = OF_PROMETHEUS.union(*(spec.labels for spec in SPECS))
    for inside in _GROUPING.findall(text):
        for label in filter(None, (part.strip() for part in inside.split(","))):
            if label not in known:
                yield f"no metric has a label {label}"
