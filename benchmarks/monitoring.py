"""The product on arrays: the monitor that the service runs, without a source and a store."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.base import Array, IntArray, Problem, Verdict
from service.domain.decision import ActionKind, Decision, Means
from service.domain.incident import Incident
from service.monitor.monitor import Monitor
from service.monitor.representation import Tabular
from service.records.block import Block
from service.records.columns import LABEL, OBSERVATION, Columns, Features
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
        measured_only,
        seed=seed,
    )
    given = np.asarray(np.random.default_rng([seed, 7]).random(n) < label_share)
    records = columns_of(features, labels, given, label_delay)
    incidents: dict[str, Incident] = {}
    confirmed: dict[str, Incident] = {}
    n_alarms = 0
    batch = RENEWAL_BATCH if renew else BATCH
    started = time.process_time()
    for start in range(0, len(records), batch):
        part = np.arange(start, min(start + batch, len(records)))
        out = monitor.update(records[part], Means())
        n_alarms += len(out.alarms)
        changed = list(out.incidents)
        if renew and monitor.standing.open:
            changed += monitor.repaired("a new reference begins").incidents
        for incident in changed:
            incidents[incident.id] = incident
            if incident.confirmed_at is not None:
                confirmed.setdefault(incident.id, incident)
    cpu_s = time.process_time() - started
    return Run(tuple(incidents.values()), tuple(confirmed.values()), cpu_s, n_alarms)


def measured_only(verdict: Verdict, means: Means, day: str) -> Decision:  # noqa: ARG001 - a policy's
    """The policy of a benchmark: nothing is done."""
    return Decision(ActionKind.ALERT_ONLY, "measured only")


def columns_of(
    features: Array, labels: IntArray, given: npt.NDArray[np.bool_], label_delay: int = 0
) -> Columns:
    """Each row as an observation, and its label with it or `label_delay` rows later, if given."""
    n = len(features)
    texts = [str(label) if known else None for label, known in zip(labels, given, strict=True)]
    if not label_delay:
        return _columns(np.zeros(n, np.int8), list(range(n)), texts, features)
    kinds: list[int] = []
    rows: list[int] = []
    for row in range(n):
        kinds.append(OBSERVATION)
        rows.append(row)
        late = row - label_delay
        if late >= 0 and given[late]:
            kinds.append(LABEL)
            rows.append(late)
    told = [texts[r] if kind == LABEL else None for kind, r in zip(kinds, rows, strict=True)]
    return _columns(np.array(kinds, np.int8), rows, told, features)


def _columns(
    kinds: npt.NDArray[np.int8], rows: list[int], labels: list[str | None], features: Array
) -> Columns:
    n = len(kinds)
    return Columns(
        Block.of_partition("benchmark", 0, range(n), [b""] * n),
        np.arange(n),
        kinds,
        [str(row) for row in rows],
        np.full(n, np.nan),
        None,
        labels,
        None,
        None,
        Features(features),
        None,
    )
