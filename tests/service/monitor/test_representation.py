from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from detectors.attribution.permutation import two_sample
from service.monitor.representation import NEWLY_MISSING, Embedding, Placeholder, Tabular
from service.records.columns import Features
from service.records.record import Observation
from service.records.schema import FeatureSchema
from service.store import states as checkpoint
from tests.service.streams import columns_of

NAMES = ("brightness", "sharpness")


def raws(n: int, seed: int, *, m: int = 40, q: int = 2) -> Features:
    """Embeddings with few strong directions, and properties in units of their own behind them."""
    mixing = np.random.default_rng(7).normal(size=(m, m)) * np.arange(1, m + 1)[:, None] ** -0.7
    rng = np.random.default_rng(seed)
    codes = np.maximum(rng.normal(size=(n, m)) @ mixing, 0)
    properties = 5 + 0.01 * rng.normal(size=(n, q))
    return Features(np.hstack([codes, properties]))


def fitted(seed: int = 100, **options: int) -> Embedding:
    embedding = Embedding(8, NAMES)
    embedding.fit(raws(300, seed, **options))
    return embedding


def test_properties_are_columns_behind_the_components_and_weigh_like_one() -> None:
    embedding = fitted()
    assert embedding.columns == (*(f"embedding[{j}]" for j in range(8)), *NAMES)
    assert embedding.complete_columns == embedding.columns
    rows = embedding.rows(raws(2000, 101))
    assert rows.shape == (2000, 10)
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=0.35)
    np.testing.assert_allclose(rows.std(axis=0), 1, atol=0.3)


def test_an_embedding_that_comes_without_an_image_goes_on_without_properties() -> None:
    embedding = Embedding(8)
    embedding.fit(raws(300, 100, q=0))
    assert embedding.columns == tuple(f"embedding[{j}]" for j in range(8))
    assert embedding.rows(raws(5, 101, q=0)).shape == (5, 8)
    assert embedding.rows(raws(0, 101, q=0)).shape == (0, 8)


def test_a_property_that_never_varied_keeps_its_unit() -> None:
    reference = raws(300, 100)
    reference.numbers[:, -1] = 0.0  # the colour cast of grey images
    embedding = Embedding(8, NAMES)
    embedding.fit(reference)
    tinted = reference[:1]
    tinted.numbers[0, -1] = 0.3
    assert embedding.rows(tinted)[0, -1] == pytest.approx(0.3)


def test_fresh_rows_without_a_change_are_not_told_from_the_compared_reference() -> None:
    # Compared with the rows that taught the components they nearly always are, even at 1 %.
    p_values = []
    for seed in range(100, 130):
        reference = raws(450, seed)
        embedding = Embedding(8, NAMES)
        embedding.fit(reference)
        compared = embedding.rows(reference[embedding.n_spent(450) :])
        fresh = embedding.rows(raws(300, 1000 + seed))
        p_values.append(two_sample(compared, fresh, seed=seed, n_permutations=99).p_value)
    # Of 30 uniform p-values more than 7 are at most 0.1 in 1 % of all cases.
    assert np.sum(np.array(p_values) <= 0.1) <= 7


def test_rows_do_not_depend_on_the_batch_or_on_a_restart() -> None:
    embedding = fitted()
    rows = embedding.rows(raws(50, 101))
    restored = Embedding(8, NAMES)
    restored.restore(checkpoint.loads(checkpoint.dumps(embedding.snapshot())))
    np.testing.assert_array_equal(restored.rows(raws(50, 101)), rows)
    np.testing.assert_array_equal(restored.rows(raws(50, 101)[17:18]), rows[17:18])


def test_a_state_of_other_properties_is_refused() -> None:
    with pytest.raises(ValueError, match=r"with the properties \[\], got \['brightness'"):
        Embedding(8).restore(fitted().snapshot())


def test_every_row_of_a_table_is_compared() -> None:
    assert Tabular(FeatureSchema.empty()).n_spent(2000) == 0


LARGEST = 1.7976931348623157e308
ONE = FeatureSchema.declared({"a": "numeric"})
TWO = FeatureSchema.declared({"a": "numeric", "b": "numeric"})


def features(rows: Sequence[Mapping[str, float | None]], schema: FeatureSchema = ONE) -> Features:
    bodies = [Observation("s", str(i), None, row) for i, row in enumerate(rows)]
    return columns_of(bodies, schema).features


def with_placeholders(n: int, share: float) -> Features:
    rng = np.random.default_rng(1)
    pairs = zip(*rng.normal(size=(2, n)).tolist(), rng.random(n) < share, strict=True)
    return features([{"a": x, "b": LARGEST if hit else y} for x, y, hit in pairs], TWO)


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_a_placeholder_is_drawn_in_and_named(share: float) -> None:
    table = Tabular(TWO)
    table.fit(with_placeholders(300, share))
    rows = table.rows(with_placeholders(200, 0.1))
    assert np.abs(rows).max() < 1e5
    n = int((rows[:, 1] > 100).sum())
    assert table.placeholders(rows) == [Placeholder("b", 1.79769e308, n)]
    copy = Tabular(FeatureSchema.empty())
    copy.restore(checkpoint.loads(checkpoint.dumps(table.snapshot())))
    np.testing.assert_array_equal(copy.rows(with_placeholders(200, 0.1)), rows)


def test_a_far_value_that_does_not_come_again_is_no_placeholder() -> None:
    table = Tabular(ONE)
    table.fit(features([{"a": x} for x in np.random.default_rng(2).normal(size=300).tolist()]))
    assert table.placeholders(table.rows(features([{"a": 1e6}, {"a": 1.0}]))) == []
    growing = features([{"a": 10.0**k} for k in range(4, 40)])
    assert table.placeholders(table.rows(growing)) == []
    assert table.placeholders(table.rows(features([{"a": 500.0}] * 9))) == []


def test_a_feature_that_vanishes_is_counted_where_the_reference_had_none_missing() -> None:
    table = Tabular(TWO)
    table.fit(features([{"a": float(i), "b": None if i % 2 else 1.0} for i in range(10)], TWO))
    assert table.complete_columns == ("a", "b", "b", NEWLY_MISSING)
    rows = table.rows(features([{"a": None, "b": None}, {"a": 4.5, "b": None}], TWO))
    assert table.complete(rows).tolist() == [[4.5, 1.0, 1.0, 1.0], [4.5, 1.0, 1.0, 0.0]]
