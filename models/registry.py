"""Immutable versions on disk; which of them is the champion is the store's business."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from models.spec import Family, ModelVersion, check_stream

_MANIFEST = "manifest.json"
_STAGING = ".staging"
_EXPOSED = Path("assets.extra") / "shiftwatch-version"
"""Says which version a server's folder is; a place that servers leave alone."""
SAVED_MODEL = "saved_model/saved_model.pb"
"""The file of a version that a server of models can load."""


class RegistryError(RuntimeError):
    """A version is missing, or its files are not those that were published."""


class Registry:
    """Versions of models as ``<root>/<stream>/<version>/``.

    A version appears by one rename, complete and with a manifest that holds the SHA-256 of each
    of its files; it never changes afterwards. Two processes may publish at the same time: the one
    that loses the race for a number takes the next.

    Parameters
    ----------
    root
        Folder of the registry; created when missing.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.root.mkdir(parents=True, exist_ok=True)

    def stage(self, stream: str) -> Path:
        """A new empty folder on the registry's file system, to build a version in."""
        parent = self.root / _STAGING
        parent.mkdir(exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{check_stream(stream)}-", dir=parent))

    def versions(self, stream: str) -> tuple[int, ...]:
        """Published version numbers, oldest first; empty for an unknown stream."""
        return _numbers(self.root / check_stream(stream))

    def get(self, stream: str, version: int) -> ModelVersion:
        """A published version, its files compared with the manifest's check sums.

        Raises
        ------
        RegistryError
            If there is no such version, or a file is missing, added or differs.
        """
        path = self.root / check_stream(stream) / str(int(version))
        try:
            found = _read(path)
        except FileNotFoundError:
            raise RegistryError(
                f"model {stream}/{version}: not published, known versions are "
                f"{list(self.versions(stream))}"
            ) from None
        now = _digests(path)
        for name in sorted({*found.files, *now}):
            if found.files.get(name) != now.get(name):
                raise RegistryError(
                    f"model {stream}/{version}: {name}: expected SHA-256 "
                    f"{found.files.get(name, 'none')}, found {now.get(name, 'none')}"
                )
        return found

    def publish(
        self,
        staging: Path,
        *,
        stream: str,
        family: Family,
        classes: Sequence[str],
        input_shape: Sequence[int],
        preprocessing: Mapping[str, Any],
        strategy: str,
        metrics: Mapping[str, Any],
        trained_on: Mapping[str, Any],
        created_at: str,
        parent: int | None = None,
        key: str = "",
    ) -> ModelVersion:
        """Make the files under `staging` the stream's next version; `staging` is used up.

        Parameters
        ----------
        staging
            Folder with the model's files, from `stage` or a training job's candidate folder; one
            on another file system is copied first.
        stream, family, classes, input_shape, preprocessing, strategy, metrics, trained_on, \
created_at, parent, key
            As in `ModelVersion`. Publishing a key again returns what it made the first time, so a
            caller that was killed before it noted the version can repeat itself.

        Raises
        ------
        ValueError
            If the stream's name is not safe as a folder or `staging` holds no file.
        """
        home = self.root / check_stream(stream)
        home.mkdir(exist_ok=True)
        for version in _numbers(home) if key else ():
            made = _read(home / str(version))
            if made.key == key:
                return made
        staging = self._on_this_file_system(Path(staging), stream)
        (staging / _MANIFEST).unlink(missing_ok=True)
        files = _digests(staging)
        if not files:
            raise ValueError(f"staging: expected the files of a model, {staging} has none")
        while True:
            version = max(_numbers(home), default=0) + 1
            path = home / str(version)
            made = ModelVersion(
                stream=stream,
                version=version,
                family=family,
                path=path,
                parent=parent,
                classes=tuple(classes),
                input_shape=tuple(input_shape),
                preprocessing=dict(preprocessing),
                strategy=strategy,
                metrics=dict(metrics),
                trained_on=dict(trained_on),
                created_at=created_at,
                key=key,
                files=files,
            )
            (staging / _MANIFEST).write_text(json.dumps(made.to_json(), indent=2) + "\n")
            _sync_tree(staging)
            try:
                # A rename onto a folder that is not empty fails, so nothing is ever overwritten.
                staging.rename(path)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    continue
                raise
            _sync(home)
            return made

    def expose(self, version: ModelVersion, serving: Path) -> Path:
        """Put a version's SavedModel where TensorFlow Serving looks for the newest one.

        TensorFlow Serving loads the greatest number under ``<serving>/<stream>/``. Numbers there
        count promotions, not versions, so that rolling back to an older version makes it the
        newest again. A number appears by one rename, complete. Repeating the call for what is
        already served changes nothing.

        Parameters
        ----------
        version
            A published version that was trained with ``saved_model: true``.
        serving
            The server's model base path of all streams.

        Returns
        -------
        Path
            The numbered folder.

        Raises
        ------
        RegistryError
            If the version has no SavedModel.
        """
        if SAVED_MODEL not in version.files:
            raise RegistryError(
                f"model {version.stream}/{version.version}: has no SavedModel to serve"
            )
        home = Path(serving) / version.stream
        home.mkdir(parents=True, exist_ok=True)
        with _only_one(home):
            newest = max(_numbers(home), default=0)
            with contextlib.suppress(FileNotFoundError):
                if (home / str(newest) / _EXPOSED).read_text() == str(version.version):
                    return home / str(newest)
            staging = home / _STAGING
            shutil.rmtree(staging, ignore_errors=True)  # of a process that was killed at it
            shutil.copytree(version.path / Path(SAVED_MODEL).parent, staging)
            (staging / _EXPOSED).parent.mkdir(exist_ok=True)
            (staging / _EXPOSED).write_text(str(version.version))
            _sync_tree(staging)
            target = home / str(newest + 1)
            staging.rename(target)
            _sync(home)
            return target

    def _on_this_file_system(self, staging: Path, stream: str) -> Path:
        if staging.stat().st_dev == self.root.stat().st_dev:
            return staging
        copy = self.stage(stream)
        shutil.copytree(staging, copy, dirs_exist_ok=True)
        shutil.rmtree(staging)
        return copy


@contextlib.contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """Wait until no other process is at this folder; the lock ends with its holder."""
    with (home / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(path: Path) -> ModelVersion:
    return ModelVersion.from_json(json.loads((path / _MANIFEST).read_bytes()), path)


def _numbers(folder: Path) -> tuple[int, ...]:
    names = (p.name for p in folder.iterdir()) if folder.is_dir() else iter(())
    return tuple(sorted(int(n) for n in names if n.isascii() and n.isdigit()))


def _walk(folder: Path) -> Iterator[Path]:
    return (p for p in sorted(folder.rglob("*")) if p.is_file())


def _digests(folder: Path) -> dict[str, str]:
    made = {}
    for path in _walk(folder):
        if path == folder / _MANIFEST:
            continue
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        made[path.relative_to(folder).as_posix()] = digest
    return made


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_tree(folder: Path) -> None:
    """Bring files and folders to the disk, so that the rename cannot outlive their contents."""
    for path in (*_walk(folder), *(p for p in folder.rglob("*") if p.is_dir()), folder):
        _sync(path)
