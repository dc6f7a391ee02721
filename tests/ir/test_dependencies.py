"""Races between tiles are refused; what cannot be judged is not."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.ir.traced import traced

X = torch.ones(20, 30)


def same_place(x):
    out = torch.empty([x.size(0)])
    for tile_m, tile_n in hl.tile(x.shape, block_size=[None, 4]):
        out[tile_m] = x[tile_m, tile_n].sum(1)


def same_row(x):
    for i in hl.grid(x.size(0)):
        x[0, :] = x[i, :] * 2


def neighbour(x):
    for tile in hl.tile(x.size(0) - 1):
        x[tile, :] = x[tile + 1, :] * 2


def rows_of_another(x):
    for tile_m, tile_n in hl.tile(x.shape):
        x[tile_m, tile_n] = x[tile_m, :].sum(1)[:, None] + 0 * x[tile_m, tile_n]


@pytest.mark.parametrize(
    ("kernel", "match"),
    [
        (same_place, "every tile of loop 'tile_n' stores to the same elements of 'out'"),
        (same_row, "every tile of loop 'i' stores to the same elements of 'x'"),
        (neighbour, "a tile of 'tile' reads what another tile writes"),
        (rows_of_another, "a tile of 'tile_n' reads what another tile writes"),
    ],
    ids=lambda v: getattr(v, "__name__", None),
)
def test_a_race_is_refused(kernel, match):
    with pytest.raises(exc.LoopDependencyError, match=match) as caught:
        traced(kernel, X.clone())
    assert caught.value.location is not None


def transposes_itself(x):
    for i in hl.grid(x.size(0)):
        for t in hl.tile(i + 1, x.size(0)):
            below = x[t, i]
            x[t, i] = x[i, t]
            x[i, t] = below


def reads_a_neighbours_row(x):
    for i, t in hl.grid([x.size(0) - 2, 20]):
        x[i, t] = x[i + 2, 2 * t]


def reads_a_range(x):
    for t in hl.tile(x.size(0) - 1):
        x[t, 2:4] = x[t + 1, 2:4]


@pytest.mark.parametrize(
    ("kernel", "match"),
    [
        (transposes_itself, r"x\[t, i\] is read and x\[i, t\] stored|x\[i, t\] is read and x\[t, i\] stored"),
        (reads_a_neighbours_row, r"x\[i \+ 2, 2\*t\] is read and x\[i, t\] stored"),
        (reads_a_range, r"x\[t \+ 1, 2:4\] is read and x\[t, 2:4\] stored"),
    ],
    ids=lambda v: getattr(v, "__name__", None),
)
def test_a_race_is_told_in_the_words_of_the_source(kernel, match):
    with pytest.raises(exc.LoopDependencyError, match=match) as caught:
        traced(kernel, torch.ones(42, 42))
    assert "x.clone()" in str(caught.value)


def own_place(x):
    for tile_m, tile_n in hl.tile(x.shape):
        x[tile_m, tile_n] = x[tile_m, tile_n] + 1


def atomic(x):
    out = torch.zeros([x.size(0)])
    for tile_m, tile_n in hl.tile(x.shape):
        hl.atomic_add(out, [tile_m], x[tile_m, tile_n].sum(1))


def scattered(x, at):
    for tile in hl.tile(x.size(0)):
        x[at[tile], :] = 1


def first_tile_only(x):
    out = torch.zeros([x.size(0)])
    for tile_m, tile_n in hl.tile(x.shape):
        if tile_n.begin == 0:
            out[tile_m] = x[tile_m, tile_n].sum(1)


def own_part(x):
    for tile in hl.tile(x.size(0), block_size=4):
        for row in hl.tile(tile.begin, tile.end):
            x[row, :] = 1


def after_a_barrier(x):
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile, :] = x[tile, :]
    hl.barrier()
    for tile in hl.tile(x.size(0) - 1):
        x[tile, :] = out[tile + 1, :]


def both_read(x):
    a, b = torch.empty_like(x), torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        a[tile, :] = x[tile, :]
    for tile in hl.tile(x.size(0) - 1):
        b[tile, :] = x[tile + 1, :]


def both_count(x):
    count = torch.zeros([1])
    for tile in hl.tile(x.size(0)):
        hl.atomic_add(count, [0], x[tile, :].sum())
    for tile in hl.tile(x.size(1)):
        hl.atomic_add(count, [0], x[:, tile].sum())


@pytest.mark.parametrize(
    "kernel",
    [own_place, atomic, first_tile_only, own_part, after_a_barrier, both_read, both_count],
    ids=lambda k: k.__name__,
)
def test_tiles_that_keep_apart_are_accepted(kernel):
    traced(kernel, X.clone())


def test_stores_through_an_index_are_the_users_business():
    traced(scattered, X.clone(), torch.arange(20))


def reads_what_was_stored(x):
    out, other = torch.empty_like(x), torch.empty([x.size(0)])
    for tile in hl.tile(x.size(0)):
        out[tile, :] = x[tile, :]
    for tile in hl.tile(x.size(0) - 1):
        other[tile] = out[tile + 1, 0]


def stores_what_was_read(x):
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile, :] = x[tile, :]
    for tile in hl.tile(x.size(0)):
        x[tile, :] = 0.0


def stores_twice_through_a_view(x):
    flat = x.view(-1)
    for tile in hl.tile(x.size(0)):
        x[tile, :] = 1.0
    for tile in hl.tile(flat.size(0)):
        flat[tile] = 0.0


def reads_a_count(x):
    count = torch.zeros([1])
    for tile in hl.tile(x.size(0)):
        hl.atomic_add(count, [0], x[tile, :].sum())
    for tile in hl.tile(x.size(0)):
        for inner in hl.tile(tile.begin, tile.end):
            x[inner, 0] = count[0] + hl.zeros([inner])


def barrier_before_the_wrong_one(x):
    out, other = torch.empty_like(x), torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        other[tile, :] = x[tile, :]
    hl.barrier()
    for tile in hl.tile(x.size(0)):
        out[tile, :] = other[tile, :]
    for tile in hl.tile(x.size(0)):
        other[tile, :] = 0.0


def two_parts_that_meet(x):
    out = torch.empty_like(x)
    left, right = out[:, :3], out[:, 2:]
    for tile in hl.tile(x.size(0)):
        left[tile, :] = x[tile, :3]
    for tile in hl.tile(x.size(0)):
        right[tile, :] = x[tile, 2:]


def behind_dots(x):
    out = torch.empty([*x.shape, 4])
    for tile in hl.tile(x.size(0)):
        out[..., 3] = 1.0
    for tile in hl.tile(x.size(0)):
        out[tile, 4, 3] = x[tile, 0]


@pytest.mark.parametrize(
    ("kernel", "match"),
    [
        (reads_what_was_stored, "'out' is read here and stored to in an earlier top-level loop"),
        (stores_what_was_read, "'x' is stored to here and read in an earlier top-level loop"),
        (stores_twice_through_a_view, "'flat' is stored to here and stored to in an earlier"),
        (reads_a_count, "'count' is read here and updated in an earlier"),
        (barrier_before_the_wrong_one, "'other' is stored to here and read in an earlier"),
        (two_parts_that_meet, "'right' is stored to here and stored to in an earlier"),
        (behind_dots, "'out' is stored to here and stored to in an earlier"),
    ],
    ids=lambda v: getattr(v, "__name__", None),
)
def test_loops_of_one_phase_must_be_independent(kernel, match):
    with pytest.raises(exc.LoopDependencyError, match=match) as caught:
        traced(kernel, X.clone())
    assert caught.value.location is not None
    assert "hl.barrier()" in str(caught.value)


def two_parts(x):
    out = torch.empty_like(x)
    left, right = out[:, :3], out[:, 3:]
    for tile in hl.tile(x.size(0)):
        left[tile, :] = x[tile, :3]
    for tile in hl.tile(x.size(0)):
        right[tile, :] = x[tile, 3:]


def two_slices(x):
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile, 1:3] = x[tile, 1:3]
    for tile in hl.tile(x.size(0)):
        out[tile, 3:] = x[tile, 3:]
    for tile in hl.tile(x.size(0)):
        out[tile, 0] = x[tile, 0]


def two_ranges(x):
    out = torch.empty_like(x)
    for tile in hl.tile(0, 2):
        out[tile, :] = x[tile, :]
    for tile in hl.tile(2, x.size(0)):
        out[tile, :] = x[tile, :] * 2


@pytest.mark.parametrize("kernel", [two_parts, two_slices, two_ranges], ids=lambda k: k.__name__)
def test_loops_of_one_phase_may_store_to_parts_that_are_apart(kernel):
    traced(kernel, X.clone())


def view_of_itself(x):
    below = x[1:, :]
    for tile in hl.tile(below.size(0)):
        below[tile, :] = x[tile, :] + 1


def two_views(x):
    first, second = x[:-1, :], x[1:, :]
    for tile in hl.tile(first.size(0)):
        first[tile, :] = 1.0
        second[tile, :] = 2.0


def one_dimension_more(x):
    for tile in hl.tile(x.size(0) - 1):
        x[tile, None, :] = x[tile + 1, :][:, None, :] * 2


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("kernel", [view_of_itself, two_views, one_dimension_more], ids=lambda k: k.__name__)
def test_a_race_through_two_views_of_a_tensor_is_refused(kernel, static):
    with pytest.raises(exc.LoopDependencyError):
        traced(kernel, X.clone(), static_shapes=static)


def halves(x):
    half = x.size(1) // 2
    left, right = x[:, :half], x[:, half:]
    for tile in hl.tile(x.size(0)):
        left[tile, :] = right[tile, :] * 2
        right[tile, :] = 1.0


def transposed(x):
    other = x.T
    for tile_m, tile_n in hl.tile(x.shape):
        other[tile_n, tile_m] = x[tile_m, tile_n].T + 1


def interleaved(x):
    even, odd = x[:, ::2], x[:, 1::2]
    for tile_m, tile_n in hl.tile(even.shape):
        even[tile_m, tile_n] = odd[tile_m, tile_n]


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("kernel", [halves, transposed], ids=lambda k: k.__name__)
def test_views_that_keep_apart_or_meet_in_one_tile_are_accepted(kernel, static):
    traced(kernel, X.clone(), static_shapes=static)


def test_views_between_each_others_elements_are_accepted():
    traced(interleaved, X.clone())


def grouped(x, w, offsets):
    out = torch.zeros([x.size(0), w.size(2)], dtype=x.dtype, device=x.device)
    for group in hl.grid(w.size(0)):
        for rows in hl.tile(offsets[group], offsets[group + 1]):
            out[rows, :] = x[rows, :] @ w[group, :, :]
    return out


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("lengths", [[1], [0, 1], [1, 0], [1, 1], [3, 0, 2]])
def test_groups_of_rows_that_are_data_may_have_one_row_in_all(lengths: list[int], static: bool) -> None:
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    x, w = torch.randn(sum(lengths), 4), torch.randn(len(lengths), 4, 8)
    expected = torch.cat([part @ w[i] for i, part in enumerate(x.split(lengths))])
    torch.testing.assert_close(helion.kernel(grouped, static_shapes=static)(x, w, offsets), expected)


def places_of_rows(x, n):
    out = torch.zeros_like(x)
    for rows in hl.tile(n):
        out[rows, :] = x[rows, :] + rows.index[:, None]
    return out


def test_a_loop_that_an_argument_makes_one_index_long_stores_to_one_row() -> None:
    kernel = helion.kernel(places_of_rows)
    one, two = torch.randn(1, 4), torch.randn(2, 4)
    assert torch.equal(kernel(one, 1), one)
    assert torch.equal(kernel(two, 2), two + torch.arange(2)[:, None])
    with pytest.raises(exc.LoopDependencyError, match="every tile of 'rows' stores to the one element"):
        kernel(one, 2)
    assert torch.equal(kernel(one, 1), one)


def colours(x, of_views):
    even, odd = (x[::2], x[1::2]) if of_views else (x, x)
    for t in hl.tile(odd.size(0) - 1):
        odd[t, :] = even[t, :] + even[t + 1, :]
    hl.barrier()
    for t in hl.tile(1, even.size(0)):
        even[t, :] = odd[t - 1, :] + odd[t, :]


def test_phases_that_take_turns_in_one_tensor_are_told_what_works():
    x = torch.zeros(8, 6)
    with pytest.raises(exc.LoopDependencyError, match=r"even, odd = .*\[::2\]"):
        traced(colours, x, False)
    traced(colours, x, True)
