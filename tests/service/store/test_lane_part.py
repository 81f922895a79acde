import pytest

from service.domain.sample import ContentKind
from service.store.store import Store
from tests.service.store.values import sample


def test_a_lane_has_its_own_offsets_states_and_samples(store: Store) -> None:
    with store.transaction() as tx:
        for lane in (0, 1):
            tx.put_offsets({("features", lane): 10 + lane, ("labels", lane): 20 + lane})
            tx.put_state("digits", b"digits %d" % lane, lane)
            tx.put_samples("digits", [sample(n + lane) for n in range(3)], keep=2, lane=lane)
        tx.put_state("fraud", b"fraud 1", lane=1)
        tx.label_samples("digits", [(2, "3")], lane=1)
    assert store.offsets(1) == {("features", 1): 11, ("labels", 1): 21}
    assert len(store.offsets()) == 4
    assert store.states(1) == {"digits": b"digits 1", "fraud": b"fraud 1"}
    assert store.states(2) == {}
    assert store.state("digits") == b"digits 0"
    assert store.state("digits", 1) == b"digits 1"
    assert store.state("fraud") is None
    assert [(s.index, s.label) for s in store.samples("digits")] == [(1, None), (2, None)]
    assert [(s.index, s.label) for s in store.samples("digits", lane=1)] == [(2, "3"), (3, None)]


def test_samples_are_pruned_to_the_newest_of_their_stream(store: Store) -> None:
    with store.transaction() as tx:
        tx.put_samples("other", [sample(0)], keep=3)
        for start in (0, 5, 10):
            # With gaps: what counts is the number of samples, not their indices.
            samples = [sample(2 * i) for i in range(start, start + 5)]
            tx.put_samples("digits", samples, keep=3)
    assert [s.index for s in store.samples("digits")] == [24, 26, 28]
    assert [s.index for s in store.samples("other")] == [0]


def test_labels_come_later_and_stay(store: Store) -> None:
    with store.transaction() as tx:
        tx.put_samples("digits", [sample(i) for i in range(4)], keep=10)
        tx.label_samples("digits", [(1, "3"), (2, "8"), (99, "pruned")])
        tx.label_samples("digits", [])
        tx.put_samples("digits", [sample(2)], keep=10)
    assert [(s.index, s.label) for s in store.samples("digits", labelled_only=True)] == [
        (1, "3"),
        (2, "8"),
    ]
    assert [s.index for s in store.samples("digits", 1, 3)] == [1, 2]


def test_an_image_comes_back_as_it_was(store: Store) -> None:
    image = sample(0, content=bytes(range(256)), kind=ContentKind.IMAGE, label="3")
    with store.transaction() as tx:
        tx.put_samples("digits", [image], keep=1)
        with pytest.raises(ValueError, match="keep must be positive, got 0"):
            tx.put_samples("digits", [], keep=0)
    assert store.samples("digits") == [image]
