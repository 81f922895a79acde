"""A whole replay of a stream whose suspicions come from alibi-detect."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from service.api.replay import replay_file
from service.settings.service import load
from tests.service.streams import x_to_y_records

CHANGE = 700
CONFIG = """\
streams:
  - name: s
    problem: x_to_y
    reference: {warm_up: 600}
    detectors: [alibi_mmd]
    confirm: {looks: [100, 200, 300], max_wait: 600, min_labels: 60}
    on_confirmed: {covariate: alert_only, prior: alert_only, concept: alert_only}
"""


@pytest.mark.alibi
@pytest.mark.slow  # its thresholds are simulated for the run of 500 rows that is shipped
def test_a_covariate_shift_that_alibi_detect_suspects_is_confirmed_as_one(tmp_path: Path) -> None:
    config, records, out = (tmp_path / name for name in ("c.yaml", "r.jsonl", "i.jsonl"))
    config.write_text(CONFIG + f"registry: {{path: '{tmp_path}/models'}}\n")
    stream = x_to_y_records(1500, shift="covariate", at=CHANGE, seed=300)
    records.write_bytes(b"".join(r.value + b"\n" for r in stream))
    summary = replay_file(load(config), records, out, Console(quiet=True))
    assert summary["observations"] == summary["labels"] == 1500
    incidents = [json.loads(line) for line in out.read_text().splitlines()]
    (found,) = [i for i in incidents if i["confirmed_at"] is not None]
    assert found["kind"] == "covariate"
    assert found["factors"] == ["covariate"]
    assert CHANGE <= found["opened_at"]["index"] < CHANGE + 60
    # Its own promise is 500 rows between false alarms: every one of them is dismissed.
    assert all(i["state"] == "dismissed" for i in incidents if i["confirmed_at"] is None)
