"""Loops whose products take a tile that something else takes too: backward passes of attention, fused norms."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from tests.support import run_everywhere


def of_keys(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, do: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(k)
    width = hl.specialize(q.size(1))
    for c in hl.tile(k.size(0)):
        acc = hl.zeros([c, width])
        for r in hl.tile(q.size(0)):
            weights = hl.dot(q[r, :], k[c, :].t(), out_dtype=torch.float32)
            grads = hl.dot(do[r, :], v[c, :].t(), out_dtype=torch.float32) * weights
            acc = hl.dot(grads.to(q.dtype).t(), q[r, :], acc=acc)
        out[c, :] = acc.to(q.dtype)
    return out


def of_queries(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, do: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(q)
    width = hl.specialize(q.size(1))
    for r in hl.tile(q.size(0)):
        acc = hl.zeros([r, width])
        for c in hl.tile(k.size(0)):
            weights = hl.dot(q[r, :], k[c, :].t(), out_dtype=torch.float32)
            grads = hl.dot(do[r, :], v[c, :].t(), out_dtype=torch.float32) * weights
            acc = hl.dot(grads.to(q.dtype), k[c, :], acc=acc)
        out[r, :] = acc.to(q.dtype)
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", [{}, {"range_num_stages": [0, 3]}], ids=str)
@pytest.mark.parametrize("function", [of_keys, of_queries])
def test_stages_do_not_race(function, config, dtype, seed: int) -> None:
    """Triton copied the next tile over one that a product still read, or read one that was not turned around yet."""

    def expected(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, do: torch.Tensor) -> torch.Tensor:
        grads = (q @ k.T) * (do @ v.T)
        return grads.T @ q if function is of_keys else grads @ k

    args = tuple((torch.randn(rows, 16) * 0.3).to(dtype) for rows in (64, 70, 70, 64))
    run_everywhere(
        function,
        args,
        expected,
        configs=[{"block_sizes": [64, rows], "num_warps": 4, "num_stages": 2, **config} for rows in (32, 64)],
        capabilities=[90, 100] if function is of_keys and dtype is torch.bfloat16 else [90],
        uses_dot=True,
        error_scale=16,
    )


def test_products_of_several_loads_keep_their_stages() -> None:
    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out = torch.empty([x.size(0), y.size(1)], device=x.device)
        for m, n in hl.tile([x.size(0), y.size(1)]):
            acc = hl.zeros([m, n])
            for k in hl.tile(x.size(1)):
                acc = hl.dot(x[m, k], y[k, n], acc=acc)
            out[m, n] = acc
        return out

    kernel = helion.kernel(function, config=helion.Config(block_sizes=[16, 16, 16], num_stages=3))
    assert "num_stages=1" not in kernel.bind((torch.randn(64, 64), torch.randn(64, 64))).to_triton_code()


def normalized_product(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(0), w.size(0)], dtype=torch.float32, device=x.device)
    for r, c in hl.tile(out.shape):
        acc, squares = hl.zeros([r, c]), hl.zeros([r])
        for k in hl.tile(x.size(1)):
            tile = x[r, k]
            acc = hl.dot(tile, w[c, k].t(), acc=acc)
            squares += tile.float().pow(2).sum(1)
        out[r, c] = acc * torch.rsqrt(squares / x.size(1) + 1e-5)[:, None]
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("indexing", ["pointer", "tensor_descriptor"])
def test_a_tile_that_is_summed_too(dtype, indexing, seed: int) -> None:
    """The next tile was copied over the one that the product still read: half of the elements were wrong on an H100."""
    run_everywhere(
        normalized_product,
        ((torch.randn(64, 128) * 0.3).to(dtype), (torch.randn(70, 128) * 0.05).to(dtype)),
        lambda x, w: x @ w.T * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-5),
        configs=[{"block_sizes": [64, 32, 32], "num_warps": 4, "num_stages": 2, "indexing": indexing}],
        capabilities=[90],
        uses_dot=True,
        error_scale=16,
    )


@pytest.mark.parametrize(("rows", "waits"), [(32, True), (64, False)], ids=["some not by wgmma", "all by wgmma"])
def test_stages_stay(rows: int, waits: bool) -> None:
    args = tuple(torch.randn(128, 64, dtype=torch.bfloat16) for _ in range(4))
    config = helion.Config(block_sizes=[64, rows], num_warps=4, num_stages=3)
    code = helion.kernel(of_keys).bind(args).to_triton_code(config)
    assert ("hlt_apart(tl.dot(" in code) == waits
    assert "num_stages=1" not in code


def doubled(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(0), y.size(1)], dtype=x.dtype, device=x.device)
    for m, n in hl.tile([x.size(0), y.size(1)]):
        acc = hl.zeros([m, n])
        for k in hl.tile(x.size(1)):
            acc = torch.addmm(acc, x[m, k] * 2, y[k, n])
        out[m, n] = acc
    return out


def test_a_left_operand_in_registers_in_a_loop_of_any_length(seed: int) -> None:
    """The software GPU took the zeros of a loop of no iteration for copies of the sums of one that ran."""
    args = torch.randn(64, 64).half(), torch.randn(64, 32).half()
    config = {"block_sizes": [64, 32, 32], "num_stages": 2, "num_warps": 4}
    run_everywhere(
        doubled, args, lambda x, y: 2 * x @ y, configs=[config], capabilities=[90], uses_dot=True, static_shapes=False
    )


def scaled_by_block(a: torch.Tensor, b: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    out = torch.empty([a.size(0), b.size(1)], device=a.device)
    for m, n in hl.tile([a.size(0), b.size(1)]):
        acc = hl.zeros([m, n])
        for k in hl.tile(a.size(1), block_size=32):
            acc = acc + hl.dot(a[m, k], b[k, n]) * scale[m, k.id][:, None]
        out[m, n] = acc
    return out


@pytest.mark.parametrize("indexing", ["pointer", "tensor_descriptor"])
def test_stages_of_a_loop_that_loads_more_than_its_product_takes(indexing: str, seed: int) -> None:
    """On 10.0 the next product was written over this one's, while it was read."""
    args = (torch.randn(64, 128) / 2).bfloat16(), (torch.randn(128, 32) / 2).bfloat16(), torch.rand(64, 4)
    config = {"block_sizes": [64, 32], "num_warps": 4, "range_num_stages": [0, 3], "indexing": indexing}

    def expected(a: torch.Tensor, b: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return (a * scale.repeat_interleave(32, 1)) @ b

    run_everywhere(scaled_by_block, args, expected, configs=[config], capabilities=[100], uses_dot=True)
