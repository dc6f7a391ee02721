"""The table of examples: what the tests, `make demo` and the benchmarks run.

Adding an example is writing its file and adding a row here.  (Rows are kept short: the formatter is off in this file.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from helion import Config

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
from .entry import Example


def _count(n: int) -> Callable[..., tuple[torch.Tensor, ...]]:
    return lambda *size, **options: vector_add.make_args(n, *size, **options)


def _tuple_of(n: int) -> Callable[..., tuple[tuple[torch.Tensor, ...]]]:
    return lambda *size, **options: (vector_add.make_args(n, *size, **options),)


_HALF = torch.bfloat16
_ROWS = {"size": (8192, 4096), "small": (37, 129)}
_MATMUL = {"small": (37, 70, 45), "dtype": _HALF, "uses_dot": True, "error_scale": 4.0}


# Schedules that a tuner finds again and again on Hopper. `blocks` are in the order in which a kernel meets its tiles.
def _pointwise(*blocks: int) -> tuple[Config, ...]:
    return tuple(Config(block_sizes=list(blocks), num_warps=warps) for warps in (4, 8))


def _rows(*blocks: int) -> tuple[Config, ...]:
    return tuple(Config(block_sizes=list(blocks), num_warps=warps) for warps in (4, 8, 16))


def _products(*blocks: int, **more: Any) -> tuple[Config, ...]:
    """Large products: deep pipelines, neighbouring tiles one after another; once with pointers, once with descriptors."""
    common = {"block_sizes": list(blocks), "num_warps": 8, "num_stages": 3, **more}
    return Config(**common), Config(**common, indexing="tensor_descriptor")


def _matmul_flops(m: int, k: int, n: int) -> float:
    return 2.0 * m * k * n


def _attention_flops(batch: int, heads: int, m: int, n: int, head: int) -> float:
    return 4.0 * batch * heads * m * n * head


EXAMPLES: dict[str, Example] = {
    example.name: example
    for example in (
        Example("add", vector_add.add, vector_add.reference, _count(2), (1 << 24,), (1000,), configs=_pointwise(2048)),
        Example(
            "add_8", vector_add.add_8, vector_add.reference, _count(8), (1 << 22,), (1000,),
            error_scale=8.0, configs=_pointwise(1024),
        ),
        Example(
            "add_16", vector_add.add_16, vector_add.reference, _count(16), (1 << 22,), (1000,),
            error_scale=16.0, configs=_pointwise(1024),
        ),
        Example(
            "add_all", vector_add.add_all, vector_add.reference_all, _tuple_of(4), (1 << 22,), (1000,),
            error_scale=4.0, configs=_pointwise(1024),
        ),
        Example(
            "broadcast_add", broadcast_add.broadcast_add, broadcast_add.reference, broadcast_add.make_args,
            configs=_pointwise(2, 1024), **_ROWS,
        ),
        Example("exp", exp.exp, exp.reference, exp.make_args, configs=_pointwise(1, 2048), **_ROWS),
        Example("softmax", softmax.softmax, softmax.reference, softmax.make_args, configs=_rows(1), **_ROWS),
        Example(
            "softmax_looped", softmax.softmax_looped, softmax.reference, softmax.make_args,
            configs=_rows(1, 1024, 1024, 1024), **_ROWS,
        ),
        Example(
            "softmax_online", softmax.softmax_online, softmax.reference, softmax.make_args,
            configs=_rows(1, 2048, 2048), **_ROWS,
        ),
        Example(
            "sum_rows", reductions.sum_rows, reductions.reference, reductions.make_args,
            error_scale=16.0, configs=_rows(1), **_ROWS,
        ),
        Example(
            "long_sum", reductions.long_sum, reductions.reference, reductions.make_args,
            size=(16, 1 << 20), small=(3, 1000), error_scale=32.0, configs=_rows(16384, 1),
        ),
        Example(
            "sum_all", reductions.sum_all, reductions.reference_all, reductions.make_vector,
            size=(1 << 24,), small=(1000,), error_scale=32.0, tolerance=1e-2, configs=_pointwise(16384),
        ),
        Example(
            "rms_norm", rms_norm.rms_norm, rms_norm.reference, rms_norm.make_args,
            error_scale=4.0, configs=_rows(1), **_ROWS,
        ),
        Example(
            "layer_norm", layer_norm.layer_norm, layer_norm.reference, layer_norm.make_args,
            error_scale=8.0, configs=_rows(1), **_ROWS,
        ),
        Example(
            "matmul", matmul.matmul, matmul.reference, matmul.make_args, size=(4096, 4096, 4096),
            configs=_products(128, 256, 64, l2_groupings=[8]), flops=_matmul_flops, **_MATMUL,
        ),
        Example(
            "matmul_epilogue", matmul_epilogue.matmul_epilogue, matmul_epilogue.reference, matmul_epilogue.make_args,
            size=(4096, 4096, 4096), configs=_products(128, 256, 64, l2_groupings=[8]), flops=_matmul_flops, **_MATMUL,
        ),
        Example(
            "matmul_split_k", matmul_split_k.matmul_split_k, matmul_split_k.reference, matmul_split_k.make_args,
            size=(64, 32768, 64), flops=_matmul_flops,
            configs=(Config(block_sizes=[256, 64, 64, 64], num_warps=4, num_stages=3),),
            **{**_MATMUL, "small": (20, 700, 33)},
        ),
        Example(
            "bmm", bmm.bmm, bmm.reference, bmm.make_args, size=(16, 1024, 1024, 1024),
            configs=_products(1, 128, 256, 64), flops=lambda batch, m, k, n: 2.0 * batch * m * k * n,
            **{**_MATMUL, "small": (3, 37, 70, 45)},
        ),
        Example(
            "embedding", embedding.embedding, embedding.reference, embedding.make_args,
            size=(16, 2048, 50_000, 1024), small=(3, 17, 50, 129), configs=_pointwise(1, 1024),
        ),
        Example(
            "cross_entropy", cross_entropy.cross_entropy, cross_entropy.reference, cross_entropy.make_args,
            size=(4096, 32_000), small=(37, 129), error_scale=4.0,
            configs=tuple(Config(block_sizes=[1], reduction_loops=[n], num_warps=w) for n, w in ((4096, 8), (None, 16))),
        ),
        Example(
            "attention", attention.attention, attention.reference, attention.make_args,
            size=(4, 32, 2048, 2048, 64), small=(1, 2, 45, 37, 32), dtype=_HALF, uses_dot=True, error_scale=4.0,
            configs=tuple(Config(block_sizes=[1, 128, n], num_warps=w, num_stages=3) for n, w in ((64, 4), (128, 8))),
            flops=_attention_flops,
        ),
    )
}
