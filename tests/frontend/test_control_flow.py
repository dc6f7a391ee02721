"""Loops, branches and calls in device code: each kernel runs every way there is."""

from __future__ import annotations

import dataclasses
import itertools
from typing import NamedTuple

import pytest
import torch

import helion
import helion.language as hl
from tests.support import check
from tests.support import run_everywhere
from tests.support import ways

pytestmark = pytest.mark.gpu  # with a GPU, every kernel runs on it too


def test_values_carried_through_a_loop(seed: int) -> None:
    def reference(x, width=8):
        a, b = torch.zeros(len(x)).double(), torch.ones(len(x)).double()
        for part in x.split(width, 1):
            a, b = b, a * 0.5 + b + part.sum(1)
        return a + 2 * b

    # The result depends on the width of the tiles, so both sides must have the same.
    @helion.kernel(config=helion.Config(block_sizes=[4, 8]))
    def recurrence(x):
        out = torch.empty([x.size(0)], dtype=x.dtype, device=x.device)
        for rows in hl.tile(x.size(0)):
            a = hl.zeros([rows])
            b = hl.full([rows], 1.0)
            for columns in hl.tile(x.size(1)):
                total = x[rows, columns].sum(1)
                a, b = b, a * 0.5 + b + total
            out[rows] = a + 2 * b
        return out

    x = torch.randn(5, 29)
    run_everywhere(recurrence, (x,), reference, configs=[{"block_sizes": [4, 8]}], error_scale=8, capabilities=[80])


def test_loop_that_never_runs_leaves_the_initial_value(seed: int) -> None:
    def sum_of(x, n):
        out = torch.empty([x.size(0)], dtype=x.dtype, device=x.device)
        for rows in hl.tile(x.size(0)):
            total = hl.full([rows], 3.0)
            for columns in hl.tile(n):
                total = total + x[rows, columns].sum(1)
            out[rows] = total
        return out

    run_everywhere(sum_of, (torch.randn(5, 8), 0), lambda x, n: x[:, :n].sum(1) + 3, capabilities=[90])


@pytest.mark.parametrize("threshold", [-10, 10], ids=["all", "none"])
def test_branch_on_a_value_in_memory(threshold: int, seed: int) -> None:
    def pick(x, threshold):
        out = torch.empty_like(x)
        for i in hl.grid(x.size(0)):
            if x[i, 0] > threshold:
                row = x[i, :] * 2
            else:
                row = x[i, :] - 1
            out[i, :] = row
        return out

    reference = lambda x, t: torch.where(x[:, :1] > t, x * 2, x - 1)  # noqa: E731
    run_everywhere(pick, (torch.randn(6, 37), threshold), reference, capabilities=[80])


def test_branch_taken_by_some_programs_only(seed: int) -> None:
    def ends(x):
        out = torch.zeros_like(x)
        for i in hl.grid(x.size(0)):
            if (i == 0) or (i == x.size(0) - 1):
                out[i, :] = x[i, :]
        return out

    def reference(x):
        out = torch.zeros_like(x)
        out[0], out[-1] = x[0], x[-1]
        return out

    run_everywhere(ends, (torch.randn(6, 5),), reference, capabilities=[90])


def test_branch_on_a_compile_time_value_leaves_one_path() -> None:
    @helion.kernel
    def choose(x, mode: hl.constexpr):
        out = torch.empty_like(x)
        for tile in hl.tile(x.size()):
            if mode == "exp":
                out[tile] = torch.exp(x[tile])
            else:
                out[tile] = torch.sin(x[tile])
        return out

    x = torch.ones(5)
    source = choose.bind((x, "exp")).to_triton_code()
    assert "tl.exp" in source
    assert "sin" not in source
    assert torch.allclose(choose(x, "sin"), x.sin())


def test_loop_bounds_from_memory(seed: int) -> None:
    def segment_sums(x, offsets):
        out = torch.empty([offsets.size(0) - 1], dtype=x.dtype, device=x.device)
        for i in hl.grid(offsets.size(0) - 1):
            total = hl.zeros([])
            for tile in hl.tile(offsets[i], offsets[i + 1]):
                total = total + x[tile].sum()
            out[i] = total
        return out

    def reference(x, offsets):
        return torch.stack([x[a:b].sum() for a, b in itertools.pairwise(offsets)])

    offsets = torch.tensor([0, 3, 3, 90, 200])
    run_everywhere(segment_sums, (torch.randn(200), offsets), reference, error_scale=16, capabilities=[80, 100])


def test_bounds_that_do_not_start_at_zero(seed: int) -> None:
    def middle(x, begin, end):
        out = torch.zeros_like(x)
        for tile in hl.tile(begin, end):
            out[tile] = x[tile]
        return out

    def reference(x, begin, end):
        out = torch.zeros_like(x)
        out[begin:end] = x[begin:end]
        return out

    run_everywhere(middle, (torch.randn(100), 7, 93), reference, capabilities=[90])


def test_several_top_level_loops_run_one_after_another(seed: int) -> None:
    def normalize(x):
        total = torch.zeros([1], dtype=x.dtype, device=x.device)
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            hl.atomic_add(total, [0], x[tile].sum())
        hl.barrier()
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] / total[0]
        return out

    run_everywhere(normalize, (torch.rand(200) + 0.5,), lambda x: x / x.sum(), error_scale=8, capabilities=[80])


def test_python_range_and_static_range_unroll(seed: int) -> None:
    def powers(x):
        out = torch.empty([4, x.size(0)], dtype=x.dtype, device=x.device)
        for tile in hl.tile(x.size(0)):
            value = hl.full([tile], 1.0)
            for i in range(4):
                for _ in hl.static_range(2):
                    value = value * x[tile]
                out[i, tile] = value
        return out

    reference = lambda x: torch.stack([x ** (2 * i + 2) for i in range(4)])  # noqa: E731
    run_everywhere(powers, (torch.rand(70) + 0.5,), reference, error_scale=8, capabilities=[90])


def test_positions_of_a_tile(seed: int) -> None:
    def positions(x):
        out = torch.empty([x.size(0), 2], dtype=torch.int64, device=x.device)
        for tile in hl.tile(x.size(0)):
            out[tile, 0] = tile.index * 3
            out[tile, 1] = tile.index - tile.begin + tile.id * tile.block_size
        return out

    reference = lambda x: torch.stack([torch.arange(len(x)) * 3, torch.arange(len(x))], 1)  # noqa: E731
    run_everywhere(positions, (torch.randn(100),), reference, capabilities=[80])


def test_shifted_tiles_read_zero_outside(seed: int) -> None:
    def stencil(x):
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile - 1] + 2 * x[tile] + x[tile + 1]
        return out

    def reference(x):
        padded = torch.nn.functional.pad(x, (1, 1))
        return padded[:-2] + 2 * x + padded[2:]

    run_everywhere(stencil, (torch.randn(129),), reference, error_scale=2, capabilities=[90])


# -- functions and structures
# ----------------------------------------------------------------------------------------------


def square(x):
    return x * x


def apply_twice(f, x):
    return f(f(x))


def test_helper_functions_are_inlined(seed: int) -> None:
    def fourth_power(x):
        out = torch.empty_like(x)
        for tile in hl.tile(x.size()):
            out[tile] = apply_twice(square, x[tile])
        return out

    run_everywhere(fourth_power, (torch.randn(70),), lambda x: x**4, error_scale=4, capabilities=[80])


def test_a_closure_may_hold_a_view(seed: int) -> None:
    @helion.kernel
    def mapped(x: torch.Tensor, f) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = f(x[tile], tile)
        return out

    weights = torch.randn(3, 80)
    row, every_other = weights[1], weights[2, ::2]
    function = lambda value, tile: value * row[tile] + every_other[tile]  # noqa: E731
    reference = lambda x, f: x * row[:40] + every_other  # noqa: E731
    run_everywhere(mapped, (torch.randn(40), function), reference, error_scale=4, capabilities=[80])


KEPT = []


def keep(function):
    KEPT.append(function)
    return lambda fn: fn


@keep(lambda v: v * 3)
def decorated(v):
    return v - 1


def applied(x: torch.Tensor, f) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = f(x[tile])
    return out


def test_a_lambda_in_a_decorator_is_not_the_decorated_function(seed: int) -> None:
    run_everywhere(applied, (torch.randn(40), KEPT[0]), lambda x, f: x * 3, error_scale=4, capabilities=[80])
    run_everywhere(applied, (torch.randn(40), decorated), lambda x, f: x - 1, error_scale=4, capabilities=[80])


def test_functions_are_arguments_and_their_closures_tensors(seed: int) -> None:
    def mapped(x, function):
        out = torch.empty_like(x)
        for tile in hl.tile(x.size()):
            out[tile] = function(x[tile], tile)
        return out

    bias, factor = torch.randn(70), 1.5
    function = lambda value, tile: value * factor + bias[tile]  # noqa: E731
    reference = lambda x, f: x * factor + bias  # noqa: E731
    run_everywhere(mapped, (torch.randn(70), function), reference, capabilities=[90])


class Affine(NamedTuple):
    weight: torch.Tensor
    bias: torch.Tensor


@dataclasses.dataclass
class Options:
    scale: float
    relu: bool


def test_named_tuple_argument(seed: int) -> None:
    def affine(x, parameters):
        out = torch.empty_like(x)
        for rows in hl.tile(x.size(0)):
            out[rows, :] = x[rows, :] * parameters.weight[None, :] + parameters.bias[None, :]
        return out

    parameters = Affine(torch.randn(8), torch.randn(8))
    run_everywhere(affine, (torch.randn(37, 8), parameters), lambda x, p: x * p.weight + p.bias, capabilities=[80])


def test_dataclass_argument(seed: int) -> None:
    def scaled(x, options):
        out = torch.empty_like(x)
        for tile in hl.tile(x.size()):
            value = x[tile] * options.scale
            if options.relu:
                value = torch.relu(value)
            out[tile] = value
        return out

    for relu in (True, False):
        reference = lambda x, o: torch.relu(x * o.scale) if o.relu else x * o.scale  # noqa: E731
        run_everywhere(scaled, (torch.randn(37), Options(2.5, relu)), reference, capabilities=[90])


def test_tuple_of_tensors_of_different_shapes(seed: int) -> None:
    def total(tensors):
        out = torch.zeros([len(tensors)], dtype=torch.float32, device=tensors[0].device)
        for rows in hl.tile(tensors[0].size(0)):
            for i, tensor in enumerate(tensors):
                hl.atomic_add(out, [i], tensor[rows, :].sum())
        return out

    tensors = tuple(torch.randn(9, n) for n in (3, 17, 40))
    run_everywhere(total, (tensors,), lambda ts: torch.stack([t.sum() for t in ts]), error_scale=16, capabilities=[80])


def test_two_results(seed: int) -> None:
    def extremes(x):
        low = torch.empty([x.size(0)], dtype=x.dtype, device=x.device)
        high = torch.empty_like(low)
        for rows in hl.tile(x.size(0)):
            low[rows] = x[rows, :].amin(1)
            high[rows] = x[rows, :].amax(1)
        return {"low": low, "high": high}["low"], high

    run_everywhere(extremes, (torch.randn(9, 37),), lambda x: (x.amin(1), x.amax(1)), capabilities=[90])


def test_every_node_has_a_place_in_the_users_source() -> None:
    @helion.kernel
    def lines(x):
        out = torch.empty_like(x)
        for rows in hl.tile(x.size(0)):
            total = hl.zeros([rows])
            for columns in hl.tile(x.size(1)):
                total = total + x[rows, columns].sum(1)
            out[rows, 0] = total
        return out

    first = lines.fn.__code__.co_firstlineno
    bound = lines.bind((torch.ones(8, 8),))
    for _, node in bound.ir.device.nodes():
        if node.op == "call_function":
            location = node.meta["location"]
            assert location is not None, node
            assert first < location.line <= first + 8, (node, location)
            assert location.file == __file__


def test_running_sum_is_used_while_it_runs(seed: int) -> None:
    def sums_before(x):
        out = torch.empty_like(x)
        for rows in hl.tile(x.size(0)):
            total = hl.zeros([rows], dtype=torch.float32)
            for columns in hl.tile(x.size(1)):
                value = x[rows, columns]
                out[rows, columns] = value + total[:, None]
                total = total + value.sum(dim=1)
        return out

    def reference(x):
        before = x.reshape(5, 4, 64).sum(2).cumsum(1).roll(1, 1)
        before[:, 0] = 0
        return x + before.repeat_interleave(64, dim=1)

    x = torch.randn(5, 256)
    kernel = helion.kernel(sums_before)
    expected = reference(x.double())
    for way in ways(kernel, (x,), [{"block_sizes": [1, 64]}, {"block_sizes": [4, 64]}], [80, 90]):
        if "block_sizes" in way.name:
            check(way.run(x), expected, way.name, error_scale=50)
