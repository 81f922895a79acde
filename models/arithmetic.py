"""What a processor computes a network with: which kernels, in which precision."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from models.job import AUTO

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
"""Environment variable by which TensorFlow uses oneDNN, ``1``, or does not, ``0``."""
ONEDNN_LIMIT = "ONEDNN_MAX_CPU_ISA"
"""Environment variable with the newest instructions that oneDNN may use."""
WITH_BFLOAT16 = ("DEFAULT", "ALL", "BF16", "FP16", "AMX", "AVX10")
"""What its values with bfloat16 have in them; AVX512_CORE_FP16 is newer than AVX512_CORE_BF16."""


def choose_kernels(machine: str, *, training: bool) -> str | None:
    """What `ONEDNN` should be where the environment does not say it; None leaves it to TensorFlow.

    On x86 there are two sets of kernels: oneDNN's and TensorFlow's own. Left alone, TensorFlow
    takes oneDNN's where the processor has AVX-512 VNNI or newer instructions and its own elsewhere,
    whatever is computed. Training wants oneDNN's: a step of VGG-16 takes a third of the time on
    AVX2 (25 ms of processor time for an image of 32 x 32 pixels, not 77) and a quarter with
    AVX-512. Scoring wants TensorFlow's own: oneDNN lays out the weights anew for each of its small
    batches, which costs a third more (10.5 ms an image and 8.0 on AVX2, 7.4 and 5.6 with AVX-512).
    """
    if machine not in ("x86_64", "AMD64"):
        return None
    return "1" if training else "0"


def choose_precision(
    asked: str,
    cpuinfo: Path = Path("/proc/cpuinfo"),
    environment: Mapping[str, str] = os.environ,
) -> str:
    """The Keras dtype policy for ``auto``: bfloat16 only where the processor computes with it.

    There training takes 0.58 of the time of float32. Elsewhere bfloat16 is emulated, and takes
    sixteen times as long on AVX2. oneDNN has to be let, too: it is what computes with it.
    """
    if asked != AUTO:
        return asked
    try:
        flags = cpuinfo.read_text()
    except OSError:
        return "float32"
    native = "avx512_bf16" in flags or "amx_bf16" in flags
    limit = environment.get(ONEDNN_LIMIT, "DEFAULT").upper()
    let = environment.get(ONEDNN) != "0" and any(name in limit for name in WITH_BFLOAT16)
    return "mixed_bfloat16" if native and let else "float32"
