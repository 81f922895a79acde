"""What the training and the scoring process share: a clean stdout and a quiet TensorFlow."""

from __future__ import annotations

import os
import platform
import sys
from typing import BinaryIO

from models.arithmetic import ONEDNN, choose_kernels


def claim_stdout() -> BinaryIO:
    """Keep standard output for the protocol; whatever libraries print goes to standard error."""
    sys.stdout.flush()
    protocol = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return protocol


def configure_tensorflow(threads: int, *, training: bool = False) -> None:
    """Set TensorFlow's logs, threads and kernels; before its first operation.

    Parameters
    ----------
    threads
        Processor threads.
    training
        Whether weights are trained: equal seeds then have to give equal weights on every device. On
        processors they did without; it costs 0 to 6 % of the training time there.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    if (kernels := choose_kernels(platform.machine(), training=training)) is not None:
        os.environ.setdefault(ONEDNN, kernels)
    import tensorflow as tf  # noqa: PLC0415

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    # One operation at a time: two would fight for the same few threads.
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if training:
        tf.config.experimental.enable_op_determinism()
