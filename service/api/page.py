"""The status page: one HTML document without scripts or external assets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

REFRESH_S = 15

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""Nothing is loaded and nothing runs, whatever a name in the data looks like."""

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #777; --bad: #c62828; --warn: #b26a00;
        --good: #2e7d32; }
@media (prefers-color-scheme: dark) {
  :root { --soft: #aaa; --bad: #ff8a80; --warn: #ffcc80; --good: #a5d6a7; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line);
         vertical-align: top; }
th { font-weight: 600; color: var(--soft); }
td.number { font-variant-numeric: tabular-nums; }
.bad { color: var(--bad); font-weight: 600; } .warn { color: var(--warn); font-weight: 600; }
.good { color: var(--good); } .soft { color: var(--soft); }
"""

_CLASS_OF_STATE = {
    "suspected": "warn",
    "suspecting": "warn",
    "confirmed": "bad",
    "open": "bad",
    "failed": "bad",
    "repairing": "warn",
    "resolved": "good",
    "watching": "good",
}
_OPEN = frozenset({"suspected", "confirmed", "repairing"})


def status_page(
    version: str,
    ready: tuple[bool, str],
    streams: Sequence[Mapping[str, Any]],
    incidents: Sequence[Mapping[str, Any]],
) -> str:
    """Return the page.

    Parameters
    ----------
    version
        Of the service.
    ready
        Whether it works, and why not.
    streams
        As `Reader.streams` gives them.
    incidents
        As `Reader.incidents` gives them, newest first.
    """
    is_ready, reason = ready
    state = _mark("ready", "good") if is_ready else _mark(f"not ready: {reason}", "bad")
    is_open = [i for i in incidents if i.get("state") in _OPEN]
    is_over = [i for i in incidents if i.get("state") not in _OPEN]
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="refresh" content="{REFRESH_S}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{len(is_open)} open - Shiftwatch</title><style>{_STYLE}</style></head><body>"
        f"<h1>Shiftwatch <span class=soft>{escape(version)}</span> {state}</h1>"
        f"<h2>Streams</h2>{_streams(streams)}"
        f"<h2>Open incidents</h2>{_incidents(is_open, 'No incident is open.')}"
        f"<h2>Recent incidents</h2>{_incidents(is_over, 'There were none.')}"
        '<p class=soft><a href="/metrics">metrics</a> · <a href="/api/v1/streams">streams</a> · '
        '<a href="/api/v1/incidents">incidents</a> as data</p></body></html>\n'
    )


def _streams(streams: Sequence[Mapping[str, Any]]) -> str:
    return _table(
        ("stream", "phase", "observations", "labels", "accuracy", "champion", "open incidents"),
        [
            (
                _link(f"/api/v1/streams/{quote(str(s['name']), safe='')}", s["name"]),
                _state(s.get("phase"), s.get("reason")),
                _number(s.get("observations")),
                _number(s.get("labels")),
                _number(s.get("accuracy")),
                _text(s.get("champion")),
                _text(", ".join(map(str, s.get("open_incidents") or ()))),
            )
            for s in streams
        ],
        "No stream is configured.",
    )


def _incidents(incidents: Sequence[Mapping[str, Any]], otherwise: str) -> str:
    return _table(
        ("incident", "stream", "state", "kind", "opened", "detail"),
        [
            (
                _link(f"/api/v1/incidents/{quote(str(i['id']), safe='')}", i["id"]),
                _text(i.get("stream")),
                _state(i.get("state")),
                _text(i.get("kind")),
                _point(i.get("opened_at")),
                _text(i.get("detail")),
            )
            for i in incidents
        ],
        otherwise,
    )


def _table(head: Iterable[str], rows: Sequence[Iterable[str]], otherwise: str) -> str:
    if not rows:
        return f"<p class=soft>{escape(otherwise)}</p>"
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(row) + "</tr>" for row in rows)
    return (
        f"<div class=scroll><table><thead><tr>{cells}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _text(value: object) -> str:
    return f"<td>{_shown(value)}</td>"


def _number(value: object) -> str:
    shown = f"{value:.4g}" if isinstance(value, float) else _shown(value)
    return f"<td class=number>{shown}</td>"


def _state(value: object, reason: object = "") -> str:
    mark = _mark(str(value), _CLASS_OF_STATE.get(str(value), "soft"))
    why = f"<br><span class=soft>{_shown(reason)}</span>" if reason else ""
    return f"<td>{mark}{why}</td>"


def _point(value: object) -> str:
    if not isinstance(value, Mapping):
        return _text(value)
    return _text(f"{value.get('time') or ''} #{value.get('index')}".strip())


def _link(target: str, text: object) -> str:
    return f'<td><a href="{escape(target)}">{_shown(text)}</a></td>'


def _mark(text: str, class_: str) -> str:
    return f'<span class="{class_}">{escape(text)}</span>'


def _shown(value: object) -> str:
    return "" if value is None else escape(str(value))
