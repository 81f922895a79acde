"""Writes the generated pages of docs/reference; tests hold them to what they are made from."""

from __future__ import annotations

import sys
from pathlib import Path

from service.settings import page as settings
from service.telemetry import metrics

PAGES = {
    "metrics.md": metrics.reference,
    "settings.md": settings.reference_page,
}


def main() -> None:
    """Write every page below the folder given, docs/reference by default."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/reference")
    for name, page in PAGES.items():
        (folder / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
