"""The demo's data: endless variations of scikit-learn's handwritten digits.

Every event is a base digit under a small random affine map and noise, so no two events are equal
(duplicates would break the permutation tests). An event is a pure function of the seed and its
step, so a source that starts again in the middle tells the same story.
"""

from __future__ import annotations

import io
import json
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import affine_transform
from sklearn.datasets import load_digits

Pixels = npt.NDArray[np.float64]

IMAGE_SIDE = 32
SOURCE_SHARE = 0.6
"""Share of the base digits that only the source models are trained on; the streams show the
others, so a source model meets handwriting it has not seen."""


class Shift(StrEnum):
    """What a phase of the demo does to its stream."""

    NONE = "none"
    PRIOR = "prior"
    WORN_SENSOR = "worn_sensor"
    BIASED_SELECTION = "biased_selection"
    NEW_RULE = "new_rule"


@dataclass(frozen=True, slots=True)
class Regime:
    """The state of a stream's world: shifts accumulate over the phases."""

    prior: bool = False
    worn: bool = False
    biased: bool = False
    new_rule: bool = False

    def after(self, shift: Shift) -> Regime:
        """The world after a shift."""
        return Regime(
            self.prior or shift is Shift.PRIOR,
            self.worn or shift is Shift.WORN_SENSOR,
            self.biased or shift is Shift.BIASED_SELECTION,
            self.new_rule or shift is Shift.NEW_RULE,
        )


@lru_cache(maxsize=1)
def _base() -> tuple[Pixels, npt.NDArray[np.int64]]:
    bunch = load_digits()
    return bunch.images / 16.0, bunch.target.astype(np.int64)


@lru_cache(maxsize=4)
def _by_class(source: bool) -> tuple[npt.NDArray[np.int64], ...]:
    """Base digits by class; the split is fixed, so it is the same for every seed."""
    _, target = _base()
    in_source = np.random.default_rng(20150903).random(len(target)) < SOURCE_SHARE
    return tuple(np.flatnonzero((target == c) & (in_source == source)) for c in range(10))


PRIOR_AFTER = np.array([0.30, 0.02, 0.02, 0.18, 0.02, 0.02, 0.02, 0.18, 0.22, 0.02])
"""Class shares after the prior shift; before it all ten are equal."""


def _vary(image: Pixels, side: int, rng: np.random.Generator, *, turn: float = 0.0) -> Pixels:
    """A small random affine map of an 8x8 image onto side x side pixels, values in [0, 1]."""
    angle = np.deg2rad(turn + rng.uniform(-8, 8))
    zoom = rng.uniform(0.95, 1.1) * side / 8.0
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
    center = (side - 1) / 2.0
    offset = np.array([3.5, 3.5]) + rng.uniform(-0.4, 0.4, 2) - matrix @ np.array([center, center])
    return np.asarray(affine_transform(image, matrix, offset, (side, side), order=1))


def draw_image(
    rng: np.random.Generator, regime: Regime, *, source: bool = False
) -> tuple[npt.NDArray[np.uint8], str]:
    """One event of the image stream: pixels (32, 32, 3) and the digit.

    A worn sensor sees the digit turned by 25 degrees and at half the contrast, with more noise.
    """
    digit = int(rng.choice(10, p=PRIOR_AFTER)) if regime.prior else int(rng.integers(10))
    base = _base()[0][rng.choice(_by_class(source)[digit])]
    grey = _vary(base, IMAGE_SIDE, rng, turn=25.0 if regime.worn else 0.0)
    if regime.worn:
        grey = 0.25 + 0.5 * grey
    grey = grey + rng.normal(0, 0.06 if regime.worn else 0.03, grey.shape)
    pixels = (np.clip(grey, 0, 1) * 255).astype(np.uint8)
    return np.repeat(pixels[:, :, None], 3, axis=2), str(digit)


def draw_features(
    rng: np.random.Generator, regime: Regime, *, source: bool = False
) -> tuple[Pixels, str]:
    """One event of the tabular stream: 64 pixel values and the label.

    The label rule is "high" for digits of five and more; the new rule calls 4 high and 9 low. The
    biased selection keeps a digit with a probability that falls with the ink in its left half, so
    it depends on the features alone and leaves P(Y|X) as it is.
    """
    while True:
        digit = int(rng.integers(10))
        base = _base()[0][rng.choice(_by_class(source)[digit])]
        pixels = _vary(base, 8, rng) + rng.normal(0, 0.04, (8, 8))
        ink = pixels[:, :4].mean()
        if not regime.biased or rng.random() < 1 / (1 + np.exp(25 * (ink - 0.30))):
            break
    high = digit >= 5
    if regime.new_rule and digit in (4, 9):
        high = not high
    return np.round(pixels.ravel(), 4), "high" if high else "low"


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """The image as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


LATEST = 120
"""Steps after which a label comes at the latest."""


@lru_cache(maxsize=4 * LATEST)
def label_delay(seed: int, step: int, images: bool) -> int | None:
    """Steps until an event's label comes: 0 with the event, None never."""
    rng = np.random.default_rng([seed, step, int(images), 1])
    u = rng.random()
    if u < 0.45:
        return 0
    return int(rng.integers(20, LATEST)) if u < 0.80 else None


@dataclass(frozen=True, slots=True)
class Event:
    """One step of a stream, and when its label comes."""

    step: int
    body: dict[str, object]
    label: str
    delay: int | None


@lru_cache(maxsize=4 * LATEST)
def event(stream: str, seed: int, step: int, regime: Regime, *, images: bool) -> Event:
    """The event of a step, a pure function of its arguments; kept until its label was sent."""
    rng = np.random.default_rng([seed, step, int(images)])
    delay = label_delay(seed, step, images)
    body: dict[str, object] = {"stream": stream, "id": f"{stream}-{step}", "time": _time(step)}
    if images:
        pixels, label = draw_image(rng, regime)
        body["image"] = b64encode(png(pixels)).decode()
    else:
        features, label = draw_features(rng, regime)
        body["features"] = {
            f"p{i}{j}": float(features[8 * i + j]) for i in range(8) for j in range(8)
        }
    if delay == 0:
        body["label"] = label
    return Event(step, body, label, delay)


def messages(
    stream: str, seed: int, step: int, regime_at: Callable[[int], Regime], *, images: bool
) -> Sequence[bytes]:
    """What is sent at a step: the event, and the labels of earlier events that are due now."""
    sent = [json.dumps(event(stream, seed, step, regime_at(step), images=images).body).encode()]
    for earlier in range(max(0, step - LATEST), step):
        if label_delay(seed, earlier, images) == step - earlier:
            late = event(stream, seed, earlier, regime_at(earlier), images=images)
            body = {
                "stream": stream,
                "id": late.body["id"],
                "label": late.label,
                "time": _time(step),
            }
            sent.append(json.dumps(body).encode())
    return sent


def _time(step: int) -> str:
    """A minute a step, from a fixed day: the demo's clock is the data's, not the machine's."""
    day, minute = divmod(step, 1440)
    return f"2026-01-{day + 1:02d}T{minute // 60:02d}:{minute % 60:02d}:00Z"
