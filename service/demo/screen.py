"""What the demo shows: progress, what happens, what the webhook brings, and the result."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from standardwebhooks import Webhook as Verifier

from service.demo.result import PhaseResult
from service.domain.incident import Incident, IncidentState

COLOURS = {
    IncidentState.SUSPECTED: "yellow",
    IncidentState.CONFIRMED: "bold red",
    IncidentState.REPAIRING: "bold magenta",
    IncidentState.RESOLVED: "green",
    IncidentState.DISMISSED: "dim",
    IncidentState.FOLDED: "dim",
}


class Screen:
    """A live view on a terminal, plain lines elsewhere.

    Parameters
    ----------
    console
        Where to draw.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._streams: Sequence[Mapping[str, Any]] = ()
        self._shown_states: dict[str, IncidentState] = {}
        self._lock = threading.Lock()
        self._live = Live(self._draw(), console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def _draw(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for column in ("stream", "phase", "observations", "labels", "accuracy", "champion"):
            table.add_column(column, justify="left" if column in ("stream", "phase") else "right")
        for s in self._streams:
            accuracy = "" if s["accuracy"] is None else f"{s['accuracy']:.3f}"
            table.add_row(
                s["name"],
                s["phase"],
                str(s["observations"]),
                str(s["labels"]),
                accuracy,
                f"v{s['champion']}",
            )
        return Group(self._progress, table) if self._streams else Group(self._progress)

    def _say(self, text: Text | str) -> None:
        with self._lock:
            self._console.print(text, highlight=False, soft_wrap=True)

    def update(self, streams: Sequence[Mapping[str, Any]]) -> None:
        """Show the streams as they are now."""
        self._streams = streams
        if self._console.is_terminal:
            self._live.update(self._draw())

    def training(self, title: str, event: Mapping[str, Any]) -> None:
        """Show a training's progress."""
        if event.get("event") != "progress":
            return
        steps = event["epochs"] * event["steps"]
        done = (event["epoch"] - 1) * event["steps"] + event["step"]
        note = f"epoch {event['epoch']}/{event['epochs']}  accuracy {event['accuracy']:.3f}"
        with self._lock:
            if title not in self._tasks:
                self._tasks[title] = self._progress.add_task(title, total=steps, note=note)
                if not self._console.is_terminal:
                    self._console.print(f"training: {title}", highlight=False)
            self._progress.update(self._tasks[title], completed=done, total=steps, note=note)
            if not self._console.is_terminal and event["step"] == event["steps"]:
                self._console.print(f"  {title}: {note}", highlight=False)

    def training_done(self, title: str, precision: str = "") -> None:
        """Take a finished training off the screen."""
        task = self._tasks.pop(title, None)
        if task is not None:
            self._progress.remove_task(task)
            self._say(Text(f"  trained: {title}{precision and f', in {precision}'}", "green"))

    def serving(self, url: str, streams: Sequence[str]) -> None:
        """Say where the service answers, and what it serves."""
        self._say(f"serving {url}/  (metrics: {url}/metrics): {', '.join(streams)}")

    def act(self, number: int, of: int, title: str, stream: str) -> None:
        """A phase begins."""
        self._say(Text(f"\nphase {number}/{of}  {title}  [{stream}]", "bold cyan"))

    def quiet(self, stream: str, n: int) -> None:
        """A stream begins with its reference."""
        self._say(f"  first {n} observations of {stream} in which nothing moves")

    def incident(self, incident: Incident) -> None:
        """An incident is new or has changed."""
        if self._shown_states.get(incident.id) is incident.state:
            return
        self._shown_states[incident.id] = incident.state
        at = incident.resolved_at or incident.confirmed_at or incident.opened_at
        what = f"{' + '.join(incident.factors)}: " if incident.factors else ""
        line = Text(f"  {at.index:>6}  ")
        line.append(f"{incident.state:<10}", COLOURS[incident.state])
        line.append(f" {what}{incident.detail}")
        self._say(line)

    def webhook(self, type_: str, subject: str, verified: bool) -> None:
        """A webhook arrived."""
        seal = "signature verified" if verified else "SIGNATURE WRONG"
        self._say(Text(f"          webhook    {type_} [{subject}] ({seal})", "dim"))

    def result(self, result: PhaseResult) -> None:
        """A phase is over."""
        verdict = " + ".join(result.verdict) or "nothing"
        right = result.verdict == sorted(result.truth)
        self.training_done(f"fine-tuning {result.stream}")
        self._say(Text(f"  verdict: {verdict}", "bold green" if right else "bold red"))

    def table(self, rows: Sequence[tuple[str, PhaseResult]], wall_s: float) -> None:
        """The end: what was true, what was said, what was done."""
        table = Table(
            title=f"what moved, and what was done about it ({wall_s:.0f} s in all)",
            title_justify="left",
        )
        for column in ("phase", "stream", "truth", "verdict", "delay", "action"):
            table.add_column(column)
        for column in ("accuracy before", "during", "after"):
            table.add_column(column, justify="right")
        for title, r in rows:
            truth, verdict = " + ".join(r.truth) or "-", " + ".join(r.verdict) or "-"
            style = "green" if truth == verdict else "red"
            delay = "-" if r.delay_events is None else str(r.delay_events)
            accuracy = [
                "-" if r.accuracy[k] is None else f"{r.accuracy[k]:.3f}"
                for k in ("before", "during", "after")
            ]
            table.add_row(title, r.stream, truth, Text(verdict, style), delay, r.action, *accuracy)
        self._live.stop()
        self._console.print(table)

    def keeps_serving(self, url: str) -> None:
        """The demo is over, the service is not."""
        self._say(f"still serving {url}/ ; Ctrl-C ends it")


class Receiver:
    """A webhook receiver on loopback, as a user would write it: it verifies before it reads.

    Parameters
    ----------
    secret
        The endpoint's secret.
    on_event
        Called with the event's type, its subject, and whether the signature is right.
    """

    def __init__(self, secret: str, on_event: Callable[[str, str, bool], None]) -> None:
        verifier = Verifier(secret)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                try:
                    verifier.verify(body, dict(self.headers.items()))
                    verified = True
                except Exception:  # the library has no common base class for its errors
                    verified = False
                event = json.loads(body) if verified else {"type": "?", "subject": "?"}
                on_event(event["type"], event["subject"], verified)
                self.send_response(204 if verified else 401)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing: `on_event` does."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
