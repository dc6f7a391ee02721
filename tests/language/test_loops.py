"""Loops in ref mode: what tiles cover, their attributes, nesting, data-dependent and ragged bounds."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from helion.fragments import IntegerFragment
from tests.support import run_everywhere


def cover(x):
    for tm, tn in hl.tile(list(x.shape)):
        x[tm, tn] += 1
    return x


@pytest.mark.parametrize("shape", [(1, 1), (3, 127), (129, 5), (0, 4), (100, 0)])
def test_tiles_cover_every_element_once(ref, blocks, shape):
    assert torch.equal(ref(cover, torch.zeros(shape), config=blocks), torch.ones(shape))


def test_a_range_with_a_begin_leaves_the_rest_alone(ref, blocks):
    def kernel(x, begin, end):
        for t in hl.tile(begin, end):
            x[t] = t.index.to(x.dtype)
        return x

    got = ref(kernel, torch.full((20,), -1.0), 3, 17, config=blocks)
    assert got.tolist() == [-1.0] * 3 + list(range(3, 17)) + [-1.0] * 3


def test_block_size_is_the_users_when_given(ref):
    seen = []

    def kernel(x):
        for t in hl.tile(x.size(0), block_size=6):
            seen.append((int(t.begin), int(t.end), int(t.id), int(t.count), int(t.block_size)))
            x[t] = 0
        return x

    ref(kernel, torch.empty(14), config={"block_sizes": [2]})
    assert seen == [(0, 6, 0, 3, 6), (6, 12, 1, 3, 6), (12, 14, 2, 3, 6)]


def test_tile_functions_equal_the_attributes(ref):
    def kernel(x):
        for t in hl.tile(3, x.size(0)):
            x[t] = 0
            assert hl.tile_begin(t) == t.begin and hl.tile_end(t) == t.end
            assert hl.tile_block_size(t) == t.block_size and hl.tile_id(t) == t.id
            assert torch.equal(hl.tile_index(t), t.index)
            assert t.index.dtype is torch.int32
        return x

    ref(kernel, torch.empty(40))


def test_one_list_bound_gives_a_tuple_of_one(ref):
    def kernel(x):
        for (t,) in hl.tile([x.size(0)]):
            x[t] = 1
        return x

    assert ref(kernel, torch.zeros(5)).sum() == 5


def test_lists_of_begins_ends_and_block_sizes_pair_up(ref):
    seen = []

    def kernel(x):
        for a, b in hl.tile([1, 2], [4, 6], block_size=[2, 3]):
            seen.append((int(a.begin), int(a.end), int(b.begin), int(b.end)))
            x[a, b] = 1
        return x

    got = ref(kernel, torch.zeros(5, 8))
    assert seen == [(1, 3, 2, 5), (1, 3, 5, 6), (3, 4, 2, 5), (3, 4, 5, 6)]
    assert got.sum() == 12


def test_a_shifted_tile_indexes_its_neighbours(ref, blocks):
    def kernel(x):
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            out[t] = x[t - 1] + x[t] + x[1 + t]
        return out

    x = torch.arange(37.0)
    padded = torch.nn.functional.pad(x, (1, 1))
    assert torch.equal(ref(kernel, x, config=blocks), padded[:-2] + padded[1:-1] + padded[2:])


def test_the_index_of_a_shifted_tile_is_shifted(ref):
    def kernel(x):
        for t in hl.tile(x.size(0)):
            x[t] = (t + 10).index
        return x

    assert ref(kernel, torch.empty(5, dtype=torch.int32)).tolist() == [10, 11, 12, 13, 14]


def test_nested_loops_accumulate_over_the_inner_one(ref, blocks):
    def kernel(x):
        out = torch.empty(x.size(0), dtype=torch.float64)
        for tm in hl.tile(x.size(0)):
            acc = hl.zeros([tm], dtype=torch.float64)
            for tn in hl.tile(x.size(1)):
                acc += x[tm, tn].sum(-1)
            out[tm] = acc
        return out

    x = torch.randn(33, 70, dtype=torch.float64)
    torch.testing.assert_close(ref(kernel, x, config=blocks), x.sum(1))


def test_a_tile_inside_a_tile_runs_over_its_bounds(ref, blocks):
    def kernel(x):
        for outer in hl.tile(x.size(0), block_size=16):
            for inner in hl.tile(outer.begin, outer.end):
                x[inner] += inner.index.to(x.dtype)
        return x

    assert torch.equal(ref(kernel, torch.zeros(50), config=blocks), torch.arange(50.0))


def test_bounds_may_be_loaded_from_tensors(ref, blocks):
    def segment_sum(x, starts, ends):
        out = torch.zeros(starts.size(0))
        for i in hl.grid(starts.size(0)):
            acc = hl.zeros([])
            for t in hl.tile(starts[i], ends[i]):
                acc = acc + x[t].sum()
            out[i] = acc
        return out

    x = torch.randn(100)
    starts, ends = torch.tensor([0, 10, 40, 40]), torch.tensor([10, 40, 40, 100])
    expected = torch.stack([x[a:b].sum() for a, b in zip(starts, ends, strict=True)])
    torch.testing.assert_close(ref(segment_sum, x, starts, ends, config=blocks), expected)


def test_grid_gives_scalars_with_steps_over_several_dimensions(ref):
    seen = []

    def kernel(x):
        for i, j in hl.grid([1, 0], [4, 5], [1, 2]):
            seen.append((int(i), int(j)))
            x[i, j] = 1
        return x

    got = ref(kernel, torch.zeros(4, 6))
    assert seen == [(i, j) for i in range(1, 4) for j in range(0, 5, 2)]
    assert got.sum() == 9


def test_several_top_level_loops_run_one_after_the_other(ref, blocks):
    def kernel(x):
        partial = torch.empty(hl.register_block_size(8), x.size(1))
        for t in hl.tile(x.size(1)):
            partial[0, t] = x[:, t].sum(0)
        hl.barrier()
        for t in hl.tile(x.size(1)):
            x[0, t] = partial[0, t]
        return x

    x = torch.randn(5, 30)
    expected = x.sum(0)
    torch.testing.assert_close(ref(kernel, x, config=blocks)[0], expected)


def test_static_range_and_range_run_in_python(ref):
    def kernel(x):
        for t in hl.tile(x.size(0)):
            acc = hl.zeros([t])
            for i in hl.static_range(1, 6, 2):
                acc += x[t] * i
            for i in range(2):
                acc += i
            x[t] = acc
        return x

    assert ref(kernel, torch.ones(3)).tolist() == [10.0] * 3


def test_jagged_tiles_stay_inside_each_row(ref, blocks):
    def row_sums(data, offsets):
        rows = offsets.size(0) - 1
        out = torch.empty(rows)
        for t in hl.tile(rows):
            starts = offsets[t]
            lengths = offsets[t.index + 1] - starts
            acc = hl.zeros([t])
            for k in hl.jagged_tile(lengths):
                acc = acc + data[starts[:, None] + k.index[None, :]].sum(1)
            out[t] = acc
        return out

    lengths = torch.tensor([3, 0, 50, 1, 17, 0])
    offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    data = torch.randn(int(offsets[-1]))
    expected = torch.stack([part.sum() for part in data.split(lengths.tolist())])
    torch.testing.assert_close(ref(row_sums, data, offsets, config=blocks), expected)


def test_jagged_stores_do_not_touch_other_rows(ref, blocks):
    def fill(x, lengths):
        for t in hl.tile(x.size(0)):
            for k in hl.jagged_tile(lengths[t]):
                x[t, k] = 1.0
        return x

    lengths = torch.tensor([3, 0, 9, 5])
    got = ref(fill, torch.zeros(4, 9), lengths, config=blocks)
    assert torch.equal(got, (torch.arange(9) < lengths[:, None]).float())


def test_jagged_dimensions_in_the_other_order_are_masked_too(ref, blocks):
    def fill(x, lengths):
        for t in hl.tile(x.size(1)):
            for k in hl.jagged_tile(lengths[t]):
                hl.atomic_add(x, [k, t], 1.0)
        return x

    lengths = torch.tensor([3, 0, 9, 5])
    got = ref(fill, torch.zeros(9, 4), lengths, config=blocks)
    assert torch.equal(got, (torch.arange(9)[:, None] < lengths).float())


def test_a_registered_block_size_is_one_number_in_all_its_loops(ref):
    def kernel(x):
        block = hl.register_block_size(4, 64)
        partial = torch.zeros((x.size(0) + block - 1) // block)
        for t in hl.tile(x.size(0), block_size=block):
            partial[t.id] = (x[t] + hl.zeros([block])).sum()
        return partial

    x = torch.randn(21)
    got = ref(kernel, x, config={"block_sizes": [8]})
    torch.testing.assert_close(got, torch.stack([p.sum() for p in x.split(8)]))


def test_tile_begin_divided_by_block_size_is_the_id_for_the_last_partial_tile(ref):
    def kernel(x):
        out = torch.zeros(4, dtype=torch.int64)
        for t in hl.tile(x.size(0), block_size=8):
            out[t.begin // t.block_size] = t.id
            assert list(hl.zeros([t.block_size * 2]).shape) == [2 * (int(t.end) - int(t.begin))]
        return out

    assert ref(kernel, torch.zeros(27)).tolist() == [0, 1, 2, 3]


def test_register_tunable_takes_the_config_or_the_default(ref):
    def kernel(x):
        split = hl.register_tunable("split", IntegerFragment(1, 8, 3))
        for t in hl.tile(x.size(0)):
            x[t] = split
        return x

    assert ref(kernel, torch.empty(2)).tolist() == [3, 3]
    assert ref(kernel, torch.empty(2), config={"split": 5}).tolist() == [5, 5]


def test_specialize_gives_the_value_back(ref):
    def kernel(x):
        n, (a, b) = hl.specialize(x.size(0)), hl.specialize((x.size(0), x.stride(0)))
        for t in hl.tile(n):
            x[t] = a + b
        return x

    assert ref(kernel, torch.empty(3)).tolist() == [4, 4, 4]


@pytest.mark.parametrize(
    ("bounds", "error", "text"),
    [
        (lambda: hl.tile(None), exc.InvalidTileRange, "NoneType"),
        (lambda: hl.tile(2.0), exc.InvalidTileRange, "float"),
        (lambda: hl.tile([]), exc.InvalidTileRange, "empty"),
        (lambda: hl.tile([1, 2], 3), exc.InvalidTileRange, "both"),
        (lambda: hl.tile([1, 2], [3, 4, 5]), exc.InvalidTileRange, "begin has 2 entries for 3"),
        (lambda: hl.tile([4, 4], block_size=[2]), exc.InvalidTileRange, "block_size has 1 entries for 2"),
        (lambda: hl.tile(4, block_size=0), exc.InvalidTileRange, "must be positive"),
        (lambda: hl.grid(4, None), exc.InvalidTileRange, "end is None"),
        (lambda: hl.static_range(torch.tensor(3)), exc.SizeNotConstant, "static_range"),
        (lambda: hl.jagged_tile(torch.tensor(3)), exc.InvalidAPIUsage, "use hl.tile"),
        (lambda: hl.register_block_size(8, 4), exc.InvalidAPIUsage, "below the minimum"),
        (lambda: hl.register_tunable("a b", IntegerFragment(1, 2)), exc.InvalidAPIUsage, "identifier"),
        (lambda: hl.register_tunable("a", 3), exc.InvalidAPIUsage, "not a fragment"),
        (lambda: hl.specialize("a"), exc.InvalidAPIUsage, "takes integers"),
        (lambda: hl.constexpr(torch.ones(3)), exc.InvalidAPIUsage, "got a tensor"),
    ],
)
def test_wrong_loops_and_sizes_are_errors(ref, bounds, error, text):
    def kernel(x):
        bounds()

    with pytest.raises(error, match=text):
        ref(kernel, torch.zeros(1))


def backwards(x):
    for t in hl.tile([0, 9], [2, 4]):
        x[t[0], t[1]] = 1.0
    return x


def backwards_by_size(x):
    for t in hl.tile(9, x.size(0)):
        x[t] = 1.0
    return x


@pytest.mark.parametrize("mode", [helion.RefMode.OFF, helion.RefMode.EAGER])
def test_a_range_that_ends_before_it_begins_is_an_error_between_two_numbers_alone(mode):
    with pytest.raises(exc.InvalidTileRange, match="begin=9, end=4"):
        helion.kernel(backwards, ref_mode=mode)(torch.zeros(20, 20))
    assert not helion.kernel(backwards_by_size, ref_mode=mode, autotune_effort="none")(torch.zeros(4)).any()


def test_a_tile_as_a_bound_is_an_error(ref):
    def kernel(x):
        for t in hl.tile(4):
            for _ in hl.tile(t):
                x[t] = 0

    with pytest.raises(exc.TileOfTile, match="was given a tile"):
        ref(kernel, torch.zeros(4))


def test_breaking_out_of_a_loop_leaves_device_code(ref):
    def kernel(x):
        for t in hl.tile(x.size(0), block_size=2):
            x[t] = 1
            break
        return x.clone()

    assert ref(kernel, torch.zeros(6)).tolist() == [1, 1, 0, 0, 0, 0]


def ends_by_keyword(x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(x)
    for t in hl.tile(end=x.size(0)):
        for j in hl.grid(end=x.size(1)):
            out[t, j] = x[t, j] + 1
    return out


def test_a_loops_end_may_be_a_keyword():
    run_everywhere(ends_by_keyword, (torch.randn(20, 3),), lambda x: x + 1, capabilities=[90])


def test_a_loop_without_an_end_is_refused(ref):
    def kernel(x):
        for t in hl.tile(block_size=4):
            x[t] = 1.0

    for run in (ref, lambda function, x: helion.kernel(function)(x)):
        with pytest.raises(exc.InvalidTileRange, match=r"hl\.tile: it has no end\n(.*\n)*.*hl\.tile\(end\)"):
            run(kernel, torch.ones(3))


def decayed_sums(x: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(x)
    for row in hl.grid(offsets.size(0) - 1):
        total = hl.zeros([], dtype=x.dtype)
        for k in hl.grid(offsets[row], offsets[row + 1]):
            total = 0.5 * total + x[k]
            out[k] = total
    return out


def test_places_of_a_range_whose_bounds_are_loaded_may_be_stored_to():
    """As tiles of such a range may: that the rows' ranges are apart is the user's to see to."""
    x = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    expected = torch.tensor([1.0, 2.5, 4.0, 10.0, 21.0, 42.5])
    args = (x, torch.tensor([0, 2, 2, 6]))
    run_everywhere(decayed_sums, args, lambda *_: expected, configs=[{}], reference_args=args, capabilities=[90])


@pytest.mark.parametrize("inner", [False, True])
def test_an_int_argument_is_a_step(inner: bool) -> None:
    def every(x: torch.Tensor, step: int) -> torch.Tensor:
        out = torch.zeros([(x.size(0) + step - 1) // step], device=x.device)
        if inner:
            for _ in hl.grid(1):
                for i in hl.grid(0, x.size(0), step):
                    out[i // step] = x[i]
        else:
            for i in hl.grid(0, x.size(0), step):
                out[i // step] = x[i]
        return out

    kernel = helion.kernel(every, config=helion.Config())
    for step in (3, 1):
        run_everywhere(kernel, (torch.randn(10), step), lambda x, step: x[::step], capabilities=[90])


def test_an_int_argument_that_is_no_step_is_refused() -> None:
    def every(x: torch.Tensor, step: int) -> torch.Tensor:
        out = torch.zeros_like(x)
        for i in hl.grid(0, x.size(0), step):
            out[i] = x[i]
        return out

    with pytest.raises(exc.InvalidTileRange, match="must be positive"):
        helion.kernel(every, config=helion.Config())(torch.randn(10), -1)
