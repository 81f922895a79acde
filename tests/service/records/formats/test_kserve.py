"""Events of KServe's inference logger, as its agent sends them: binary, and ids shared."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from service.records.formats.decoder import Decoder, Ignored
from service.records.formats.kserve import REQUEST, RESPONSE
from service.records.record import DecodeError, Observation, Record

ID = "9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d"
HEADERS = {
    "ce_specversion": "1.0",
    "ce_id": ID,
    "ce_source": "http://localhost:9081/",
    "ce_type": REQUEST,
    "ce_time": "2026-11-23T10:00:00.25Z",
    "ce_inferenceservicename": "sklearn-iris",
    "ce_namespace": "default",
    "ce_component": "predictor",
    "ce_endpoint": "",
    "ce_metadata": "null",
    "content-type": "application/json",
}
V2 = {"id": "42", "inputs": []}
PNG = b"\x89PNG\r\n\x1a\nrest"

decode = Decoder().decode


def event(body: object, **changes: str | None) -> Record:
    headers = {**HEADERS, **changes}
    value = body if isinstance(body, bytes) else json.dumps(body).encode()
    pairs = tuple((k, v.encode()) for k, v in headers.items() if v is not None)
    return Record("logger", 0, 5, b"some key", value, headers=pairs)


def tensor(name: str, shape: list[int], data: list[Any], datatype: str = "FP64") -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


def features(body: object) -> dict[str, Any]:
    found = decode(event(body))
    assert isinstance(found, Observation)
    return dict(found.features)


def refused(found: Record) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        decode(found)
    return caught.value


def test_a_request_is_an_observation_of_the_service() -> None:
    assert decode(event({"instances": [[6.8, 2.8, 4.8, 1.4]]})) == Observation(
        "sklearn-iris",
        ID,
        datetime(2026, 11, 23, 10, 0, 0, 250_000, tzinfo=UTC),
        {"0": 6.8, "1": 2.8, "2": 4.8, "3": 1.4},
        segment={"namespace": "default", "component": "predictor"},
    )


def test_a_response_is_ignored_and_no_dead_letter() -> None:
    answer = {"predictions": [1]}
    assert decode(event(answer, ce_type=RESPONSE)) == Ignored("inference_response")
    assert decode(event(b"anything", ce_type=RESPONSE)) == Ignored("inference_response")


def test_the_structured_mode_says_the_same() -> None:
    body = {"instances": [{"age": 3}]}
    attributes = {k.removeprefix("ce_"): v for k, v in HEADERS.items() if k.startswith("ce_")}
    whole = json.dumps({**attributes, "data": body}).encode()
    found = decode(Record("t", 0, 0, None, whole))
    assert found == decode(event(body))
    text = {**attributes, "datacontenttype": "application/x-www-form-urlencoded"}
    whole = json.dumps({**text, "data": json.dumps(body)}).encode()
    assert decode(Record("t", 0, 0, None, whole)) == found


@pytest.mark.parametrize("kind", [None, "application/x-www-form-urlencoded", "text/plain"])
def test_what_the_client_called_its_content_does_not_count(kind: str | None) -> None:
    assert decode(event({"instances": [[1]]}, **{"content-type": kind})).id == ID


def test_a_stream_can_be_named_otherwise() -> None:
    body = {"instances": [[1]]}
    assert decode(event(body, ce_subject="iris")).stream == "iris"
    assert decode(event(body, ce_stream="iris-eu", ce_subject="iris")).stream == "iris-eu"
    assert decode(event(body, ce_inferenceservicename=None)).stream == "some key"


def test_v1_instances_are_objects_arrays_numbers_or_an_image() -> None:
    assert features({"instances": [{"age": 3, "land": "GB"}]}) == {"age": 3.0, "land": "GB"}
    assert features({"signature_name": "x", "instances": [5]}) == {"0": 5.0}
    image = {"b64": base64.b64encode(PNG).decode()}
    assert decode(event({"instances": [image]})).image == PNG


def test_v2_tensors_of_one_value_are_features_and_longer_ones_are_numbered() -> None:
    columns = [tensor("age", [1], [3]), tensor("land", [1, 1], ["GB"], "BYTES")]
    assert features({**V2, "inputs": columns}) == {"age": 3.0, "land": "GB"}
    flat = [tensor("x", [1, 3], [1, 2, 3]), tensor("new", [1], [True], "BOOL")]
    assert features({**V2, "inputs": flat}) == {"x.0": 1.0, "x.1": 2.0, "x.2": 3.0, "new": True}
    nested = [tensor("x", [1, 2, 2], [[[1, 2], [3, 4]]])]
    assert features({**V2, "inputs": nested}) == {f"x.{k}": k + 1.0 for k in range(4)}
    assert features({**V2, "inputs": [tensor("x", [], [7])]}) == {"x": 7.0}


@pytest.mark.parametrize(
    ("body", "reason", "says"),
    [
        ({"instances": [[1], [2]]}, "batch", "instances: expected one instance a request, got 2"),
        ({"inputs": [tensor("x", [2, 1], [1, 2])]}, "batch", "inputs[0]: expected one instance"),
        ({"instances": []}, "bad_envelope", "got 0"),
        ({"instances": [[[1, 2], [3, 4]]]}, "wrong_type", "features.0: expected a number"),
        ({"instances": [{}]}, "missing_field", "at least one feature"),
        ({"inputs": {"x": [1]}}, "bad_envelope", "expected instances (V1) or inputs"),
        ({"inputs": []}, "bad_envelope", "expected instances (V1) or inputs"),
        ({"text_input": "hello"}, "bad_envelope", "expected instances (V1) or inputs"),
        ({"inputs": [tensor("", [1], [1])]}, "bad_envelope", "inputs[0].name: expected text"),
        ({"inputs": [tensor("x", [1, 3], [1])]}, "bad_envelope", "expected 3 values, got 1"),
        ({"inputs": [tensor("x", [1, 0], [])]}, "bad_envelope", "expected positive integers"),
        ({"inputs": [tensor("x", [1] * 17, [1])]}, "bad_envelope", "expected positive integers"),
        ({"inputs": [{"name": "x", "shape": [1]}]}, "bad_envelope", "inputs[0].data: expected"),
        (
            {"inputs": [tensor("x.0", [1], [1]), tensor("x", [1, 2], [1, 2])]},
            "bad_envelope",
            "inputs[1]: 'x.0' is there twice",
        ),
        ({"inputs": [tensor("x", [1], [[[1]]])]}, "wrong_type", "features.x: expected a number"),
        ([1], "not_an_object", "array of 1"),
        (b"\x93NUMPY", "not_json", "expected UTF-8"),
    ],
)
def test_a_request_that_cannot_be_used_says_why(body: object, reason: str, says: str) -> None:
    found = refused(event(body))
    assert found.reason == reason
    assert says in str(found)
    assert str(found).startswith("logger[0]@5: ")
