"""Reshapes and permutations of tiles, of sizes that a GPU pads; indices that are numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere

SMALL = helion.Config(block_sizes=[4])


def everywhere(kernel, args, expected, **options):
    kernel = helion.kernel(kernel, config=SMALL)
    run_everywhere(
        kernel, args, expected, reference_args=args, capabilities=[80], configs=[SMALL], error_scale=0, **options
    )


def reshaped(x: torch.Tensor, shape: hl.constexpr) -> torch.Tensor:
    out = x.new_empty(x.size(0), *shape)
    for tile in hl.tile(x.size(0)):
        value = x[(tile, *[slice(None)] * (x.dim() - 1))]
        out[(tile, *[slice(None)] * len(shape))] = value.reshape(tile, *shape)
    return out


@pytest.mark.parametrize("before, after", [
    ((10,), (2, 5)), ((2, 5), (10,)), ((15,), (3, 5)), ((3, 5), (5, 3)), ((3, 5, 2), (15, 2)), ((3, 5, 2), (3, 10)),
    ((30,), (2, 3, 5)),
    ((96,), (3, 32)), ((3, 32), (96,)),
], ids=str)  # fmt: skip
def test_reshapes_of_padded_dimensions(before, after):
    x = torch.arange(7.0 * torch.Size(before).numel()).reshape(7, *before)
    everywhere(reshaped, (x, after), lambda x, shape: x.reshape(7, *shape))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.bfloat16, torch.float64], ids=str)
def test_dtypes_of_reshaped_values(dtype):
    x = (torch.arange(45).reshape(3, 3, 5) % 7 - 3).to(dtype)
    everywhere(reshaped, (x, (5, 3)), lambda x, shape: x.reshape(3, *shape))


def heads_of_rows(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile, :] = x[tile, :].view(tile, 12, 32).reshape(tile, -1)
    return out


def test_a_padded_dimension_in_front_of_whole_ones_costs_nothing():
    x = torch.randn(6, 384)
    assert "tl.gather" not in helion.kernel(heads_of_rows, config=SMALL).bind((x,)).to_triton_code()
    everywhere(heads_of_rows, (x,), lambda x: x)


def reduced(x: torch.Tensor) -> torch.Tensor:
    out = x.new_empty(6, x.size(0))
    for tile in hl.tile(x.size(0)):
        value = x[tile, :, :]
        out[0, tile] = value.reshape(tile, 10).sum(1)
        out[1, tile] = (value + 1).reshape(tile, 10).sum(1)
        out[2, tile] = value.reshape(tile, 10).prod(1)
        five = value.reshape(tile, 10).reshape(tile, 5, 2)
        out[3, tile] = five.sum(1).amax(1)
        out[4, tile] = (five * 2 - 1).amax(1).sum(1)
        out[5, tile] = torch.where(five > 0, five, -1.0).amin((1, 2))
    return out


def test_padding_does_not_get_into_reductions():
    x = torch.randint(-4, 5, (7, 2, 5)).float()

    def expected(x):
        five = x.reshape(7, 5, 2)
        return torch.stack([
            x.sum((1, 2)), (x + 1).sum((1, 2)), x.reshape(7, 10).prod(1), five.sum(1).amax(1),
            (five * 2 - 1).amax(1).sum(1),
            torch.where(five > 0, five, -1.0).amin((1, 2)),
        ])  # fmt: skip

    everywhere(reduced, (x,), expected)


def shuffled(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    outs = torch.empty_like(x), torch.empty_like(x), torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        value = x[tile, :].reshape(tile, 3, 4).permute(0, 2, 1)
        outs[0][tile, :] = value.reshape(tile, 12)
        outs[1][tile, :] = value.contiguous().view(tile, -1)
        outs[2][tile, :] = (value + 1).flatten(1)
    return outs


def test_permuted_values_are_reshaped():
    def expected(x):
        value = x.reshape(7, 3, 4).permute(0, 2, 1).reshape(7, 12)
        return value, value, value + 1

    everywhere(shuffled, (torch.randn(7, 12),), expected)


def rows_by_number(x: torch.Tensor, row: int) -> torch.Tensor:
    out = torch.empty([2, x.size(0)], device=x.device)
    for i in hl.grid(x.size(0)):
        out[0, i] = x[i - 1, 0]
        out[1, i] = x[row, i]
    return out


@pytest.mark.parametrize("row", [-2, 1, 2])
def test_numbers_below_zero_count_from_the_end(row):
    x = torch.randn(6, 6)
    run_everywhere(rows_by_number, (x, row), lambda x, row: torch.stack([x[:, 0].roll(1), x[row]]), capabilities=[90])


@pytest.mark.parametrize("reduce", [
    lambda v: v.sum(2), lambda v: v.sum(-3), lambda v: v.amax((1, 1)), lambda v: v.argmax(4), lambda v: v.prod(2),
    lambda v: v.min(3)[0],
    lambda v: v.mean((0, 7)), lambda v: torch.stack([v, v], 4), lambda v: torch.nn.functional.layer_norm(v, (5,)),
])  # fmt: skip
def test_dimensions_that_are_not_there_are_refused(reduce):
    def kernel(x, reduce):
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            reduce(x[tile, :])
            out[tile, :] = x[tile, :]
        return out

    with pytest.raises(exc.ShapeMismatch):
        helion.kernel(kernel)(torch.ones(6, 8), reduce)


def test_device_values_are_indexed_by_several_tensors() -> None:
    def windows(x: torch.Tensor, at: torch.Tensor) -> tuple[torch.Tensor, ...]:
        rows = x.size(0)
        picked = torch.empty([rows, 3], dtype=x.dtype, device=x.device)
        grid = torch.empty([rows, 3, 2], dtype=x.dtype, device=x.device)
        pooled = torch.empty([rows, 2, 3], dtype=x.dtype, device=x.device)
        strided = torch.empty([rows, 5, 2], dtype=x.dtype, device=x.device)
        for i in hl.grid(rows):
            value, index = x[i, :, :], at[:]
            picked[i, :] = torch.ops.aten.index(value, [index, index - 6])
            grid[i, :, :] = torch.ops.aten.index(value, [index[:, None], hl.arange(2)[None, :]])
            pooled[i, :, :] = torch.nn.functional.max_pool2d(value[None, None], 2).reshape([2, 3])
            strided[i, :, :] = torch.as_strided(value, [5, 2], [3, 7], 1)
        return picked, grid, pooled, strided

    def expected(x: torch.Tensor, at: torch.Tensor) -> tuple[torch.Tensor, ...]:
        pooled = torch.nn.functional.max_pool2d(x[:, None], 2)[:, 0]
        strided = torch.stack([torch.as_strided(v.clone(), [5, 2], [3, 7], 1) for v in x.unbind()])
        return x[:, at, at - 6], x[:, at[:, None], torch.arange(2)], pooled, strided

    run_everywhere(windows, (torch.randn(2, 4, 6), torch.tensor([3, 0, 1])), expected, capabilities=[90])


def test_a_vector_is_its_own_transpose(seed):
    def products(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x[:, 0])
        for t in hl.tile(x.size(0)):
            out[t] = torch.nn.functional.linear(x[t, :], w[:]) + w[:].t().sum() + w[0].t()
        return out

    run_everywhere(
        products,
        (torch.randn(5, 16), torch.randn(16)),
        lambda x, w: x @ w + w.sum() + w[0],
        error_scale=8,
        capabilities=[90],
    )


def test_a_roll_without_dimensions_is_one_of_all_elements(seed):
    def rolled(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out, whole = torch.empty_like(x), torch.empty_like(y)
        for i in hl.grid(x.size(0)):
            out[i, :] = torch.roll(x[i, :], 1)
            whole[i, :, :] = torch.roll(y[i, :, :], -3)
        return out, whole

    def expected(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.roll(x, 1, 1), torch.stack([torch.roll(part, -3) for part in y])

    run_everywhere(rolled, (torch.randn(3, 16), torch.randn(3, 4, 8)), expected, error_scale=0, capabilities=[90])


def places_in_tiles(x: torch.Tensor, out: torch.Tensor, place: Callable[..., torch.Tensor]) -> torch.Tensor:
    for ty, tx in hl.tile(x.shape, block_size=[8, 4]):
        out[ty.id, tx.id] = place(x[ty, tx])
    return out


PLACES: list[Callable[[torch.Tensor], torch.Tensor]] = [
    lambda v: v.argmax(),
    lambda v: v.T.argmin(),
    lambda v: v.T.reshape(-1).max(0).indices,
    lambda v: torch.argmax(v, keepdim=True)[0, 0],
    lambda v: torch.stack([v, v + 1], 1).argmax(),
]


@pytest.mark.parametrize("shape", [(16, 8), (13, 10)])
def test_positions_in_a_merged_dimension_are_those_of_the_tiles_elements(shape: tuple[int, int], seed: int) -> None:
    """They were counted as in full tiles; and where Triton reordered what a reshape gives, among others."""

    def reference(x: torch.Tensor, out: torch.Tensor, place: Callable[..., torch.Tensor]) -> torch.Tensor:
        for y in range(out.size(0)):
            for c in range(out.size(1)):
                out[y, c] = place(x[8 * y : 8 * y + 8, 4 * c : 4 * c + 4])
        return out

    for place in PLACES:
        out = torch.empty([-(-shape[0] // 8), -(-shape[1] // 4)], dtype=torch.int64)
        args = (torch.randn(shape), out, place)
        run_everywhere(places_in_tiles, args, reference, configs=[{}], capabilities=[90], reference_args=args)


def scans_of_tiles(x: torch.Tensor) -> torch.Tensor:
    def larger(a, b):
        return torch.maximum(a, b)

    out = torch.empty([3, *x.shape], dtype=x.dtype, device=x.device)
    for ty, tx in hl.tile(x.shape, block_size=[8, 4]):
        flat = x[ty, tx].flatten()
        out[0, ty, tx] = (flat + 10).cumsum(0).view(ty, tx)
        out[1, ty, tx] = hl.associative_scan(larger, -flat.abs(), 0).view(ty, tx)
        out[2, ty, tx] = hl.associative_scan(larger, -flat.abs(), 0, reverse=True).view(ty, tx)
    return out


def test_scans_of_merged_dimensions_leave_padding_out(seed: int) -> None:
    """That of a partial inner tile stands between the elements, and counted."""

    def reference(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty([3, *x.shape], dtype=x.dtype)
        for y in range(0, x.size(0), 8):
            for c in range(0, x.size(1), 4):
                part = x[y : y + 8, c : c + 4]
                flat = part.flatten()
                found = [(flat + 10).cumsum(0), *[torch.cummax(-v.abs(), 0).values for v in (flat, flat.flip(0))]]
                found[2] = found[2].flip(0)
                out[:, y : y + 8, c : c + 4] = torch.stack(found).view(3, *part.shape)
        return out

    run_everywhere(scans_of_tiles, (torch.randn(13, 10),), reference, configs=[{}], capabilities=[90], error_scale=32)


def places_in_matrices(x: torch.Tensor) -> torch.Tensor:
    def larger(a, i, b, j):
        second = (b > a) | ((b == a) & (j < i))
        return torch.where(second, b, a), torch.where(second, j, i)

    out = torch.empty([2, x.size(0)], dtype=torch.int64, device=x.device)
    for t in hl.grid(x.size(0)):
        v = x[t, :, :].reshape(-1)
        out[0, t] = v.argmax()
        out[1, t] = hl.reduce(larger, (v, torch.cumsum(torch.ones_like(v), 0)), 0, other=(float("-inf"), 0.0))[1] - 1
    return out


def test_a_vector_that_is_reshaped_is_reduced_in_its_order(seed: int) -> None:
    def reference(x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1).argmax(1).expand(2, -1)

    run_everywhere(places_in_matrices, (torch.randn(3, 16, 16),), reference, configs=[{}], capabilities=[90])


@pytest.mark.compiles
@pytest.mark.softgpu(capability=90)
def test_an_index_into_a_merged_dimension_with_padding_between_is_refused(softgpu) -> None:
    @helion.kernel(config=helion.Config(block_sizes=[]))
    def first(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0), block_size=8):
            flat = torch.stack([x[t], x[t] + 1]).flatten()
            out[t] = flat.gather(0, t.index - t.begin + 9)
        return out

    with pytest.raises(exc.BackendUnsupported, match="an index into a reshaped dimension"):
        first(torch.randn(13, device=softgpu.device))
