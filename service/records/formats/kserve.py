"""What KServe's inference logger sends: requests to a model, and its responses, as CloudEvents.

A request is an observation: its one instance is the features, in the V1 protocol or in the open
inference protocol (V2). A request and its response share the event's id, but a prediction that
comes later than its observation has no place in the join, so responses are ignored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from service.records.formats.cloudevents import Event
from service.records.json_text import parse
from service.records.record import DecodeError
from service.records.shown import short

REQUEST = "org.kubeflow.serving.inference.request"
RESPONSE = "org.kubeflow.serving.inference.response"
_MAX_RANK = 16
_SEGMENT = ("namespace", "component", "endpoint")


def body(event: Event) -> dict[str, Any]:
    """The observation that a request is.

    Raises
    ------
    DecodeError
        `batch` if it has several instances, `bad_envelope` if it follows neither protocol.
    """
    data = event.data
    # The logger passes on what the client called its content, which curl calls a form by itself.
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogatepass")
    if isinstance(data, bytes):
        data = parse(data)
    if not isinstance(data, dict):
        raise DecodeError("not_an_object", f"data: expected a request, got {short(data)}")
    attributes = event.attributes
    segment = {name: attributes[name] for name in _SEGMENT if name in attributes}
    observation = {**_instance(data), "segment": segment or None}
    stream = attributes.get("subject", attributes.get("inferenceservicename"))
    return event.filled(observation, stream)


def _instance(data: Mapping[str, Any]) -> dict[str, Any]:
    instances, inputs = data.get("instances"), data.get("inputs")
    if isinstance(instances, list):
        _one(len(instances), "instances")
        return _of_v1(instances[0])
    if isinstance(inputs, list) and inputs and all(isinstance(i, dict) for i in inputs):
        return {"features": _of_v2(inputs)}
    raise DecodeError(
        "bad_envelope", "data: expected instances (V1) or inputs with their tensors (V2)"
    )


def _of_v1(instance: object) -> dict[str, Any]:
    if isinstance(instance, dict) and isinstance(instance.get("b64"), str) and len(instance) == 1:
        return {"image": instance["b64"]}
    return {"features": instance if isinstance(instance, dict | list) else [instance]}


def _of_v2(inputs: list[dict[str, Any]]) -> dict[str, object]:
    features: dict[str, object] = {}
    for n, tensor in enumerate(inputs):
        name, where = tensor.get("name"), f"inputs[{n}]"
        if not isinstance(name, str) or not name:
            raise DecodeError("bad_envelope", f"{where}.name: expected text, got {short(name)}")
        values = _values(tensor, where)
        names = [name] if len(values) == 1 else [f"{name}.{k}" for k in range(len(values))]
        for one, value in zip(names, values, strict=True):
            if one in features:
                raise DecodeError("bad_envelope", f"{where}: {short(one)} is there twice")
            features[one] = value
    return features


def _values(tensor: Mapping[str, Any], where: str) -> list[object]:
    shape, data = tensor.get("shape"), tensor.get("data")
    if (
        not isinstance(shape, list)
        or len(shape) > _MAX_RANK
        or not all(type(n) is int and 0 < n < 2**31 for n in shape)
    ):
        raise DecodeError(
            "bad_envelope", f"{where}.shape: expected positive integers, got {short(shape)}"
        )
    if not isinstance(data, list):
        raise DecodeError(
            "bad_envelope", f"{where}.data: expected the values in the JSON, got {short(data)}"
        )
    if shape:
        _one(shape[0], where)
    values = list(_flat(data, len(shape)))
    if len(values) != math.prod(shape):
        raise DecodeError(
            "bad_envelope", f"{where}.data: expected {math.prod(shape)} values, got {len(values)}"
        )
    return values


def _flat(data: list[Any], rank: int) -> Iterator[object]:
    """The values of a tensor, which may be nested as its shape is; deeper lists stay lists."""
    for item in data:
        if isinstance(item, list) and rank > 1:
            yield from _flat(item, rank - 1)
        else:
            yield item


def _one(n: int, where: str) -> None:
    if n != 1:
        reason = "batch" if n else "bad_envelope"
        raise DecodeError(reason, f"{where}: expected one instance a request, got {n}")
