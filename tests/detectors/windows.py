"""Two windows under test, from their rows and labels."""

from __future__ import annotations

from typing import Any

from detectors.attribution.windows import Reference, Sample, Windows
from detectors.base import Problem


def reference_of(sample: Sample, **of: Any) -> Reference:
    """A reference of two classes, with a name of its own for each column."""
    names = [f"x{j}" for j in range(sample.features.shape[1])]
    return Reference(sample, **{"n_classes": 2, "columns": names, **of})


def windows_of(
    reference: Sample, recent: Sample, problem: Problem, *, min_labels: int = 100, **of: Any
) -> Windows:
    """Windows that are compared; `of` is what `Reference` is told."""
    return Windows(reference_of(reference, **of), recent, problem, min_labels)
