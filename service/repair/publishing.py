"""What a training made, as a version of the registry."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from models.job import JobResult
from models.registry import Registry
from models.spec import ModelVersion


def publish_result(
    registry: Registry,
    result: JobResult,
    *,
    stream: str,
    parent: int | None,
    key: str,
    trained_on: Mapping[str, Any],
) -> ModelVersion:
    """Publish what a job made."""
    # The candidate's files are copied into a staging folder: the job's folder stays complete, so
    # a publication that is cut short can be repeated.
    staging = registry.stage(stream)
    shutil.copytree(result.candidate, staging, dirs_exist_ok=True)
    return registry.publish(
        staging,
        stream=stream,
        family=result.family,
        classes=result.classes,
        input_shape=result.input_shape,
        preprocessing=result.preprocessing,
        strategy=result.strategy,
        metrics=result.metrics,
        trained_on=trained_on,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        parent=parent,
        key=key,
    )
