"""Fills the small disk that is mounted at the folder named on the command line, and writes to a
store there."""

from __future__ import annotations

import contextlib
import errno
import shutil
import sqlite3
import sys
from pathlib import Path

from service.domain.incident import Incident, IncidentState, Point
from service.store.errors import StoreError
from service.store.store import Store
from service.store.transaction import Transaction

LARGEST_BYTES = 4 * 1024 * 1024
"""A disk that is larger is not filled: it is somebody's."""
INCIDENT = Incident("inc-1", "digits", IncidentState.SUSPECTED, "none", ("concept",), Point(205))


def write(tx: Transaction, offset: int) -> None:
    tx.put_offsets({("events", 0): offset})
    tx.put_state("digits", bytes([offset]) * 300_000)
    tx.put_incident(INCIDENT)


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        try:
            for _ in range(LARGEST_BYTES // 4096):
                file.write(bytes(4096))
        except OSError as error:
            if error.errno == errno.ENOSPC:
                return
            raise
    sys.exit("the disk did not become full")


def check(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def main(folder: Path) -> None:
    total = shutil.disk_usage(folder).total
    if total > LARGEST_BYTES:
        sys.exit(f"{folder}: expected a disk of at most {LARGEST_BYTES} bytes, found {total}")
    path, ballast = folder / "store.db", folder / "ballast"
    store = Store(f"sqlite:///{path}", lambda: 1000.0)
    epochs = {0: store.claim(0)}
    with store.transaction(epochs) as tx:
        tx.put_offsets({("events", 0): 1})
        tx.put_state("digits", b"before")
    fill(ballast)
    for _ in range(3):
        try:
            with store.transaction(epochs) as tx:
                write(tx, 2)
        except StoreError as error:
            print(error)
        else:
            sys.exit("the disk was not full")
        assert store.offsets() == {("events", 0): 1}
        assert store.state("digits") == b"before"
        assert store.incidents() == []
        check(path)
    ballast.unlink()
    with store.transaction(epochs) as tx:
        write(tx, 3)
    store.close()
    check(path)
    again = Store(f"sqlite:///{path}", lambda: 1000.0)
    assert again.offsets() == {("events", 0): 3}
    assert again.state("digits") == bytes([3]) * 300_000
    assert again.incidents() == [INCIDENT]
    again.close()


if __name__ == "__main__":  # pytest imports every module in search of doctests
    main(Path(sys.argv[1]))
