"""Score maps: what observations and labels become before a bank watches them."""

from detectors.scores_by_class import ClassConditionalScores
from detectors.scores_input import InputScores
from detectors.scores_label import LabelScores
from detectors.scores_residual import ResidualScores

__all__ = ["ClassConditionalScores", "InputScores", "LabelScores", "ResidualScores"]
