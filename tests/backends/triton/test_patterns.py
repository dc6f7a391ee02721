"""Small patterns of device code that larger kernels are made of, each by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from tests import softgpu
from tests.support import run_everywhere


def on_software_gpu(kernel: Callable[..., Any], config: dict[str, Any], *args: Any) -> Any:
    softgpu.install(90)
    try:
        return helion.kernel(kernel, config=helion.Config(**config))(*args)
    finally:
        softgpu.uninstall()


def test_loop_within_an_outer_tiles_bounds_may_store(seed: int) -> None:
    def kernel(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        block = hl.register_block_size(x.size(0))
        out = torch.empty_like(x)
        sums = torch.empty([helion.cdiv(x.size(0), block)], dtype=x.dtype, device=x.device)
        for part in hl.tile(x.size(0), block_size=block):
            total = hl.zeros([], dtype=torch.float32)
            for rows in hl.tile(part.begin, part.end):
                out[rows] = x[rows] * 2.0
                total = total + x[rows].sum()
            sums[part.id] = total
        return out, sums.sum(dim=0, keepdim=True)

    run_everywhere(
        kernel, (torch.randn(70),), lambda x: (x * 2, x.sum(0, keepdim=True)), error_scale=16, capabilities=[90]
    )


@pytest.mark.parametrize("n", [64, 70])
def test_loop_that_ends_where_another_tile_does(n: int, seed: int) -> None:
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for rows in hl.tile(x.size(0)):
            before = hl.zeros([rows], dtype=torch.int64)
            for columns in hl.tile(rows.begin):
                before = before + x[columns].sum()
            inside = hl.zeros([rows], dtype=torch.int64)
            for columns in hl.tile(rows.begin, rows.end):
                seen = rows.index[:, None] >= columns.index[None, :]
                inside = inside + torch.where(seen, x[columns][None, :], 0).sum(dim=1)
            out[rows] = before + inside
        return out

    x = torch.randint(-1000, 1000, (n,), dtype=torch.int64)
    configs = [{"block_sizes": sizes} for sizes in ([32, 8, 16], [8, 32, 16], [16, 16, 64])]
    run_everywhere(kernel, (x,), lambda x: x.cumsum(0), configs=configs, capabilities=[90])


def test_masked_load_of_fp8(seed: int) -> None:
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty(x.shape, dtype=torch.float32, device=x.device)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile].to(torch.float32)
        return out

    x = torch.randn(37).to(torch.float8_e4m3fn)
    run_everywhere(kernel, (x,), lambda x: x, capabilities=[90])


@pytest.mark.compiles
def test_tensor_divided_by_the_number_of_elements_in_a_tile(seed: int) -> None:
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] / (tile.end - tile.begin)
        return out

    x = torch.randn(35)
    config = {"block_sizes": [16]}
    sizes = torch.tensor([16.0] * 32 + [3.0] * 3)
    bound = helion.kernel(kernel).bind((x,))
    expected = x / sizes
    for name, actual in (
        ("tile executor", bound.compile_config(config)(x)),
        ("software GPU", on_software_gpu(kernel, config, x)),
    ):
        torch.testing.assert_close(actual, expected, msg=lambda m: f"{name}: {m}")


def test_default_tiles_are_wide_along_the_last_dimension() -> None:
    @helion.kernel
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for rows in hl.tile(x.size(0)):
            largest = hl.full([rows], float("-inf"))
            for columns in hl.tile(x.size(1)):
                largest = torch.maximum(largest, x[rows, columns].amax(dim=1))
            for columns in hl.tile(x.size(1)):
                out[rows, columns] = x[rows, columns] - largest[:, None]
        return out

    default = kernel.bind((torch.empty(8192, 4096),)).config_spec.default_config()
    rows, *columns = default["block_sizes"]
    assert min(columns) > 8 * rows
