"""The table of examples: what the tests, `make demo` and the benchmarks run.

Adding an example is writing its file and adding a row here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

import helion

from . import attention
from . import bmm
from . import broadcast_add
from . import cross_entropy
from . import embedding
from . import exp
from . import layer_norm
from . import matmul
from . import matmul_epilogue
from . import matmul_split_k
from . import reductions
from . import rms_norm
from . import softmax
from . import vector_add

Size = tuple[int, ...]

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


@dataclasses.dataclass(frozen=True)
class Example:
    """One kernel of the examples.

    Attributes:
        name: unique name.
        kernel: the kernel.
        reference: the same in PyTorch, right for float64 too.
        make_args: `make_args(*size, dtype=..., device=...)` -> arguments, random from torch's generator.
        size: sizes of a realistic call on a GPU.
        small: sizes of a quick call anywhere; odd on purpose.
        dtype: dtype of a realistic call.
        dtypes: dtypes it is meant for.
        uses_dot: it multiplies matrices, which on tensor cores rounds float32 operands to tf32.
        error_scale: how many times the rounding error of one operation its results may be off.
    """

    name: str
    kernel: helion.Kernel
    reference: Callable[..., Any]
    make_args: Callable[..., tuple[Any, ...]]
    size: Size
    small: Size
    dtype: torch.dtype = torch.float32
    dtypes: tuple[torch.dtype, ...] = _FLOATS
    uses_dot: bool = False
    error_scale: float = 1.0

    def args(self, size: Size | None = None, dtype: torch.dtype | None = None, device: str = "cpu") -> tuple[Any, ...]:
        """Arguments of the given (default: small) size and dtype."""
        return self.make_args(*(self.small if size is None else size), dtype=dtype or self.dtype, device=device)


def _count(n: int) -> Callable[..., tuple[torch.Tensor, ...]]:
    return lambda *size, **options: vector_add.make_args(n, *size, **options)


def _tuple_of(n: int) -> Callable[..., tuple[tuple[torch.Tensor, ...]]]:
    return lambda *size, **options: (vector_add.make_args(n, *size, **options),)


_HALF = torch.bfloat16
_ROWS = {"size": (8192, 4096), "small": (37, 129)}
_MATMUL = {"small": (37, 70, 45), "dtype": _HALF, "uses_dot": True, "error_scale": 4.0}

EXAMPLES: dict[str, Example] = {
    example.name: example
    for example in (
        Example("add", vector_add.add, vector_add.reference, _count(2), (1 << 24,), (1000,)),
        Example("add_8", vector_add.add_8, vector_add.reference, _count(8), (1 << 22,), (1000,), error_scale=8.0),
        Example("add_16", vector_add.add_16, vector_add.reference, _count(16), (1 << 22,), (1000,), error_scale=16.0),
        Example(
            "add_all", vector_add.add_all, vector_add.reference_all, _tuple_of(4), (1 << 22,), (1000,), error_scale=4.0
        ),
        Example("broadcast_add", broadcast_add.broadcast_add, broadcast_add.reference, broadcast_add.make_args, **_ROWS),
        Example("exp", exp.exp, exp.reference, exp.make_args, **_ROWS),
        Example("softmax", softmax.softmax, softmax.reference, softmax.make_args, **_ROWS),
        Example("softmax_looped", softmax.softmax_looped, softmax.reference, softmax.make_args, **_ROWS),
        Example("softmax_online", softmax.softmax_online, softmax.reference, softmax.make_args, **_ROWS),
        Example(
            "sum_rows", reductions.sum_rows, reductions.reference, reductions.make_args, error_scale=16.0, **_ROWS
        ),
        Example(
            "long_sum",
            reductions.long_sum,
            reductions.reference,
            reductions.make_args,
            size=(16, 1 << 20),
            small=(3, 1000),
            error_scale=32.0,
        ),
        Example(
            "sum_all",
            reductions.sum_all,
            reductions.reference_all,
            reductions.make_vector,
            size=(1 << 24,),
            small=(1000,),
            error_scale=32.0,
        ),
        Example("rms_norm", rms_norm.rms_norm, rms_norm.reference, rms_norm.make_args, error_scale=4.0, **_ROWS),
        Example(
            "layer_norm", layer_norm.layer_norm, layer_norm.reference, layer_norm.make_args, error_scale=8.0, **_ROWS
        ),
        Example("matmul", matmul.matmul, matmul.reference, matmul.make_args, size=(4096, 4096, 4096), **_MATMUL),
        Example(
            "matmul_epilogue",
            matmul_epilogue.matmul_epilogue,
            matmul_epilogue.reference,
            matmul_epilogue.make_args,
            size=(4096, 4096, 4096),
            **_MATMUL,
        ),
        Example(
            "matmul_split_k",
            matmul_split_k.matmul_split_k,
            matmul_split_k.reference,
            matmul_split_k.make_args,
            size=(64, 32768, 64),
            **{**_MATMUL, "small": (20, 700, 33)},
        ),
        Example(
            "bmm",
            bmm.bmm,
            bmm.reference,
            bmm.make_args,
            size=(16, 1024, 1024, 1024),
            **{**_MATMUL, "small": (3, 37, 70, 45)},
        ),
        Example(
            "embedding",
            embedding.embedding,
            embedding.reference,
            embedding.make_args,
            size=(16, 2048, 50_000, 1024),
            small=(3, 17, 50, 129),
        ),
        Example(
            "cross_entropy",
            cross_entropy.cross_entropy,
            cross_entropy.reference,
            cross_entropy.make_args,
            size=(4096, 32_000),
            small=(37, 129),
            error_scale=4.0,
        ),
        Example(
            "attention",
            attention.attention,
            attention.reference,
            attention.make_args,
            size=(4, 32, 2048, 2048, 64),
            small=(1, 2, 45, 37, 32),
            dtype=_HALF,
            uses_dot=True,
            error_scale=4.0,
        ),
    )
}
