"""Published versions and settings of a stream that trains, with models that nobody can load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.registry import Registry
from models.spec import Family, ModelVersion
from service.domain.sample import ContentKind, StoredSample
from service.settings.service import Settings

STREAM = "s"


def settings_of(folder: Path, problem: str = "x_to_y", **model: Any) -> Settings:
    return Settings.model_validate(
        {
            "store": {"url": f"sqlite:///{folder}/s.db"},
            "registry": {"path": folder / "models", "serving": folder / "serving"},
            "dead_letters": {"path": folder / "dead.jsonl"},
            "streams": [
                {
                    "name": STREAM,
                    "problem": problem,
                    "classes": ["0", "1"],
                    "model": {"family": "tabular", "min_labels": 100, **model},
                },
                {"name": "bare", "problem": "x_to_y"},
            ],
        }
    )


def publish(registry: Registry, *, saved_model: bool = True, stream: str = STREAM) -> ModelVersion:
    staging = registry.stage(stream)
    (staging / "weights").write_bytes(b"w")
    if saved_model:
        (staging / "saved_model").mkdir()
        (staging / "saved_model" / "saved_model.pb").write_bytes(b"graph")
    return registry.publish(
        staging,
        stream=stream,
        family=Family.TABULAR,
        classes=("0", "1"),
        input_shape=(2,),
        preprocessing={},
        strategy="source",
        metrics={},
        trained_on={},
        created_at="2026-11-23T10:00:00+00:00",
    )


def samples(n: int, first: int = 0) -> list[StoredSample]:
    """Labelled observations of two features."""
    return [
        StoredSample(
            k, f"e{k}", "", b'{"a": %d, "b": 1}' % (k % 7), ContentKind.FEATURES, str(k % 2)
        )
        for k in range(first, first + n)
    ]
