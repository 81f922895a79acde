from collections.abc import Mapping
from pathlib import Path

import pytest

from models.arithmetic import choose_kernels, choose_precision


@pytest.mark.parametrize(
    ("machine", "training", "kernels"),
    [
        ("x86_64", True, "1"),
        ("x86_64", False, "0"),
        ("AMD64", True, "1"),
        ("aarch64", True, None),
        ("arm64", False, None),
    ],
)
def test_training_takes_onednn_and_scoring_does_not_on_every_x86(
    machine: str, training: bool, kernels: str | None
) -> None:
    assert choose_kernels(machine, training=training) == kernels


@pytest.mark.parametrize(
    ("asked", "flags", "environment", "precision"),
    [
        ("auto", "flags : avx2 avx512_bf16", {}, "mixed_bfloat16"),
        ("auto", "flags : amx_bf16 amx_tile", {}, "mixed_bfloat16"),
        ("auto", "flags : avx2 avx512f", {}, "float32"),
        ("auto", None, {}, "float32"),
        ("float32", "flags : avx512_bf16", {}, "float32"),
        ("mixed_bfloat16", "flags : avx2", {}, "mixed_bfloat16"),
        ("auto", "flags : avx512_bf16", {"TF_ENABLE_ONEDNN_OPTS": "1"}, "mixed_bfloat16"),
        ("auto", "flags : avx512_bf16", {"TF_ENABLE_ONEDNN_OPTS": "0"}, "float32"),
        ("auto", "flags : avx512_bf16", {"ONEDNN_MAX_CPU_ISA": "AVX2"}, "float32"),
        ("auto", "flags : avx512_bf16", {"ONEDNN_MAX_CPU_ISA": "avx512_core_vnni"}, "float32"),
        ("auto", "flags : avx512_bf16", {"ONEDNN_MAX_CPU_ISA": "ALL"}, "mixed_bfloat16"),
        (
            "auto",
            "flags : amx_bf16",
            {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_AMX"},
            "mixed_bfloat16",
        ),
    ],
)
def test_bfloat16_is_chosen_where_the_processor_has_it_and_onednn_may_use_it(
    tmp_path: Path,
    asked: str,
    flags: str | None,
    environment: Mapping[str, str],
    precision: str,
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    if flags is not None:
        cpuinfo.write_text(flags)
    assert choose_precision(asked, cpuinfo, environment) == precision
