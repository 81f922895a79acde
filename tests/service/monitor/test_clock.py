"""A stream's time: single clocks decide nothing, and what truly moves on wins."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import pytest

from service.monitor.clock import EVERY, PATIENCE, WINDOW, StreamClock
from service.store.states import dumps, loads

DAY = 86_400.0
YEAR = 365 * DAY
BEGIN = 1_767_225_600.0  # 2026
LEAP = 15 * DAY
NEEDED = WINDOW // 2 + 1
"""Records that are most of a window."""


def clock_after(times: Sequence[float]) -> StreamClock:
    clock = StreamClock(LEAP)
    for time in times:
        clock.tick(time)
    return clock


def minutes(n: int, begin: float = BEGIN) -> list[float]:
    """Times of records that come once a minute."""
    return [begin + 60.0 * i for i in range(n)]


def until_it_has_moved(clock: StreamClock, times: Sequence[float], to: float) -> int:
    for n, time in enumerate(times, 1):
        clock.tick(time)
        if clock.now >= to:
            return n
    raise AssertionError(f"the clock is still at {clock.now}")


def test_a_stream_in_order_is_late_by_half_a_window() -> None:
    times = minutes(WINDOW - 1)
    assert clock_after(times).now == -math.inf
    for n in range(WINDOW, 400, EVERY):
        late = minutes(n)[-1] - clock_after(minutes(n)).now
        assert late == 60.0 * (WINDOW // 2)


Spoil = Callable[[list[float], random.Random], None]


def some(share: float, wrong: float) -> Spoil:
    """A share of the records, anywhere."""

    def spoil(times: list[float], rng: random.Random) -> None:
        for i in range(len(times)):
            if rng.random() < share:
                times[i] = wrong

    return spoil


def burst(length: int, by: float, at: int = 500) -> Spoil:
    """So many in a row."""

    def spoil(times: list[float], rng: random.Random) -> None:
        for i in range(at, min(at + length, len(times))):
            times[i] += by

    return spoil


WRONG: dict[str, Spoil] = {
    "two a year ahead": burst(2, YEAR),
    "64 a week ahead": burst(WINDOW // 2, 7 * DAY),
    "1,000 a year ahead": burst(1000, YEAR),
    "1,000 in the year 9999": burst(1000, 253_402_300_799.0 - BEGIN),
    "1,000 in 1970": burst(1000, -BEGIN),
    "the first 64 a year ahead": burst(WINDOW // 2, YEAR, at=0),
    "the first 63 in 1970": burst(WINDOW // 2 - 1, -BEGIN, at=0),
    "one device in twenty a year ahead": some(0.05, BEGIN + YEAR),
    "one device in four a week ahead": some(0.25, BEGIN + 7 * DAY),
    "two devices in five a year ahead": some(0.4, BEGIN + YEAR),
    "one device in four in 1970": some(0.25, 0.0),
    "two devices in five a year behind": some(0.4, BEGIN - YEAR),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("seed", range(3))
def test_wrong_clocks_are_not_heard(name: str, seed: int) -> None:
    right = minutes(4000)
    times = list(right)
    WRONG[name](times, random.Random(seed))
    clock = StreamClock(LEAP)
    for n, time in enumerate(times):
        clock.tick(time)
        assert clock.now <= right[n] + 60.0
        # A burst of clocks that are behind stops the time, and nothing else.
        assert clock.now in {-math.inf, *right}
    assert right[-1] - clock.now < 2 * 60.0 * WINDOW


@pytest.mark.parametrize("pause", [3600.0, DAY, 14 * DAY])
@pytest.mark.parametrize("offset", range(0, EVERY, 5))
def test_a_stream_that_goes_on_after_a_pause_is_heard_soon(pause: float, offset: int) -> None:
    n = 600 + offset
    resumed = minutes(2000, BEGIN + 60.0 * n + pause)
    found = until_it_has_moved(clock_after(minutes(n)), resumed, resumed[0])
    assert NEEDED <= found < NEEDED + EVERY


@pytest.mark.parametrize("offset", range(0, EVERY, 5))
def test_a_leap_has_to_persist(offset: int) -> None:
    n = 600 + offset
    resumed = minutes(2000, BEGIN + 60.0 * n + YEAR)
    found = until_it_has_moved(clock_after(minutes(n)), resumed, resumed[0])
    assert 1073 <= found <= 1088


def test_a_stream_that_was_led_astray_comes_back() -> None:
    clock = clock_after(minutes(600))
    for time in minutes(3000, BEGIN + YEAR):
        clock.tick(time)
    assert clock.now > BEGIN + YEAR
    back = minutes(3000, BEGIN + 60.0 * 3600)
    found = 0
    while clock.now > BEGIN + YEAR:
        clock.tick(back[found])
        found += 1
    assert 1072 <= found <= 1088


def test_doubts_of_two_directions_do_not_add_up() -> None:
    clock = clock_after(minutes(600))
    for n in range(8 * PATIENCE):
        clock.tick(BEGIN + (YEAR if n // (PATIENCE // 2) % 2 else -YEAR))
    assert clock.now < BEGIN + 60.0 * 600


def test_the_latest_time_is_near_and_no_wrong_clock() -> None:
    times = minutes(600)
    assert clock_after(times[:5]).latest == times[4]
    times[-3:] = [BEGIN + YEAR, times[-1], BEGIN - YEAR]
    assert clock_after(times).latest == times[-2]
    assert StreamClock(LEAP).latest == -math.inf


@pytest.mark.parametrize("at", [0, 7, WINDOW - 1, 600, 1300, 2500])
def test_a_restored_clock_goes_on_as_if_nothing_had_happened(at: int) -> None:
    times = minutes(800) + minutes(1500, BEGIN + YEAR) + minutes(1500)
    running = clock_after(times[:at])
    restored = clock_after(times[:300])  # what was there before must not shine through
    restored.restore(loads(dumps(running.snapshot())))
    for time in times[at:]:
        running.tick(time)
        restored.tick(time)
        assert restored.now == running.now
    assert dumps(restored.snapshot()) == dumps(running.snapshot())


def test_its_memory_does_not_grow() -> None:
    assert len(clock_after(minutes(10 * WINDOW)).snapshot()["newest"]) == WINDOW


@pytest.mark.parametrize("name", ["leap_s", "window", "every", "patience"])
def test_numbers_that_are_not_positive_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be positive, got 0"):
        StreamClock(**{"leap_s": 1.0, name: 0})  # type: ignore[arg-type]
