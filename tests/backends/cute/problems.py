"""Problems and schedules that the tests of the CuTe backend share."""

from __future__ import annotations

import dataclasses

import torch

from helion.backends.cute.schedule import MatmulSchedule
from helion.backends.cute.spec import Aux
from helion.backends.cute.spec import Epilogue
from helion.backends.cute.spec import MatmulSpec
from helion.backends.cute.spec import Operand
from helion.backends.cute.spec import Statement

FP8 = torch.float8_e4m3fn
BF16 = torch.bfloat16
F32 = torch.float32


def matmul(
    m: int,
    n: int,
    k: int,
    dtype: torch.dtype = BF16,
    out: torch.dtype = BF16,
    *,
    batch: int = 1,
    b_major: str = "k",
    epilogue: Epilogue = Epilogue(),
) -> MatmulSpec:
    """Contiguous A and output; B contiguous along ``b_major``."""
    many = batch > 1
    b = (k, 1) if b_major == "k" else (1, n)
    return MatmulSpec(
        "matmul",
        m,
        n,
        k,
        Operand(dtype, k, 1, m * k * many),
        Operand(dtype, *b, n * k * many),
        Operand(out, n, 1, m * n * many),
        batch,
        epilogue,
    )


def small(**changes: int | str) -> MatmulSchedule:
    """A 1-CTA schedule for 2-byte operands on sm_100a, with changes."""
    base = MatmulSchedule(tile_m=128, tile_n=128, tile_k=64, cluster_m=1, ab_stages=3, c_stages=2)
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def pair(**changes: int | str) -> MatmulSchedule:
    """A 2-CTA schedule for 1-byte operands on sm_100a, with changes."""
    return dataclasses.replace(MatmulSchedule(), **changes)  # type: ignore[arg-type]


def hopper(**changes: int | str) -> MatmulSchedule:
    """A schedule for 2-byte operands on sm_90a, with changes."""
    base = MatmulSchedule(
        tile_m=128, tile_n=128, tile_k=64, cluster_m=1, ab_stages=4, acc_stages=1, c_stages=2, arch="sm_90a"
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def rowwise() -> Epilogue:
    """acc * scale_a[m] * scale_b[n]."""
    return Epilogue(
        (Aux("scale_a", F32, "column", m=1), Aux("scale_b", F32, "row", n=1)),
        (Statement("rows", "mul", ("acc", "scale_a"), F32), Statement("scaled", "mul", ("rows", "scale_b"), F32)),
        "scaled",
    )


def every_kind(n: int) -> Epilogue:
    """One operand of each kind: bf16(relu(acc * alpha + scale[m] * bias[n]) + residual[m, n] * gain)."""
    return Epilogue(
        (
            Aux("alpha", F32, "value"),
            Aux("gain", F32, "scalar"),
            Aux("scale", F32, "column", m=1),
            Aux("bias", BF16, "row", n=1),
            Aux("residual", BF16, "matrix", m=n, n=1),
        ),
        (
            Statement("scaled", "mul", ("acc", "alpha"), F32),
            Statement("wide_bias", "cast", ("bias",), F32),
            Statement("shift", "mul", ("wide_bias", "scale"), F32),
            Statement("shifted", "add", ("scaled", "shift"), F32),
            Statement("positive", "gt", ("shifted", 0.0), torch.bool),
            Statement("kept", "where", ("positive", "shifted", 0.0), F32),
            Statement("wide_residual", "cast", ("residual",), F32),
            Statement("grown", "mul", ("wide_residual", "gain"), F32),
            Statement("total", "add", ("kept", "grown"), F32),
        ),
        "total",
    )
