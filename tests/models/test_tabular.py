from pathlib import Path

import numpy as np
import pytest

from models import tabular
from models.tabular import TabularClassifier


def rows(n: int, n_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n)
    x = rng.normal(size=(n, 6)) * [1, 10, 0.1, 1, 1, 1] + [0, 50, 0, 0, 0, 0]
    x[:, 0] += 1.5 * y
    x[:, 3] *= np.where(y == 0, 1, 3)
    return x, y


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_scores_are_scikit_learns_to_one_in_a_million(n_classes: int) -> None:
    x, y = rows(300, n_classes)
    ours = TabularClassifier.fit(x, y, [str(c) for c in range(n_classes)], seed=3)
    scaler, network = tabular._fitted(x, y.astype(np.int64), 3)
    fresh, _ = rows(200, n_classes, seed=1)
    np.testing.assert_allclose(
        ours.predict_proba(fresh), network.predict_proba(scaler.transform(fresh)), atol=1e-6
    )


def test_it_learns_what_no_straight_line_separates() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(1600, 2))
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    model = TabularClassifier.fit(x[:800], y[:800], ["no", "yes"], seed=0)
    assert (model.predict_proba(x[800:]).argmax(axis=1) == y[800:]).mean() > 0.93


def test_a_missing_value_counts_as_the_training_median(tmp_path: Path) -> None:
    x, y = rows(301, 3)
    model = TabularClassifier.fit(x, y, ["a", "b", "c"], seed=0)
    holes, filled = x[:20].copy(), x[:20].copy()
    holes[:, 1], filled[:, 1] = np.nan, np.median(x[:, 1])
    np.testing.assert_array_equal(model.predict_proba(holes), model.predict_proba(filled))


def test_training_rows_may_have_holes_and_empty_columns() -> None:
    x, y = rows(300, 2)
    x[::7, 0] = np.nan
    x[:, 5] = np.nan
    model = TabularClassifier.fit(x, y, ["a", "b"], seed=0)
    assert np.isfinite(model.predict_proba(x)).all()


def test_a_class_without_rows_scores_zero_and_keeps_its_column() -> None:
    x, y = rows(200, 2)
    model = TabularClassifier.fit(x, 2 * y, ["a", "never", "b"], seed=0)
    scores = model.predict_proba(x)
    assert (scores[:, 1] == 0).all()
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    assert (scores.argmax(axis=1) == 2 * y).mean() > 0.7


def test_saved_and_loaded_scores_the_same_to_the_last_bit(tmp_path: Path) -> None:
    x, y = rows(200, 3)
    model = TabularClassifier.fit(x, y, ["a", "b", "ü"], seed=0)
    model.save(tmp_path)
    again = TabularClassifier.load(tmp_path)
    assert again.classes == ("a", "b", "ü")
    np.testing.assert_array_equal(again.predict_proba(x), model.predict_proba(x))
    with np.load(tmp_path / tabular.FILE, allow_pickle=False) as data:
        assert all(data[name].dtype != object for name in data.files)


def test_the_seed_decides_the_result() -> None:
    x, y = rows(200, 3)
    first, same, other = (TabularClassifier.fit(x, y, ["a", "b", "c"], seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.hidden_weights, same.hidden_weights)
    assert not np.array_equal(first.hidden_weights, other.hidden_weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("infinite", r"X\[4\]: holds an infinite value"),
        ("one class", r"at least two of 3 classes, got \[.*0.*\]"),
        ("unknown class", "at least two of 3 classes"),
        ("lengths", r"got \(50, 6\) and \(49,\)"),
    ],
)
def test_rows_that_cannot_be_learned_are_named(change: str, message: str) -> None:
    x, y = rows(50, 3)
    match change:
        case "infinite":
            x[4, 2] = np.inf
        case "one class":
            y[:] = 0
        case "unknown class":
            y[7] = 3
        case _:
            y = y[1:]
    with pytest.raises(ValueError, match=message):
        TabularClassifier.fit(x, y, ["a", "b", "c"], seed=0)


def test_other_numbers_of_features_are_refused() -> None:
    x, y = rows(50, 2)
    model = TabularClassifier.fit(x, y, ["a", "b"], seed=0)
    with pytest.raises(ValueError, match=r"expected shape \(n, 6\), got \(50, 5\)"):
        model.predict_proba(x[:, :5])
