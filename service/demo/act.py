"""The demo's programme: what moves in which stream, in which order."""

from __future__ import annotations

from dataclasses import dataclass

from service.demo.digits import Shift
from service.demo.source import IMAGES, PIXELS


@dataclass(frozen=True, slots=True)
class Act:
    """A phase of the demo: what happens to which stream, and the truth about it."""

    title: str
    stream: str
    shift: Shift
    truth: tuple[str, ...]


ACTS = (
    Act("nothing moves", PIXELS, Shift.NONE, ()),
    Act("P(X): biased selection", PIXELS, Shift.BIASED_SELECTION, ("covariate",)),
    Act("P(Y|X): new label rule", PIXELS, Shift.NEW_RULE, ("concept",)),
    Act("P(Y): four digits rule", IMAGES, Shift.PRIOR, ("prior",)),
    Act("P(X|Y): worn sensor", IMAGES, Shift.WORN_SENSOR, ("concept",)),
)
"""The pixels come first: their model is trained in a second, the images' meanwhile. Before its
first shift nothing moves in a stream; the first act's row counts both streams up to there."""
