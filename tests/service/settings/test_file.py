import pytest

from service.settings.file import Document, SettingsError, did_you_mean, dotted, parse


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        parse(text, "a.yaml")
    return caught.value.problems


def test_every_value_has_its_line():
    document = parse("a:\n  - b: 1\n    c:\n      - 2\n      - 3\n", "a.yaml")
    assert document.data == {"a": [{"b": 1, "c": [2, 3]}]}
    assert document.place(("a", 0, "c", 1)) == "a.yaml:5"
    assert document.place(("a", 0, "c")) == "a.yaml:3"
    assert document.place(("a", 0, "none", "such")) == "a.yaml:2"
    assert Document("b", {}).place(("x",)) == "b"


def test_keys_given_twice_are_all_named():
    assert problems("a: 1\nb: {c: 1, c: 2}\na: 3\n") == (
        "a.yaml:3: a: given twice, first at a.yaml:1",
        "a.yaml:2: b.c: given twice, first at a.yaml:2",
    )


def test_a_merged_mapping_is_no_duplicate_however_often_it_is_used():
    text = "x: &x {a: 1, b: 2}\ny: &y {<<: *x, b: 3}\nz: *y\nw: {<<: *y, c: 4}\n"
    data = parse(text, "a.yaml").data
    assert data["y"] == data["z"] == {"a": 1, "b": 3}
    assert data["w"] == {"a": 1, "b": 3, "c": 4}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "a.yaml: expected settings, the file is empty"),
        ("# nothing\n", "empty"),
        ("[1]", "a.yaml:1: expected a mapping"),
        ("a: [1\nb: 2", "a.yaml:2: expected YAML"),
        ("a: 1\n\tb: 2", "a.yaml:2: expected YAML"),
        ("no: 1", "a.yaml:1: top: expected text as a key, got 'no': quote it"),
        ("a: {[1]: 2}", "expected text as a key"),
        ("a: !!python/object/apply:os.system [ls]", "a: expected no tag, got"),
        ("a: !!python/name:os.system x", "could not determine a constructor"),
        ("a: 2026-13-45", "month"),
        ("a: &a [*a]", "contains itself"),
        ("[" * 5000, "nested too deeply"),
        (
            "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
            + "".join(
                f"{c}: &{c} [*{p},*{p},*{p},*{p},*{p},*{p},*{p},*{p},*{p},*{p}]\n"
                for p, c in zip("abcdef", "bcdefg", strict=True)
            ),
            "do aliases multiply",
        ),
    ],
)
def test_what_is_no_settings_file_says_why(text, expected):
    assert expected in problems(text)[0]


def test_a_name_that_is_almost_right_is_recognised():
    assert did_you_mean("problm", ["problem", "name"]) == "; did you mean problem?"
    assert did_you_mean("xyz", ["problem", "name"]) == "; known are name, problem"
    assert did_you_mean("xyz", []) == ""


def test_a_location_reads_like_the_file():
    assert dotted(("streams", 0, "confirm", "looks", 2)) == "streams[0].confirm.looks[2]"
