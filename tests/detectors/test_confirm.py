"""From a suspicion to a verdict: fresh evidence only, looks that share their error, one restart."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.attribution.windows import Sample
from detectors.base import Array, Evidence, Factor, IntArray, Kind, Problem
from detectors.confirm import ConfirmPlan, Look, Step, Suspicion
from detectors.synthetic import Stream
from detectors.watches.build import build_watches
from detectors.watches.contract import Feed, Watching
from tests.detectors.windows import reference_of

ALARM = 10_000


def world(kind: Kind, seed: int) -> Stream:
    return Stream(Problem.X_TO_Y, kind, n_features=3, strength="strong", seed=seed)


def suspicion_of(plan: ConfirmPlan) -> Suspicion:
    return Suspicion(
        plan,
        alarm_index=ALARM,
        opened_index=ALARM,
        factor=Factor.COVARIATE,
        change_point=ALARM - 20,
        n_features=3,
        seed=1,
    )


def feed(suspicion: Suspicion, rows: Array, labels: IntArray, first: int = ALARM + 1) -> None:
    suspicion.seen(rows)
    suspicion.labelled(np.arange(first, first + len(rows)), labels, [None] * len(rows))


def label(suspicion: Suspicion, index: int, row: Array, code: int) -> None:
    """A label that comes by itself."""
    found = np.ones(1, np.bool_)
    suspicion.labelled(np.array([index]), np.array([code]), [None], row[None], found)


def watches_of(rows: Array, labels: IntArray) -> list[Watching]:
    return [
        watch
        for each in Feed
        for watch in build_watches(
            each, Problem.X_TO_Y, rows, labels, n_classes=2, arl0=5000.0, seed=0
        ).watches
    ]


def as_is(rows: Array) -> Array:
    return rows


def test_looks_spend_the_error_of_the_plan_and_no_more() -> None:
    plan = ConfirmPlan(Problem.X_TO_Y, alpha=0.02, looks=(100, 200, 300, 400))
    spent = [plan.spend(n) for n in range(4)]
    assert spent == sorted(spent)
    assert sum(spent) == pytest.approx(0.02)


def test_rows_from_before_the_alarm_are_never_evidence() -> None:
    suspicion = suspicion_of(ConfirmPlan(Problem.X_TO_Y))
    for index in (ALARM, ALARM - 5):
        label(suspicion, index, np.zeros(3), 1)
    assert suspicion.n_labelled == 0


def test_a_change_that_comes_during_a_false_suspicion_begins_the_evidence_again() -> None:
    stream = world(Kind.MIXED, 100)
    reference = stream.draw(2000, shifted=False)
    calm, moved = stream.draw(400, shifted=False), stream.draw(600, shifted=True)
    suspicion = suspicion_of(ConfirmPlan(Problem.X_TO_Y))
    suspicion.looks_done = 2
    feed(suspicion, np.r_[calm[0], moved[0]], np.r_[calm[1], moved[1]])
    suspicion.restart(watches_of(*reference), as_is)
    assert suspicion.restarted
    assert ALARM + 400 < suspicion.alarm_index < ALARM + 520
    assert abs(suspicion.change_point - (ALARM + 400)) < 60
    assert suspicion.looks_done == 0
    assert suspicion.n_fresh == ALARM + 1000 - suspicion.alarm_index


def test_a_change_that_raised_the_alarm_does_not_begin_it_again() -> None:
    restarted = 0
    for seed in range(100, 110):
        stream = world(Kind.MIXED, seed)
        reference = stream.draw(2000, shifted=False)
        suspicion = suspicion_of(ConfirmPlan(Problem.X_TO_Y))
        feed(suspicion, *stream.draw(600, shifted=True))
        suspicion.restart(watches_of(*reference), as_is)
        restarted += suspicion.restarted
    assert restarted <= 1


def test_the_watches_are_left_at_rest() -> None:
    stream = world(Kind.CONCEPT, 100)
    watches = watches_of(*stream.draw(1000, shifted=False))
    suspicion = suspicion_of(ConfirmPlan(Problem.X_TO_Y))
    feed(suspicion, *stream.draw(300, shifted=True))
    suspicion.restart(watches, as_is)
    assert [watch.statistic for watch in watches] == [0.0] * len(watches)


def test_a_restored_suspicion_goes_on_as_if_never_interrupted() -> None:
    stream = world(Kind.COVARIATE, 101)
    reference = reference_of(Sample(*stream.draw(1000, shifted=False)))
    plan = ConfirmPlan(Problem.X_TO_Y)
    rows, labels = stream.draw(300, shifted=True)
    whole, cut = suspicion_of(plan), suspicion_of(plan)
    feed(cut, rows[:120], labels[:120])
    feed(whole, rows[:120], labels[:120])
    for each in (whole, cut):
        label(each, ALARM + 200, rows[199], int(labels[199]))  # out of turn, its row is kept
    cut = Suspicion.from_snapshot(plan, cut.snapshot())
    for each in (whole, cut):
        feed(each, rows[120:], labels[120:], ALARM + 121)
    looks = [s.look(reference, as_is) for s in (whole, cut)]
    assert looks[0] == looks[1]
    assert looks[0].verdict.kind is Kind.COVARIATE


def test_without_labels_a_moved_input_is_confirmed_as_covariate_or_undetermined() -> None:
    stream = world(Kind.COVARIATE, 102)
    reference = reference_of(Sample(*stream.draw(1000, shifted=False)))
    suspicion = suspicion_of(ConfirmPlan(Problem.X_TO_Y, looks=(200,), max_wait=200))
    suspicion.seen(stream.draw(200, shifted=True)[0])
    assert suspicion.due(labels_expected=True)
    look = suspicion.look(reference, as_is)
    assert look.step is Step.CONFIRM
    assert look.verdict.kind is Kind.UNDETERMINED
    assert Factor.COVARIATE in look.verdict.factors


def test_autocorrelated_inputs_that_did_not_move_are_dismissed() -> None:
    """The level holds on AR(1) 0.9 with blocks, and does not without: 16 windows, 5 % wanted."""
    rejected = {1: 0, 60: 0}
    for seed in range(100, 116):
        rng = np.random.default_rng(seed)
        noise = rng.normal(size=(3000, 3)) * np.sqrt(0.19)
        rows = np.zeros((3000, 3))
        for t in range(1, 3000):
            rows[t] = 0.9 * rows[t - 1] + noise[t]
        labels = rng.integers(0, 2, 3000)
        for length in rejected:
            suspicion = suspicion_of(ConfirmPlan(Problem.X_TO_Y, alpha=0.05, looks=(1000,)))
            feed(suspicion, rows[2000:], labels[2000:])
            sample = Sample(rows[:2000], labels[:2000])
            look = suspicion.look(reference_of(sample, block_length=length), as_is)
            rejected[length] += look.verdict.kind is not Kind.NONE
    assert rejected[60] <= 4
    assert rejected[1] >= 8


def test_inputs_without_overlap_are_not_waited_for() -> None:
    stream = world(Kind.NONE, 103)
    reference = reference_of(Sample(*stream.draw(1000, shifted=False)))
    suspicion = suspicion_of(ConfirmPlan(Problem.X_TO_Y))
    rows, labels = stream.draw(500, shifted=False)
    feed(suspicion, rows + 9.0, labels)
    steps = [suspicion.look(reference, as_is).step for _ in range(2)]
    assert steps == [Step.WAIT, Step.CONFIRM]


def test_looks_before_and_after_a_restart_share_one_error() -> None:
    stream = world(Kind.MIXED, 100)
    reference = reference_of(Sample(*stream.draw(1000, shifted=False)))
    calm, moved = stream.draw(600, shifted=False), stream.draw(1200, shifted=True)
    plan = ConfirmPlan(Problem.X_TO_Y, alpha=0.02)
    suspicion = suspicion_of(plan)

    def look() -> None:
        suspicion.look(reference, as_is)

    feed(suspicion, *calm)
    look()
    look()
    feed(suspicion, *moved, first=ALARM + 601)
    suspicion.restart(watches_of(reference.sample.features, reference.sample.labels), as_is)
    assert suspicion.restarted
    for _ in plan.looks:
        look()
    assert suspicion.spent == pytest.approx(plan.alpha)


def test_a_look_that_labels_did_not_wait_for_has_the_whole_error() -> None:
    suspicion = suspicion_of(ConfirmPlan(Problem.Y_TO_X, max_wait=1000))
    moved = Stream(Problem.Y_TO_X, Kind.PRIOR, n_features=3, strength="strong", seed=100)
    reference = reference_of(Sample(*moved.draw(1000, shifted=False)))
    suspicion.seen(moved.draw(1000, shifted=True)[0])
    assert suspicion.due(labels_expected=True)
    look = suspicion.look(reference, as_is)
    assert suspicion.spent == pytest.approx(0.01)
    assert (look.step, look.verdict.kind) == (Step.CONFIRM, Kind.PRIOR)


def looked(others: tuple[tuple[Evidence, ...], ...], n_parts: int = 1) -> Look:
    """The first look at 250 rows in which nothing moved."""
    stream = world(Kind.NONE, 3)
    rows, labels = stream.draw(1000, shifted=False)
    suspicion = suspicion_of(ConfirmPlan(Problem.X_TO_Y))
    feed(suspicion, *stream.draw(250, shifted=False))
    reference = reference_of(Sample(rows, labels))
    return suspicion.look(reference, as_is, others=others, n_parts=n_parts)


def test_a_look_decides_on_the_evidence_of_all_parts_and_keeps_its_own() -> None:
    alone = looked(())
    assert alone.verdict.kind is Kind.NONE
    assert alone.own == ()
    moved = Evidence("two-sample", Factor.COVARIATE, 9.0, 1e-6, 0.3, 1000, 1000)
    together = looked(((moved,), (moved,)))
    assert together.verdict.kind is Kind.COVARIATE
    assert [e.factor for e in together.own] == [Factor.COVARIATE, Factor.CONCEPT]
    assert [e.effect for e in together.own] == [e.effect for e in alone.verdict.evidence]
    assert together.verdict.evidence[0].n_recent == 2250
    assert together.verdict.evidence[1].p_value == together.own[1].p_value


def test_parts_that_are_under_test_together_share_the_error_of_a_look() -> None:
    almost = Evidence("covariance", Factor.CONCEPT, 3.0, 1e-5, 0.1, 1000, 1000)
    assert looked(((almost,),), n_parts=1).verdict.kind is Kind.CONCEPT
    assert looked(((almost,),), n_parts=8).verdict.kind is Kind.NONE
