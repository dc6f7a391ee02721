"""Variables and parameters may have the names that generated code uses itself."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere


def tensors(tl: torch.Tensor, num_warps: torch.Tensor, libdevice: torch.Tensor, float: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(tl)
    for t in hl.tile(tl.size(0)):
        out[t] = tl[t].exp() + num_warps[t] * libdevice[t] / float[t]
    return out


def functions(min: torch.Tensor, math: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    max = torch.empty_like(min)
    int = torch.zeros_like(math)
    for t in hl.tile(min.size(0)):
        max[t] = min[t] + math[t]
    for t in hl.tile(min.size(0)):
        int[t] = min[t] - math[t]
    return max, int


def numbers(x: torch.Tensor, BLOCK_T: float, num_stages: float, grid: int) -> torch.Tensor:
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] * BLOCK_T + num_stages * grid
    return out


def parts(pid: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    first = torch.empty_like(x)
    second = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        first[t] = x[t] + pid[t]
    for t in hl.tile(x.size(0)):
        second[t] = x[t] - pid[t]
    return first, second


def factor(x: torch.Tensor, pid: float) -> tuple[torch.Tensor, torch.Tensor]:
    first = torch.empty_like(x)
    second = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        first[t] = x[t] + pid
    for t in hl.tile(x.size(0)):
        second[t] = x[t] * pid
    return first, second


def everywhere(kernel, args, expected, config, **settings):
    kernel = helion.kernel(kernel, config=config, **settings)
    run_everywhere(kernel, args, expected, capabilities=[80], configs=[config])


FLAT = helion.Config(block_sizes=[8])
TWO = helion.Config(block_sizes=[8, 8])
PERSISTENT = helion.Config(block_sizes=[8, 16], pid_type="persistent_blocked")


def draw(count: int) -> tuple[torch.Tensor, ...]:
    return tuple(torch.rand(20, generator=torch.Generator().manual_seed(i)) + 0.5 for i in range(count))


@pytest.mark.parametrize("static", [True, False])
def test_tensors(static):
    everywhere(tensors, draw(4), lambda a, b, c, d: a.exp() + b * c / d, config=FLAT, static_shapes=static)


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("config", [TWO, PERSISTENT], ids=["flat", "persistent"])
def test_functions_of_python(config, static):
    everywhere(functions, draw(2), lambda a, b: (a + b, a - b), config=config, static_shapes=static)


def test_numbers():
    everywhere(numbers, (*draw(1), 0.5, 2.0, 3), lambda x, a, b, c: x * a + b * c, config=FLAT)


@pytest.mark.parametrize("config", [TWO, PERSISTENT], ids=["flat", "persistent"])
def test_which_part_of_several_loops(config):
    everywhere(parts, draw(2), lambda a, b: (b + a, b - a), config=config)
    everywhere(factor, (*draw(1), 1.5), lambda x, a: (x + a, x * a), config=config)


def half_of(math: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(math)
    for t in hl.tile(math.size(0) // 2 * 2):
        out[t] = math[t] * math.size(0)
    return out


def test_the_size_of_a_tensor_is_no_function_of_the_module_of_its_name():
    everywhere(half_of, draw(1), lambda x: x * x.size(0), config=FLAT, static_shapes=False)


def launched_by(x: torch.Tensor, _launcher: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + _launcher[t]
    return out


def test_a_name_that_generated_code_cannot_do_without_is_refused():
    with pytest.raises(exc.InvalidAPIUsage, match="'_launcher'"):
        helion.kernel(launched_by, config=FLAT)(*draw(2))


def used_again(x: torch.Tensor, columns: dict[str, int]) -> torch.Tensor:
    total = 0
    for name, i in columns.items():
        total += i + len(name)
    value = x.sum()
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        value = x[t] * total
        for name, i in columns.items():
            value = value + i + len(name)
        for i in range(3):
            value = value + i
        out[t] = value
    return out


def test_a_loop_may_use_names_of_host_code_anew_that_nobody_reads_afterwards():
    everywhere(used_again, (*draw(1), {"a": 2, "bc": 3}), lambda x, _: x * 8 + 11, config=FLAT)


def read_before(x: torch.Tensor) -> torch.Tensor:
    i = 2
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        value = x[t] * i
        for i in range(3):
            value = value + i
        out[t] = value
    return out


def read_by_a_function(x: torch.Tensor) -> torch.Tensor:
    i = 2
    out = torch.empty_like(x)
    twice = lambda value: value * i  # noqa: E731 - what is tested
    for t in hl.tile(x.size(0)):
        i = x[t]
        out[t] = twice(i)
    return out


@pytest.mark.parametrize("kernel", [read_before, read_by_a_function])
def test_names_of_host_code_that_the_loop_reads_are_not_assigned(kernel):
    with pytest.raises(exc.CannotModifyHostVariableOnDevice, match="use another name"):
        helion.kernel(kernel, config=FLAT)(*draw(1))
