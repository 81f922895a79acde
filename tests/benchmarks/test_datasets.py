import gzip

import numpy as np
import pytest

from benchmarks import datasets

LINES = "a,b,group,class\n1,2.5,9,UP\n3,-4,9,DOWN\n5,6,9,UP\n"


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv(datasets.VARIABLE, str(tmp_path))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "one.csv.gz").write_bytes(gzip.compress(LINES.encode()))
    return tmp_path


def test_a_table_is_features_in_order_and_classes_sorted_as_text(data):
    found = datasets.load("set/one.csv.gz", target="class", without=("group",))
    assert found.columns == ("a", "b")
    assert found.classes == ("DOWN", "UP")
    assert found.features.tolist() == [[1, 2.5], [3, -4], [5, 6]]
    assert found.labels.tolist() == [1, 0, 1]
    assert found.labels.dtype == np.int64


def test_a_shared_dataset_cannot_be_changed_by_whoever_reads_it(data):
    found = datasets.load("set/one.csv.gz", target="class")
    with pytest.raises(ValueError, match="read-only"):
        found.features[0, 0] = 7
    with pytest.raises(ValueError, match="read-only"):
        found.labels[0] = 0


def test_an_unknown_column_is_named(data):
    with pytest.raises(ValueError, match=r"one\.csv\.gz: no column 'klass'"):
        datasets.load("set/one.csv.gz", target="klass")


def test_what_is_not_a_number_is_named_with_its_row(data):
    (data / "bad.csv").write_text("a,class\n1,0\nx,0\n", "utf-8")
    with pytest.raises(ValueError, match=r"bad\.csv, row 1: .*'x'"):
        datasets.load("bad.csv", target="class")


def test_a_short_row_is_named(data):
    (data / "short.csv").write_text("class,a\n0,1\n0\n", "utf-8")
    with pytest.raises(ValueError, match=r"short\.csv, row 1"):
        datasets.load("short.csv", target="class")


def test_the_first_absent_file_is_said_and_the_variable_that_places_it(data):
    assert datasets.absent(["set/one.csv.gz"]) == ""
    found = datasets.absent(["set/one.csv.gz", "set/two.csv.gz", "three"])
    assert str(data / "set" / "two.csv.gz") in found
    assert datasets.VARIABLE in found


def test_without_the_variable_the_data_lie_beside_the_repository(monkeypatch):
    monkeypatch.delenv(datasets.VARIABLE, raising=False)
    assert datasets.directory().parts[-2:] == ("shared", "data")
    assert not datasets.directory().is_relative_to(datasets.Path(datasets.__file__).parents[1])
