import numpy as np
import pytest

from benchmarks.datasets import Dataset
from benchmarks.injection import REGION, Drift, inject

N = 4000


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    features = np.column_stack([np.arange(N), 10_000 + rng.permutation(N), rng.normal(size=N) - 9])
    return Dataset(features, rng.integers(0, 2, N), ("number", "big", "small"), ("no", "yes"))


def before(episode):
    return episode.row < episode.onset


@pytest.mark.parametrize("drift", list(Drift))
def test_nothing_is_changed_before_the_onset(data, drift):
    episode = inject(data, drift, width=0, seed=3)
    n = episode.onset
    assert REGION[0] * N <= n < REGION[1] * N
    assert episode.row[:n].tolist() == list(range(n))
    numbers = episode.features[:n, 0].astype(int)
    assert (data.features[numbers] == episode.features[:n]).all()
    assert (data.labels[numbers] == episode.labels[:n]).all()


def test_the_order_and_the_onset_depend_on_the_seed_alone(data):
    found = [inject(data, drift, width=0, seed=5) for drift in Drift]
    assert len({episode.onset for episode in found}) == 1
    assert all((e.features[: e.onset] == found[0].features[: e.onset]).all() for e in found)
    assert inject(data, Drift.Y_SWAPS, width=0, seed=6).onset != found[0].onset


def test_the_rows_are_shuffled(data):
    numbers = inject(data, Drift.Y_SWAPS, width=0, seed=3).features[:, 0]
    assert sorted(numbers) == list(range(N))
    assert abs(np.corrcoef(numbers, np.arange(N))[0, 1]) < 0.1


def test_exceeding_drops_what_is_above_one_feature_s_median_and_no_label_more_than_another(data):
    episode = inject(data, Drift.X_EXCEED_SKIP, width=0, seed=3)
    after = ~before(episode)
    medians = np.median(data.features, axis=0)
    limited = (episode.features[after] <= medians).all(axis=0)
    assert limited.sum() == 1
    assert after.sum() == pytest.approx((N - episode.onset) / 2, rel=0.1)
    assert (np.diff(episode.row) > 0).all()


def test_permuting_moves_values_between_features_and_keeps_the_labels(data):
    episode = inject(data, Drift.X_PERMUTATIONS, width=0, seed=3)
    after = episode.features[~before(episode)]
    places = [
        int(np.argmin(np.abs(row - [after[:, j].mean() for j in range(3)])))
        for row in data.features.mean(axis=0)
    ]
    assert sorted(places) == [0, 1, 2]
    assert places != [0, 1, 2]
    numbers = after[:, places[0]].astype(int)
    assert (episode.labels[~before(episode)] == data.labels[numbers]).all()
    assert len(episode.row) == N


def test_the_prior_drift_drops_three_quarters_of_one_label(data):
    episode = inject(data, Drift.Y_PRIOR_SKIP, width=0, seed=3)
    left = np.bincount(episode.labels[~before(episode)], minlength=2)
    whole = (N - episode.onset) / 2
    assert left.max() == pytest.approx(whole, rel=0.1)
    assert left.min() == pytest.approx(whole / 4, rel=0.2)


def test_swapping_leaves_one_label_of_two(data):
    episode = inject(data, Drift.Y_SWAPS, width=0, seed=3)
    assert len(set(episode.labels[~before(episode)])) == 1
    assert len(episode.row) == N


def test_a_gradual_drift_changes_a_share_that_grows_to_all(data):
    width = 800
    episode = inject(data, Drift.Y_SWAPS, width=width, seed=3)
    truth = data.labels[episode.features[:, 0].astype(int)]
    changed = episode.labels != truth
    own = truth == truth[changed][0]
    shares = [
        changed[
            own & (episode.row >= episode.onset + lo) & (episode.row < episode.onset + hi)
        ].mean()
        for lo, hi in ((0, 200), (300, 500), (600, 800), (800, 1000))
    ]
    assert shares == pytest.approx([0.125, 0.5, 0.875, 1.0], abs=0.12)
    assert shares[-1] == 1
