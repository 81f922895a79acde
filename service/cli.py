"""The `shiftwatch` command."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from service import __version__

app = typer.Typer(
    name="shiftwatch",
    help="Names which part of P(X,Y) moved under a deployed model, and repairs the model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models = typer.Typer(help="Versions of the streams' models.", no_args_is_help=True)
app.add_typer(models, name="models")

Config = Annotated[Path, typer.Argument(help="The configuration, YAML.", metavar="CONFIG")]
StreamName = Annotated[str, typer.Option("--stream", help="The stream.")]

EXIT_BAD_CONFIG = 2
"""As for wrong command lines: what was asked cannot be done as asked."""


def main() -> None:
    """Run the command."""
    app()


def _fail(message: str, code: int = 1) -> NoReturn:
    Console(stderr=True).print(message, style="red", highlight=False, markup=False)
    raise typer.Exit(code)


def _load(config: Path) -> Any:
    from service.settings.file import SettingsError
    from service.settings.service import load

    try:
        return load(config)
    except SettingsError as error:
        _fail(str(error), EXIT_BAD_CONFIG)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"shiftwatch {__version__}")
        raise typer.Exit


@app.command()
def demo(
    data: Annotated[Path, typer.Option(help="Where the demo keeps its files.")] = Path("demo-data"),
    seed: Annotated[int, typer.Option(help="Equal seeds give equal verdicts.")] = 0,
    port: Annotated[int, typer.Option(help="HTTP port; 0 takes a free one.")] = 8321,
    report: Annotated[Path | None, typer.Option(help="Write the result as JSON.")] = None,
    exit_when_done: Annotated[
        bool, typer.Option("--exit-when-done", help="End after the last phase.")
    ] = False,
) -> None:
    """Run the main job on real data: five phases, each named, four repairs."""
    from service.api.app import stopping
    from service.api.http import ListenError
    from service.demo.driver import DemoError, run_demo
    from service.telemetry.logs import configure

    configure("json", "warning")
    with stopping() as stop:
        try:
            named = run_demo(
                data,
                seed=seed,
                port=port,
                report=report,
                exit_when_done=exit_when_done,
                console=Console(width=None if sys.stdout.isatty() else 140),
                stop=stop,
            )
        except ListenError as error:
            _fail(f"{error}; choose another one with --port")
        except DemoError as error:
            _fail(str(error))
    if not named and not stop.is_set():
        _fail("not every phase was named right")


@app.command()
def run(config: Config) -> None:
    """Run the service until it is told to stop."""
    from service.api.app import open_app, serving, stopping
    from service.api.http import ListenError
    from service.api.wiring import open_source
    from service.records.record import TemporaryError
    from service.repair.champions import NoChampionError
    from service.settings.file import SettingsError
    from service.sources.source import SourceError
    from service.store.errors import StoreError
    from service.store.states import FormatError
    from service.telemetry.logs import configure

    settings = _load(config)
    configure(settings.log.format, settings.log.level)
    if settings.source is None:
        _fail(f"{config}: source: a running service needs a source", EXIT_BAD_CONFIG)
    try:
        with (
            stopping() as stop,
            open_app(settings, open_source(settings.source)) as service,
            serving(service),
        ):
            service.run(stop)
            service.drain()
    except SettingsError as error:
        _fail(str(error), EXIT_BAD_CONFIG)
    except (
        *(FormatError, ListenError, NoChampionError, SourceError, StoreError, TemporaryError),
    ) as error:
        _fail(str(error))


@app.command()
def replay(
    config: Config,
    input_: Annotated[
        Path, typer.Option("--input", help="Records: .jsonl, .jsonl.gz or .parquet.")
    ],
    incidents: Annotated[Path, typer.Option(help="Write one JSON line per incident here.")],
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
) -> None:
    """Process a file of records at full speed through the service's own pipeline.

    A replay starts from nothing and leaves the service's own store and models alone.
    """
    from service.api.replay import replay_file
    from service.repair.champions import NoChampionError
    from service.sources.source import SourceError
    from service.telemetry.logs import configure

    settings = _load(config)
    configure(settings.log.format, "warning")
    try:
        summary = replay_file(settings, input_, incidents, Console(stderr=True, quiet=quiet))
    except (NoChampionError, SourceError, OSError) as error:
        _fail(str(error))
    typer.echo(json.dumps(summary))
    if summary["failed"]:
        _fail("\n".join(summary["failed"]))


@app.command()
def validate(config: Config) -> None:
    """Check a configuration; names the line and the field of what is wrong."""
    settings = _load(config)
    names = ", ".join(s.name for s in settings.streams)
    typer.echo(f"{config}: valid, {len(settings.streams)} stream(s): {names}")


@app.command()
def incidents(
    config: Config,
    stream: Annotated[str | None, typer.Option(help="Only this stream.")] = None,
    state: Annotated[str | None, typer.Option(help="Only incidents in this state.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many, newest first.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List incidents."""
    store = _store(_load(config))
    found = store.incidents(stream, state, limit)
    if as_json:
        for incident in found:
            typer.echo(json.dumps(incident.to_json()))
        return
    table = Table("id", "stream", "state", "kind", "factors", "opened", "confirmed", "detail")
    for i in found:
        confirmed = "" if i.confirmed_at is None else str(i.confirmed_at.index)
        table.add_row(
            i.id,
            " ".join([i.stream, *(f"{name}={value}" for name, value in i.segment.items())]),
            str(i.state),
            str(i.kind),
            " + ".join(i.factors),
            str(i.opened_at.index),
            confirmed,
            i.detail,
        )
    Console().print(table)


def _store(settings: Any) -> Any:
    from service.store.errors import StoreError
    from service.store.store import Store

    try:
        return Store(settings.store.url, time.time)
    except StoreError as error:
        _fail(str(error))


@models.command("list")
def models_list(config: Config, stream: StreamName = "") -> None:
    """List the versions of a stream's model, or of all streams."""
    from models.registry import Registry

    settings = _load(config)
    store, registry = _store(settings), Registry(settings.registry.path)
    table = Table(
        "stream", "version", "champion", "family", "strategy", "parent", "accuracy", "made"
    )
    for name in [stream] if stream else [s.name for s in settings.streams]:
        champion = store.champion(name)
        for number in registry.versions(name):
            version = registry.get(name, number)
            accuracy = version.metrics.get("accuracy")
            table.add_row(
                name,
                str(number),
                "*" if champion is not None and champion.version == number else "",
                str(version.family),
                version.strategy,
                "" if version.parent is None else str(version.parent),
                "" if accuracy is None else f"{accuracy:.3f}",
                version.created_at,
            )
    Console().print(table)


@models.command("promote")
def models_promote(
    config: Config,
    version: Annotated[int, typer.Argument(help="The version.")],
    stream: StreamName,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "promoted by hand",
) -> None:
    """Make a version the champion; a running service takes it over by itself."""
    from service.repair.promotion import promote

    _change(
        config, stream, lambda store, registry: promote(store, registry, stream, version, reason)
    )


@models.command("rollback")
def models_rollback(
    config: Config,
    stream: StreamName,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "rolled back by hand",
) -> None:
    """Make the former champion the champion again."""
    from service.repair.promotion import rollback

    _change(config, stream, lambda store, registry: rollback(store, registry, stream, reason))


def _change(config: Path, stream: str, change: Callable[[Any, Any], Any]) -> None:
    from models.registry import Registry, RegistryError
    from service.repair.serving import expose_champion

    settings = _load(config)
    _check_stream(settings, config, stream)
    store, registry = _store(settings), Registry(settings.registry.path)
    try:
        champion = change(store, registry)
    except (LookupError, ValueError) as error:
        _fail(str(error))
    typer.echo(f"{stream}: version {champion.version} is the champion")
    if settings.registry.serving is not None:
        try:
            expose_champion(store, registry, stream, settings.registry.serving)
        except (RegistryError, OSError) as error:
            _fail(f"{stream}: the champion is not exposed in {settings.registry.serving}: {error}")


def _check_stream(settings: Any, config: Path, stream: str) -> None:
    if stream not in {s.name for s in settings.streams}:
        _fail(f"--stream: {stream!r} is not in {config}", EXIT_BAD_CONFIG)


@models.command("train")
def models_train(
    config: Config,
    stream: StreamName,
    input_: Annotated[Path, typer.Option("--input", help="Labelled records to train on.")],
) -> None:
    """Train a stream's first model from a file of labelled records, and make it the champion."""
    from service.repair.first_model import labelled_rows, train_first

    settings = _load(config)
    _check_stream(settings, config, stream)
    folder = settings.registry.path.parent / "jobs" / f"first-{stream}"
    with _progress() as show:
        try:
            rows, labels = labelled_rows(settings, stream, input_)
            version = train_first(settings, _store(settings), stream, rows, labels, folder, show)
        except (RuntimeError, ValueError, OSError) as error:
            _fail(str(error))
    typer.echo(f"{stream}: version {version.version} is the champion")


@contextmanager
def _progress() -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A bar that follows a training."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("training"), BarColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=None, note="")

        def show(event: Mapping[str, Any]) -> None:
            if event.get("event") == "progress":
                progress.update(
                    task,
                    completed=(event["epoch"] - 1) * event["steps"] + event["step"],
                    total=event["epochs"] * event["steps"],
                    note=f"epoch {event['epoch']}/{event['epochs']} loss {event['loss']:.3f}",
                )

        yield show


if __name__ == "__main__":
    main()
