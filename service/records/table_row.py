"""Rows of tables as records."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from service.records.decode import _RESERVED
from service.records.record import Record


def record_from_row(row: Mapping[str, Any], topic: str, partition: int, offset: int) -> Record:
    """Make the record that a row of a table stands for.

    Parameters
    ----------
    row
        Values by column. Either `features` is a struct (or list), or every column whose name is
        no field of a record is a feature. Images are bytes. Null and NaN are missing values,
        because tables cannot tell them apart reliably.
    topic, partition, offset
        The record's coordinates.

    Returns
    -------
    Record
        With the body that `decode` takes; a row that stands for no record fails there.
    """
    body = {name: row[name] for name in row if name in _RESERVED and not _is_missing(row[name])}
    columns = {name: value for name, value in row.items() if name not in _RESERVED}
    if "features" not in body and not all(map(_is_missing, columns.values())):
        body["features"] = columns
    features = body.get("features")
    if isinstance(features, Mapping):
        body["features"] = {k: None if _is_missing(v) else v for k, v in features.items()}
    for name in ("scores", "segment"):
        # A struct column has every field in every row: those that are null were not there. A map
        # column arrives as pairs.
        entries = body.get(name)
        if isinstance(entries, list) and all(isinstance(e, tuple) for e in entries):
            entries = dict(entries)
        if isinstance(entries, Mapping):
            body[name] = {k: v for k, v in entries.items() if not _is_missing(v)}
    value = json.dumps(body, ensure_ascii=False, separators=(",", ":"), default=_plain)
    return Record(topic, partition, offset, None, value.encode("utf-8", "surrogatepass"))


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _plain(value: object) -> object:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return str(value)
