import math

import numpy as np
import pytest

from service.monitor.encoder import MIN_LEVEL, Encoder
from service.records.record import DecodeError, Observation, Record
from service.records.schema import FeatureKind, FeatureSchema, SchemaLearner
from service.store import states as checkpoint
from tests.service.streams import columns_of

DECLARED = {"amount": "numeric", "country": "categorical", "is_new": "boolean"}
SCHEMA = FeatureSchema.declared(DECLARED)
CODES = FeatureSchema.declared({"c": "categorical"})
GOOD = {"amount": 1.5, "country": "GB", "is_new": True}


def observation(features):
    return Observation("s", "1", None, features)


def features_of(rows, schema=SCHEMA):
    return columns_of([observation(row) for row in rows], schema).features


def codes(rows):
    return features_of(rows, CODES)


def learned(rows):
    learner = SchemaLearner()
    for n, row in enumerate(rows, 1):
        schema = learner.add(observation(row))
        if schema is not None:
            return n, dict(schema.kinds)
    return None


def test_what_follows_the_schema_passes_and_null_is_legal_everywhere():
    SCHEMA.check(observation(GOOD))
    SCHEMA.check(observation(dict.fromkeys(GOOD)))
    SCHEMA.check(observation({"is_new": 0.0, "country": 44.0, "amount": -1.0}))


@pytest.mark.parametrize(
    ("features", "reason", "shown"),
    [
        ({"amount": 1.0, "country": "GB"}, "missing_feature", "'is_new'"),
        ({}, "missing_feature", "0 of 3"),
        ({**GOOD, "age": 3.0}, "new_feature", "'age'"),
        ({"amount": 1.0, "country": "GB", "isnew": True}, "missing_feature", "'is_new'"),
        ({**GOOD, "amount": "1.5"}, "wrong_type", "features.amount: expected a number, got '1.5'"),
        ({**GOOD, "amount": True}, "wrong_type", "true"),
        ({**GOOD, "country": True}, "wrong_type", "features.country"),
        ({**GOOD, "is_new": "yes"}, "wrong_type", "features.is_new"),
        ({**GOOD, "is_new": 2.0}, "wrong_type", "2.0"),
    ],
)
def test_what_does_not_is_refused_with_its_name(features, reason, shown):
    with pytest.raises(DecodeError) as caught:
        SCHEMA.check(observation(features), Record("t", 0, 9, None, b""))
    assert caught.value.reason == reason
    assert str(caught.value).startswith("t[0]@9: ")
    assert shown in str(caught.value)


def test_an_unknown_kind_is_an_error():
    with pytest.raises(ValueError, match="text"):
        FeatureSchema.declared({"a": "text"})


def test_the_first_25_observations_are_the_schema():
    assert learned([GOOD] * 24) is None
    assert learned([GOOD] * 25) == (25, DECLARED)


def test_one_bad_first_record_decides_nothing():
    bad = {"amount": "n/a", "extra": 1.0}
    assert learned([bad] + [GOOD] * 24) == (25, DECLARED)
    assert learned([bad] * 12 + [GOOD] * 13) == (25, DECLARED)


def test_a_missing_value_says_nothing_about_a_kind():
    rows = [{"a": None}] * 24 + [{"a": "x"}]
    assert learned(rows) == (25, {"a": FeatureKind.CATEGORICAL})


def test_a_feature_without_values_is_waited_for_but_not_for_ever():
    late = [{"a": None}] * 60 + [{"a": True}]
    assert learned(late) == (61, {"a": FeatureKind.BOOLEAN})
    assert learned([{"a": None}] * 300) == (200, {"a": FeatureKind.NUMERIC})


def test_a_schema_survives_a_checkpoint():
    state = checkpoint.loads(checkpoint.dumps(SCHEMA.snapshot()))
    assert FeatureSchema.from_snapshot(state) == SCHEMA


def test_every_kind_has_its_columns():
    encoder = Encoder(SCHEMA)
    encoder.fit(features_of([GOOD, {**GOOD, "country": "DE"}, GOOD] * MIN_LEVEL))
    assert encoder.columns == ("amount", "country", "country", "country", "is_new")
    shown = [GOOD, {"amount": -2.0, "country": "FR", "is_new": False}, dict.fromkeys(GOOD)]
    rows = encoder.encode(features_of(shown))
    nan = math.nan
    np.testing.assert_array_equal(
        rows, [[1.5, 1, 0, 0, 1], [-2.0, 0, 0, 1, 0], [nan, nan, nan, nan, nan]]
    )


def test_only_the_most_frequent_levels_have_a_column():
    rows = [{"c": f"l{n:02}"} for n in range(40) for _ in range(40 - n)]
    encoder = Encoder(CODES)
    encoder.fit(codes(rows))
    assert encoder.levels == {"c": tuple(f"l{n:02}" for n in range(12))}
    encoded = encoder.encode(codes(rows))
    assert encoded.shape == (len(rows), 13)
    assert (encoded.sum(axis=1) == 1).all()
    assert encoder.encode(codes([{"c": "new"}]))[0, -1] == 1


@pytest.mark.parametrize("n", [1, MIN_LEVEL - 1, MIN_LEVEL])
def test_a_level_too_rare_to_learn_is_one_of_the_others(n):
    encoder = Encoder(CODES)
    encoder.fit(codes([{"c": "a"}] * 100 + [{"c": "b"}] * n))
    is_known = n >= MIN_LEVEL
    assert encoder.levels == {"c": ("a", "b") if is_known else ("a",)}
    encoded = encoder.encode(codes([{"c": "b"}]))
    assert encoded.tolist() == [[0.0, 1.0, 0.0] if is_known else [0.0, 1.0]]


def test_the_order_of_the_reference_changes_no_column():
    rows = [{"c": level} for level in "cabcab" * MIN_LEVEL]
    one, other = Encoder(CODES), Encoder(CODES)
    one.fit(codes(rows))
    other.fit(codes(rows[::-1]))
    assert one.levels == other.levels == {"c": ("a", "b", "c")}


def test_a_number_that_is_a_code_is_one_level_however_it_is_written():
    encoder = Encoder(CODES)
    encoder.fit(codes([{"c": 44.0}, {"c": "44"}, {"c": 1e300}, {"c": ""}] * MIN_LEVEL))
    assert encoder.levels is not None
    assert set(encoder.levels["c"]) == {"44", "1e+300", ""}
    assert encoder.encode(codes([{"c": 44.0}]))[0, 0] == 1


def test_no_rows_and_no_features_have_shapes_too():
    encoder = Encoder(SCHEMA)
    encoder.fit(features_of([GOOD] * MIN_LEVEL))
    assert encoder.encode(features_of([])).shape == (0, 4)
    nothing = FeatureSchema.empty()
    empty = Encoder(nothing)
    empty.fit(features_of([{}], nothing))
    assert empty.encode(features_of([{}, {}], nothing)).shape == (2, 0)


def test_an_encoder_survives_a_checkpoint_fitted_or_not():
    encoder, other = Encoder(SCHEMA), Encoder(FeatureSchema.empty())
    other.restore(checkpoint.loads(checkpoint.dumps(encoder.snapshot())))
    assert other.columns == ()
    with pytest.raises(RuntimeError, match="not fitted"):
        other.encode(features_of([GOOD]))
    encoder.fit(features_of([GOOD, {**GOOD, "country": None}]))
    other.restore(checkpoint.loads(checkpoint.dumps(encoder.snapshot())))
    assert other.columns == encoder.columns
    good = features_of([GOOD])
    np.testing.assert_array_equal(other.encode(good), encoder.encode(good))
