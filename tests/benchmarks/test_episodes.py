import pytest

from benchmarks.episodes import count


def test_an_alarm_is_right_from_the_first_row_of_the_drift_to_the_longest_delay():
    own = count([(1000, [999, 1000, 1100, 1101])], max_delay=100, n_rows=2000)
    assert (own.right, own.false, own.missed) == (2, 2, 0)
    assert own.delays == (0,)


def test_the_figures_of_a_case_worked_by_hand():
    # Right: 2 in the first episode, 1 in the last. False: one too late, two too early.
    episodes = [(500, [510, 550]), (600, [705]), (700, []), (400, [10, 20, 460])]
    own = count(episodes, max_delay=100, n_rows=1500)
    assert (own.right, own.false, own.missed) == (3, 3, 2)
    assert own.precision == 0.5
    recall = 3 / 5
    assert own.f1 == pytest.approx(2 * 0.5 * recall / (0.5 + recall))
    assert own.episode_recall == 0.5
    assert own.mean_delay == 35
    assert own.median_delay == 35
    assert own.false_per_1000 == pytest.approx(2)


def test_a_delay_is_that_of_the_first_right_alarm_only():
    own = count([(0, [5, 50]), (0, [20]), (0, [90])], max_delay=100, n_rows=1000)
    assert own.delays == (5, 20, 90)
    assert own.median_delay == 20


def test_without_alarms_nothing_is_divided_by_zero():
    own = count([(5, [])], max_delay=10, n_rows=100)
    assert (own.precision, own.f1, own.episode_recall, own.false_per_1000) == (0, 0, 0, 0)
    assert own.mean_delay is None
    assert own.median_delay is None
