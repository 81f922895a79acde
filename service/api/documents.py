"""What the HTTP interface says of a stream, as a JSON object."""

from __future__ import annotations

from typing import Any

from service.api.correction import prior_document
from service.domain.champion import Champion
from service.pipeline.view import StreamView


def stream_document(stream: StreamView, champion: Champion | None) -> dict[str, Any]:
    """Describe a stream.

    Parameters
    ----------
    stream
        As it was published.
    champion
        As the store has it, or None.
    """
    return {
        "name": stream.name,
        "problem": str(stream.settings.problem),
        "phase": stream.phase,
        "reason": stream.reason or None,
        "observations": stream.observations,
        "labels": stream.labels,
        "waiting_for_label": stream.waiting_for_label,
        "accuracy": stream.accuracy,
        "champion": champion.version if champion else None,
        "false_alarm_every": stream.settings.false_alarm_every,
        "statistics": {str(factor): ratio for factor, ratio in stream.statistics.items()},
        "left_out": dict(stream.left_out),
        "open_incidents": list(stream.open_incidents),
        "segments": {f"{k}={v}": phase for (k, v), phase in stream.segments.items()},
        "prior": prior_document(stream.classes, stream.correction),
    }
