"""A stream of images at work: what a camera's fault is called."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_digits

from detectors.base import Problem
from models.quality import PROPERTIES, image_properties
from models.scorer import Scored
from service.domain.decision import ActionKind
from service.domain.incident import Incident
from service.pipeline.stream import Stream
from service.settings.service import ImageSettings
from service.settings.stream import StreamSettings
from service.store import states as checkpoint
from tests.service.streams import always, as_records, joined_of, take

CHANGE = 800
Pixels = npt.NDArray[np.float64]


class StubScorer:
    """Keeps the contract of the scoring process: a fixed random network of one layer."""

    classes: tuple[str, ...] = ("even", "odd")
    input_shape: tuple[int, ...] = (32, 32, 3)

    def __init__(self) -> None:
        self._weights = np.random.default_rng(1).normal(size=(8 * 8 * 3, 64)) / 8

    def score(self, inputs: npt.NDArray[Any], /) -> Scored:
        pooled = inputs.reshape(-1, 8, 4, 8, 4, 3).mean(axis=(2, 4)).reshape(len(inputs), -1)
        # A row at a time, as a product's rounding depends on how many there are.
        codes = np.stack([np.maximum(row @ self._weights, 0) for row in pooled / 255])
        scores = np.full((len(inputs), 2), 0.5)
        return Scored(scores, codes, image_properties(inputs))

    def close(self) -> None:
        pass


@cache
def digits() -> tuple[Pixels, npt.NDArray[np.int64]]:
    """Digits in coloured ink on coloured paper as a camera sees them, from 0 to 1; labels."""
    found = load_digits()
    rng = np.random.default_rng(100)
    order = rng.permutation(len(found.images))[:1700]
    drawn = found.images[order] / 16
    ink = np.kron(drawn, np.ones((4, 4)))[..., None]
    paper = rng.uniform(0.75, 0.95, (len(ink), 1, 1, 1)) * rng.uniform(0.8, 1, (len(ink), 1, 1, 3))
    images = paper * (1 - ink * rng.uniform(0.4, 1.0, (len(ink), 1, 1, 3)))
    focus = rng.random((len(ink), 1, 1, 1))
    images = focus * images + (1 - focus) * gaussian_filter(images, (0, 1, 1, 0))
    return images + rng.normal(0, 0.01, images.shape), found.target[order] % 2


FAULTS: dict[str, tuple[str, Callable[[Pixels], Pixels]]] = {
    "a dirty lens": ("sharpness", lambda x: gaussian_filter(x, (0, 0.6, 0.6, 0))),
    "too little light": ("brightness", lambda x: 0.75 * x),
    "coloured light": ("colour_cast", lambda x: x * [1.1, 1.0, 0.7]),
}


def png(pixels: Pixels) -> str:
    stream = io.BytesIO()
    Image.fromarray(np.clip(np.rint(255 * pixels), 0, 255).astype(np.uint8)).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def run(images: Pixels, labels: npt.NDArray[np.int64], *, restart_at: int = 0) -> list[Incident]:
    """The incidents of a stream; at `restart_at` it is stored and restored."""
    bodies = [
        {"stream": "cam", "id": f"e{i}", "image": png(image), "label": StubScorer.classes[y]}
        for i, (image, y) in enumerate(zip(images, labels, strict=True))
    ]
    stream = opened()
    incidents: dict[str, Incident] = {}
    records = as_records(bodies)
    for start in range(0, len(records), 50):
        if restart_at == start > 0:
            state = checkpoint.dumps(stream.snapshot())
            stream = opened()
            stream.restore(checkpoint.loads(state))
        batch = take(stream, records[start : start + 50])
        assert not batch.refused
        incidents.update((i.id, i) for i in batch.outcomes.incidents)
    return list(incidents.values())


def opened() -> Stream:
    settings = StreamSettings.model_validate(
        {
            "name": "cam",
            "problem": Problem.X_TO_Y,
            "reference": {"warm_up": 600},
            "false_alarm_every": 50_000,
            "confirm": {"looks": [100, 200, 300], "max_wait": 1000, "min_labels": 60},
            "model": {"embedding_components": 16},
        }
    )

    alert = always(ActionKind.ALERT_ONLY)
    return Stream(settings, alert, scorer=StubScorer(), images=ImageSettings(), seed=0)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_camera_is_called_by_its_name(fault: str) -> None:
    name, spoil = FAULTS[fault]
    images, labels = digits()
    images = np.concatenate([images[:CHANGE], spoil(images[CHANGE:1300])])
    (incident,) = run(images, labels[:1300])
    assert (incident.kind, incident.factors) == ("covariate", ("covariate",))
    assert incident.opened_at.index >= CHANGE
    shares = incident.contributions
    assert set(shares) == {f"embedding[{j}]" for j in range(16)} | set(PROPERTIES)
    assert max(shares, key=lambda column: shares[column]) == name


def test_a_stored_stream_of_images_goes_on_to_the_same_incident() -> None:
    images, labels = digits()
    spoilt = np.concatenate([images[:CHANGE], 0.75 * images[CHANGE:1050]])
    whole = run(spoilt, labels[:1050])
    assert whole
    for at in (300, 850):  # while the reference is collected, and while a suspicion is under test
        assert run(spoilt, labels[:1050], restart_at=at) == whole


def test_images_that_stay_as_they_are_are_no_incident() -> None:
    images, labels = digits()
    assert [i for i in run(images, labels) if i.confirmed_at is not None] == []


@pytest.mark.parametrize(
    ("scores", "served"),
    [
        ({"ham": 0.9, "spam": 0.1}, "ham"),
        ({"ham": 0.5, "spam": 0.1, "none of them": 0.9}, "ham"),
        ({"HAM": 0.9, "SPAM": 0.1}, "spam"),
        ({"ham": 0.9}, "spam"),
        ({"ham": 0.0, "spam": 0.0}, "spam"),
        (None, "spam"),
    ],
)
def test_scores_decide_what_was_served_only_if_they_cover_the_classes(
    scores: dict[str, float] | None, served: str
) -> None:
    settings = StreamSettings.model_validate(
        {
            "name": "s",
            "problem": Problem.X_TO_Y,
            "features": {"a": "numeric"},
            "classes": ["ham", "spam"],
        }
    )
    stream = Stream(
        settings,
        always(ActionKind.ALERT_ONLY),
        scorer=None,
        images=ImageSettings(),
        seed=0,
    )
    body = {"stream": "s", "id": "e", "features": {"a": 0.0}, "label": "spam"}
    (record,) = as_records([{**body, "prediction": "spam", "scores": scores}])
    assert joined_of(take(stream, [record]).outcomes) == [(0, "spam", served)]
