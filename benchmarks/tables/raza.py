"""Raza's two-stage shift detection on its own data sets D2, D3 and D4, as published and as ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.intervals import share_interval, share_text
from benchmarks.report import markdown_table
from benchmarks.table import Outcome, Summary, Target, Trial
from detectors.base import Array, Detector, Factor
from detectors.charts.msd_ewma import MsdEwma
from detectors.charts.sd_ewma import SdEwma
from detectors.charts.tsmsd_ewma import TsmsdEwma
from detectors.charts.tssd_ewma import TssdEwma

FIRST_SEED, FULL, QUICK = 100, 100, 5

PHASE_1 = {"D2": 500, "D3": 200, "D4": 200}
"""Independent rows without a shift that the charts learn from."""

DRIFT_FREE = 2000
"""Rows without a shift, beside each data set, that count what stage 2 does to false alarms: the
data sets have too few of them."""

N_COLUMNS = 10
LIMIT, LIMIT_2_COMPONENTS = 22.67, 10.58
WEIGHT = 0.1
ALPHA = 0.04
"""Level of Shiftwatch's stage 2: at 0.05 it confirmed 4.7 % of the false alarms of D3 and 5.7 % of
those of D4, whose rows are not normal, on other seeds."""
JUMP = 100
"""Rows between the changes of every data set."""


class Method(NamedTuple):
    """One row of the table."""

    title: str
    two_stage: bool


METHODS: dict[str, dict[str, Method]] = {
    "D2": {
        "sd 1.96": Method("SD-EWMA, L = 1.96", False),
        "sd 3": Method("SD-EWMA, L = 3", False),
        "tssd 10": Method("TSSD-EWMA, L = 1.96, 10 before against 10 after", True),
        "tssd 30": Method("TSSD-EWMA, L = 1.96, 30 before against 30 after", True),
    },
    **{
        data: {
            "msd in sample": Method("MSD-EWMA, judged on its own Phase I", False),
            "msd": Method("MSD-EWMA", False),
            "msd pca": Method("MSD-EWMA, 2 components", False),
            "tsmsd before": Method("TSMSD-EWMA, 25 before against 25 after", True),
            "shiftwatch": Method("**Shiftwatch: reference against 15 fresh, at 4 %**", True),
        }
        for data in ("D3", "D4")
    },
}

PUBLISHED = (
    ("D2", "SD-EWMA", "0.3 / 0 / 0", "3.73 / 0 / 9.7"),
    ("D2", "TSSD-EWMA", "0 / 11.1 / 10", "0.20 / 55.6 / 19.8"),
    ("D2", "ICI-CDT", "0 / 55.4 / 40", "0.10 / 0 / 27.9"),
    ("D3", "MSD-EWMA", "5 / 8 / 9", "0.08 / 0 / 5.75"),
    ("D3", "MSD-EWMA-PCA", "5.5 / 6 / 8", "0.25 / 0 / 5.15"),
    ("D3", "TSMSD-EWMA", "2 / 5 / 25", "0.01 / 28 / 32.2"),
    ("D4", "MSD-EWMA", "4 / 15 / 7", "0.22 / 0 / 5.3"),
    ("D4", "MSD-EWMA-PCA", "5.5 / 5 / 8", "0.27 / 0 / 4.6"),
    ("D4", "TSMSD-EWMA", "5 / 7 / 25", "0.02 / 21 / 29.6"),
)
"""False alarms in %, misses in %, delay in rows: H. Raza, G. Prasad, Y. Li (2015), Pattern
Recognition 48, 659-669, and an independent public reproduction of it (hlin863/
ewma_covariate_shift_demo). Both as that reproduction transcribes them."""


class RazaTable:
    """What two stages are worth, on the data sets of the paper that proposed them."""

    name = "raza"
    title = "Two-stage shift detection on Raza's D2, D3 and D4"

    def missing(self) -> str:
        """Nothing is needed."""
        return ""

    def trials(self, *, quick: bool) -> list[Trial]:
        """The same seeds for every data set and method."""
        return [
            {"seed": seed, "data": data, "method": method}
            for seed in range(FIRST_SEED, FIRST_SEED + (QUICK if quick else FULL))
            for data, methods in METHODS.items()
            for method in methods
        ]

    def run(self, trial: Trial) -> Outcome:
        """One method on one data set, and on rows without a shift."""
        data, method, seed = trial["data"], trial["method"], trial["seed"]
        draw = _d2 if data == "D2" else _normal if data == "D3" else _student
        # Streams of random numbers of their own: Phase I must not know the monitored rows.
        phase_1 = draw(np.random.default_rng([seed, 1]), PHASE_1[data])
        rows = _monitored(data, np.random.default_rng([seed, 0]))
        if method == "msd in sample":
            phase_1 = rows[:JUMP]
        alarms = np.array([alarm.row for alarm in _make(method, phase_1).update(rows)], np.int64)
        out: Outcome = _scored(data, alarms, len(rows))
        quiet = _make(method, phase_1)
        n_false = len(quiet.update(draw(np.random.default_rng([seed, 2]), DRIFT_FREE)))
        if isinstance(quiet, TsmsdEwma | TssdEwma):
            out |= {"tested": quiet.n_tested, "confirmed": n_false}
        return out

    def summarise(self, results: Sequence[tuple[Trial, Outcome]]) -> Summary:
        """Rates of each method, beside what was published, and the target."""
        figures: dict[str, Any] = {}
        rows, targets = [], []
        for data, methods in METHODS.items():
            for key, method in methods.items():
                outcomes = [o for t, o in results if t["data"] == data and t["method"] == key]
                if not outcomes:
                    continue
                found = _pooled(outcomes)
                figures[f"{data}/{key}"] = found
                rows.append((data, method.title, *_cells(found, two_stage=method.two_stage)))
                if key == "shiftwatch":
                    targets.append(_target(data, found))
        text = [
            "D2: an autoregression whose noise jumps to another mean every 100 rows, 5,000 rows, "
            "one column. D3 and D4: 10 correlated columns, normal or Student t with 10 degrees of "
            "freedom, 300 rows, all means up by 1 between rows 100 and 200. False alarms: share of "
            "rows without a fresh change that alarm (D2: the second half of each segment; D3 and "
            "D4: the first 100 rows), after both stages where there are two. Confirmed: share of "
            f"stage-1 alarms that stage 2 confirms on {DRIFT_FREE:,} other rows without a shift, "
            "with its 95 % interval. Charts learn from independent rows (200; D2: 500) unless "
            "said, with the published limits 22.67 and 10.58.",
            markdown_table(
                ("data", "method", "false alarms", "confirmed", "missed", "mean delay"), rows
            ),
            "Published, for comparison only: false alarms % / missed % / delay. The transcribed "
            "definitions do not fix how the paper scored, and D2's published row is out of reach "
            "of every reproduction.",
            markdown_table(("data", "method", "published", "public reproduction"), PUBLISHED),
        ]
        return Summary("\n\n".join(text), figures, targets)


TABLE = RazaTable()


def _make(method: str, phase_1: Array) -> Detector:
    factor = Factor.COVARIATE
    kind, _, detail = method.partition(" ")
    if kind == "sd":
        return SdEwma.fit(phase_1, width=float(detail), factor=factor)
    if kind == "tssd":
        return TssdEwma(SdEwma.fit(phase_1, width=1.96, factor=factor), rows=int(detail))
    if detail == "pca":
        return MsdEwma.fit(
            phase_1, weight=WEIGHT, limit=LIMIT_2_COMPONENTS, n_components=2, factor=factor
        )
    chart = MsdEwma.fit(phase_1, weight=WEIGHT, limit=LIMIT, factor=factor)
    if kind == "msd":
        return chart
    if detail == "before":
        return TsmsdEwma(chart, n_reference=len(phase_1), rows=25, compare="before")
    return TsmsdEwma(chart, n_reference=len(phase_1), alpha=ALPHA)


def _d2(rng: np.random.Generator, n: int, *, jumping: bool = False) -> Array:
    """x_t = 0.6 x_{t-1} - 0.5 x_{t-2} + N(mu, 1.5^2); mu of segment N is that before + N / 16."""
    segment = np.arange(n) // JUMP + 1
    means = np.where(segment > 1, (segment * (segment + 1) / 2 - 1) / 16, 0.0)
    noise = rng.normal(means if jumping else 0.0, 1.5, size=n)
    x = np.zeros(n)
    for t in range(2, n):
        x[t] = 0.6 * x[t - 1] - 0.5 * x[t - 2] + noise[t]
    return x[:, None]


def _normal(rng: np.random.Generator, n: int) -> Array:
    """Variance 0.45, covariance 0.30: one common part and one of each column."""
    x: Array = np.sqrt(0.30) * rng.normal(size=(n, 1))
    x = x + np.sqrt(0.15) * rng.normal(size=(n, N_COLUMNS))
    return x


def _student(rng: np.random.Generator, n: int) -> Array:
    """The same covariance, multivariate t with 10 degrees of freedom."""
    x = _normal(rng, n) * np.sqrt(0.8 / (rng.chisquare(10, size=(n, 1)) / 10))
    return np.asarray(x)


def _monitored(data: str, rng: np.random.Generator) -> Array:
    if data == "D2":
        return _d2(rng, 5000, jumping=True)
    rows = (_normal if data == "D3" else _student)(rng, 3 * JUMP)
    rows[JUMP : 2 * JUMP] += 1.0
    return rows


def _scored(data: str, alarms: Any, n_rows: int) -> Outcome:
    """Delays of the changes that were found, and false alarms in rows where none is due."""
    starts = range(JUMP, n_rows, JUMP) if data == "D2" else [JUMP]
    delays = []
    for start in starts:
        inside = alarms[(alarms >= start) & (alarms < start + JUMP)]
        if inside.size:
            delays.append(int(inside[0]) - start)
    quiet = alarms % JUMP >= JUMP // 2 if data == "D2" else alarms < JUMP
    return {
        "changes": len(starts),
        "delays": delays,
        "false": int(np.count_nonzero(quiet)),
        "quiet_rows": n_rows // 2 if data == "D2" else JUMP,
    }


def _pooled(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    delays = [delay for o in outcomes for delay in o["delays"]]
    changes = sum(o["changes"] for o in outcomes)
    return {
        "trials": len(outcomes),
        "false": sum(o["false"] for o in outcomes),
        "quiet_rows": sum(o["quiet_rows"] for o in outcomes),
        "changes": changes,
        "missed": changes - len(delays),
        "mean_delay": round(float(np.mean(delays)), 2) if delays else None,
        "tested": sum(o.get("tested", 0) for o in outcomes),
        "confirmed": sum(o.get("confirmed", 0) for o in outcomes),
    }


def _cells(found: dict[str, Any], *, two_stage: bool) -> tuple[str, ...]:
    delay = found["mean_delay"]
    return (
        f"{100 * found['false'] / found['quiet_rows']:.2f} %",
        share_text(found["confirmed"], found["tested"]) if two_stage else "–",
        share_text(found["missed"], found["changes"]),
        "–" if delay is None else f"{delay:.1f}",
    )


def _target(data: str, found: dict[str, Any]) -> Target:
    confirmed, tested, delay = found["confirmed"], found["tested"], found["mean_delay"]
    kept = found["missed"] == 0 and delay is not None and delay <= 20 and confirmed <= 0.05 * tested
    return Target(
        f"stage 2 on {data}: missed shifts, confirmed false alarms, mean delay in rows",
        "0, <= 5 %, <= 20",
        f"{found['missed']} of {found['changes']}, {share_text(confirmed, tested)}, "
        + ("–" if delay is None else f"{delay:.1f}"),
        kept if found["trials"] >= FULL else None,
        far_off=found["missed"] > 0.1 * found["changes"]
        or (tested > 0 and share_interval(confirmed, tested)[0] > 0.1),
    )
