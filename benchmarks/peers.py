"""Rules that other people use to say what moved between two windows."""

from __future__ import annotations

import contextlib
import importlib
import os
import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any, Protocol

import numpy as np
from scipy import stats
from sklearn.ensemble import RandomForestClassifier

from detectors.attribution.attribution import holm
from detectors.attribution.windows import Sample
from detectors.base import Array, Factor, IntArray, Problem


class Rule(Protocol):
    """Something that names what moved between two windows."""

    name: str
    """For tables."""

    def missing(self) -> str:
        """Why it cannot run here; empty if it can."""
        ...

    def claims(
        self, reference: Sample, recent: Sample, problem: Problem, *, alpha: float, seed: int
    ) -> frozenset[Factor]:
        """The factors that it says moved, at a nominal level of `alpha` for both together."""
        ...


class FrozenModel:
    """A random forest on a reference window, as a deployed model that nobody touches.

    Parameters
    ----------
    reference
        What it learns from; all labelled.
    seed
        Of the forest.

    Attributes
    ----------
    errors
        Of each row of the reference by the trees that have not seen it: errors on the training
        rows would be too few, and a held-out half would leave the model less to learn from.
    """

    def __init__(self, reference: Sample, seed: int) -> None:
        self._forest = RandomForestClassifier(
            100, min_samples_leaf=5, oob_score=True, random_state=seed, n_jobs=1
        ).fit(reference.features, reference.labels)
        votes = self._forest.oob_decision_function_
        self.errors: Array = self._wrong(votes, reference.labels)

    def errors_on(self, features: Array, labels: IntArray) -> Array:
        """1 where it is wrong, 0 where it is right; shape (n,)."""
        return self._wrong(self._forest.predict_proba(features), labels)

    def _wrong(self, votes: Array, labels: IntArray) -> Array:
        predicted = self._forest.classes_[votes.argmax(axis=1)]
        wrong: Array = (predicted != labels).astype(np.float64)
        return wrong


class KsErrorRise:
    """The usual rule: inputs moved if a column did, the concept if a frozen model got worse.

    Inputs by the Kolmogorov-Smirnov test of each column with Bonferroni's correction, in Y->X
    problems the labels by the chi-squared test instead; the concept by Fisher's exact test of more
    errors. Holm's method over the two, as for the product.
    """

    name = "KS + error rise"

    def missing(self) -> str:
        """Never."""
        return ""

    def claims(
        self, reference: Sample, recent: Sample, problem: Problem, *, alpha: float, seed: int
    ) -> frozenset[Factor]:
        """See `Rule`."""
        model = FrozenModel(reference.labelled(), seed)
        return self.claims_of(model, reference, recent, problem, alpha=alpha)

    def claims_of(
        self,
        model: FrozenModel,
        reference: Sample,
        recent: Sample,
        problem: Problem,
        *,
        alpha: float,
    ) -> frozenset[Factor]:
        """The same with a model that has learned already."""
        known = recent.labelled()
        if problem is Problem.X_TO_Y:
            marginal = _ks(reference.features, recent.features)
        else:
            marginal = chi2(reference.labelled().labels, known.labels)
        worse = error_rise(model.errors, model.errors_on(known.features, known.labels))
        return claimed(problem, marginal, worse, alpha)


def error_rise(before: Array, after: Array) -> float:
    """p-value of Fisher's exact test that errors became more frequent.

    Parameters
    ----------
    before, after
        1 for an error and 0 otherwise, shapes (n,) and (m,).
    """
    table = [[e.sum(), len(e) - e.sum()] for e in (after, before)]
    return float(stats.fisher_exact(np.array(table, np.int64), alternative="greater")[1])


def _ks(reference: Array, recent: Array) -> float:
    columns = zip(reference.T, recent.T, strict=True)
    p = [float(stats.ks_2samp(a, b, method="asymp").pvalue) for a, b in columns]
    return min(1.0, min(p) * len(p))


def chi2(reference: IntArray, recent: IntArray) -> float:
    """p-value of the chi-squared test that the shares of classes moved, shapes (n,) and (m,)."""
    n_classes = 1 + max(reference.max(), recent.max())
    counts = np.stack([np.bincount(v, minlength=n_classes) for v in (reference, recent)])
    counts = counts[:, counts.sum(axis=0) > 0]
    if counts.shape[1] < 2:
        return 1.0
    return float(stats.chi2_contingency(counts, correction=False).pvalue)


@cache
def why_not(package: str) -> str:
    """Why a package cannot be used; empty if it can."""
    try:
        with quiet():
            importlib.import_module(package)
    except ModuleNotFoundError as error:
        missing = error.name or package
        if missing == package.partition(".")[0]:
            return "not installed"
        return f"needs {missing}, which is not installed"
    except ImportError as error:
        return f"cannot be imported: {error}"
    return ""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Other people's deprecation warnings are not this benchmark's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class EvidentlyRule:
    """Evidently: drift tests of each column, and of the errors of a frozen model.

    Kolmogorov-Smirnov for features with Bonferroni's correction, chi-squared for the labels in
    Y->X problems and for the errors. Holm's method over the two.
    """

    name = "Evidently: column drift + error drift"

    def missing(self) -> str:
        """Whether Evidently can be imported."""
        return why_not("evidently")

    def claims(
        self, reference: Sample, recent: Sample, problem: Problem, *, alpha: float, seed: int
    ) -> frozenset[Factor]:
        """See `Rule`."""
        with quiet():
            before, after = reference.labelled(), recent.labelled()
            model = FrozenModel(before, seed)
            errors = self._p_values(
                {"error": model.errors},
                {"error": model.errors_on(after.features, after.labels)},
                "chisquare",
            )
            if problem is Problem.X_TO_Y:
                marginal = self._p_values(
                    _columns(reference.features), _columns(recent.features), "ks"
                )
            else:
                marginal = self._p_values(
                    {"label": before.labels}, {"label": after.labels}, "chisquare"
                )
        least = min(1.0, min(marginal) * len(marginal))
        return claimed(problem, least, errors[0], alpha)

    @staticmethod
    def _p_values(reference: dict[str, Any], recent: dict[str, Any], method: str) -> list[float]:
        evidently: Any = importlib.import_module("evidently")
        metrics: Any = importlib.import_module("evidently.metrics")
        pd: Any = importlib.import_module("pandas")
        numeric = method == "ks"
        names = list(reference)
        definition = evidently.DataDefinition(
            numerical_columns=names if numeric else [],
            categorical_columns=[] if numeric else names,
        )
        after, before = (
            evidently.Dataset.from_pandas(pd.DataFrame(v), data_definition=definition)
            for v in (recent, reference)
        )
        report = evidently.Report(
            [metrics.ValueDrift(column=name, method=method) for name in names]
        )
        return [float(m["value"]) for m in report.run(after, before).dict()["metrics"]]


class NannyMlRule:
    """NannyML at its defaults: column drift and realised accuracy, in ten chunks.

    It has no level: a chunk alerts outside three standard deviations of the reference's chunks. A
    factor is claimed where at least half of the recent chunks alert: for inputs in one column, for
    the concept by a fall of accuracy. Two classes only.
    """

    name = "NannyML: column drift + accuracy"

    def missing(self) -> str:
        """Whether NannyML can be imported."""
        os.environ.setdefault("NML_DISABLE_USAGE_LOGGING", "1")  # before its import, or it phones
        return why_not("nannyml")

    def claims(
        self,
        reference: Sample,
        recent: Sample,
        problem: Problem,
        *,
        alpha: float,  # noqa: ARG002
        seed: int,
    ) -> frozenset[Factor]:
        """See `Rule`; there is no level to set."""
        with quiet():
            nannyml: Any = importlib.import_module("nannyml")
            before, after = reference.labelled(), recent.labelled()
            model = FrozenModel(before, seed)
            claimed = set()
            if problem is Problem.X_TO_Y:
                drift = nannyml.UnivariateDriftCalculator(
                    column_names=list(_columns(reference.features)),
                    continuous_methods=["kolmogorov_smirnov"],
                )
                windows: tuple[dict[str, Any], dict[str, Any]] = (
                    _columns(reference.features),
                    _columns(recent.features),
                )
            else:
                drift = nannyml.UnivariateDriftCalculator(
                    column_names=["label"],
                    treat_as_categorical=["label"],
                    categorical_methods=["chi2"],
                )
                windows = {"label": before.labels}, {"label": after.labels}
            if max(self._alerts(drift, *windows).values()) >= 0.5:
                claimed.add(problem.marginal)
            accuracy = nannyml.PerformanceCalculator(
                metrics=["accuracy"],
                y_true="label",
                y_pred="predicted",
                y_pred_proba="predicted",  # asked for, and of no use to accuracy
                problem_type="classification_binary",
            )
            errors = model.errors, model.errors_on(after.features, after.labels)
            served = [
                # Of two classes the other one where it was wrong.
                {"label": w.labels, "predicted": np.where(e == 1, 1 - w.labels, w.labels)}
                for w, e in zip((before, after), errors, strict=True)
            ]
            if max(self._alerts(accuracy, *served).values()) >= 0.5 and errors[1].mean() > (
                errors[0].mean()
            ):
                claimed.add(Factor.CONCEPT)
        return frozenset(claimed)

    @staticmethod
    def _alerts(
        calculator: Any, reference: dict[str, Any], recent: dict[str, Any]
    ) -> dict[Any, float]:
        """Share of the recent chunks that alert, by column."""
        pd: Any = importlib.import_module("pandas")
        found = calculator.fit(pd.DataFrame(reference)).calculate(pd.DataFrame(recent))
        table = found.filter(period="analysis").to_df()
        alerts = [c for c in table.columns if c[-1] == "alert"]
        return {c[:-1]: float(table[c].mean()) for c in alerts}


def _columns(features: Array) -> dict[str, Any]:
    return {f"x{j}": column for j, column in enumerate(features.T)}


def claimed(problem: Problem, marginal: float, concept: float, alpha: float) -> frozenset[Factor]:
    """The factors whose p-values Holm's method rejects at level `alpha`."""
    rejected = holm(np.array([marginal, concept]), alpha)
    return frozenset(f for f, r in zip(problem.factors, rejected, strict=True) if r)


RULES: tuple[Rule, ...] = (KsErrorRise(), EvidentlyRule(), NannyMlRule())
"""All rules, the usual one first."""
