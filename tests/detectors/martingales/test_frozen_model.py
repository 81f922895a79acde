from __future__ import annotations

import numpy as np
from sklearn.ensemble import GradientBoostingClassifier

from detectors.martingales.frozen_model import FrozenModel


def test_the_trees_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(400, 3))
    labels = (rows[:, 0] * rows[:, 1] > 0).astype(np.int64)
    model = FrozenModel._learn(rows, labels, 10, 0)
    boosted = GradientBoostingClassifier(
        n_estimators=10,
        learning_rate=0.1,
        max_leaf_nodes=8,
        max_depth=None,
        min_samples_leaf=20,
        subsample=0.7,
        max_features=1.0,
        random_state=0,
    ).fit(rows, labels)
    np.testing.assert_allclose(model.log_odds(rows)[1], boosted.decision_function(rows))
