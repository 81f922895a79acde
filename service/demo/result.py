"""What became of a phase of the demo."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """A row of the report.

    Attributes
    ----------
    stream
        The stream whose world changed.
    truth, verdict
        The factors that were moved, and those of the phase's confirmed incidents, in alphabetical
        order.
    delay_events
        Observations from the change to the first confirmed incident; None without one.
    action
        What was done last.
    accuracy
        Of the labelled observations ``before`` the change, ``during`` it, and ``after`` the repair;
        None without any.
    """

    stream: str
    truth: list[str]
    verdict: list[str]
    delay_events: int | None
    action: str
    accuracy: dict[str, float | None]
