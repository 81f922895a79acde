import base64
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.records.decode import canonical, decode
from service.records.record import DecodeError, LabelRecord, Observation, Record, iso
from service.records.shown import short

PNG = b"\x89PNG\r\n\x1a\n" + b"rest"
FULL = {
    "stream": "digits",
    "id": "e-17",
    "time": "2026-11-23T12:00:00+02:00",
    "features": {"amount": 12, "country": "GB", "is_new": True, "age": None},
    "prediction": 3,
    "scores": {"3": 0.9, "8": 0.1},
    "label": None,
    "segment": {"camera": 7, "site": None},
}


def record(body: object, key: bytes | None = None, **raw: int) -> Record:
    value = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Record("features", 3, 17, key, value, **raw)


def refused(body: object, key: bytes | None = None, **kwargs: int) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        decode(record(body, key), **kwargs)
    assert str(caught.value).startswith("features[3]@17: ")
    return caught.value


def observed(**changes: object) -> Observation:
    found = decode(record({**FULL, **changes}))
    assert isinstance(found, Observation)
    return found


def test_an_observation_has_every_field_in_its_one_form():
    assert observed() == Observation(
        stream="digits",
        id="e-17",
        time=datetime(2026, 11, 23, 10, tzinfo=UTC),
        features={"amount": 12.0, "country": "GB", "is_new": True, "age": None},
        prediction="3",
        scores={"3": 0.9, "8": 0.1},
        segment={"camera": "7"},
    )
    amount = observed().features["amount"]
    assert type(amount) is float


def test_what_names_only_stream_id_label_and_time_is_a_label():
    found = decode(record({"stream": "digits", "id": 17, "label": 8, "features": None}))
    assert found == LabelRecord("digits", "17", "8", None)


def test_an_array_of_features_is_named_by_position():
    assert observed(features=[1, None, 2.5]).features == {"0": 1.0, "1": None, "2": 2.5}


def test_the_key_names_the_stream_where_the_body_does_not():
    body = {"id": "1", "label": "a"}
    assert decode(record(body, b"s")).stream == "s"
    assert decode(record({**body, "stream": "t"}, b"s")).stream == "t"
    assert refused(body).reason == "missing_field"
    assert refused(body, b"\xff").reason == "bad_text"


def test_one_class_has_one_spelling():
    assert [canonical(v) for v in (3, 3.0, "3", -0.0, True, 0.5)] == [
        "3",
        "3",
        "3",
        "0",
        "true",
        "0.5",
    ]


def test_an_image_comes_as_bytes_or_as_a_uri_but_not_as_both():
    encoded = base64.b64encode(PNG).decode()
    found = observed(features=None, image=encoded)
    assert (found.image, found.features) == (PNG, {})
    assert observed(features=None, image_uri="s3://b/1.png").image_uri == "s3://b/1.png"
    assert refused({**FULL, "image": encoded, "image_uri": "s3://b/1.png"}).reason == "conflict"


def test_an_image_at_the_limit_decodes_and_one_byte_more_does_not():
    for size in range(9, 15):
        image = (PNG + b"x" * 9)[:size]
        body = {**FULL, "image": base64.b64encode(image).decode()}
        found = decode(record(body), max_image_bytes=size)
        assert isinstance(found, Observation)
        assert found.image == image
    too_large = {**FULL, "image": base64.b64encode(PNG * 100).decode()}
    assert refused(too_large, max_image_bytes=1000).reason == "too_large"


def test_the_size_of_an_image_is_checked_before_it_is_decoded():
    # Not base64 at all, so that decoding it first would give another reason.
    assert refused({**FULL, "image": "!" * 1000}, max_image_bytes=100).reason == "too_large"


def test_fields_that_are_not_known_are_ignored_beside_features_and_named_without():
    assert observed(model_version="v3").id == "e-17"
    error = refused({"stream": "s", "id": "1", "label": "3", "feature": {"a": 1}})
    assert error.reason == "unknown_field"
    assert "'feature'" in str(error)


@pytest.mark.parametrize(
    ("body", "reason", "shown"),
    [
        (b"", "empty", "b''"),
        (b"  \n", "empty", ""),
        (b"{", "not_json", "at 1"),
        (b"\xff\xfe", "not_json", "UTF-8"),
        (b"[" * 100_000, "not_json", "deep"),
        (b"[]", "not_an_object", "got an array of 0"),
        (b'{"id": 1, "id": 2}', "duplicate_key", "'id'"),
        (b'{"stream":"s","id":1,"features":{"a":1,"a":2}}', "duplicate_key", "'a'"),
        (b'{"features":{"a":NaN}}', "not_finite", "NaN"),
        (b'{"features":{"a":-Infinity}}', "not_finite", "-Infinity"),
        (b'{"stream":"s","id":1,"features":{"a":1e999}}', "out_of_range", "features.a"),
        (b'{"stream":"s","id":1,"features":{"a":1' + b"0" * 400 + b"}}", "out_of_range", "bits"),
        (b'{"stream":"s","id":1,"features":{"a":1' + b"0" * 5000 + b"}}", "out_of_range", "4300"),
        ({"stream": "s"}, "missing_field", "id"),
        ({"stream": "s", "id": 1}, "missing_field", "id, stream"),
        ({**FULL, "id": None}, "missing_field", "id"),
        ({**FULL, "id": 1.5}, "wrong_type", "1.5"),
        ({**FULL, "id": True}, "wrong_type", "true"),
        ({**FULL, "id": ""}, "out_of_range", "1 to 256"),
        ({**FULL, "id": "x" * 257}, "out_of_range", "257 long"),
        ({**FULL, "id": 10**300}, "out_of_range", "301 long"),
        ({**FULL, "id": 10**1000}, "out_of_range", "bits"),
        ({**FULL, "id": "a\x00"}, "bad_text", "NUL"),
        ({**FULL, "id": "\ud800"}, "bad_text", "Unicode"),
        ({**FULL, "stream": 3}, "wrong_type", "stream"),
        ({**FULL, "features": "x"}, "wrong_type", "features"),
        ({**FULL, "features": {}}, "missing_field", "at least one"),
        ({**FULL, "features": {"": 1}}, "out_of_range", "name"),
        ({**FULL, "features": {"a": [1, 2]}}, "wrong_type", "features.a: "),
        ({**FULL, "features": {"a": {"b": 1}}}, "wrong_type", "an object of 1"),
        ({**FULL, "features": [[1], [2]]}, "wrong_type", "features.0"),
        ({**FULL, "time": 1700000000}, "bad_time", "1700000000"),
        ({**FULL, "time": "yesterday"}, "bad_time", "'yesterday'"),
        ({**FULL, "time": "2026-11-23T10:00:00"}, "bad_time", "offset"),
        ({**FULL, "time": "2026-11-23"}, "bad_time", "offset"),
        ({**FULL, "time": "0001-01-01T00:00:00+23:00"}, "bad_time", "0001"),
        ({**FULL, "scores": {}}, "wrong_type", "scores"),
        ({**FULL, "scores": [0.5, 0.5]}, "wrong_type", "scores"),
        ({**FULL, "scores": {"a": 1.5}}, "out_of_range", "scores.a"),
        ({**FULL, "scores": {"a": -0.1}}, "out_of_range", "[0, 1]"),
        ({**FULL, "scores": {"a": None}}, "wrong_type", "null"),
        ({**FULL, "scores": {"a": True}}, "wrong_type", "true"),
        ({**FULL, "label": ["a"]}, "wrong_type", "label"),
        ({**FULL, "label": ""}, "out_of_range", "label"),
        ({**FULL, "prediction": {}}, "wrong_type", "prediction"),
        ({**FULL, "segment": "x"}, "wrong_type", "segment"),
        ({**FULL, "segment": {"a": []}}, "wrong_type", "segment.a"),
        ({**FULL, "image": 5}, "wrong_type", "image"),
        ({**FULL, "image": "%%%"}, "not_an_image", "base64"),
        ({**FULL, "image": "ü"}, "not_an_image", "base64"),
        ({**FULL, "image": base64.b64encode(b"GIF89a").decode()}, "not_an_image", "GIF89a"),
        ({**FULL, "image_uri": ""}, "out_of_range", "image_uri"),
        ({"stream": "s", "id": 1, "label": "a", "scores": {"a": 1}}, "missing_field", "'scores'"),
    ],
)
def test_a_bad_record_says_what_is_wrong(body, reason, shown):
    error = refused(body)
    assert error.reason == reason
    assert shown in str(error)
    assert len(str(error)) < 500


def test_a_record_that_was_too_large_to_keep_says_so():
    with pytest.raises(DecodeError, match="9000000 bytes") as caught:
        decode(record(b'{"stream"', dropped_bytes=9_000_000))
    assert caught.value.reason == "too_large"


def test_an_error_without_a_record_gets_its_coordinates_later():
    error = DecodeError("new_feature", "features: got 'b'")
    assert str(error) == "features: got 'b'"
    assert str(error.at(record({}))) == "features[3]@17: features: got 'b'"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=200)
@given(
    st.binary(max_size=60)
    | st.fixed_dictionaries({}, optional=dict.fromkeys([*FULL, "image"], json_values)).map(
        lambda body: json.dumps(body).encode()
    )
)
def test_whatever_arrives_decodes_or_is_refused(value):
    try:
        decode(Record("t", 0, 0, b"s", value))
    except DecodeError as found:
        error = found
    else:
        return
    assert error.reason
    assert str(error).startswith("t[0]@0: ")


def test_a_shown_value_is_never_long():
    for value in ("x" * 10_000, b"x" * 10_000, [1] * 10_000, {str(n): n for n in range(999)}):
        assert len(short(value)) < 100


NUMBERS = st.sampled_from(
    ["0", "-0", "1", "0.5", "-2.5e-3", "1E+2", "5e-324", "9007199254740993.0"]
)
LARGE = st.sampled_from(["18446744073709551616", "-123456789012345678901234567890", "1e400"])
TEXTS = st.sampled_from(['"a"', '":"', '"a:b"', '"\\n\\u00e9"', '"é"', '"1"', '""'])
DEEP = "[" * 1000 + "]" * 1000
OTHERS = st.sampled_from(
    ["true", "null", "NaN", '"\\ud800"', "1" * 400, DEEP, '[1,"a"]', '{"a":[{}]}']
)
SCALARS = NUMBERS | LARGE | TEXTS
FIELDS = ("features", "scores", "segment", "prediction", "label", "time", "more")


def joined_by(comma: str, ends: str, items: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    found = st.lists(items, min_size=1, max_size=3).map(comma.join)
    return found.map(lambda inside: f"{ends[0]}{inside}{ends[1]}")


def entries(names: tuple[str, ...], values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    colons = st.sampled_from([":", ": ", " : "])
    parts = st.tuples(st.sampled_from(names), colons, values)
    return parts.map(lambda entry: f'"{entry[0]}"{entry[1]}{entry[2]}')


def objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Texts of objects in which a key may stand twice."""
    return joined_by(",", "{}", entries(("a", "b", "b:"), values))


BODIES = st.one_of(
    entries(("label",), SCALARS),
    joined_by(",", "  ", entries(FIELDS, SCALARS | OTHERS | objects(SCALARS | OTHERS))),
    *(
        entries((name,), objects(values)).map(lambda entry: f'"features":{{"a":1}},{entry}')
        for name, values in {"scores": NUMBERS | LARGE, "segment": SCALARS, "more": TEXTS}.items()
    ),
    *(
        entries(("features",), values)
        for values in (objects(NUMBERS | LARGE), objects(SCALARS), joined_by(",", "[]", SCALARS))
    ),
    entries(("prediction", "label"), SCALARS).map(lambda entry: f'"features":{{"a":1}},{entry}'),
)


def outcome(value: str) -> object:
    try:
        return repr(decode(record(value.encode(), key=b"s")))  # 1 == 1.0 == True, but not as text
    except DecodeError as error:
        # What is no JSON is shown, and the two are not spelt alike.
        return error.reason, error.message if error.reason != "not_json" else None


@given(BODIES)
@settings(max_examples=1000)
def test_a_record_means_the_same_read_fast_and_read_strictly(body: str):
    # A quote behind a backslash is what only the strict reading takes.
    fast, strict = ('{"id":"' + id_ + '",' + body + "}" for id_ in ("\\u0022", '\\"'))
    assert outcome(fast) == outcome(strict)


@given(st.datetimes(timezones=st.just(UTC)))
def test_the_text_of_a_time_is_that_of_the_standard_library(time: datetime):
    assert iso(time) == time.isoformat()
