"""Real streams from files that lie outside the repository: their licences do not allow copies."""

from __future__ import annotations

import csv
import gzip
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from detectors.base import Array, IntArray

VARIABLE = "SHIFTWATCH_DATA"
"""Environment variable that names the directory of the files."""
_DEFAULT = Path(__file__).parents[2] / "shared" / "data"


@dataclass(frozen=True, slots=True)
class Dataset:
    """A labelled stream.

    Attributes
    ----------
    features
        Rows in the file's order, shape (n, d); read-only.
    labels
        Positions in `classes`, shape (n,); read-only.
    columns
        Names of the features.
    classes
        Names of the classes, sorted as text.
    """

    features: Array
    labels: IntArray
    columns: tuple[str, ...]
    classes: tuple[str, ...]


def directory() -> Path:
    """Where the files lie: the variable `SHIFTWATCH_DATA`, or beside the repository."""
    return Path(os.environ.get(VARIABLE) or _DEFAULT)


def absent(files: Iterable[str]) -> str:
    """Say which of the files is missing, by its path in the directory; empty if none is."""
    for file in files:
        if not (directory() / file).is_file():
            return f"{directory() / file} is missing; {VARIABLE} names the directory of the data"
    return ""


def load(file: str, *, target: str, without: Iterable[str] = ()) -> Dataset:
    """Read a table with a header line, plain or compressed with gzip.

    Parameters
    ----------
    file
        Path in the directory of the data.
    target
        The column of the class.
    without
        Columns that are not features.

    Raises
    ------
    ValueError
        If a column is not there or a feature is not a number; names the file and the place.
    """
    return _load(directory() / file, target, tuple(without))


@lru_cache(maxsize=4)
def _load(path: Path, target: str, without: tuple[str, ...]) -> Dataset:
    header, *lines = table(path)
    unknown = {target, *without} - set(header)
    if unknown:
        raise ValueError(f"{path}: no column {min(unknown)!r} in {header}")
    own = [j for j, name in enumerate(header) if name != target and name not in without]
    features = np.empty((len(lines), len(own)))
    for row, line in enumerate(lines):
        try:
            features[row] = [float(line[j]) for j in own]
        except (ValueError, IndexError) as error:
            raise ValueError(f"{path}, row {row}: {error}") from None
    names = [line[header.index(target)] for line in lines]
    classes, labels = np.unique(names, return_inverse=True)
    labels = labels.astype(np.int64)
    features.setflags(write=False)
    labels.setflags(write=False)
    return Dataset(features, labels, tuple(header[j] for j in own), tuple(map(str, classes)))


def table(path: Path) -> list[list[str]]:
    """Read the lines of a comma-separated file as text, header first."""
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            return list(csv.reader(file))
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))
