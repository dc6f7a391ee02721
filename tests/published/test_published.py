"""Published kernels in every mode, against PyTorch in float64; those of `ON_GPU` on the software GPU too."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import helion
from tests.support import check
from tests.support import partial_blocks
from tests.support import to_double
from tests.support import walk

from . import attention
from . import control
from . import decoding
from . import experts
from . import fused
from . import gated_memory
from . import linear_attention
from . import quantization
from . import routing
from . import serving
from . import tables
from . import training
from . import transforms
from .table import Published

TABLE: dict[str, Published] = {
    **serving.ROWS,
    **quantization.ROWS,
    **linear_attention.ROWS,
    **training.ROWS,
    **experts.ROWS,
    **attention.ROWS,
    **control.ROWS,
    **fused.ROWS,
    **decoding.ROWS,
    **tables.ROWS,
    **routing.ROWS,
    **transforms.ROWS,
    **gated_memory.ROWS,
}
#: Run on the software GPU too: compiling each takes seconds.
ON_GPU = (
    "rotary_neox",
    "paged_attention",
    "greedy_sample",
    "per_group_quant_fp8",
    "int4_weight_only_matmul",
    "chunk_retention",
    "causal_conv1d",
    "rms_norm_backward",
    "topk_softmax",
    "flash_attention_varlen",
    "window_attention_with_sinks",
    "layer_norm_backward_with_locks",
    "greedy_rejection",
    "top_p_threshold",
    "prompt_lookup",
    "nvfp4_quantize",
    "mxfp4_expert_matmul",
    "linear_cross_entropy",
    "align_tokens_to_blocks",
    "inverse_of_unit_lower",
    "block_sparse_attention",
    "apply_token_bitmask",
    "causal_conv1d_update",
    "rejection_random_sample",
    "adam_8bit",
    "dequantize_nf4",
    "gptq_matmul",
    "deformable_sampling",
    "gram_upper",
    "verify_tree",
    "grouped_gate",
    "sparsify_24",
    "mlstm_recurrent",
)


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """8-bit floats as float32, which compares."""
    return tensor.float() if tensor.dtype is torch.float8_e4m3fn else tensor


def arguments(row: Published) -> tuple[Any, ...]:
    return row.make(torch.Generator().manual_seed(7))


def expected(row: Published) -> Any:
    args = walk(arguments(row), to_double)
    result = row.reference(*args)
    return result, [args[i] for i in row.written]


def compare(row: Published, run: Any, where: str) -> None:
    args = copy.deepcopy(arguments(row))
    result = run(*args)
    wanted, written = expected(row)
    result, wanted = walk(result, plain), walk(wanted, plain)
    check(result, wanted, where, row.error)
    for position, value in zip(row.written, written, strict=True):
        check(args[position], value, f"{where}, argument {position}", row.error)


@pytest.mark.slow
@pytest.mark.parametrize("static", [True, False], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", TABLE)
def test_tile_executor(name: str, static: bool) -> None:
    row = TABLE[name]
    bound = helion.kernel(row.kernel, static_shapes=static).bind(arguments(row))
    compare(row, bound, "large tiles")
    compare(row, bound.compile_config(partial_blocks(bound)), "small tiles")
    bound.to_triton_code(partial_blocks(bound))


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
def test_ref_mode(name: str) -> None:
    row = TABLE[name]
    compare(row, helion.kernel(row.kernel, ref_mode=helion.RefMode.EAGER), "ref mode")


@pytest.mark.filterwarnings("ignore::helion.exc.NoConfigGiven")
@pytest.mark.softgpu(capability=90)
@pytest.mark.compiles
@pytest.mark.parametrize("static", [True, False], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", ON_GPU)
def test_gpu(name: str, static: bool, softgpu: Any) -> None:
    row = TABLE[name]
    kernel = helion.kernel(row.kernel, static_shapes=static, dot_precision="ieee")

    def moved(args: tuple[Any, ...]) -> Any:
        return walk(args, lambda tensor: tensor.to(softgpu.device))

    bound = kernel.bind(moved(arguments(row)))
    run = bound.compile_config(partial_blocks(bound))

    def on_device(*args: Any) -> Any:
        result = run(*moved(args))
        softgpu.synchronize()
        return walk(result, torch.Tensor.cpu)

    compare(row, on_device, "GPU")
