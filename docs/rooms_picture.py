"""Draws the rooms of the code and the imports between them: ``make picture``.

The floors are the layers that import-linter holds (pyproject.toml), the boxes are the packages and
modules that stand on them with their own first sentence, and the arrows are the imports that the
code has. A test draws it again, so that the picture cannot lie.
"""

from __future__ import annotations

import ast
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from textwrap import wrap

import grimp

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "assets" / "rooms.svg"
WIDTH, MARGIN, BOX, FLOOR, GAP = 1180, 24, 70, 112, 18
HOUSES = ("service", "detectors")
FONT = "font-family='Helvetica, Arial, sans-serif'"


@dataclass(frozen=True, slots=True)
class Room:
    """A package or module right below a house.

    Attributes
    ----------
    name
        Without the house's.
    sentence
        What lives there.
    files
        How many.
    x, y, width
        Where it is drawn.
    """

    name: str
    sentence: str
    files: int
    x: float
    y: float
    width: float


def floors(house: str) -> list[list[str]]:
    """The layers of a house, the top one first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    for contract in contracts["contracts"]:
        if contract.get("containers") == [house]:
            return [[r.strip() for r in layer.split("|")] for layer in contract["layers"]]
    raise LookupError(f"pyproject.toml has no contract for the rooms of {house}")


def described(house: str, name: str) -> tuple[str, int]:
    """A room's first sentence, and how many files it has."""
    folder = ROOT / house / name
    if not folder.is_dir():
        return first_sentence(ROOT / house / f"{name}.py"), 1
    files = [f for f in folder.rglob("*.py") if f.name != "__init__.py"]
    return first_sentence(folder / "__init__.py"), len(files)


def first_sentence(file: Path) -> str:
    """What a file's docstring begins with."""
    text = ast.get_docstring(ast.parse(file.read_text())) or ""
    return " ".join(text.split(";")[0].split("\n\n")[0].split()).rstrip(".")


def placed(house: str, top: float) -> dict[str, Room]:
    """The rooms of a house where they are drawn."""
    rooms: dict[str, Room] = {}
    for n, names in enumerate(floors(house)):
        width = min((WIDTH - 2 * MARGIN - GAP * (len(names) - 1)) / len(names), 420.0)
        left = (WIDTH - width * len(names) - GAP * (len(names) - 1)) / 2
        for k, name in enumerate(names):
            x, y = left + k * (width + GAP), top + n * FLOOR
            rooms[name] = Room(name, *described(house, name), x, y, width)
    return rooms


def imports(graph: grimp.ImportGraph, house: str, rooms: Sequence[str]) -> Counter[tuple[str, str]]:
    """How many modules of one room import how many of another, by the two rooms."""
    room_of = {}
    for name in rooms:
        whole = f"{house}.{name}"
        room_of |= dict.fromkeys({whole, *graph.find_descendants(whole)}, name)
    found: Counter[tuple[str, str]] = Counter()
    for module, own in room_of.items():
        for other in graph.find_modules_directly_imported_by(module):
            if room_of.get(other, own) != own:
                found[own, room_of[other]] += 1
    return found


def box(room: Room, colour: str) -> list[str]:
    """A room as SVG."""
    size = f"{room.files} files" if room.files > 1 else ""
    shown = [
        f"<rect x='{room.x:.1f}' y='{room.y:.1f}' width='{room.width:.1f}' height='{BOX}' rx='7' "
        f"fill='{colour}' stroke='#44546a' stroke-width='1.2'/>",
        f"<text x='{room.x + 10:.1f}' y='{room.y + 20:.1f}' {FONT} font-size='14' "
        f"font-weight='bold' fill='#1f2a38'>{escape(room.name)}</text>",
        f"<text x='{room.x + room.width - 10:.1f}' y='{room.y + 20:.1f}' {FONT} font-size='10' "
        f"text-anchor='end' fill='#5a6b80'>{size}</text>",
    ]
    for n, line in enumerate(wrap(room.sentence, max(int(room.width / 5.9), 12))[:4]):
        shown.append(
            f"<text x='{room.x + 10:.1f}' y='{room.y + 37 + 13 * n:.1f}' {FONT} font-size='11' "
            f"fill='#36445a'>{escape(line)}</text>"
        )
    return shown


def arrow(begin: Room, end: Room, n: int) -> str:
    """Imports as SVG: from the lower edge of a box to the upper edge of another, lower one."""
    x1, y1 = begin.x + begin.width / 2, begin.y + BOX
    x2, y2 = end.x + end.width / 2, end.y
    aside = 0.35 * (x1 - WIDTH / 2 + x2 - WIDTH / 2) / 2
    bend = (y2 - y1) / 2
    width = 1.0 if n < 3 else 1.8 if n < 10 else 3.0
    return (
        f"<path d='M{x1:.1f},{y1:.1f} C{x1 + aside:.1f},{y1 + bend:.1f} {x2 + aside:.1f},"
        f"{y2 - bend:.1f} {x2:.1f},{y2 - 4:.1f}' fill='none' stroke='#7a8ca5' "
        f"stroke-width='{width:.2f}' stroke-opacity='0.55' marker-end='url(#head)'/>"
    )


def draw() -> str:
    """The picture."""
    graph = grimp.build_graph("service", "detectors", "models")
    shown: list[str] = []
    top = 64.0
    for house, colour in zip(HOUSES, ("#eef4fb", "#f3f7ee"), strict=True):
        rooms = placed(house, top + 16)
        found = imports(graph, house, list(rooms))
        shown.append(
            f"<text x='{MARGIN}' y='{top:.1f}' {FONT} font-size='20' font-weight='bold' "
            f"fill='#1f2a38'>{house}/</text>"
        )
        shown += [arrow(rooms[a], rooms[b], n) for (a, b), n in sorted(found.items())]
        shown += [line for room in rooms.values() for line in box(room, colour)]
        top += len(floors(house)) * FLOOR + 62
    height = top - 40
    return "\n".join(
        [
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height:.0f}' "
            f"width='{WIDTH}' height='{height:.0f}'>",
            "<defs><marker id='head' viewBox='0 0 8 8' refX='6' refY='4' markerWidth='7' "
            "markerHeight='7' markerUnits='userSpaceOnUse' orient='auto'>"
            "<path d='M0,0 L8,4 L0,8 z' fill='#7a8ca5'/></marker></defs>",
            f"<rect width='{WIDTH}' height='{height:.0f}' fill='white'/>",
            f"<text x='{MARGIN}' y='30' {FONT} font-size='12' fill='#5a6b80'>Each room uses what "
            "stands below it, and nothing above. An arrow is drawn for imports that are in the "
            "code; the more, the thicker.</text>",
            *shown,
            "</svg>",
            "",
        ]
    )


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
