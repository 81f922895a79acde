"""Numbers, categories, booleans, missing values and many classes: the same verdict for all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from service.domain.decision import ActionKind
from service.domain.incident import Incident, IncidentState
from service.pipeline.stream import Stream
from service.settings.service import ImageSettings
from service.settings.stream import StreamSettings
from tests.service.streams import always, as_records, take

WARM_UP = 1200
CHANGE = 2000
N = 4200
COUNTRIES = ["de", "es", "fr", "it", "pl"]


def payment(rng: np.random.Generator, *, moved: str = "") -> tuple[dict[str, Any], str]:
    """The features decide whether a payment is refused."""
    shares = [0.3, 0.1, 0.3, 0.2, 0.1] if moved == "country" else [0.1, 0.3, 0.2, 0.2, 0.2]
    country = str(rng.choice(COUNTRIES, p=shares))
    amount = float(np.round(rng.lognormal(3.0, 1.0), 2))
    known = bool(rng.random() < (0.35 if moved == "known" else 0.6))
    age = None if rng.random() < (0.3 if moved == "age" else 0.05) else int(rng.integers(18, 80))
    score = 0.8 * (np.log(amount) - 3.0) + (country == "pl") - (1.0 if known else 0.0)
    if moved == "rule":
        score = -score
    refused = rng.random() < 1 / (1 + np.exp(-2 * score))
    features = {"amount": amount, "country": country, "known": known, "age": age}
    return features, "refused" if refused else "paid"


def species(rng: np.random.Generator, *, moved: str = "") -> tuple[dict[str, Any], str]:
    """One of five species has a place in the plane of two measurements, and a colour."""
    shares = [0.5, 0.2, 0.1, 0.1, 0.1] if moved == "shares" else [0.2] * 5
    kind = int(rng.choice(5, p=shares))
    place = (kind + 2) % 5 if moved == "places" and kind < 2 else kind
    angle = 2 * np.pi * place / 5
    x, y = 2 * np.cos(angle) + rng.normal(), 2 * np.sin(angle) + rng.normal()
    colour = "dark" if rng.random() < 0.2 + 0.1 * kind else "light"
    return {"x": float(x), "y": float(y), "colour": colour}, f"species {kind}"


def confirmed(problem: str, draw: Any, moved: str) -> list[Incident]:
    rng = np.random.default_rng(107)
    bodies = []
    for i in range(N):
        features, label = draw(rng, moved=moved if i >= CHANGE else "")
        bodies.append({"stream": "s", "id": str(i), "features": features, "label": label})
    settings = StreamSettings.model_validate(
        {
            "name": "s",
            "problem": problem,
            "reference": {"warm_up": WARM_UP},
            "false_alarm_every": 100_000,
        }
    )
    stream = Stream(
        settings,
        always(ActionKind.ALERT_ONLY),
        scorer=None,
        images=ImageSettings(),
        seed=1,
    )
    records = as_records(bodies)
    shown: list[Incident] = []
    for start in range(0, len(records), 500):
        batch = take(stream, records[start : start + 500])
        assert not batch.refused
        shown += batch.outcomes.incidents
    return [i for i in shown if i.state is IncidentState.CONFIRMED]


@pytest.mark.parametrize("moved", ["country", "known", "age"])
def test_a_moved_category_boolean_or_gap_is_covariate_shift_and_named(moved: str) -> None:
    found = confirmed("x_to_y", payment, moved)
    assert [i.kind for i in found] == ["covariate"]
    assert max(found[0].contributions, key=lambda name: found[0].contributions[name]) == moved


def test_another_rule_over_mixed_features_is_concept_drift() -> None:
    assert [i.kind for i in confirmed("x_to_y", payment, "rule")] == ["concept"]


def test_other_frequencies_of_five_classes_are_a_prior_shift() -> None:
    assert [i.kind for i in confirmed("y_to_x", species, "shares")] == ["prior"]


def test_two_of_five_classes_that_moved_are_concept_drift() -> None:
    assert [i.kind for i in confirmed("y_to_x", species, "places")] == ["concept"]


def test_nothing_is_confirmed_where_nothing_moves() -> None:
    assert confirmed("x_to_y", payment, "") == []
    assert confirmed("y_to_x", species, "") == []
