"""Tables of hundreds of features."""

from __future__ import annotations

import time

import numpy as np

from detectors.base import Problem
from service.domain.decision import ActionKind
from service.domain.incident import Incident
from service.monitor.monitor import Monitor
from service.monitor.representation import Tabular
from service.records.columns import Columns
from service.records.record import Observation
from service.records.schema import FeatureKind, FeatureSchema
from service.settings.stream import StreamSettings
from tests.service.streams import NO_MEANS, always, batches_of, columns_of

N_FEATURES = 512
CHANGE = 700
LIMIT_S = 60.0


def columns(n: int, schema: FeatureSchema, seed: int) -> Columns:
    """Correlated features, of which one is 5 spreads higher from the change on."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 8)) @ (0.5 * rng.normal(size=(8, N_FEATURES)))
    X += rng.normal(size=X.shape)
    labels = rng.random(n) < 1 / (1 + np.exp(-(2 * X[:, 0] + X[:, 1])))
    X[CHANGE:, 7] += 5
    rows = [{f"x{j}": value for j, value in enumerate(row)} for row in X.tolist()]
    bodies = [
        Observation("wide", f"e{i}", None, row, label=str(int(labels[i])))
        for i, row in enumerate(rows)
    ]
    return columns_of(bodies, schema)


def test_one_moved_feature_of_512_is_confirmed_and_named_within_a_minute() -> None:
    settings = StreamSettings.model_validate(
        {
            "name": "wide",
            "problem": Problem.X_TO_Y,
            "reference": {"warm_up": 600},
            "false_alarm_every": 50_000,
            "confirm": {"looks": [100, 200, 300], "max_wait": 2000, "min_labels": 100},
        }
    )
    schema = FeatureSchema.declared({f"x{j}": FeatureKind.NUMERIC for j in range(N_FEATURES)})
    monitor = Monitor(settings, Tabular(schema), always(ActionKind.ALERT_ONLY))
    records = columns(1800, schema, 100)
    started = time.process_time()
    found: dict[str, Incident] = {}
    for batch in batches_of(records, 100):
        outcomes = monitor.update(batch, NO_MEANS)
        found.update((incident.id, incident) for incident in outcomes.incidents)
    assert time.process_time() - started < LIMIT_S
    (incident,) = found.values()
    assert incident.confirmed_at is not None
    assert (incident.kind, incident.factors) == ("covariate", ("covariate",))
    assert incident.opened_at.index >= CHANGE
    shares = incident.contributions
    assert max(shares, key=lambda name: shares[name]) == "x7"
