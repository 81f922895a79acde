"""What alibi-detect says, computed in its own environment: arrays come in, numbers go out.

`benchmarks.alibi_peers` runs it as `python -m benchmarks.alibi_worker TASK`, gives it an `.npz` and
reads the last line of what it prints.
"""

from __future__ import annotations

import io
import json
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from detectors.base import Array

Given = Mapping[str, Array]


def windows(given: Given) -> dict[str, Any]:
    """p-values that inputs moved, and that what is tested moved given its context.

    Parameters
    ----------
    given
        `tested_before`, `tested_after`, `context_before` and `context_after`, shapes (n, .) and
        (m, .), of single precision; `one_hot`, which of tested and context holds classes as columns
        of 0 and 1; `inputs_before` and `inputs_after` where they are to be tested; `permutations`
        and `seed`.

    Returns
    -------
    dict
        `inputs` (None where there were none), `concept`, and `cpu_s`.
    """
    detect, context_aware, kernels = _theirs(
        "alibi_detect.cd",
        "alibi_detect.cd.tensorflow.context_aware",
        "alibi_detect.utils.tensorflow.kernels",
    )
    options = {"backend": "tensorflow", "n_permutations": int(given["permutations"])}
    # The width that they choose is the median distance, which is 0 where most rows are equal.
    fixed = kernels.GaussianRBF(sigma=np.ones(1, np.float32))
    kernel = "x_kernel" if str(given["one_hot"]) == "tested" else "c_kernel"
    _seed(given)
    started = time.process_time()
    inputs = None
    if "inputs_before" in given:
        marginal = detect.MMDDrift(given["inputs_before"], **options)
        inputs = float(marginal.predict(given["inputs_after"])["data"]["p_val"])
    Mended(context_aware)
    aware = detect.ContextMMDDrift(
        given["tested_before"], given["context_before"], **{kernel: fixed}, **options
    )
    found = aware.predict(given["tested_after"], given["context_after"])["data"]
    return {
        "inputs": inputs,
        "concept": float(found["p_val"]),
        "statistic": float(found["distance"]),
        "cpu_s": round(time.process_time() - started, 2),
    }


def stream(given: Given) -> dict[str, Any]:
    """Rows on which the online detector alarms, set again after each alarm.

    Parameters
    ----------
    given
        `reference` and `rows`, shapes (n, d) and (m, d), of single precision; `change`, the row
        whose alarm or the first one after it is the last that is asked for; `ert`, `window`,
        `simulations` and `seed`.

    Returns
    -------
    dict
        `alarms`, `setup_s` (processor time of the simulation) and `row_ms`.
    """
    (detect,) = _theirs("alibi_detect.cd")
    _seed(given)
    started = time.process_time()
    detector = detect.MMDDriftOnline(
        given["reference"],
        ert=float(given["ert"]),
        window_size=int(given["window"]),
        backend="tensorflow",
        n_bootstraps=int(given["simulations"]),
        verbose=False,
    )
    ready = time.process_time()
    alarms: list[int] = []
    taken = 0
    for index, row in enumerate(given["rows"]):
        taken += 1
        if detector.predict(row)["data"]["is_drift"]:
            alarms.append(index)
            if index >= int(given["change"]):
                break
            detector.reset_state()
    return {
        "alarms": alarms,
        "setup_s": round(ready - started, 2),
        "row_ms": round(1000 * (time.process_time() - ready) / max(taken, 1), 2),
    }


TASKS: dict[str, Callable[[Given], dict[str, Any]]] = {"windows": windows, "stream": stream}


class Mended:
    """TensorFlow for the module of their context-aware test, with two things done otherwise.

    **The mean of outer products** is one matrix product. For its coupling matrices, once a
    permutation, the module makes an array of (held out, n, m) and takes its mean. The numbers are
    equal up to rounding, and come in a quarter of the time.

    **The regularisation** is chosen from both kernel matrices. Version 0.13.0 converts the first of
    them twice where it means the second one, so that it always takes the smallest there is, and
    misses what it would find; its PyTorch backend has it right.

    Parameters
    ----------
    module
        Theirs, which has this in place of TensorFlow from here on.
    """

    def __init__(self, module: Any) -> None:
        self._theirs = module.tf
        self._meant: list[Any] = []
        module.tf = self
        detector = module.ContextMMDDriftTF
        pick = detector._pick_lam

        def pick_from_both(this: Any, lams: Any, K: Any, L: Any, n_folds: int = 5) -> Any:
            self._meant = [K, L]
            return pick(this, lams, K, L, n_folds=n_folds)

        detector._pick_lam = pick_from_both

    def __getattr__(self, name: str) -> Any:
        return getattr(self._theirs, name)

    def cast(self, values: Any, dtype: Any) -> Any:
        """As theirs; first of all of what was meant."""
        return self._theirs.cast(self._meant.pop(0) if self._meant else values, dtype)

    def einsum(self, equation: str, *operands: Any) -> Any:
        """As theirs; a product of rows' outer products is kept apart."""
        if equation == "ij,ik->ijk":
            return _Outer(*operands)
        return self._theirs.einsum(equation, *operands)

    def reduce_mean(self, values: Any, axis: int | None = None) -> Any:
        """As theirs."""
        if isinstance(values, _Outer):
            product = self._theirs.matmul(values.left, values.right, transpose_a=True)
            return product / values.left.shape[0]
        return self._theirs.reduce_mean(values, axis=axis)


class _Outer:
    """Outer products of two matrices' rows, not multiplied out; their mean over rows is wanted."""

    def __init__(self, left: Any, right: Any) -> None:
        self.left = left
        self.right = right


def _theirs(*modules: str) -> list[Any]:
    import importlib  # noqa: PLC0415

    return [importlib.import_module(name) for name in modules]


def _seed(given: Given) -> None:
    """They draw from global random state, which is this process's own."""
    import tensorflow as tf  # noqa: PLC0415

    np.random.seed(int(given["seed"]))
    tf.random.set_seed(int(given["seed"]))


def main() -> None:
    """Answer one question; see the module."""
    warnings.simplefilter("ignore")
    import tensorflow as tf  # noqa: PLC0415

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    with np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False) as arrays:
        given = {name: arrays[name] for name in arrays.files}
    sys.stdout.write("\n" + json.dumps(TASKS[sys.argv[1]](given), allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
