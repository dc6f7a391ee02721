"""`epilogue_subtile`: which nodes are done in parts, which values are taken apart, and what is refused."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from tests.support import run_everywhere

PARTS = {"block_sizes": [16, 32, 16], "epilogue_subtile": 2}


@helion.kernel
def bias_and_gate(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    out = torch.empty([a.size(0), b.size(1)], dtype=a.dtype, device=a.device)
    for tile_m, tile_n in hl.tile([a.size(0), b.size(1)]):
        acc = hl.zeros([tile_m, tile_n], dtype=torch.float32)
        for tile_k in hl.tile(a.size(1)):
            acc = torch.addmm(acc, a[tile_m, tile_k], b[tile_k, tile_n])
        out[tile_m, tile_n] = torch.where(tile_n.index % 3 == 0, acc + bias[tile_n], acc * gate[tile_m][:, None])
    return out


def bias_and_gate_reference(a, b, bias, gate):
    columns = torch.arange(b.size(1))
    return torch.where(columns % 3 == 0, a @ b + bias, (a @ b) * gate[:, None])


@helion.kernel
def product_and_row_sums(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    out = torch.empty([a.size(0), b.size(1)], dtype=a.dtype, device=a.device)
    sums = torch.zeros([a.size(0)], dtype=torch.float32, device=a.device)
    for tile_m, tile_n in hl.tile([a.size(0), b.size(1)]):
        acc = hl.zeros([tile_m, tile_n], dtype=torch.float32)
        for tile_k in hl.tile(a.size(1)):
            acc = torch.addmm(acc, a[tile_m, tile_k], b[tile_k, tile_n])
        squared = acc * acc
        hl.atomic_add(sums, [tile_m], squared.sum(dim=1))
        out[tile_m, tile_n] = torch.sqrt(squared + 1)
    return out, sums


def product_and_row_sums_reference(a, b):
    squared = (a @ b) ** 2
    return (squared + 1).sqrt(), squared.sum(1)


@helion.kernel
def accumulate_into(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    for tile_m, tile_n in hl.tile([a.size(0), b.size(1)]):
        acc = hl.zeros([tile_m, tile_n], dtype=torch.float32)
        for tile_k in hl.tile(a.size(1)):
            acc = torch.addmm(acc, a[tile_m, tile_k], b[tile_k, tile_n])
        out[tile_m, tile_n] = out[tile_m, tile_n] + acc
    return out


def half(*shape: int) -> torch.Tensor:
    return torch.randn(shape).half()


def test_loads_masks_and_indices_of_the_epilogue_are_done_in_parts(seed) -> None:
    args = (half(20, 24), half(24, 72), half(72), half(20))
    run_everywhere(
        bias_and_gate, args, bias_and_gate_reference, configs=[PARTS], error_scale=8, uses_dot=True, capabilities=[90]
    )
    code = bias_and_gate.bind(args).to_triton_code(PARTS)
    assert code.count("tl.split(") == 1 and code.count("tl.store(") == 2
    assert code.count("tl.load(bias + ") == 2, "the bias is loaded in parts"
    assert code.count("tl.load(gate + ") == 1, "what is the same for every part is computed once"


def test_a_value_needed_elsewhere_is_computed_whole(seed) -> None:
    args = (half(20, 24) / 8, half(24, 72))
    run_everywhere(
        product_and_row_sums,
        args,
        product_and_row_sums_reference,
        configs=[PARTS],
        error_scale=8,
        input_dtype=torch.float16,
        uses_dot=True,
        capabilities=[80],
    )
    code = product_and_row_sums.bind(args).to_triton_code(PARTS)
    assert "tl.split(tl.permute(tl.reshape(squared, " in code and code.count("\n    squared = ") == 1


def test_a_tensor_that_is_also_written_is_read_before_any_part_is_stored() -> None:
    args = (half(16, 16), half(16, 64), half(16, 64))
    code = accumulate_into.bind(args).to_triton_code({"block_sizes": [16, 64, 16], "epilogue_subtile": 2})
    assert code.count("tl.load(out + ") == 1
    assert code.index("tl.load(out + ") < code.index("tl.store(out + ")


def test_parts_that_would_be_too_narrow_are_fewer() -> None:
    bound = bias_and_gate.bind((half(20, 24), half(24, 72), half(72), half(20)))
    assert bound.to_triton_code({**PARTS, "epilogue_subtile": 4}) == bound.to_triton_code(PARTS)
    assert bound.to_triton_code({**PARTS, "epilogue_subtile": True}) == bound.to_triton_code(PARTS)
    whole = bound.to_triton_code({**PARTS, "epilogue_subtile": None})
    assert bound.to_triton_code({**PARTS, "epilogue_subtile": False}) == whole != bound.to_triton_code(PARTS)
    with pytest.raises(helion.exc.InvalidConfig, match="epilogue_subtile=3 does not fit"):
        bound.to_triton_code({**PARTS, "epilogue_subtile": 3})


def test_a_kernel_without_a_product_ignores_the_key() -> None:
    @helion.kernel
    def copy(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile]
        return out

    bound = copy.bind((torch.randn(64),))
    assert bound.to_triton_code({"epilogue_subtile": 2}) == bound.to_triton_code()
