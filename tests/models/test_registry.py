import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from models.registry import Registry, RegistryError
from models.spec import Family, ModelVersion


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "models")


def publish(registry: Registry, content: bytes = b"weights", **changes: Any) -> ModelVersion:
    stream = changes.get("stream", "digits")
    staging = registry.stage("digits")
    (staging / "model.keras").write_bytes(content)
    (staging / "saved_model").mkdir()
    (staging / "saved_model" / "saved_model.pb").write_bytes(b"graph " + content)
    manifest: dict[str, Any] = {
        "stream": stream,
        "family": Family.VGG16,
        "classes": ("0", "1"),
        "input_shape": (32, 32, 3),
        "preprocessing": {"kind": "scale"},
        "strategy": "source",
        "metrics": {"holdout_accuracy": 0.97},
        "trained_on": {"labels": 10},
        "created_at": "2026-11-23T10:00:00+00:00",
    }
    return registry.publish(staging, **manifest | changes)


def test_versions_count_from_one_and_read_back_as_published(registry: Registry) -> None:
    first, second = publish(registry), publish(registry, b"better", parent=1)
    assert (first.version, second.version) == (1, 2)
    assert registry.versions("digits") == (1, 2)
    assert registry.get("digits", 2) == second
    assert (second.path / "model.keras").read_bytes() == b"better"
    assert sorted(second.files) == ["model.keras", "saved_model/saved_model.pb"]


def test_streams_do_not_share_numbers(registry: Registry) -> None:
    publish(registry)
    assert publish(registry, stream="faces").version == 1
    assert registry.versions("unknown") == ()


def test_publishing_uses_the_staging_folder_up(registry: Registry) -> None:
    publish(registry)
    assert list((registry.root / ".staging").iterdir()) == []


def test_publishers_at_the_same_time_never_overwrite_each_other(registry: Registry) -> None:
    contents = [f"weights {i}".encode() for i in range(24)]
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda c: publish(registry, c), contents))
    assert sorted(v.version for v in made) == list(range(1, 25))
    for version, content in zip(made, contents, strict=True):
        assert (registry.get("digits", version.version).path / "model.keras").read_bytes() == (
            content
        )


def test_a_key_is_published_once(registry: Registry) -> None:
    first = publish(registry, key="job-7")
    publish(registry, b"other")
    again = registry.publish(
        registry.root / "gone",
        stream="digits",
        family=Family.VGG16,
        classes=("0", "1"),
        input_shape=(32, 32, 3),
        preprocessing={},
        strategy="source",
        metrics={},
        trained_on={},
        created_at="2026-11-24T10:00:00+00:00",
        key="job-7",
    )
    assert again == first
    assert registry.versions("digits") == (1, 2)


@pytest.mark.parametrize("change", ["edit", "remove", "add", "add in a folder"])
def test_files_that_are_not_those_published_are_refused(registry: Registry, change: str) -> None:
    path = publish(registry).path
    match change:
        case "edit":
            (path / "model.keras").write_bytes(b"weighty")
        case "remove":
            (path / "model.keras").unlink()
        case "add":
            (path / "extra.py").write_bytes(b"")
        case _:
            (path / "saved_model" / "extra").write_bytes(b"")
    with pytest.raises(RegistryError, match=r"digits/1: .*expected SHA-256"):
        registry.get("digits", 1)


def test_a_missing_version_names_those_there_are(registry: Registry) -> None:
    publish(registry)
    with pytest.raises(RegistryError, match=r"digits/2: not published, known versions are \[1\]"):
        registry.get("digits", 2)


def test_unsafe_names_and_empty_folders_are_refused_before_anything_is_written(
    registry: Registry,
) -> None:
    with pytest.raises(ValueError, match="stream"):
        publish(registry, stream="../other")
    with pytest.raises(ValueError, match="stream"):
        registry.get("..", 1)
    empty = registry.stage("digits")
    with pytest.raises(ValueError, match="has none"):
        registry.publish(
            empty,
            stream="digits",
            family=Family.TABULAR,
            classes=("a", "b"),
            input_shape=(2,),
            preprocessing={},
            strategy="refit",
            metrics={},
            trained_on={},
            created_at="",
        )
    assert registry.versions("digits") == ()


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="needs a second file system")
def test_a_candidate_on_another_file_system_is_copied(registry: Registry) -> None:
    import tempfile

    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        staging = Path(other) / "candidate"
        staging.mkdir()
        (staging / "model.keras").write_bytes(b"far")
        made = registry.publish(
            staging,
            stream="digits",
            family=Family.VGG16,
            classes=("0", "1"),
            input_shape=(32, 32, 3),
            preprocessing={},
            strategy="source",
            metrics={},
            trained_on={},
            created_at="",
        )
        assert not staging.exists()
    assert (registry.get("digits", made.version).path / "model.keras").read_bytes() == b"far"


def test_the_newest_served_number_is_the_last_one_exposed_also_after_a_roll_back(
    registry: Registry, tmp_path: Path
) -> None:
    first, second = publish(registry), publish(registry, b"better")
    serving = tmp_path / "serving"
    folders = [registry.expose(v, serving) for v in (first, second, second, first)]
    assert [f.name for f in folders] == ["1", "2", "2", "3"]
    assert (folders[-1] / "saved_model.pb").read_bytes() == b"graph weights"
    served = (p.name for p in (serving / "digits").iterdir())
    assert sorted(name for name in served if not name.startswith(".")) == ["1", "2", "3"]
    assert registry.get("digits", 1) == first


def test_a_process_that_was_killed_while_it_exposed_leaves_nothing_that_a_server_finds(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = publish(registry)

    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            registry.expose(made, tmp_path)
    home = tmp_path / "digits"
    assert [p for p in home.iterdir() if not p.name.startswith(".")] == []
    assert registry.expose(made, tmp_path) == home / "1"
    assert {p.name for p in home.iterdir()} == {".lock", "1"}


def test_processes_that_expose_at_once_leave_one_number(registry: Registry, tmp_path: Path) -> None:
    made = publish(registry)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: registry.expose(made, tmp_path), range(8)))
    assert set(found) == {tmp_path / "digits" / "1"}


def test_a_version_without_a_saved_model_cannot_be_served(
    registry: Registry, tmp_path: Path
) -> None:
    staging = registry.stage("pixels")
    (staging / "tabular.npz").write_bytes(b"x")
    made = registry.publish(
        staging,
        stream="pixels",
        family=Family.TABULAR,
        classes=("a", "b"),
        input_shape=(2,),
        preprocessing={},
        strategy="refit",
        metrics={},
        trained_on={},
        created_at="",
    )
    with pytest.raises(RegistryError, match="pixels/1: has no SavedModel"):
        registry.expose(made, tmp_path)


def test_the_manifest_is_plain_json(registry: Registry) -> None:
    manifest = json.loads((publish(registry).path / "manifest.json").read_text())
    assert manifest["family"] == "vgg16"
    assert manifest["trained_on"] == {"labels": 10}
    assert "path" not in manifest
