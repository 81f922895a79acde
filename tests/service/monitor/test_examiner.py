"""What nobody should have to look for is said in the incident's own sentence."""

from __future__ import annotations

from service.monitor.examiner import aloud


def place(moved: list[str], unmoved: list[str], *, only: bool) -> dict[str, object]:
    return {
        "moved": dict.fromkeys(moved, "covariate"),
        "unmoved": unmoved,
        "untested": [],
        "only": only,
    }


def test_the_segment_is_said_to_be_the_only_one_only_where_the_rest_has_shown_it() -> None:
    assert aloud({"segments": {"camera": place(["7"], ["3"], only=True)}}) == ["only camera 7"]
    assert aloud({"segments": {"camera": place(["7"], ["3"], only=False)}}) == ["at least camera 7"]


def test_no_segment_is_named_where_all_or_none_moved() -> None:
    assert aloud({"segments": {"camera": place(["3", "7"], [], only=False)}}) == []
    assert aloud({"segments": {"camera": place([], ["3", "7"], only=False)}}) == []


def test_a_suspect_direction_chosen_labels_and_missing_ones_are_said() -> None:
    said = aloud(
        {
            "severity": {},
            "labels_needed": 1200,
            "direction_suspect": "as y_to_x only the prior would have moved: check the direction",
            "chosen_labels": "the labelled rows were chosen",
        }
    )
    assert said == [
        "as y_to_x only the prior would have moved: check the direction",
        "the labelled rows were chosen",
        "about 1,200 labels more would settle it",
    ]


def test_nothing_to_say_adds_nothing() -> None:
    assert aloud({"labels_needed": 0, "label_queries": []}) == []
