import io

from benchmarks.timelines import Lane, timelines

LANES = [
    Lane(
        "one",
        500,
        [(100, 100, "mixed"), (300, 350, "concept")],
        [(0, 50)],
        [(110, 130, "mixed")],
        [20],
        [],
    ),
    Lane("two", 900, [(200, 200, "concept"), (400, 400, "return")], [(0, 50)], [], [], [450]),
]


def legend(lanes):
    return [text.get_text() for text in timelines(lanes).legends[0].get_texts()]


def test_the_legend_names_what_occurs_and_no_more():
    assert "known gradual change" not in legend(LANES[1:])
    assert "dismissed" not in legend(LANES[1:])
    assert {"resolved", "return", "concept", "known change"} <= set(legend(LANES[1:]))
    assert {"known gradual change", "dismissed", "mixed"} <= set(legend(LANES[:1]))


def test_the_lines_stand_in_the_order_given_from_the_top():
    axes = timelines(LANES).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["two", "one"]


def test_the_figure_can_be_drawn():
    file = io.BytesIO()
    timelines(LANES).savefig(file, format="png")
    assert file.getvalue().startswith(b"\x89PNG")
