"""The demo's configuration, as a user would write it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from service.demo.source import IMAGES, PIXELS, STREAMS
from service.settings.service import Settings

_STREAMS: tuple[dict[str, Any], ...] = (
    {
        "name": IMAGES,
        "problem": "y_to_x",
        "reference": {"warm_up": 800},
        "false_alarm_every": 100_000,
        "confirm": {"looks": [150, 300, 500], "max_wait": 2500},
        "model": {
            "family": "vgg16",
            "weights": "source",
            "input_size": [32, 32],
            "dense_units": 256,
            "min_labels": 1300,
        },
    },
    {
        "name": PIXELS,
        "problem": "x_to_y",
        "reference": {"warm_up": 1500},
        "false_alarm_every": 100_000,
        "confirm": {"looks": [250, 500, 800], "max_wait": 4000},
        "model": {"family": "tabular", "min_labels": 1500},
    },
)


def demo_settings(
    folder: Path,
    seed: int,
    port: int,
    secret: str,
    hook_url: str,
    *,
    names: Collection[str] = STREAMS,
) -> Settings:
    """The configuration of the streams in `names`."""
    return Settings.model_validate(
        {
            "seed": seed,
            "store": {"url": f"sqlite:///{folder / 'shiftwatch.db'}"},
            "registry": {"path": str(folder / "models")},
            "dead_letters": {"path": str(folder / "dead-letters.jsonl")},
            "http": {"port": port},
            "webhooks": [
                {
                    "url": hook_url,
                    "secret": secret,
                    "allow_private": True,
                    "events": [
                        "incident.confirmed",
                        "incident.repairing",
                        "incident.resolved",
                    ],
                }
            ],
            "streams": [stream for stream in _STREAMS if stream["name"] in names],
        }
    )
