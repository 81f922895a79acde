"""The picture of the rooms shows the code as it is."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def drawing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rooms_picture", ROOT / "docs/rooms_picture.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # as its dataclass asks
    spec.loader.exec_module(module)
    return module


def test_the_picture_is_the_one_that_the_code_draws(drawing: ModuleType) -> None:
    assert drawing.PICTURE.read_text(encoding="utf-8") == drawing.draw(), "run `make picture`"


def test_every_package_has_a_place_and_says_in_one_sentence_what_lives_there(
    drawing: ModuleType,
) -> None:
    for house in drawing.HOUSES:
        rooms = drawing.placed(house, 0.0)
        packages = {p.parent.name for p in (ROOT / house).glob("*/__init__.py")}
        assert packages <= rooms.keys()
        assert all(len(room.sentence.split()) > 2 for room in rooms.values())


def test_it_is_a_picture_that_a_browser_shows(drawing: ModuleType) -> None:
    assert ET.fromstring(drawing.draw()).tag.endswith("svg")
