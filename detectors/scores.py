"""Score maps: what observations and labels become before a bank watches them."""

from detectors.scores_conditional import ClassConditionalScores, LabelScores, ResidualScores
from detectors.scores_input import InputScores

__all__ = ["ClassConditionalScores", "InputScores", "LabelScores", "ResidualScores"]
