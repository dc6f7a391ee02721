"""The table of examples: what the tests, `make demo` and the benchmarks run.

Adding an example is writing its file and adding a row here.  (Rows are kept short: the formatter is off in this file.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import helion
from helion import Config

from . import attention
from . import attention_backward
from . import attention_bias
from . import attention_causal
from . import attention_flex
from . import attention_fp8
from . import attention_jagged
from . import batch_norm
from . import batched_matmul_residual
from . import bmm
from . import broadcast_add
from . import concatenate
from . import cross_entropy
from . import cumulative
from . import dropout
from . import embedding
from . import exp
from . import fp8_matmul
from . import fp8_scaled_mm
from . import gated_delta_net
from . import geglu
from . import grpo_loss
from . import jagged_dense_add
from . import jagged_mean
from . import jagged_softmax
from . import jsd
from . import kl_div
from . import layer_norm
from . import linear_gelu
from . import mamba2_chunk_scan
from . import mamba2_chunk_state
from . import matmul
from . import matmul_broadcast
from . import matmul_epilogue
from . import matmul_grouped
from . import matmul_int4
from . import matmul_int16
from . import matmul_layer_norm
from . import matmul_softmax
from . import matmul_split_k
from . import moe_matmul
from . import reductions
from . import rms_norm
from . import rope
from . import segment_sum
from . import softmax
from . import squeeze_excitation
from . import swiglu
from . import vector_add
from . import welford
from .entry import Example


def _count(n: int) -> Callable[..., tuple[torch.Tensor, ...]]:
    return lambda *size, **options: vector_add.make_args(n, *size, **options)


def _tuple_of(n: int) -> Callable[..., tuple[tuple[torch.Tensor, ...]]]:
    return lambda *size, **options: (vector_add.make_args(n, *size, **options),)


def _without_dtype(make_args: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
    """`make_args` of an example whose dtypes are part of what it does."""
    return lambda *size, dtype, device: make_args(*size, device=device)


_HALF = torch.bfloat16
_FP8 = torch.float8_e4m3fn
_ROWS = {"size": (8192, 4096), "small": (37, 129)}
_PRODUCT = {"dtype": _HALF, "uses_dot": True, "error_scale": 4.0, "tolerance": 1.6e-2}
_MATMUL = {"small": (37, 70, 45), **_PRODUCT}
_LOGITS = {"size": (4096, 32_000), "small": (37, 129)}
_ATTENTION = {"small": (1, 2, 45, 37, 32), **_PRODUCT}
# Results are bf16, but Hopper's fp8 products are summed with fewer bits than float32 has.
_FP8_MATMUL = {"dtype": _FP8, "dtypes": (_FP8,), "uses_dot": True, "tolerance": 3e-2, "error_scale": 2.0}


# Schedules that a tuner finds again and again on Hopper. `blocks` are in the order in which a kernel meets its tiles.
def _pointwise(*blocks: int) -> tuple[Config, ...]:
    return tuple(Config(block_sizes=list(blocks), num_warps=warps) for warps in (4, 8))


def _rows(*blocks: int) -> tuple[Config, ...]:
    return tuple(Config(block_sizes=list(blocks), num_warps=warps) for warps in (4, 8, 16))


#: Programs that go over shares of the rows, and must fit together: with 128 registers a thread, 16 warps do.
_SHARES = tuple(
    Config(block_sizes=[64, 1, 32, 128], num_warps=w, range_num_stages=[0, 2], num_sm_multiplier=16 // w, maxnreg=128)
    for w in (8, 16)
)


def _tiles(small: tuple[int, ...], large: tuple[int, ...], num_stages: int = 3) -> tuple[Config, ...]:
    """Products inside larger kernels: small tiles with four warps, large ones with eight."""
    return tuple(
        Config(block_sizes=list(blocks), num_warps=warps, num_stages=num_stages)
        for blocks, warps in ((small, 4), (large, 8))
    )


def _products(*blocks: int, **more: Any) -> tuple[Config, ...]:
    """Large products: deep pipelines, neighbouring tiles one after another; once with pointers, once with
    descriptors.
    """
    common = {"block_sizes": list(blocks), "num_warps": 8, "num_stages": 3, **more}
    return Config(**common), Config(**common, indexing="tensor_descriptor")


def _matmul_flops(m: int, k: int, n: int) -> float:
    return 2.0 * m * k * n


def _attention_flops(batch: int, heads: int, m: int, n: int, head: int) -> float:
    return 4.0 * batch * heads * m * n * head


def _in_bf16(x: torch.Tensor, y: torch.Tensor, *scales: torch.Tensor) -> torch.Tensor:
    """What the fp8 products are timed against."""
    return x.to(torch.bfloat16) @ y.to(torch.bfloat16)


def _on_triton(kernel: helion.Kernel) -> helion.Kernel:
    """A kernel of the CuTe backend on the Triton backend."""
    return helion.kernel(kernel.fn, backend="triton")


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
            size=(16, 1 << 20), small=(3, 1000), error_scale=32.0,
            configs=tuple(
                Config(block_sizes=[16384, lanes, 1], num_warps=w) for lanes, w in ((2048, 4), (4096, 8), (16384, 8))
            ),
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
            "batch_norm", batch_norm.batch_norm, batch_norm.reference, batch_norm.make_args, size=(65536, 1024),
            small=(70, 37),
            error_scale=8.0, dtypes=(torch.float32, torch.bfloat16),
            configs=(Config(block_sizes=[128, 64, 16, 64, 64, 32, 128], num_warps=4, num_sm_multiplier=4),),
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
            small=(20, 700, 33), **_PRODUCT,
        ),
        Example(
            "bmm", bmm.bmm, bmm.reference, bmm.make_args, size=(16, 1024, 1024, 1024),
            # Triton 3.6 cannot pipeline a batch of one that comes through descriptors
            configs=_products(1, 128, 256, 64)[:1],
            flops=lambda batch, m, k, n: 2.0 * batch * m * k * n,
            small=(3, 37, 70, 45), **_PRODUCT,
        ),
        Example(
            "embedding", embedding.embedding, embedding.reference, embedding.make_args,
            size=(16, 2048, 50_000, 1024), small=(3, 17, 50, 129), configs=_pointwise(1, 1024),
        ),
        Example(
            "cross_entropy", cross_entropy.cross_entropy, cross_entropy.reference, cross_entropy.make_args,
            size=(4096, 32_000), small=(37, 129), error_scale=4.0,
            configs=tuple(
                Config(block_sizes=[1], reduction_loops=[n], num_warps=w) for n, w in ((4096, 8), (None, 16))
            ),
        ),
        Example(
            "attention", attention.attention, attention.reference, attention.make_args,
            size=(4, 32, 2048, 2048, 64), small=(1, 2, 45, 37, 32), dtype=_HALF, uses_dot=True, error_scale=4.0,
            configs=tuple(Config(block_sizes=[128, 64], num_warps=warps, num_stages=3) for warps in (4, 8)),
            flops=_attention_flops,
        ),
        # -- activations, position, dropout --
        Example(
            "swiglu", swiglu.swiglu, swiglu.reference, swiglu.make_args,
            size=(8192, 14336), small=(37, 129), dtype=_HALF, configs=_pointwise(1, 2048),
        ),
        Example(
            "swiglu_backward", swiglu.swiglu_backward, swiglu.reference_backward, swiglu.make_backward_args,
            size=(8192, 14336), small=(37, 129), dtype=_HALF, error_scale=2.0, configs=_pointwise(1, 2048),
        ),
        Example(
            "geglu", geglu.geglu, geglu.reference, geglu.make_args,
            size=(8192, 8192), small=(37, 129), dtype=_HALF, configs=_pointwise(1, 2048),
        ),
        Example(
            "rope", rope.rope, rope.reference, rope.make_args,
            size=(4, 32, 4096, 128), small=(2, 3, 17, 32), dtype=_HALF, configs=_pointwise(1, 32),
        ),
        Example(
            "dropout", dropout.dropout, dropout.reference, dropout.make_args,
            eager=dropout.eager, configs=_pointwise(1, 512), **_ROWS,
        ),
        # -- backward passes of norms, losses --
        Example(
            "rms_norm_backward", rms_norm.rms_norm_backward, rms_norm.reference_backward, rms_norm.make_backward_args,
            error_scale=8.0, configs=_SHARES, **_ROWS,
        ),
        Example(
            "layer_norm_backward", layer_norm.layer_norm_backward, layer_norm.reference_backward,
            layer_norm.make_backward_args,
            error_scale=8.0, configs=_SHARES, **_ROWS,
        ),
        Example(
            "cross_entropy_backward", cross_entropy.cross_entropy_backward, cross_entropy.reference_backward,
            cross_entropy.make_backward_args, error_scale=4.0, configs=_rows(1), **_LOGITS,
        ),
        Example(
            "kl_div", kl_div.kl_div, kl_div.reference, kl_div.make_args,
            error_scale=16.0, configs=_rows(1, 4096), **_LOGITS,
        ),
        Example(
            "kl_div_backward", kl_div.kl_div_backward, kl_div.reference_backward, kl_div.make_backward_args,
            error_scale=16.0, configs=_pointwise(1, 2048), **_LOGITS,
        ),
        Example("jsd", jsd.jsd, jsd.reference, jsd.make_args, error_scale=16.0, configs=_rows(1, 4096), **_LOGITS),
        Example(
            "grpo_loss", grpo_loss.grpo_loss, grpo_loss.reference, grpo_loss.make_args,
            error_scale=16.0, configs=_rows(1, 4096), **_LOGITS,
        ),
        Example(
            "grpo_loss_backward", grpo_loss.grpo_loss_backward, grpo_loss.reference_backward,
            grpo_loss.make_backward_args,
            error_scale=16.0, configs=_pointwise(1, 2048), **_LOGITS,
        ),
        # -- matrix products --
        Example(
            "fp8_matmul", _on_triton(fp8_matmul.fp8_matmul), fp8_matmul.reference, _without_dtype(fp8_matmul.make_args),
            size=(4096, 4096, 4096), small=(37, 45, 96), eager=_in_bf16, flops=_matmul_flops,
            configs=_products(128, 256, 128, l2_groupings=[8]), **_FP8_MATMUL,
        ),
        Example(
            "fp8_scaled_mm", _on_triton(fp8_scaled_mm.fp8_scaled_mm), fp8_scaled_mm.reference,
            _without_dtype(fp8_scaled_mm.make_args), size=(4096, 4096, 4096), small=(37, 45, 96), eager=_in_bf16,
            flops=_matmul_flops, configs=_products(128, 256, 128, l2_groupings=[8]), **_FP8_MATMUL,
        ),
        Example(
            "matmul_int4", matmul_int4.matmul_int4, matmul_int4.reference, matmul_int4.make_args,
            size=(64, 8192, 8192, 128), flops=lambda m, k, n, group: 2.0 * m * k * n,
            configs=_tiles((64, 64), (64, 128)), small=(17, 128, 33, 32), **_PRODUCT,
        ),
        Example(
            "matmul_int16", matmul_int16.matmul_int16, matmul_int16.reference, matmul_int16.make_args,
            size=(4096, 4096, 4096), flops=_matmul_flops,
            configs=tuple(Config(block_sizes=[128, 128, k], num_warps=8, num_stages=3) for k in (32, 64)), **_MATMUL,
        ),
        Example(
            "matmul_grouped", matmul_grouped.matmul_grouped, matmul_grouped.reference, matmul_grouped.make_args,
            size=(16, 2048, 2048, 2048), configs=(*_tiles((128, 128, 64), (128, 256, 64)), *_products(128, 256, 64)),
            small=(4, 40, 33, 45), **_PRODUCT,
        ),
        Example(
            "matmul_broadcast", matmul_broadcast.matmul_broadcast, matmul_broadcast.reference,
            matmul_broadcast.make_args,
            size=(16, 512, 2048, 2048), flops=lambda batch, m, k, n: 2.0 * batch * m * k * n,
            configs=_products(128, 256, 64), small=(3, 20, 33, 45), **_PRODUCT,
        ),
        Example(
            "matmul_layer_norm", matmul_layer_norm.matmul_layer_norm, matmul_layer_norm.reference,
            matmul_layer_norm.make_args,
            size=(16384, 1024, 512), flops=_matmul_flops,
            # A row of 512 takes 128 registers of each of 256 threads: taller tiles or fewer threads spill.
            configs=tuple(
                Config(block_sizes=[64, 64], num_warps=8, **c)
                for c in ({"num_stages": 2}, {"num_stages": 3, "indexing": "tensor_descriptor"})
            ),
            **_MATMUL,
        ),
        Example(
            "matmul_softmax", matmul_softmax.matmul_softmax, matmul_softmax.reference, matmul_softmax.make_args,
            size=(16384, 4096, 256), flops=_matmul_flops,
            configs=(
                *_tiles((64, 64), (128, 64)),
                Config(block_sizes=[128, 64], num_warps=8, num_stages=4, indexing="tensor_descriptor"),
            ),
            **_MATMUL,
        ),
        Example(
            "moe_matmul", moe_matmul.moe_matmul, moe_matmul.reference, moe_matmul.make_args,
            size=(8192, 32, 2048, 2048), flops=lambda tokens, experts, k, n: 2.0 * tokens * k * n,
            configs=(*_tiles((64, 128, 64), (128, 128, 64)), *_products(128, 256, 64)), small=(50, 4, 33, 45),
            **_PRODUCT,
        ),
        # -- attention, state-space models --
        Example(
            "attention_causal", attention_causal.attention_causal, attention_causal.reference,
            attention_causal.make_args,
            size=(2, 16, 4, 4096, 128),
            flops=lambda batch, heads, _, length, head: 2.0 * batch * heads * length**2 * head,
            configs=(
                Config(block_sizes=[128, 64], num_warps=8, num_stages=3),
                Config(
                    block_sizes=[128, 128], loop_orders=[[1, 0]], l2_groupings=[2], num_warps=8, num_stages=3,
                    range_unroll_factors=[0, 1], load_eviction_policies=["first", "", ""],
                    indexing=["pointer", "pointer", "block_ptr", "pointer"],
                ),
            ),
            small=(1, 4, 2, 45, 32), **_PRODUCT,
        ),
        Example(
            "attention_backward", attention_backward.attention_backward, attention_backward.reference_backward,
            attention_backward.make_backward_args,
            size=(2, 16, 4, 4096, 128),
            flops=lambda batch, heads, _, length, head: 7.0 * batch * heads * length**2 * head,
            configs=(
                Config(block_sizes=[64, 64, 64, 64], num_warps=4),
                Config(block_sizes=[128, 64, 128, 64], num_warps=8),
            ),
            small=(1, 4, 2, 45, 32), **_PRODUCT,
        ),
        Example(
            "attention_bias", attention_bias.attention_bias, attention_bias.reference, attention_bias.make_args,
            size=(2, 16, 2048, 2048, 64), flops=_attention_flops, configs=_tiles((64, 64), (128, 64)), **_ATTENTION,
        ),
        Example(
            "attention_flex", attention_flex.attention_flex, attention_flex.reference, attention_flex.make_args,
            size=(2, 16, 2048, 2048, 64), flops=_attention_flops, configs=_tiles((64, 64), (128, 64)), **_ATTENTION,
        ),
        Example(
            "attention_fp8", attention_fp8.attention_fp8, attention_fp8.reference, attention_fp8.make_args,
            size=(64, 2048, 2048, 128), small=(2, 45, 37, 32),
            flops=lambda count, m, n, head: 4.0 * count * m * n * head,
            configs=_tiles((128, 64), (128, 128)), **{**_FP8_MATMUL, "error_scale": 4.0, "tolerance": 8e-2},
        ),
        Example(
            "attention_jagged", attention_jagged.attention_jagged, attention_jagged.reference,
            attention_jagged.make_args,
            size=(32, 2048, 16, 64), configs=_tiles((64, 64), (128, 64)), small=(4, 40, 2, 32), **_PRODUCT,
        ),
        Example(
            "mamba2_chunk_state", mamba2_chunk_state.mamba2_chunk_state, mamba2_chunk_state.reference,
            mamba2_chunk_state.make_args,
            size=(2, 16, 256, 64, 1, 64, 128),
            configs=_tiles((64, 128, 64), (64, 64, 64)), small=(1, 2, 32, 4, 2, 16, 20), **_PRODUCT,
        ),
        Example(
            "mamba2_chunk_scan", mamba2_chunk_scan.mamba2_chunk_scan, mamba2_chunk_scan.reference,
            mamba2_chunk_scan.make_args,
            size=(2, 16, 256, 64, 1, 64, 128),
            configs=_tiles((64, 64, 64), (128, 64, 64), num_stages=2), small=(1, 2, 32, 4, 2, 20, 32), **_PRODUCT,
        ),
        Example(
            "gated_delta_net", gated_delta_net.gated_delta_net, gated_delta_net.reference, gated_delta_net.make_args,
            size=(4, 1024, 16, 128, 128), small=(1, 9, 2, 16, 20), dtype=_HALF, error_scale=2.0,
            configs=tuple(Config(block_sizes=[n], num_warps=w) for n, w in ((8, 1), (16, 2), (32, 4))),
        ),
        # -- reductions, scans, jagged rows, layers --
        Example(
            "welford", welford.welford, welford.reference, welford.make_args,
            error_scale=16.0, configs=_rows(1, 2048), **_ROWS,
        ),
        Example(
            "segment_sum", segment_sum.segment_sum, segment_sum.reference, segment_sum.make_args,
            size=(20_000, 200, 256), small=(7, 20, 33), error_scale=8.0, configs=_pointwise(256, 16),
        ),
        Example(
            "cumulative_sum", cumulative.cumulative_sum, cumulative.reference_sum, cumulative.make_args,
            size=(4096, 16384), small=(5, 129), error_scale=16.0, configs=_pointwise(1, 4096),
        ),
        Example(
            "linear_recurrence", cumulative.linear_recurrence, cumulative.reference_recurrence,
            cumulative.make_recurrence_args,
            size=(4096, 4096), small=(5, 129), error_scale=8.0, configs=_pointwise(1, 2048),
        ),
        Example(
            "jagged_mean", jagged_mean.jagged_mean, jagged_mean.reference, jagged_mean.make_args,
            size=(4096, 512, 256), small=(9, 12, 33), error_scale=8.0, configs=_pointwise(1, 256, 16),
        ),
        Example(
            "jagged_softmax", jagged_softmax.jagged_softmax, jagged_softmax.reference, jagged_softmax.make_args,
            size=(4096, 4096), small=(9, 40), error_scale=4.0, configs=_pointwise(1, 2048, 2048),
        ),
        Example(
            "jagged_dense_add", jagged_dense_add.jagged_dense_add, jagged_dense_add.reference,
            jagged_dense_add.make_args,
            size=(8192, 4096), small=(9, 40), configs=_pointwise(1, 2048, 2048),
        ),
        Example(
            "concatenate", concatenate.concatenate, concatenate.reference, concatenate.make_args,
            size=(8192, 4096, 4096), small=(5, 29, 70), configs=_pointwise(1, 2048),
        ),
        Example(
            "squeeze_excitation", squeeze_excitation.squeeze_excitation, squeeze_excitation.reference,
            squeeze_excitation.make_args,
            size=(128, 256, 3136, 16), small=(3, 20, 33, 7), error_scale=8.0, configs=_pointwise(32, 32),
        ),
    )
}

#: The kernels of the CuTe backend, which needs nvidia-cutlass-dsl and compute capability 9.0, 10.0 or 10.3: for the
#: benchmark.
CUTE_EXAMPLES: dict[str, Example] = {
    example.name: example
    for example in (
        Example(
            "fp8_matmul_cute", fp8_matmul.fp8_matmul, fp8_matmul.reference, _without_dtype(fp8_matmul.make_args),
            size=(4096, 4096, 4096), small=(37, 45, 96), eager=_in_bf16, flops=_matmul_flops, **_FP8_MATMUL,
        ),
        Example(
            "fp8_scaled_mm_cute", fp8_scaled_mm.fp8_scaled_mm, fp8_scaled_mm.reference,
            _without_dtype(fp8_scaled_mm.make_args),
            size=(4096, 4096, 4096), small=(37, 45, 96), eager=_in_bf16, flops=_matmul_flops, **_FP8_MATMUL,
        ),
        Example(
            "linear_gelu_cute", linear_gelu.linear_gelu, linear_gelu.reference, linear_gelu.make_args,
            size=(4096, 4096, 4096), flops=_matmul_flops, **_MATMUL,
        ),
        Example(
            "batched_matmul_residual_cute", batched_matmul_residual.batched_matmul_residual,
            batched_matmul_residual.reference,
            batched_matmul_residual.make_args, size=(16, 1024, 1024, 1024),
            flops=lambda b, m, n, k: 2.0 * b * m * n * k,
            small=(2, 37, 70, 45), **_PRODUCT,
        ),
    )
}
