"""A dependency that is away: when to try again, and what to say of it."""

from __future__ import annotations

from collections.abc import Callable

import structlog

log = structlog.get_logger()

FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 5.0


class Trouble:
    """The state of something that is asked again until it answers.

    Parameters
    ----------
    monotonic
        Seconds by a clock that is never set.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._since: float | None = None
        self._wait_s = FIRST_WAIT_S
        self._again_at = 0.0
        self.reason = ""

    @property
    def lasts(self) -> bool:
        """Whether the last attempt failed."""
        return self._since is not None

    @property
    def may_try(self) -> bool:
        """Whether it is time for the next attempt."""
        return self._monotonic() >= self._again_at

    def met(self, error: Exception) -> None:
        """Note a failed attempt; each one doubles the wait, up to 5 seconds."""
        now = self._monotonic()
        if self._since is None:
            self._since = now
            self._wait_s = FIRST_WAIT_S
            log.error("waiting", reason=str(error))
        self._again_at = now + self._wait_s
        self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)
        self.reason = str(error)

    def over(self) -> None:
        """Note that it has answered."""
        if self._since is not None:
            log.info("going on", waited_s=round(self._monotonic() - self._since, 1))
            self._since = None
            self._again_at = 0.0
            self.reason = ""
