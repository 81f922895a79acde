from pathlib import Path

import pytest

from service.records.record import DecodeError
from service.sources.images import fetch


def test_an_object_in_an_allowed_place_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"pixels")
    assert fetch(f"file://{tmp_path}/a.png", [f"file://{tmp_path}/"], 10) == b"pixels"


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("file:///etc/passwd", "uri_not_allowed"),
        ("file://{folder}/../secret", "uri_not_allowed"),
        ("file://{folder}-other/a.png", "uri_not_allowed"),
        ("file://{folder}/none.png", "unreachable"),
        ("file://{folder}/big.png", "too_large"),
    ],
)
def test_whatever_cannot_be_read_is_refused_with_its_reason(
    tmp_path: Path, uri: str, reason: str
) -> None:
    (tmp_path / "big.png").write_bytes(b"x" * 11)
    with pytest.raises(DecodeError) as caught:
        fetch(uri.format(folder=tmp_path), [f"file://{tmp_path}/"], 10)
    assert caught.value.reason == reason
