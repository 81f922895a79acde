"""The main job from end to end, as the README's first command runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

LIMIT_S = 900
"""The demo takes some minutes on two idle cores; this only keeps a hang from lasting for ever."""


def _get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def _address(log: Path, process: subprocess.Popen[bytes], streams: str) -> str:
    """Where the demo serves these streams, once it says so."""
    deadline = time.monotonic() + LIMIT_S
    while process.poll() is None and time.monotonic() < deadline:
        for line in log.read_text().splitlines():
            if line.startswith("serving ") and line.endswith(f": {streams}"):
                return line.split()[1].rstrip("/")
        time.sleep(0.2)
    raise AssertionError(f"the demo never served:\n{log.read_text()}")


@pytest.mark.slow
def test_every_phase_is_named_and_the_models_recover(tmp_path: Path) -> None:
    report, log = tmp_path / "report.json", tmp_path / "log.txt"
    command = [sys.executable, "-m", "service.cli", "demo", "--exit-when-done", "--port", "0"]
    command += ["--data", str(tmp_path / "data"), "--report", str(report)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, "COLUMNS": "200"}
        )
        try:
            first = _address(log, process, "digits-pixels")
            url = _address(log, process, "digits, digits-pixels")
            answers = {
                path: _get(url + path)
                for path in (
                    "/healthz",
                    "/readyz",
                    "/metrics",
                    "/api/v1/streams",
                    "/api/v1/incidents",
                    "/",
                )
            }
            code = process.wait(timeout=LIMIT_S)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(timeout=60)
    said = log.read_text()
    assert code == 0, said
    assert url == first
    assert {path: status for path, (status, _) in answers.items()} == dict.fromkeys(answers, 200)
    assert "shiftwatch_observations_total" in answers["/metrics"][1]
    names = {stream["name"] for stream in json.loads(answers["/api/v1/streams"][1])["streams"]}
    assert names == {"digits", "digits-pixels"}
    phases = json.loads(report.read_text())["phases"]
    assert [p["truth"] for p in phases] == [[], ["covariate"], ["concept"], ["prior"], ["concept"]]
    assert [p["verdict"] for p in phases] == [p["truth"] for p in phases], said
    assert phases[3]["action"] == "reweight"
    assert phases[4]["action"] == "fine_tune: promoted"
    for phase in phases:
        assert phase["accuracy"]["after"] >= phase["accuracy"]["before"] - 0.03, phase
    assert said.count("signature verified") >= 8
    assert "SIGNATURE WRONG" not in said
