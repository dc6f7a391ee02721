"""A loop that is all of a top-level loop's body is part of it; where its order could be seen it stays a loop."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from tests.ir.traced import traced
from tests.support import run_everywhere

X = torch.ones(6, 20, 30)


def _axes(kernel, *args):
    device = traced(kernel, *args).device
    return [axis.name for root in device.roots for axis in device.graphs[root.graph_id].axes]


def grid_and_tiles(x):
    out = torch.empty_like(x)
    for i in hl.grid(x.size(0)):
        for rows, columns in hl.tile([x.size(1), x.size(2)]):
            out[i, rows, columns] = x[i, rows, columns] * 2
    return out


def three_deep(x):
    out = torch.empty_like(x)
    for i in hl.grid(x.size(0)):
        for rows in hl.tile(x.size(1)):
            for columns in hl.tile(x.size(2)):
                out[i, rows, columns] = x[i, rows, columns] * 2
    return out


def cheap_between(x, scale):
    out = torch.empty_like(x)
    for i in hl.grid(x.size(0)):
        factor = scale[i]
        for rows in hl.tile(x.size(1)):
            out[i, rows, :] = x[i, rows, :] * factor
    return out


def in_place(x):
    for i in hl.grid(x.size(0)):
        for rows in hl.tile(x.size(1)):
            x[i, rows, :] = x[i, rows, :] * 2
    return x


def sum_inside(x):
    out = torch.empty([x.size(0), x.size(1)])
    for i in hl.tile(x.size(0)):
        for rows in hl.tile(x.size(1)):
            total = hl.zeros([i, rows])
            for columns in hl.tile(x.size(2)):
                total = total + x[i, rows, columns].sum(-1)
            out[i, rows] = total
    return out


@pytest.mark.parametrize(
    ("kernel", "args", "names"),
    [
        (grid_and_tiles, (X,), ["i", "rows", "columns"]),
        (three_deep, (X,), ["i", "rows", "columns"]),
        (cheap_between, (X, torch.ones(6)), ["i", "rows"]),
        (in_place, (X,), ["i", "rows"]),
        (sum_inside, (X,), ["i", "rows"]),
    ],
    ids=lambda v: getattr(v, "__name__", None),
)
def test_loops_with_nothing_between_them_are_one(kernel, args, names):
    assert _axes(kernel, *args) == names


def reads_the_last(x):
    for i in hl.grid(x.size(0)):
        for j in hl.grid(x.size(1) - 1):
            x[i, j + 1, :] = x[i, j, :] * 2


def overwrites(x):
    out = torch.empty([x.size(0), x.size(2)])
    for i in hl.grid(x.size(0)):
        for rows in hl.tile(x.size(1)):
            out[i, :] = x[i, rows, :].sum(0)
    return out


def through_a_view(x):
    turned = x.transpose(0, 1)
    for i in hl.grid(x.size(0)):
        for j in hl.grid(x.size(1)):
            x[i, j, :] = turned[j, i, :] + 1


def scattered(x, at):
    for i in hl.grid(x.size(0)):
        for rows in hl.tile(x.size(1)):
            x[i, at[rows], :] = 1


def counted(x):
    out = torch.zeros([x.size(0)])
    for i in hl.grid(x.size(0)):
        for rows in hl.tile(x.size(1)):
            hl.atomic_add(out, [i], x[i, rows, :].sum())
    return out


def carries(x):
    out = torch.empty([x.size(0), x.size(2)])
    for i in hl.grid(x.size(0)):
        total = hl.zeros([x.size(2)])
        for rows in hl.tile(x.size(1)):
            total = total + x[i, rows, :].sum(0)
        out[i, :] = total
    return out


def row_between(x):
    out = torch.empty_like(x)
    for i in hl.grid(x.size(0)):
        first = x[i, 0, :]
        for rows in hl.tile(x.size(1)):
            out[i, rows, :] = x[i, rows, :] + first
    return out


def own_part(x):
    for rows in hl.tile(x.size(0), block_size=4):
        for row in hl.tile(rows.begin, rows.end):
            x[row, :, :] = 1


def overlapping(x):
    windows = x.as_strided([6, 10, 30], [600, 15, 1])
    for i in hl.grid(windows.size(0)):
        for j in hl.grid(windows.size(1)):
            windows[i, j, :] = 1


@pytest.mark.parametrize(
    ("kernel", "args"),
    [
        (reads_the_last, (X,)),
        (overwrites, (X,)),
        (through_a_view, (X,)),
        (scattered, (X, torch.arange(20))),
        (counted, (X,)),
        (carries, (X,)),
        (row_between, (X,)),
        (own_part, (X,)),
        (overlapping, (X,)),
    ],
    ids=lambda v: getattr(v, "__name__", None),
)
def test_a_loop_whose_order_could_be_seen_stays_inside(kernel, args):
    assert len(_axes(kernel, *args)) == 1


def running_sum(x):
    out = torch.zeros_like(x)
    for i in hl.grid(x.size(0)):
        for j in hl.grid(x.size(1) - 1):
            out[i, j + 1, :] = out[i, j, :] + x[i, j, :]
    return out


def test_a_recurrence_in_memory_is_done_in_order():
    x = torch.randn(5, 7, 20, generator=torch.Generator().manual_seed(3))

    def reference(x):
        return torch.cat([torch.zeros_like(x[:, :1]), x.cumsum(1)[:, :-1]], 1)

    run_everywhere(running_sum, (x,), reference, error_scale=8, configs=[{}])


@pytest.mark.parametrize("static_shapes", [True, False])
@pytest.mark.parametrize("kernel", [grid_and_tiles, three_deep], ids=lambda kernel: kernel.__name__)
def test_merged_loops_compute_the_same(kernel, static_shapes):
    x = torch.randn(5, 9, 33, generator=torch.Generator().manual_seed(4))
    configs = [
        {"block_sizes": [4, 16], "pid_type": "xyz"},
        {"block_sizes": [4, 16], "loop_orders": [[2, 0, 1]], "pid_type": "persistent_interleaved"},
    ]
    run_everywhere(kernel, (x,), lambda x: x * 2, configs=configs, static_shapes=static_shapes)


def test_what_a_config_says_of_each_loop_is_by_the_loops_of_the_source():
    """As it is read: the loop over columns is the third statement, and the second inner one."""
    x = torch.ones(5, 9, 32)
    config = {"block_sizes": [2, 4, 16], "range_num_stages": [0, 0, 3], "static_ranges": [False, True]}
    bound = helion.kernel(sum_inside).bind((x,))
    assert "tl.static_range(0, 32, BLOCK_COLUMNS)" in bound.to_triton_code(helion.Config(**config))
    config["static_ranges"] = [False, False]
    assert "tl.range(0, 32, BLOCK_COLUMNS, num_stages=3)" in bound.to_triton_code(helion.Config(**config))
