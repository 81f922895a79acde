import pytest

from service.labels import Change, Joined, LabelJoin, Outcome


def test_a_label_in_the_same_record_is_joined_at_once() -> None:
    join = LabelJoin(10)
    assert join.observe("a", 0, "x", "y") == Change(Outcome.JOINED, Joined(0, "y", "x", 0))
    assert join.n_waiting == 0


def test_a_late_label_meets_its_observation_and_knows_its_delay() -> None:
    join = LabelJoin(10)
    join.observe("a", 0, "x", None)
    join.observe("b", 1, None, None)
    assert join.label("a", "y", 1) == Change(Outcome.JOINED, Joined(0, "y", "x", 1))
    assert join.n_waiting == 1


def test_an_early_label_waits_for_its_observation() -> None:
    join = LabelJoin(10)
    assert join.label("a", "y", -1) == Change(Outcome.EARLY)
    assert join.observe("a", 0, None, None) == Change(Outcome.JOINED, Joined(0, "y", None, 0))


def test_the_first_of_two_labels_stays_and_the_second_is_named() -> None:
    join = LabelJoin(10)
    join.observe("a", 0, None, None)
    join.label("a", "y", 0)
    assert join.label("a", "y", 5) == Change(Outcome.DUPLICATE)
    assert join.label("a", "z", 5) == Change(Outcome.CONFLICT)


def test_both_sides_stay_bounded_and_say_what_they_dropped() -> None:
    join = LabelJoin(3)
    for i in range(5):
        join.observe(f"o{i}", i, None, None)
    assert join.n_waiting == 3
    assert join.unlabelled_evicted == 2
    outcomes = [join.label(f"unknown{i}", "y", 5).outcome for i in range(4)]
    assert outcomes == [Outcome.EARLY] * 3 + [Outcome.EXPIRED]


def test_a_restored_join_goes_on_as_if_nothing_had_happened() -> None:
    join, copy = LabelJoin(4), LabelJoin(4)
    for i in range(6):
        join.observe(str(i), i, "p", None)
    join.label("5", "y", 6)
    join.label("early", "z", 6)
    copy.restore(join.snapshot())
    for key in ("3", "5", "early", "new", "0"):
        assert copy.label(key, "q", 9) == join.label(key, "q", 9)
    assert copy.snapshot() == join.snapshot()


def test_a_join_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="max_pending must be positive, got 0"):
        LabelJoin(0)


def test_what_waits_is_told_as_of_the_event_that_was_read_last() -> None:
    join = LabelJoin(2)
    join.observe("a", 0, None, None)
    join.observe("b", 1, None, None)
    join.label("a", "y", 1)
    join.observe("c", 2, None, "y")
    join.observe("b", 3, None, None)  # the older one of this id waits no longer
    join.observe("d", 4, None, None)
    join.observe("e", 5, None, None)  # no room for the oldest
    # The events: a, b, a's label, c and its label, b, d, e; each with the newest one's index.
    told = []
    for newest in (0, 1, 1, 2, 2, 3, 4, 5):
        join.read()
        told.append(join.ids(range(newest + 1)))
    assert told[:5] == [["a"], ["a", "b"], ["b"], ["b"], ["b"]]
    assert told[5:] == [["b"], ["b", "d"], ["d", "e"]]
    assert join.ids([1, 3]) == []


def test_an_observation_that_is_forgotten_waits_until_the_next_event() -> None:
    join = LabelJoin(10)
    join.observe("a", 0, None, None)
    join.read()
    assert join.forget("a") == Change(forgotten=(0, "a"))
    assert join.forget("unknown") == Change()
    assert join.ids([0]) == ["a"]
    join.observe("b", 1, None, None)
    join.read()
    assert join.ids([0, 1]) == ["b"]


def test_a_join_that_recalls_nothing_takes_a_repeat_for_an_early_label() -> None:
    join = LabelJoin(10, recall=0)
    join.observe("a", 0, None, "y")
    assert join.label("a", "y", 0) == Change(Outcome.EARLY)
