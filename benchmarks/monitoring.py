"""The product on arrays: the monitor that the service runs, without a source and a store."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from detectors.base import Array, IntArray, Problem
from service.domain.decision import ActionKind, Decision
from service.domain.incident import Incident
from service.monitor.events import Arrival
from service.monitor.monitor import Monitor
from service.monitor.representation import Tabular
from service.records.schema import FeatureSchema
from service.settings.stream import StreamSettings

BATCH = 500
"""Records that the service takes at a time; results do not depend on it."""
RENEWAL_BATCH = 50
"""The same where a new reference begins after each confirmed incident, at the end of its batch."""


@dataclass(frozen=True, slots=True)
class Run:
    """What the monitor said about a stream.

    Attributes
    ----------
    incidents
        The last state of every incident, in the order in which they were opened.
    confirmed
        The state of each at the moment when it was confirmed, in that order.
    cpu_s
        Processor time of the run.
    n_alarms
        Alarms of stage 1.
    """

    incidents: tuple[Incident, ...]
    confirmed: tuple[Incident, ...]
    cpu_s: float
    n_alarms: int


def watch(
    features: Array,
    labels: IntArray,
    problem: Problem,
    *,
    warm_up: int = 2000,
    label_delay: int = 0,
    label_share: float = 1.0,
    renew: bool = False,
    seed: int = 0,
    **settings: Any,
) -> Run:
    """Run a stream's monitor over rows and their labels.

    Parameters
    ----------
    features
        Rows in time order, shape (n, d).
    labels
        Classes, shape (n,).
    problem
        The causal direction that is declared.
    warm_up
        Rows of the reference window.
    label_delay
        Rows between an observation and its label.
    label_share
        Part of the rows whose label ever comes, chosen at random.
    renew
        Whether a confirmed incident is answered as a repair answers it: with a new reference.
        Without, the stream stays compared with the one it began with.
    seed
        Of the monitor, and of the choice of labels.
    **settings
        Further fields of the stream's settings, such as `false_alarm_every`.
    """
    n, d = features.shape
    stream = StreamSettings.model_validate(
        {"name": "s", "problem": str(problem), "reference": {"warm_up": warm_up}, **settings}
    )
    names = [f"x{j}" for j in range(d)]
    monitor = Monitor(
        stream,
        Tabular(FeatureSchema.declared(dict.fromkeys(names, "numeric"))),
        lambda verdict: Decision(ActionKind.ALERT_ONLY, "measured only"),
        seed=seed,
    )
    given = np.random.default_rng([seed, 7]).random(n) < label_share
    arrivals = _arrivals(features, labels, given, names, label_delay)
    incidents: dict[str, Incident] = {}
    confirmed: dict[str, Incident] = {}
    n_alarms = 0
    batch = RENEWAL_BATCH if renew else BATCH
    started = time.process_time()
    for start in range(0, len(arrivals), batch):
        out = monitor.update(arrivals[start : start + batch])
        n_alarms += len(out.alarms)
        if renew and monitor.open:
            out.incidents.extend(monitor.repaired("a new reference begins").incidents)
        for incident in out.incidents:
            incidents[incident.id] = incident
            if incident.confirmed_at is not None:
                confirmed.setdefault(incident.id, incident)
    cpu_s = time.process_time() - started
    return Run(tuple(incidents.values()), tuple(confirmed.values()), cpu_s, n_alarms)


def _arrivals(
    features: Array, labels: IntArray, given: Any, names: list[str], label_delay: int
) -> list[Arrival]:
    """Each row as an observation, and its label with it or `label_delay` rows later."""
    arrivals: list[Arrival] = []
    for i, (row, label) in enumerate(zip(features.tolist(), labels.tolist(), strict=True)):
        own = str(label) if given[i] and not label_delay else None
        arrivals.append(_arrival(len(arrivals), i, dict(zip(names, row, strict=True)), own))
        late = i - label_delay
        if label_delay and late >= 0 and given[late]:
            arrivals.append(_arrival(len(arrivals), late, None, str(labels[late])))
    return arrivals


def _arrival(offset: int, index: int, raw: dict[str, float] | None, label: str | None) -> Arrival:
    return Arrival(("benchmark", 0, offset), str(index), "", raw, label)
