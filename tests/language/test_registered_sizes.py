"""Registered block sizes that no tile has: of a buffer, of an `hl.arange`, the step of a grid. Each is an item of
`block_sizes`, with one meaning in every mode.
"""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere
from tests.support import ways

pytestmark = pytest.mark.compiles


def chunk_sums(x: torch.Tensor) -> torch.Tensor:
    n = x.size(1)
    block = hl.register_block_size(4, 32)
    out = torch.empty([x.size(0), helion.cdiv(n, block)], dtype=x.dtype, device=x.device)
    for rows in hl.tile(x.size(0)):
        for k in hl.grid(helion.cdiv(n, block)):
            columns = k * block + hl.arange(block)
            out[rows, k] = hl.load(x, [rows, columns], extra_mask=(columns < n)[None, :]).sum(1)
    return out


@pytest.mark.parametrize("blocks", [[8, 4], [4, 8], [16, 2], [32, 8]], ids=str)
def test_the_config_gives_a_size_that_no_tile_has(blocks: list[int], seed: int) -> None:
    x = torch.randn(7, 21)
    expected = torch.stack([part.double().sum(1) for part in x.split(blocks[0], 1)], 1)
    kernel = helion.kernel(chunk_sums, config=helion.Config(block_sizes=blocks))
    configs = [{"block_sizes": blocks, "num_warps": 1}]
    assert kernel(x).shape == expected.shape
    for capability in (80, 90):
        # The tile executor's own large tiles make another shape: only what runs by the Config is compared.
        run_everywhere(kernel, (x,), lambda x: expected, configs=configs, capabilities=[capability])


def grid_by_size(x: torch.Tensor) -> torch.Tensor:
    step = hl.register_block_size(2, 16)
    out = torch.zeros_like(x)
    for i in hl.grid(0, x.size(0), step):
        out[i] = x[i] + step
    return out


def test_the_step_of_a_grid(seed: int) -> None:
    def plain(x: torch.Tensor) -> torch.Tensor:
        return torch.where(torch.arange(x.size(0)) % 4 == 0, x + 4, 0.0)

    run_everywhere(
        helion.kernel(grid_by_size, config=helion.Config(block_sizes=[4])),
        (torch.randn(21),),
        plain,
        configs=[{"block_sizes": [4]}],
        capabilities=[80],
    )


def test_it_is_an_item_of_the_spec_where_it_is_registered() -> None:
    spec = helion.kernel(chunk_sums).bind((torch.empty(7, 21),)).config_spec
    assert len(spec.block_sizes) == 2
    assert (spec.block_sizes[0].min_size, spec.block_sizes[0].max_size) == (4, 32)
    with pytest.raises(exc.InvalidConfig, match=r"expected 2 item\(s\) \(block, rows\), got 1"):
        spec.normalize({"block_sizes": [4]})


def test_ref_mode_too_takes_no_config_with_fewer_sizes() -> None:
    kernel = helion.kernel(chunk_sums, config=helion.Config(block_sizes=[4]), ref_mode=helion.RefMode.EAGER)
    with pytest.raises(exc.InvalidConfig, match=r"expected 2 item\(s\) \(block, rows\), got 1"):
        kernel(torch.ones(7, 21))


def nothing_or_chunks(x: torch.Tensor) -> torch.Tensor:
    block = hl.register_block_size(4, 32)
    out = torch.zeros([helion.cdiv(40, block)], device=x.device)
    if x.numel() == 0:
        return out
    for rows in hl.tile(x.size(0)):
        out[0] = x[rows].sum()
    return out


@pytest.mark.parametrize("mode", list(helion.RefMode), ids=str)
def test_the_config_gives_it_where_nothing_is_launched(mode: helion.RefMode) -> None:
    kernel = helion.kernel(nothing_or_chunks, config=helion.Config(block_sizes=[8, 16]), ref_mode=mode)
    assert kernel(torch.empty(0)).shape == (5,)
    assert kernel(torch.ones(3)).shape == (5,)


def lanes_in_a_tile(x: torch.Tensor, sums: torch.Tensor, lanes: torch.Tensor) -> torch.Tensor:
    n = x.size(0)
    out = torch.zeros([4], device=x.device)
    block = hl.register_block_size(64)
    for t in hl.tile(n // 2, block_size=block):
        acc = hl.zeros([block])
        lanes[t.id] = (acc + 1).sum(0)
        for k in hl.tile(n, block_size=block):
            acc = acc + x[k] + 1
        sums[t.id] = acc.sum(0)
        out[t.id] = (acc + 1).sum(0)
    return out


@pytest.mark.parametrize("block", [4, 16, 64])
def test_a_fill_that_goes_into_a_loop_has_one_lane_per_element_of_a_full_tile(block: int, seed: int) -> None:
    """It had the elements of the tile around it, and did not fit those of the loop's tiles."""
    x, tiles = torch.randn(22), -(-11 // block)
    total = x.double().sum() + 22

    def all_of(kernel: torch.Tensor, *args: torch.Tensor) -> torch.Tensor:
        out = kernel(*args)
        return torch.stack([out, *args[1:]])

    expected = torch.zeros(3, 4, dtype=torch.float64)
    expected[0, :tiles] = total + block
    expected[1, :tiles] = total
    expected[2, :tiles] = torch.tensor([min(block, 11 - i) for i in range(0, 11, block)])
    for way in ways(helion.kernel(lanes_in_a_tile), (x,) + (torch.zeros(4),) * 2, [{"block_sizes": [block]}], [90]):
        if way.name != "tile executor":  # by its own block size
            args = (x.clone(), torch.zeros(4), torch.zeros(4))
            run = (
                way.run
                if way.name != "ref mode"
                else helion.kernel(lanes_in_a_tile, config={"block_sizes": [block]}, ref_mode=helion.RefMode.EAGER)
            )
            torch.testing.assert_close(all_of(run, *args).double(), expected, rtol=1e-5, atol=1e-5)


def sums_of_blocks(x: torch.Tensor) -> torch.Tensor:
    block = hl.register_block_size(x.size(0))
    out = torch.empty([helion.cdiv(x.size(0), block)], dtype=x.dtype)
    for t in hl.tile(x.size(0), block_size=block):
        out[t.id] = x[t].sum() * t.block_size
    return out


@pytest.mark.parametrize("n", [33, 16, 5, 1])
@pytest.mark.parametrize("mode", list(helion.RefMode))
def test_a_config_for_long_inputs_serves_short_ones_whose_size_is_the_maximum(n: int, mode: helion.RefMode) -> None:
    kernel = helion.kernel(sums_of_blocks, config=helion.Config(block_sizes=[32]), ref_mode=mode)
    block = min(32, helion.next_power_of_2(n))
    expected = torch.stack([part.sum() * block for part in torch.arange(float(n)).split(block)])
    assert torch.equal(kernel(torch.arange(float(n))), expected)


def test_triton_code_has_the_registered_maximum() -> None:
    config = helion.Config(block_sizes=[32])
    code = helion.kernel(sums_of_blocks, backend="triton").bind((torch.ones(5),)).to_triton_code(config)
    assert "BLOCK_T: tl.constexpr = 8" in code or "BLOCK_T = tl.constexpr(8)" in code, code


def sum_of_parts(x: torch.Tensor) -> torch.Tensor:
    n = x.size(0)
    block = hl.register_block_size(n)
    parts = torch.empty([helion.cdiv(n, block)], device=x.device)
    out = torch.empty_like(x)
    for t in hl.tile(n, block_size=block):
        parts[t.id] = x[t].sum()
    hl.barrier()
    for t in hl.tile(n, block_size=block):
        out[t] = x[t] + (parts[:] + 1).sum() - helion.cdiv(n, block)
    return out


@pytest.mark.parametrize("static_shapes", [True, False])
@pytest.mark.parametrize("block", [16, 1, 64])
def test_a_whole_buffer_of_as_many_elements_as_tiles(static_shapes: bool, block: int, seed: int) -> None:
    """Padding was counted, of a buffer that the number standing for the block made one element long."""
    kernel = helion.kernel(sum_of_parts, static_shapes=static_shapes)
    for n in (130, 200, 256, 40):
        run_everywhere(
            kernel, (torch.randn(n),), lambda x: x + x.sum(), configs=[{"block_sizes": [block]}], capabilities=[90],
            error_scale=64,
        )  # fmt: skip


def unpacked(packed: torch.Tensor) -> torch.Tensor:
    half, n = packed.size()
    wide, flat = (torch.empty([2 * half, n], dtype=torch.int32, device=packed.device) for _ in range(2))
    block = hl.register_block_size(2, 64)
    for columns in hl.tile(n):
        for rows in hl.tile(2 * half, block_size=block):
            both = packed[rows.begin // 2 : rows.begin // 2 + block // 2, columns].to(torch.int32)
            parts = torch.stack([both & 15, both >> 4], dim=1)
            wide[rows, columns] = parts.reshape(block, columns)
            flat[rows, columns] = parts.flatten(0, 1) + parts.reshape(-1, columns)
    return wide + flat


def test_halves_of_a_block_size_put_together_are_the_block_size() -> None:
    """PyTorch's sizes do not know that block // 2 * 2 is block."""

    def plain(packed: torch.Tensor) -> torch.Tensor:
        wide = packed.to(torch.int32)
        return 3 * torch.stack([wide & 15, wide >> 4], 1).flatten(0, 1)

    packed = torch.arange(63, dtype=torch.uint8).reshape(9, 7) * 4 + 1
    configs = [{"block_sizes": [8, 4]}, {"block_sizes": [2, 16]}]
    run_everywhere(helion.kernel(unpacked), (packed,), plain, configs=configs, capabilities=[90])


def repeated(x: torch.Tensor, out: torch.Tensor) -> None:
    block = hl.register_block_size(64)
    for rows in hl.tile(x.size(0), block_size=block):
        first = x[rows.begin // 2 : rows.begin // 2 + block // 2]
        out[rows] = torch.stack([first, first], dim=1).reshape(block)


def test_halves_of_a_block_size_that_may_be_one_are_refused() -> None:
    with pytest.raises(exc.InvalidAPIUsage, match="which may be less than 2") as e:
        helion.kernel(repeated, config=helion.Config(block_sizes=[4]))(torch.ones(8), torch.ones(8))
    assert "`hl.register_block_size(2, 64)`" in str(e.value)  # as above
