"""A file through the service's own pipeline, at full speed, with nothing of the service touched."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from service.api.app import App, open_app
from service.settings.service import Settings
from service.sources.files import FileSource
from service.store.store import Store


def replay_file(
    settings: Settings, path: Path, incidents: Path, console: Console
) -> dict[str, Any]:
    """Process a file of records and write its incidents, one JSON object a line.

    Parameters
    ----------
    settings
        The service's settings; the replay uses a store of its own, sends no webhooks and trains
        from the service's champions without promoting anything there.
    path
        Records as in docs/reference/records.md: ``.jsonl``, ``.jsonl.gz`` or ``.parquet``.
    incidents
        Where the incidents go, in the order in which they were opened.
    console
        Shows the progress.

    Returns
    -------
    dict
        Observations and labels read, records refused, incidents written and how many of them were
        confirmed, what streams raised that ended early, and seconds taken.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="shiftwatch-replay-") as folder:
        own = _apart(settings, Path(folder))
        source = FileSource(path)
        with open_app(own, source, durable=False) as app:
            app.pipeline.pause_while_training = True
            _run(app, source, console)
            view, refused = app.pipeline.view, app.pipeline.n_refused
            found = [i for s in view.names for i in app.store.incidents(s, limit=None)]
            found.sort(key=lambda i: (i.opened_at.index, i.stream, i.id))
            streams = [view.stream(name) for name in view.names]
            failed = [str(failure) for failure in app.pipeline.failures]
        if (Path(folder) / "dead-letters.jsonl").exists():
            shutil.copyfile(
                Path(folder) / "dead-letters.jsonl",
                incidents.with_name(incidents.name + ".dead-letters"),
            )
    with incidents.open("w", encoding="utf-8") as file:
        for incident in found:
            file.write(json.dumps(incident.to_json(), ensure_ascii=False) + "\n")
    return {
        "observations": sum(s.observations for s in streams),
        "labels": sum(s.labels for s in streams),
        "refused": refused,
        "incidents": len(found),
        "confirmed": sum(i.confirmed_at is not None for i in found),
        "failed": failed,
        "seconds": round(time.monotonic() - started, 2),
    }


def _apart(settings: Settings, folder: Path) -> Settings:
    """The same settings with places of their own for everything that is written."""
    document = settings.model_dump(exclude_unset=True)
    store = f"sqlite:///{folder / 'replay.db'}"
    document |= {
        "store": {"url": store},
        "registry": {"path": folder / "models"},
        "dead_letters": {"path": folder / "dead-letters.jsonl"},
        "source": {},
        "webhooks": (),
        "http": {"port": None},
        "checkpoint": {"every_records": 100_000, "every_s": 60.0},
    }
    own = Settings.model_validate(document)
    trained = [s.name for s in settings.streams if s.model is not None]
    if trained:
        theirs, ours = Store(settings.store.url, time.time), Store(store, time.time)
        for name in trained:
            champion = theirs.champion(name)
            if champion is not None:
                version = str(champion.version)
                shutil.copytree(
                    settings.registry.path / name / version, folder / "models" / name / version
                )
                with ours.transaction() as tx:
                    tx.set_champion(name, champion.version, champion.reason, 0)
        theirs.close()
        ours.close()
    return own


def _run(app: App, source: FileSource, console: Console) -> None:
    columns = (
        TextColumn("replay"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    pipeline = app.pipeline
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None, note="")
        while pipeline.step(timeout_s=0.05) or not pipeline.write():
            done, left, view = pipeline.n_records, source.lag(), pipeline.view
            incidents = sum(len(view.stream(name).open_incidents) for name in view.names)
            progress.update(
                task,
                completed=done,
                total=None if left is None else done + left,
                note=f"{incidents} open" if incidents else "",
            )
