"""A model version that answers: VGG-16 in a process of its own, tabular models in this one."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from models.scorer import Scored, ScoringProcess
from models.spec import Family, ModelVersion


class TabularScorer:
    """A tabular model, whose parameters are a few arrays."""

    def __init__(self, version: ModelVersion) -> None:
        from models.tabular import TabularClassifier  # noqa: PLC0415 - imports scikit-learn

        self.classes = version.classes
        self.input_shape = version.input_shape
        self._model = TabularClassifier.load(version.path)

    def score(self, inputs: npt.NDArray[Any], /) -> Scored:
        """Probabilities (n, K) for features (n, d)."""
        # One row at a time, so that a result does not depend on the batch it came in.
        rows = [self._model.predict_proba(row[None])[0] for row in inputs.astype(np.float64)]
        return Scored(np.stack(rows))

    def close(self) -> None:
        """Nothing is held."""


def load_scorer(version: ModelVersion) -> Scorer:
    """The scorer of a version."""
    if version.family is Family.TABULAR:
        return TabularScorer(version)
    process = ScoringProcess(version.path)
    process.start()
    return process


class Scorer(Protocol):
    """A champion that answers."""

    classes: tuple[str, ...]
    input_shape: tuple[int, ...]

    def score(self, inputs: npt.NDArray[Any], /) -> Scored:
        """What it says about inputs, shape (n, ...)."""
        ...

    def close(self) -> None:
        """Let go of its process and memory."""
        ...
