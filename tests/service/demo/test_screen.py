"""What the demo shows where there is no terminal."""

from __future__ import annotations

import io

from rich.console import Console

from service.demo.result import PhaseResult
from service.demo.screen import Screen


def test_the_end_of_a_phase_does_not_end_another_streams_training() -> None:
    said = io.StringIO()
    screen = Screen(Console(file=said, width=140))
    step = {"event": "progress", "epoch": 1, "epochs": 2, "step": 5, "steps": 5, "accuracy": 0.5}
    screen.training("source model of digits", step)
    screen.training("fine-tuning digits-pixels", step)
    accuracy = dict.fromkeys(("before", "during", "after"))
    result = PhaseResult("digits-pixels", ["concept"], ["concept"], 8, "fine_tune", accuracy)
    screen.result(result)
    assert "trained: fine-tuning digits-pixels\n" in said.getvalue()
    assert "trained: source model of digits" not in said.getvalue()
    screen.training_done("source model of digits", "float32")
    assert "trained: source model of digits, in float32\n" in said.getvalue()
