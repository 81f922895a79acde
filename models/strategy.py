"""Which transfer-learning case a repair is, decided as the lecture does."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from models.spec import Floats

MIN_DOMAIN_ROWS = 10
"""Rows of a domain below which `domain_difference` says nothing: two in each of five folds."""


class Strategy(StrEnum):
    """How much of the network is trained, from least to most."""

    FIXED_FEATURES = "fixed_features"
    """Nothing but a softmax on the fc2 codes of the unchanged network."""
    LAST_BLOCK = "last_block"
    """Block 5 and what follows: the features of block 4 are the "earlier" ones that still hold."""
    HIGHER_BLOCKS = "higher_blocks"
    """Blocks 4 and 5 and what follows; the general features of blocks 1 to 3 stay fixed."""
    ALL_LAYERS = "all_layers"
    """Everything."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A strategy and, in one line, why."""

    strategy: Strategy
    reason: str


def choose(
    n_labels: int,
    difference: float,
    *,
    medium_from: int = 400,
    different_from: float = 0.5,
) -> Choice:
    """The lecture's table of transfer-learning cases.

    ======== ================ ============
    labels   similar          different
    ======== ================ ============
    few      fixed_features   last_block
    medium   higher_blocks    all_layers
    ======== ================ ============

    Parameters
    ----------
    n_labels
        Labelled rows of the new domain.
    difference
        How far the new domain is from the old one, 0 (not told apart) to 1 (always told apart);
        see `domain_difference`.
    medium_from
        From how many labels on the data counts as medium or large.
    different_from
        From which difference on the domains count as different.

    Raises
    ------
    ValueError
        If `n_labels` is negative or `difference` is not in [0, 1].
    """
    if n_labels < 0:
        raise ValueError(f"n_labels must not be negative, got {n_labels}")
    if not 0 <= difference <= 1:
        raise ValueError(f"difference must be in [0, 1], got {difference}")
    enough, different = n_labels >= medium_from, difference >= different_from
    match enough, different:
        case False, False:
            strategy, what = Strategy.FIXED_FEATURES, "the network's features still fit"
        case False, True:
            strategy, what = Strategy.LAST_BLOCK, "too few labels to move more than the last block"
        case True, False:
            strategy, what = Strategy.HIGHER_BLOCKS, "the general features of the first blocks fit"
        case _:
            strategy, what = Strategy.ALL_LAYERS, "enough labels to move every layer"
    return Choice(
        strategy,
        f"{n_labels} labels ({'medium or large' if enough else 'small'}: limit {medium_from}) "
        f"of a {'different' if different else 'similar'} domain "
        f"(difference {difference:.2f}, limit {different_from:.2f}): {what}",
    )


def domain_difference(old: Floats, new: Floats, *, seed: int) -> float:
    """How well a linear classifier tells two sets of codes apart: the proxy A-distance [1]_ over 2.

    Parameters
    ----------
    old, new
        Codes of the same network, shapes (n, d) and (m, d); `MIN_DOMAIN_ROWS` rows at least.
    seed
        Of the split into training and test folds.

    Returns
    -------
    float
        ``1 - 2 * balanced error``, cut to [0, 1].

    Raises
    ------
    ValueError
        If one set has fewer rows.

    References
    ----------
    .. [1] S. Ben-David, J. Blitzer, K. Crammer, F. Pereira (2006). Analysis of representations
       for domain adaptation. NIPS 19, section 5.
    """
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  slow, rarely needed
    from sklearn.model_selection import StratifiedKFold, cross_val_predict  # noqa: PLC0415
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    if min(len(old), len(new)) < MIN_DOMAIN_ROWS:
        raise ValueError(
            f"codes: at least {MIN_DOMAIN_ROWS} rows of each domain, got {len(old)} and {len(new)}"
        )
    x = np.concatenate([old, new]).astype(np.float64)
    x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-12)
    y = np.r_[np.zeros(len(old), dtype=int), np.ones(len(new), dtype=int)]
    # Strong regularisation: with more codes than rows anything is separable in training.
    model = LogisticRegression(C=0.01, class_weight="balanced", max_iter=200)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    with threadpool_limits(1):  # matrices this small are slower on several threads
        right = cross_val_predict(model, x, y, cv=folds) == y
    error = 1 - (right[y == 0].mean() + right[y == 1].mean()) / 2
    return float(np.clip(1 - 2 * error, 0, 1))
