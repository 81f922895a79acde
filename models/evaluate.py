"""The gate: whether a candidate is better than the champion, and with what confidence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import beta, norm

Labels = npt.ArrayLike
"""Class names or codes, shape (n,)."""

MIN_ROWS = 50
"""Below this, one flipped row moves the accuracy by more than the gains that are worth shipping."""


@dataclass(frozen=True, slots=True)
class Gate:
    """The decision about a candidate, with the numbers behind it.

    Attributes
    ----------
    promote
        Whether the candidate replaces the champion.
    reason
        One sentence for people.
    champion_accuracy, candidate_accuracy, gain
        On the hold-out rows; NaN without rows.
    gain_lower
        One-sided lower confidence bound of the gain.
    n
        Hold-out rows.
    anchor_champion_accuracy, anchor_candidate_accuracy, anchor_n
        On rows from before the change; None and 0 without an anchor set.
    by_class
        Class to (rows, champion's accuracy, candidate's accuracy) on the hold-out rows.
    """

    promote: bool
    reason: str
    champion_accuracy: float
    candidate_accuracy: float
    gain: float
    gain_lower: float
    n: int
    anchor_champion_accuracy: float | None = None
    anchor_candidate_accuracy: float | None = None
    anchor_n: int = 0
    by_class: Mapping[str, tuple[int, float, float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types; numbers that do not exist become null."""
        return {
            k: None if isinstance(v, float) and not math.isfinite(v) else v
            for k, v in asdict(self).items()
        }


def gain_lower_bound(wins: int, losses: int, n: int, confidence: float = 0.95) -> float:
    """One-sided lower bound of the paired accuracy gain ``(wins - losses) / n``.

    The rows where both are right or both are wrong say nothing about the sign of the gain; given
    their number the wins are binomial, so Clopper and Pearson's exact bound [1]_ of the share of
    wins, pi, bounds the gain by ``share of discordant rows * (2 pi - 1)``. A bound above 0 is
    exactly the rejection of McNemar's exact one-sided test [2]_. Where the bound is negative the
    share of discordant rows is taken at its own upper bound.

    Parameters
    ----------
    wins, losses
        Rows that only the candidate, only the champion has right.
    n
        All rows; at least `wins` + `losses` and at least 1.
    confidence
        One-sided, in (0, 1).

    Raises
    ------
    ValueError
        If the counts do not fit together or `confidence` is outside (0, 1).

    References
    ----------
    .. [1] C. J. Clopper, E. S. Pearson (1934). The use of confidence or fiducial limits
       illustrated in the case of the binomial. Biometrika 26, 404-413.
    .. [2] M. W. Fagerland, S. Lydersen, P. Laake (2013). The McNemar test for binary matched-pairs
       data. BMC Medical Research Methodology 13:91.
    """
    discordant = wins + losses
    if wins < 0 or losses < 0 or n < max(discordant, 1):
        raise ValueError(f"expected 0 <= wins + losses <= n, got {wins}, {losses} and n = {n}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}")
    alpha = 1 - confidence
    share = float(beta.ppf(alpha, wins, losses + 1)) if wins else 0.0
    balance = 2 * share - 1
    if balance > 0:
        return discordant / n * balance
    upper = float(beta.ppf(confidence, discordant + 1, n - discordant)) if discordant < n else 1.0
    return upper * balance


def compare(
    labels: Labels,
    champion: Labels,
    candidate: Labels,
    *,
    confidence: float = 0.95,
    min_gain: float = 0.0,
    anchor: tuple[Labels, Labels, Labels] | None = None,
    max_anchor_drop: float | None = None,
    min_rows: int = MIN_ROWS,
) -> Gate:
    """Decide whether the candidate replaces the champion.

    Parameters
    ----------
    labels, champion, candidate
        True and predicted classes of the hold-out rows, from after the change point; shape (n,).
    confidence
        Of the one-sided lower bound of the gain.
    min_gain
        The bound has to be above it, in accuracy (0.01 is one row in a hundred); negative values
        also promote candidates that are not proven better but at most that much worse.
    anchor
        The same three for rows from before the change.
    max_anchor_drop
        Accuracy that may be lost on the anchor rows; None accepts any loss, which is right for
        concept drift, where the old labels are wrong now.
    min_rows
        Fewer hold-out rows than this promote nothing.

    Raises
    ------
    ValueError
        If the shapes differ, or `max_anchor_drop` comes without an anchor set.
    """
    truth, old, new = _aligned("hold-out", labels, champion, candidate)
    n = len(truth)
    old_right, new_right = old == truth, new == truth
    if n:
        wins = int((new_right & ~old_right).sum())
        losses = int((old_right & ~new_right).sum())
        lower = gain_lower_bound(wins, losses, n, confidence)
        numbers = (float(old_right.mean()), float(new_right.mean()), (wins - losses) / n)
    else:
        wins = losses = 0
        lower, numbers = -1.0, (math.nan,) * 3
    gain = numbers[2]
    anchor_old = anchor_new = None
    anchor_n = 0
    if anchor is not None and np.size(anchor[0]):
        a_truth, a_old, a_new = _aligned("anchor", *anchor)
        anchor_old = float((a_old == a_truth).mean())
        anchor_new = float((a_new == a_truth).mean())
        anchor_n = len(a_truth)
    elif max_anchor_drop is not None:
        raise ValueError(f"max_anchor_drop {max_anchor_drop}: there are no anchor rows to check")

    at = f"lower bound {lower:+.3f} at {confidence:.0%}"
    if n < min_rows:
        promote, reason = False, f"{n} hold-out rows are too few, {min_rows} are needed"
    elif lower <= min_gain:
        promote = False
        reason = (
            f"gain {gain:+.3f} ({at}) is not above {min_gain:g} on {n} hold-out rows"
            f"{_rows_needed(wins, losses, n, min_gain, confidence)}"
        )
    elif (
        max_anchor_drop is not None
        and anchor_old is not None
        and anchor_new is not None
        and anchor_old - anchor_new > max_anchor_drop
    ):
        promote = False
        reason = (
            f"gain {gain:+.3f} ({at}), but on {anchor_n} anchor rows the accuracy falls from "
            f"{anchor_old:.3f} to {anchor_new:.3f}, more than {max_anchor_drop:g}"
        )
    else:
        promote, reason = True, f"gain {gain:+.3f} ({at}) on {n} hold-out rows"
    return Gate(
        promote=promote,
        reason=reason,
        champion_accuracy=numbers[0],
        candidate_accuracy=numbers[1],
        gain=gain,
        gain_lower=lower,
        n=n,
        anchor_champion_accuracy=anchor_old,
        anchor_candidate_accuracy=anchor_new,
        anchor_n=anchor_n,
        by_class={
            str(c): (
                int((truth == c).sum()),
                float(old_right[truth == c].mean()),
                float(new_right[truth == c].mean()),
            )
            for c in np.unique(truth)
        },
    )


def log_loss(scores: npt.NDArray[Any], codes: npt.NDArray[np.int64]) -> float:
    """Mean negative log-likelihood of the true classes, in nats.

    Parameters
    ----------
    scores
        Probabilities, shape (n, K); those below 1e-7 count as 1e-7.
    codes
        Indices of the true classes, shape (n,).
    """
    return float(-np.log(np.maximum(scores[np.arange(len(codes)), codes], 1e-7)).mean())


def _aligned(name: str, *columns: Labels) -> Sequence[npt.NDArray[Any]]:
    arrays = [np.asarray(c) for c in columns]
    if len({a.shape for a in arrays}) != 1 or arrays[0].ndim != 1:
        raise ValueError(
            f"{name}: expected labels and two predictions of one length, "
            f"got shapes {[a.shape for a in arrays]}"
        )
    return arrays


def _rows_needed(wins: int, losses: int, n: int, min_gain: float, confidence: float) -> str:
    """How many rows would show the observed gain, by the normal approximation; in words."""
    gain = (wins - losses) / n
    if gain <= min_gain:
        return ""
    variance = (wins + losses) / n - gain**2
    z = float(norm.ppf(confidence))
    rows = math.ceil(z**2 * variance / (gain - min_gain) ** 2)
    return f"; about {max(n + 1, rows)} would show it"
