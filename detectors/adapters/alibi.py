"""The online detectors of alibi-detect behind this package's contract; an optional dependency."""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from types import SimpleNamespace
from typing import Any, Literal, get_args

import numpy as np

from detectors.base import Alarm, Array, Factor, State
from detectors.rows import as_rows

Name = Literal["mmd", "lsdd", "cvm", "fet"]

_CLASSES: dict[str, tuple[str, str]] = {
    "mmd": ("alibi_detect.cd.tensorflow.mmd_online", "MMDDriftOnlineTF"),
    "lsdd": ("alibi_detect.cd.tensorflow.lsdd_online", "LSDDDriftOnlineTF"),
    "cvm": ("alibi_detect.cd.cvm_online", "CVMDriftOnline"),
    "fet": ("alibi_detect.cd.fet_online", "FETDriftOnline"),
}
_WINDOWED = {"mmd", "lsdd"}
"""On TensorFlow, of one window and all columns together."""
_CONFIGURED = ("thresholds", "H_lam_inv", "permit_probs")
"""What their simulation finds: thresholds, LSDD's regularised matrix, Fisher's odds at a tie."""


def is_installed() -> bool:
    """Whether alibi-detect is there in a version with these detectors; imports nothing.

    Version 0.4.4, which pip picks where the others' requirements leave no newer one, has none.
    """
    try:
        major, minor = version("alibi-detect").split(".")[:2]
    except (PackageNotFoundError, ValueError):
        return False
    return (int(major), int(minor)) >= (0, 13)


class AlibiDetector:
    """One of alibi-detect's online detectors, on its TensorFlow backend [1]_.

    It compares the last `window` rows with the reference, and starts again after an alarm.

    Parameters
    ----------
    name
        `mmd` (maximum mean discrepancy), `lsdd` (least-squares density difference), `cvm`
        (Cramér-von Mises, column by column), or `fet` (Fisher's exact test of a rate that rises;
        one column of 0 and 1, such as errors).
    reference
        Rows of the normal state, shape (n, d); those with a value that is not finite are left out,
        and at least 5 `window` must remain. For `fet` they must hold both values.
    arl0
        Their expected run time: rows between false alarms, above 1. See Notes.
    window
        Rows that are compared, at least 2.
    seed
        Of the simulation, the split of the reference and the draws at ties.
    factor
        The factor that the columns watch.
    simulations
        Streams that the thresholds are taken from; without it 5 `arl0`, times d for `cvm`, whose
        thresholds are quantiles of that order.
    configured
        The `configured` of an equal detector: spares the simulation, which takes most of the time.

    Attributes
    ----------
    configured
        What the simulation found, as arrays.

    Raises
    ------
    ModuleNotFoundError
        If alibi-detect is not installed.
    ValueError
        If the name is unknown, or the reference or a parameter is outside what is said above.

    Notes
    -----
    The licence of alibi-detect 0.11.5 and later (Business Source) allows production use only to
    some: docs/adr/0003-alibi-detect-as-an-extra.md.

    `mmd` has one kernel width for all columns, which are therefore divided by the reference's
    standard deviations; `lsdd` does that itself, and `cvm` and `fet` need none.

    alibi-detect draws from global random state. Here its TensorFlow modules draw from a generator
    of their own, so that TensorFlow's is not touched. numpy's is set for the length of each call
    that draws, and put back; a thread that draws from it in between is disturbed.

    The state since the last alarm is a function of the last `window` rows, of how many there were
    and, for `fet`, of the smoothed statistic. A snapshot holds these, and restoring takes the rows
    again: exact, without pickle. What alibi-detect itself records of the past without a bound is
    cut off.

    References
    ----------
    .. [1] A. Van Looveren et al. (2024). Alibi Detect: algorithms for outlier, adversarial and
       drift detection, 0.13. Seldon Technologies.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> detector = AlibiDetector(  # doctest: +SKIP
    ...     "cvm", rng.normal(size=(100, 1)), arl0=100, window=10, seed=0, factor=Factor.COVARIATE
    ... )
    >>> alarm = detector.update(rng.normal(2.0, size=(50, 1)))[0]  # doctest: +SKIP
    >>> alarm.detector, alarm.row, alarm.columns  # doctest: +SKIP
    ('alibi_cvm', 9, (0,))
    """

    def __init__(
        self,
        name: Name,
        reference: Array,
        *,
        arl0: float,
        window: int,
        seed: int,
        factor: Factor,
        simulations: int | None = None,
        configured: State | None = None,
    ) -> None:
        if name not in _CLASSES:
            raise ValueError(f"name must be one of {', '.join(get_args(Name))}, got {name!r}")
        if not arl0 > 1:
            raise ValueError(f"arl0 must be above 1 row, got {arl0}")
        if window < 2:
            raise ValueError(f"window must be at least 2 rows, got {window}")
        rows = as_rows(reference, np.shape(reference)[-1], name)
        rows = rows[np.isfinite(rows).all(axis=1)]
        if len(rows) < 5 * window:
            raise ValueError(
                f"{name} needs at least {5 * window} complete reference rows, got {len(rows)}"
            )
        self.name = name
        self.factor = factor
        self._width = rows.shape[1]
        self._window = window
        self._seed = seed
        if name == "fet":
            self._check_binary(rows)
            if len(np.unique(rows)) < 2:
                raise ValueError(f"fet needs a reference with 0 and 1, got {rows[0, 0]:g} only")
        self._scale: Array = np.ones(self._width)
        if name == "mmd":
            scale: Array = np.asarray(rows.std(axis=0))
            self._scale = np.where(scale > 0, scale, 1.0)
        if simulations is None:
            simulations = int(np.ceil(5 * arl0 * (self._width if name == "cvm" else 1)))
        elif simulations < 2 * arl0:
            raise ValueError(f"simulations must be at least 2 arl0, got {simulations}")
        self._alibi = self._make(rows, arl0, simulations, configured)
        self.configured: State = {
            key: np.array(getattr(self._alibi, key))
            for key in _CONFIGURED
            if hasattr(self._alibi, key)
        }
        self._start()

    def update(self, batch: Array, /) -> Sequence[Alarm]:
        """Take rows in order, shape (n, d); return the alarms they raised, in row order.

        A row with a value that is not finite is skipped.

        Raises
        ------
        ValueError
            If the batch has another number of columns, or `fet` gets a value other than 0 and 1.
        """
        rows = as_rows(batch, self._width, self.name)
        seen = np.asarray(np.isfinite(rows).all(axis=1))
        if self.name == "fet":
            self._check_binary(np.where(seen[:, None], rows, 0.0))
        alarms = []
        for index in np.flatnonzero(seen).tolist():
            found = self._take(rows[index])
            if found["is_drift"]:
                alarms.append(self._alarm(index, found))
                self._start()
        return alarms

    def snapshot(self) -> State:
        """The last rows since the last alarm, how many there were, and the last statistics."""
        return {
            "rows": np.array(self._rows).reshape(-1, self._width),
            "count": self._count,
            "statistics": np.array(self._alibi.test_stats),
        }

    def restore(self, state: State, /) -> None:
        """Go on from a snapshot of an equally configured detector.

        Raises
        ------
        ValueError
            If the snapshot's rows have another number of columns.
        """
        rows = as_rows(state["rows"], self._width, self.name)
        self._start()
        for row in rows:
            self._take(row)
        self._count = int(state["count"])
        self._alibi.t = self._clock()
        self._alibi.test_stats = np.array(state["statistics"])

    def _start(self) -> None:
        self._alibi.reset_state()
        self._rows: deque[Array] = deque(maxlen=self._window)
        self._count = 0

    def _clock(self) -> int:
        """Their time: thresholds no longer change after two windows."""
        return min(self._count, 2 * self._window)

    def _take(self, row: Array) -> dict[str, Any]:
        self._rows.append(row.copy())
        self._alibi.t = self._clock()
        self._count += 1
        given = (row / self._scale).astype(np.float32 if self.name in _WINDOWED else np.float64)
        if self.name == "fet":  # the only one that draws here, at ties
            with _numpy_seeded(self._seed, self._count):
                found: dict[str, Any] = self._alibi.predict(given)["data"]
        else:
            found = self._alibi.predict(given)["data"]
        # They keep every row and every statistic since the start.
        self._alibi.test_stats = self._alibi.test_stats[-1:]
        self._alibi.drift_preds = self._alibi.drift_preds[-1:]
        if self.name not in _WINDOWED:
            self._alibi.xs = self._alibi.xs[-self._window :]
        return found

    def _alarm(self, row: int, found: dict[str, Any]) -> Alarm:
        statistic = np.atleast_2d(np.asarray(found["test_stat"], dtype=np.float64)).max(axis=0)
        threshold = float(np.max(found["threshold"]))
        by_column = () if self.name in _WINDOWED else np.argsort(-statistic, kind="stable")
        return Alarm(
            detector=f"alibi_{self.name}",
            factor=self.factor,
            row=row,
            statistic=float(statistic.max()),
            threshold=threshold,
            run_length=min(self._count, self._window),
            columns=tuple(int(c) for c in by_column if statistic[c] >= threshold),
        )

    def _make(self, rows: Array, arl0: float, simulations: int, configured: State | None) -> Any:
        """Their object, in a subclass that can be told what a simulation found."""
        module_name, class_name = _CLASSES[self.name]
        # Here and not above: it takes several seconds to import and brings TensorFlow.
        module = importlib.import_module(module_name)
        parent = getattr(module, class_name)
        draws = _Draws(module, self._seed)

        def configure(detector: Any) -> None:
            if configured is None:
                parent._configure_thresholds(detector)
            else:
                for key in set(_CONFIGURED) & set(configured):
                    setattr(detector, key, np.array(configured[key]))
                if self.name in _WINDOWED:  # a list of floats there: float32 compares otherwise
                    detector.thresholds = detector.thresholds.tolist()
            draws.begin("split")

        made = type(class_name, (parent,), {"_configure_thresholds": configure})
        options = {"ert": arl0, "n_bootstraps": simulations, "verbose": False}
        if self.name not in _WINDOWED:
            with _numpy_seeded(self._seed, 0):
                return made(rows, window_sizes=[self._window], **options)
        with draws.instead_of_theirs():
            given = (rows / self._scale).astype(np.float32)
            return made(given, window_size=self._window, **options)

    def _check_binary(self, rows: Array) -> None:
        if self._width != 1:
            raise ValueError(f"fet takes one column, got {self._width}")
        wrong = np.flatnonzero((rows != 0) & (rows != 1))
        if wrong.size:
            row = int(wrong[0])
            raise ValueError(f"fet takes 0 and 1, got {rows[row, 0]:g} at row {row}")


class _Draws:
    """Random numbers for a module of theirs, in place of TensorFlow's."""

    def __init__(self, module: Any, seed: int) -> None:
        self._module = module
        self._seed = seed
        self.begin("simulation")

    def begin(self, phase: Literal["simulation", "split"]) -> None:
        """A stream per phase: the split must not depend on whether there was a simulation."""
        self._rng = np.random.default_rng([self._seed, phase == "split"])

    @contextmanager
    def instead_of_theirs(self) -> Iterator[None]:
        """Let the module's `tf` draw from here, and TensorFlow's own state alone."""
        theirs = self._module.tf
        drawing = SimpleNamespace(shuffle=self._shuffle, normal=self._normal)
        self._module.tf = _Overlaid(theirs, random=drawing)
        try:
            yield
        finally:
            self._module.tf = theirs

    def _shuffle(self, values: Any) -> Any:
        return self._convert(self._rng.permutation(np.asarray(values)))

    def _normal(self, shape: Any, *, mean: float, stddev: float) -> Any:
        drawn = self._rng.normal(mean, stddev, size=tuple(shape))
        return self._convert(drawn.astype(np.float32))

    def _convert(self, values: Any) -> Any:
        return self._module.tf.convert_to_tensor(values)


class _Overlaid:
    """A module with some of its names replaced."""

    def __init__(self, module: Any, **names: Any) -> None:
        self.__dict__.update(names)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


@contextmanager
def _numpy_seeded(*seed: int) -> Iterator[None]:
    """Set numpy's global random state, which theirs draw from, and put it back."""
    before = np.random.get_state()
    np.random.seed(np.random.SeedSequence(seed).generate_state(4))
    try:
        yield
    finally:
        np.random.set_state(before)
