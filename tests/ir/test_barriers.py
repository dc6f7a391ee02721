"""Where barriers stand inside a program, and where none is needed."""

from __future__ import annotations

import pytest
import torch

import helion.language as hl
from helion.ir.barriers import Barriers
from helion.ir.barriers import find_barriers
from tests.ir.traced import traced

X = torch.ones(8, 16)


def barriers(kernel, *args, one_thread_each=True) -> Barriers:
    ir = traced(kernel, *args).device
    (root,) = ir.roots
    return find_barriers(ir, ir.graphs[root.graph_id], lambda load: one_thread_each)


def before(found: Barriers) -> list[str]:
    return sorted(str(getattr(node.target, "__name__", node.target)) for node in found.before)


def in_place(x):
    for tile_m, tile_n in hl.tile(x.shape):
        x[tile_m, tile_n] = torch.where(x[tile_m, tile_n] > 0, x[tile_m, tile_n] * 2, 1.0)


def in_place_in_a_loop(x):
    for i in hl.grid(x.size(0)):
        for tile in hl.tile(x.size(1)):
            x[i, tile] = x[i, tile] + 1


def constant_columns(x):
    for i in hl.grid(x.size(0)):
        x[i, 0] = 1.0
        x[i, 1] = x[i, 2] + 1
        x[i, 8:] = x[i, 3:7].sum()


def neighbours_of_one_iteration(x):
    for i in hl.grid(x.size(0)):
        for j in hl.grid(4):
            x[i, 2 * j] = 1.0


def shifted_tiles(x):
    half = x.size(1) // 2
    for i, tile in hl.tile([x.size(0), half]):
        x[i, tile] = 1.0
        x[i, tile + half] = 2.0


def meeting_loops(x, ends):
    for i in hl.grid(x.size(0)):
        end = ends[i]
        for tile in hl.tile(0, end):
            x[i, tile] = 1.0
        for tile in hl.tile(end, 16):
            x[i, tile] = 2.0


def repeated_store(x):
    for tile in hl.tile(x.size(0)):
        for k in hl.grid(3):
            x[tile, 0] = hl.full([tile], 1.0) * k


def atomics(x):
    for tile in hl.tile(x.size(0)):
        hl.atomic_add(x, [tile, 0], 1.0)
        hl.atomic_add(x, [tile, 0], 2.0)


def halves(x):
    first, second = x[:, :8], x[:, 8:]
    left, right = first[0], second[7]
    for tile in hl.tile(8):
        left[tile] = right[tile] * 2


@pytest.mark.parametrize(
    "kernel",
    [in_place, in_place_in_a_loop, constant_columns, neighbours_of_one_iteration, shifted_tiles, repeated_store]
    + [atomics, halves],
    ids=lambda f: f.__name__,
)
def test_none_is_needed_where_elements_or_threads_are_known(kernel):
    assert not barriers(kernel, X.clone())


def test_none_is_needed_between_loops_that_meet_at_a_loaded_bound():
    assert not barriers(meeting_loops, X.clone(), torch.ones(8, dtype=torch.int32))


def test_an_update_in_place_needs_one_where_threads_share_elements():
    assert before(barriers(in_place, X.clone(), one_thread_each=False)) == ["store"]


def other_lanes(x):
    for tile in hl.tile(x.size(0)):
        x[tile, :] = 1.0
        x[tile, 0] = x[tile, :].sum(1)


def square(x):
    for b in hl.grid(1):
        x[:, :] = x[:, :].T + b


def repeated_index(x):
    for i in hl.grid(x.size(0)):
        index = hl.arange(16) // 2
        x[i, index] = x[i, index] + 1


def moved_index(x):
    for i in hl.grid(x.size(0)):
        for j in hl.grid(8):
            x[i, j + 1] = x[i, j] + 1


def siblings(x):
    for i in hl.grid(x.size(0)):
        for tile in hl.tile(x.size(1)):
            x[i, tile] = 1.0
        for tile in hl.tile(x.size(1)):
            x[i, tile] = x[i, 15 - tile.index]


def exchanged(x):
    for tile in hl.tile(x.size(0)):
        hl.atomic_add(x, [tile, 0], 1.0)
        hl.atomic_max(x, [tile, 0], 2.0)


def counted(x):
    for tile in hl.tile(x.size(0)):
        old = hl.atomic_add(x, [tile, 0], 1.0)
        x[tile, 1] = old + hl.atomic_add(x, [tile, 0], 1.0)


def in_a_branch(x):
    for i in hl.grid(x.size(0)):
        x[i, :] = 1.0
        if i > 3:
            x[i, 0] = x[i, 15 - hl.arange(16)].sum()


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        (other_lanes, ["load", "store"]),
        (square, ["store"]),
        (repeated_index, ["store"]),
        (moved_index, ["load"]),
        (siblings, ["for_loop", "load", "store"]),
        (exchanged, ["atomic_max"]),
        (counted, ["atomic_add"]),
        (in_a_branch, ["load", "store"]),
    ],
    ids=lambda v: getattr(v, "__name__", None),
)
def test_one_stands_before_the_later_access(kernel, expected):
    x = torch.ones(16, 16) if kernel is square else X.clone()
    assert before(barriers(kernel, x)) == expected


def test_loops_around_a_barrier_between_a_store_and_a_load_are_told():
    def kernel(x, out):
        for i in hl.grid(x.size(0)):
            for j in hl.grid(3):
                for tile in hl.tile(x.size(1)):
                    x[i, tile] = x[i, 15 - tile.index] + j
            for tile in hl.tile(x.size(1)):
                out[i, tile] = x[i, tile]

    ir = traced(kernel, X.clone(), X.clone()).device
    found = find_barriers(ir, ir.graphs[ir.roots[0].graph_id], lambda load: True)
    names = {axis.name for id_ in found.loops for axis in ir.graphs[id_].axes}
    inner = [info for info in ir.graphs if info.axes and info.axes[0].name == "tile"]
    assert {"i", "j"} <= names and len([info for info in inner if info.id in found.loops]) == 1
