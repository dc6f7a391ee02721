"""Parts of device values: integers, slices, numbers of the kernel and index tensors, in every mode."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere

SMALL = helion.Config(block_sizes=[4])


def everywhere(kernel, args, expected, **options):
    kernel = helion.kernel(kernel, config=SMALL)
    options = {"capabilities": [80], "configs": [SMALL], "error_scale": 0, **options}
    run_everywhere(kernel, args, expected, reference_args=args, **options)


def indexed(x: torch.Tensor, index: hl.constexpr, shape: hl.constexpr) -> torch.Tensor:
    out = x.new_empty(x.size(0), *shape)
    for tile in hl.tile(x.size(0)):
        value = x[tile, :, :]
        out[(tile, *[slice(None)] * len(shape))] = value[index]
    return out


INDICES = [
    (slice(None), 0),
    (slice(None), -1),
    (slice(None), 1, -2),
    (..., 3),
    (slice(None), slice(1, 3)),
    (slice(None), slice(None, None, 2), slice(-4, -1)),
    (..., slice(2, 99)),
    (slice(None), None, 2, ..., None),
    (slice(None), slice(None), slice(1, 2)),
    (slice(None), 1, slice(None, None, 3)),
    (),
    ...,
]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_constants_mean_what_they_mean_in_pytorch(index):
    x = torch.randn(7, 4, 6)
    shape = tuple(x[index].shape[1:])
    everywhere(indexed, (x, index, shape), lambda x, index, shape: x[index])


@pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.bfloat16, torch.float64], ids=str)
def test_dtypes(dtype):
    x = (torch.arange(7 * 4 * 6).reshape(7, 4, 6) % 7 - 3).to(dtype)
    everywhere(indexed, (x, (slice(None), -2, slice(1, 4)), (3,)), lambda x, index, shape: x[index])


def no_elements(x: torch.Tensor) -> torch.Tensor:
    out = x.new_empty(x.size(0))
    for tile in hl.tile(x.size(0)):
        out[tile] = x[tile, :][:, 5:2].sum(1) + 3
    return out


def test_a_slice_without_elements():
    everywhere(no_elements, (torch.randn(7, 6),), lambda x: torch.full((7,), 3.0))


def by_numbers(x: torch.Tensor, places: torch.Tensor, j: int) -> torch.Tensor:
    out = x.new_empty(5, x.size(0))
    for tile in hl.tile(x.size(0)):
        value = x[tile, :]
        out[0, tile] = value[:, j]
        out[1, tile] = value[:, places[0]]
        out[2, tile] = value[:, tile.id]
        out[3, tile] = value[:, j : j + 2].sum(1)
        begin = places[0]
        out[4, tile] = value[:, begin : begin + 3].amax(1)
    return out


@pytest.mark.parametrize("j", [0, 3, 4])
def test_numbers_of_the_kernel(j):
    x, places = torch.randn(7, 6), torch.tensor([2])

    def expected(x, places, j):
        by_id = torch.cat([x[:4, 0], x[4:, 1]])
        return torch.stack([x[:, j], x[:, 2], by_id, x[:, j : j + 2].sum(1), x[:, 2:5].amax(1)])

    everywhere(by_numbers, (x, places, j), expected)


def outside(x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    out = x.new_empty(x.size(0), 4)
    for tile in hl.tile(x.size(0)):
        begin = places[0]
        out[tile, :] = (x[tile, :] + 10)[:, begin : begin + 4]
    return out


@pytest.mark.parametrize("j", [-2, 4, 9])
def test_lanes_of_a_slice_outside_of_the_value_are_zero(j):
    x = torch.randn(7, 6)
    padded = torch.cat([torch.zeros(7, 9), x + 10, torch.zeros(7, 9)], 1)
    everywhere(outside, (x, torch.tensor([j])), lambda x, places: padded[:, 9 + j : 13 + j])


def from_the_end(x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    out = x.new_empty(3, x.size(0))
    for tile in hl.tile(x.size(0)):
        value = x[tile, :]
        out[0, tile] = value[:, places[0]]
        out[1, tile] = value[:, places[:]].sum(1)
        out[2, tile] = value.T[places[1], :]
    return out


def test_loaded_places_below_zero_count_from_the_end():
    x, places = torch.randn(7, 6), torch.tensor([-1, -6])
    everywhere(from_the_end, (x, places), lambda x, places: torch.stack([x[:, -1], x[:, -1] + x[:, 0], x[:, 0]]))


def gathered(
    x: torch.Tensor, rows: torch.Tensor, cols: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    one, pairs, apart = x.new_empty(8, 3, 8), x.new_empty(8, 3), x.new_empty(3, 8)
    for tile in hl.tile(8):
        value = x[tile, :, :]
        one[tile, :, :] = value[:, rows[:]]
        pairs[tile, :] = value[:, rows[:], cols[:]]
        apart[:, tile] = value.permute(1, 0, 2)[rows[:], :, cols[:]]
    return one, pairs, apart


def test_index_tensors():
    x, rows, cols = torch.randn(8, 4, 8), torch.tensor([0, 3, 1]), torch.tensor([7, 0, 2])

    def expected(x, rows, cols):
        return x[:, rows], x[:, rows, cols], x.permute(1, 0, 2)[rows, :, cols]

    everywhere(gathered, (x, rows, cols), expected)


def carried(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        state = x[tile, :]
        for i in hl.grid(3):
            state = state + state[:, i, None] - state[:, 1:2]
        out[tile, :] = state
    return out


def test_parts_in_a_loop():
    def expected(x):
        for i in range(3):
            x = x + x[:, i, None] - x[:, 1:2]
        return x

    everywhere(carried, (torch.randint(-9, 9, (7, 6)).float(),), expected)


def store_value(kernel_index):
    def kernel(x: torch.Tensor, index: hl.constexpr) -> torch.Tensor:
        out = torch.zeros_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile, :] = x[tile, :] + x[tile, :][index].sum()
        return out

    return kernel


MODES = [{}, {"ref_mode": helion.RefMode.EAGER}]


@pytest.mark.parametrize("mode", MODES, ids=["tiles", "ref"])
@pytest.mark.parametrize("index, error, says", [
    ((0,), exc.InvalidAPIUsage, "dimension 0 .* is a tile's"),
    ((slice(0, 2),), exc.InvalidAPIUsage, "dimension 0 .* is a tile's"),
    ((slice(None), 6), exc.IndexOutOfRange, "dimension 1 has size 6"),
    ((slice(None), -7), exc.IndexOutOfRange, "dimension 1 has size 6"),
    ((slice(None), slice(None, None, -1)), exc.InvalidAPIUsage, "steps must be positive"),
    ((slice(None), True), exc.InvalidAPIUsage, "no index of type bool"),
    ((slice(None), [0, 2]), exc.InvalidAPIUsage, "torch.stack"),
    ((slice(None), 0.5), exc.InvalidAPIUsage, "no index of type float"),
    ((slice(None), 0, 0), exc.RankMismatch, "expected 2"),
    ((..., ...), exc.TypeInferenceError, "only one"),
], ids=str)  # fmt: skip
def test_what_cannot_be(mode, index, error, says):
    kernel = helion.kernel(store_value(index), config=SMALL, **mode)
    with pytest.raises(error, match=f"(?s){says}"):
        kernel(torch.randn(7, 6), index)


def through_the_method(x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros([2, x.size(1)], dtype=x.dtype, device=x.device)
    for _ in hl.grid(1):
        out[:, :] = torch.Tensor.__getitem__(x[:, :], [1, 2])
    return out


def test_a_list_given_to_the_method_is_one_index():
    """It was taken for one index a dimension, so that this read x[1, 2]."""
    with pytest.raises(exc.InvalidAPIUsage, match="no index of type list"):
        helion.kernel(through_the_method, config=SMALL)(torch.randn(7, 6))


def indexed_by_a_tile(x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(x)
    for tile in hl.tile(x.size(0)):
        value = x[tile, :]
        out[tile, :] = value[tile, :]
    return out


@pytest.mark.parametrize("mode", MODES, ids=["tiles", "ref"])
def test_a_tile_is_no_index_of_a_value(mode):
    with pytest.raises(exc.InvalidAPIUsage, match="loaded so has the tile's elements already"):
        helion.kernel(indexed_by_a_tile, config=SMALL, **mode)(torch.randn(7, 6))


def masked(x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(x)
    for tile in hl.tile(x.size(0)):
        value = x[tile, :]
        out[tile, :] = hl.load(value, [slice(None), slice(None)], extra_mask=value > 0)
    return out


@pytest.mark.parametrize("mode", MODES, ids=["tiles", "ref"])
def test_bytes_are_no_index(mode):
    with pytest.raises(exc.InvalidAPIUsage, match="uint8 is not an index"):
        helion.kernel(from_the_end, config=SMALL, **mode)(torch.randn(7, 6), torch.tensor([1, 0], dtype=torch.uint8))


@pytest.mark.parametrize("mode", MODES, ids=["tiles", "ref"])
def test_a_load_of_a_value_has_no_mask(mode):
    with pytest.raises(exc.InvalidAPIUsage, match="no extra_mask"):
        helion.kernel(masked, config=SMALL, **mode)(torch.randn(7, 6))


@pytest.mark.parametrize("mode", MODES, ids=["tiles", "ref"])
def test_places_out_of_range_without_a_gpu(mode):
    kernel = helion.kernel(from_the_end, config=SMALL, **mode)
    with pytest.raises(exc.IndexOutOfRange):
        kernel(torch.randn(7, 6), torch.tensor([-1, 6]))


def test_sizes_that_vary_ask_for_specialize():
    kernel = helion.kernel(store_value(None), config=SMALL, static_shapes=False)
    with pytest.raises(exc.InvalidAPIUsage, match=r"(?s)varies from call to call.*hl.specialize\(x.size\(1\)\)"):
        kernel(torch.randn(7, 6), (slice(None), 0))


@pytest.mark.parametrize("mode", MODES, ids=["compiled", "ref"])
@pytest.mark.parametrize("static_shapes", [True, False])
def test_a_store_to_an_expanded_dimension_is_refused_and_the_advice_works(mode, static_shapes, seed):
    @helion.kernel(config=helion.Config(block_sizes=[4, 4]), static_shapes=static_shapes, **mode)
    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        for t, s in hl.tile(b.shape):
            a[t, s] = b[t, s] * 2
        return a

    b = torch.randn(6, 5)
    for shape in ((6, 1), (1, 5)):
        expanded = torch.zeros(shape).expand(6, 5)
        with pytest.raises(exc.InvalidAPIUsage, match=r"dimension [01] was expanded.*[\s\S]*\.contiguous\(\)"):
            kernel(expanded, b)
        assert torch.equal(expanded, torch.zeros(6, 5))
        assert torch.equal(kernel(expanded.contiguous(), b), b * 2)


def test_one_element_of_an_expanded_dimension_may_be_stored(seed):
    @helion.kernel(config=helion.Config(block_sizes=[4]))
    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        for t in hl.tile(b.size(0)):
            a[t, 2] = b[t] * 2
        return a

    b = torch.randn(6)
    assert torch.equal(kernel(torch.zeros(6, 1).expand(6, 5), b), (b * 2)[:, None].expand(6, 5))
