"""Host code that changes what is outside the kernel function is refused by name; traces leave nothing behind."""

from __future__ import annotations

import array
import collections
import ctypes
import functools
import itertools
import queue
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import helion
import helion.bound_kernel
import helion.language as hl
from helion import exc
from helion.runtime.launch.launcher import FastLauncher

sizes: list[Any] = []
buffers: dict[Any, torch.Tensor] = {}
calls = {"n": 0}
count = 0


class Workspace:
    def __init__(self) -> None:
        self.memory: torch.Tensor | None = None
        self.kept: dict[str, torch.Tensor] = {}

    def get(self, x: torch.Tensor) -> torch.Tensor:
        if self.memory is None:
            self.memory = torch.zeros_like(x)
        return self.memory

    def of(self, name: str, x: torch.Tensor) -> torch.Tensor:
        if name not in self.kept:
            self.kept[name] = torch.zeros_like(x)
        return self.kept[name]


workspace = Workspace()


def note_size(x: torch.Tensor) -> torch.Tensor:
    sizes.append(x.size(0))
    return torch.zeros_like(x)


def note_shape(x: torch.Tensor) -> torch.Tensor:
    sizes.extend(x.shape)
    return torch.zeros_like(x)


def buffer_for(x: torch.Tensor) -> torch.Tensor:
    if "x" not in buffers:
        buffers["x"] = torch.zeros_like(x)
    return buffers["x"]


def counted(x: torch.Tensor) -> torch.Tensor:
    calls["n"] += 1
    return torch.zeros_like(x)


def counted_in_a_global(x: torch.Tensor) -> torch.Tensor:
    global count
    count += 1
    return torch.zeros_like(x)


def in_workspace(x: torch.Tensor) -> torch.Tensor:
    return workspace.get(x)


def kept_in_workspace(x: torch.Tensor) -> torch.Tensor:
    return workspace.of("memory", x)


def make(helper: Callable[[torch.Tensor], torch.Tensor], **options: Any) -> helion.Kernel:
    @helion.kernel(config=helion.Config(block_sizes=[16]), **options)
    def add(x: torch.Tensor) -> torch.Tensor:
        before = helper(x)
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] + before[tile]
        return out

    return add


@pytest.mark.parametrize(
    ("helper", "name"),
    [
        (note_size, "sizes"),
        (note_shape, "sizes"),
        (buffer_for, "buffers"),
        (counted, "calls"),
        (counted_in_a_global, "count"),
        (in_workspace, "workspace.get.memory"),
        (kept_in_workspace, "workspace.of.kept"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("static", [True, False], ids=["static", "dynamic"])
def test_a_helper_that_changes_what_the_kernel_reads_is_refused_by_name(helper, name, static):
    kernel = make(helper, static_shapes=static)
    for _ in range(2):
        with pytest.raises(exc.HostSideEffect, match=f"'{name}'.*\n.*as an argument"):
            kernel(torch.randn(40))
    # What a trace works on is of no use to anybody.
    assert workspace.memory is None and buffers == {} and workspace.kept == {}
    assert all(type(size) is int for size in sizes)


def test_a_number_that_another_thread_changes_while_a_kernel_is_traced_is_no_side_effect(monkeypatch, seed):
    traces = []

    def traced_once(x: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x) + count

    def changing(*args: Any, **options: Any) -> Any:
        global count
        traces.append(args)
        if len(traces) == 1:
            count += 1
        return trace(*args, **options)

    trace = helion.bound_kernel.trace_call
    monkeypatch.setattr(helion.bound_kernel, "trace_call", changing)
    kernel, x = make(traced_once), torch.randn(40)
    assert torch.equal(kernel(x), x + count) and len(traces) == 2


def test_what_a_cached_helper_returns_is_kept_by_calls_and_not_by_traces(seed):
    @functools.lru_cache
    def memory(size: int) -> torch.Tensor:
        return torch.zeros(size)

    @helion.kernel(config=helion.Config(block_sizes=[16]))
    def running_sum(x: torch.Tensor) -> torch.Tensor:
        total = memory(x.size(0))
        for tile in hl.tile(x.size(0)):
            total[tile] += x[tile]
        return total

    x = torch.randn(40)
    outs = [running_sum(x) for _ in range(4)]
    assert all(out is memory(40) for out in outs)
    torch.testing.assert_close(memory(40), 4 * x)


@pytest.mark.compiles
@pytest.mark.softgpu(capability=80)
@pytest.mark.parametrize("kind", ["fake", "meta"])
def test_a_tensor_of_host_code_without_memory_is_refused_before_the_launch(softgpu, kind, seed):
    x = torch.randn(40, device=softgpu.device)
    kernel = make(torch.zeros_like)
    host = kernel.bind((x,)).runner((x,))
    given = torch.zeros(40)
    bad = FakeTensorMode().from_tensor(given) if kind == "fake" else given.to("meta")
    launcher = FastLauncher("add", device=0)

    def launch_bad(kernel: Any, grid: Any, *args: Any, **options: Any) -> Any:
        return launcher(kernel, grid, bad, *args[1:], **options)

    with pytest.raises(exc.InvalidAPIUsage, match=r"'add' gives a launch a \w+ without memory"):
        host(x, _launcher=launch_bad)
    assert torch.equal(kernel(x), x)


module = torch.nn.Dropout()
generator = random.Random(3)


def drawn() -> float:
    return random.uniform(1.0, 2.0)


def drawn_by_a_helper() -> float:
    return generator.random()


def check_varying(function: Callable[[], float], device: torch.device) -> None:
    @helion.kernel(config=helion.Config(block_sizes=[16]))
    def scaled(x: torch.Tensor) -> tuple[torch.Tensor, float]:
        scale = function()
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] * scale
        return out, scale

    x = torch.ones(40, device=device)
    found = [scaled(x) for _ in range(4)]
    for out, scale in found:
        torch.testing.assert_close(out, x * scale)
    assert len({scale for _, scale in found}) == 4


VARYING = [random.random, drawn, drawn_by_a_helper, time.perf_counter]


@pytest.mark.parametrize("function", VARYING, ids=lambda f: f.__name__)
def test_a_number_that_varies_is_read_at_each_call(function, seed):
    check_varying(function, torch.device("cpu"))


@pytest.mark.compiles
@pytest.mark.softgpu(capability=80)
@pytest.mark.parametrize("function", VARYING, ids=lambda f: f.__name__)
def test_a_number_that_varies_is_read_at_each_call_on_a_gpu(softgpu, function, seed):
    check_varying(function, softgpu.device)


def add_result_of(function: Callable[[], Any]) -> helion.Kernel:
    @helion.kernel(config=helion.Config(block_sizes=[16]))
    def add(x: torch.Tensor) -> torch.Tensor:
        number = function()
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] + number
        return out

    return add


def test_a_trace_draws_no_random_numbers_of_the_calls():
    pytest.importorskip("numpy")
    import numpy

    of_numpy, x = numpy.random.default_rng(3), torch.zeros(40)
    generator.seed(3)
    numpy.random.seed(3)
    kernels = [
        add_result_of(function)
        for function in (drawn_by_a_helper, lambda: of_numpy.integers(1000), lambda: numpy.random.randint(1000))
    ]
    found = [[kernel(x)[0].item() for _ in range(3)] for kernel in kernels]
    of_python, again, old = random.Random(3), numpy.random.default_rng(3), numpy.random.RandomState(3)
    assert found[0] == pytest.approx([of_python.random() for _ in range(3)])
    assert found[1:] == [[again.integers(1000) for _ in range(3)], [old.randint(1000) for _ in range(3)]]
    with pytest.raises(exc.HostTensorRead, match="may be another in the next call"):
        add_result_of(lambda: random.sample(range(9), 2))(x)


numbers = iter(range(10**9))
next_number = numbers.__next__
waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
left = collections.deque(range(9))


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda: next(numbers), "'numbers'"),
        (lambda: sum(itertools.islice(numbers, 3)), "'numbers'"),
        (lambda: next_number(), "'next_number'"),
        (lambda: waiting.get(), "'waiting'"),
        (lambda: left.popleft(), "'left'"),
    ],
)
@pytest.mark.parametrize("mode", ["compiled", "ref"])
def test_what_is_gone_when_it_is_read_is_refused(function, name, mode, monkeypatch):
    monkeypatch.setenv("HELION_INTERPRET", "1" if mode == "ref" else "0")
    with pytest.raises(exc.HostSideEffect, match=rf"{name}(.*\n)*.*as an argument"):
        add_result_of(function)(torch.ones(40))


@pytest.mark.parametrize(
    "table",
    [
        collections.deque([1]),
        collections.UserList([1]),
        collections.UserDict({0: 1}),
        collections.ChainMap({0: 1}),
        array.array("i", [1]),
        bytearray([1]),
        (ctypes.c_int * 1)(1),
    ],
    ids=lambda table: type(table).__name__,
)
def test_items_of_every_container_are_read_at_each_call(table):
    kernel, x = add_result_of(lambda: table[0] + 0), torch.zeros(40)
    for number in (1, 2, 1):
        table[0] = number
        assert torch.equal(kernel(x), x + number)


def test_a_number_of_ctypes_is_read_at_each_call():
    cell, x = ctypes.c_int(0), torch.zeros(40)
    kernel = add_result_of(lambda: cell.value + 0)
    for number in (1, 2, 1):
        cell.value = number
        assert torch.equal(kernel(x), x + number)


def test_a_number_that_varies_is_refused_in_device_code_and_in_loops():
    @helion.kernel(config=helion.Config(block_sizes=[16]))
    def on_device(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] * random.random()
        return out

    @helion.kernel(config=helion.Config(block_sizes=[16]))
    def in_a_loop(x: torch.Tensor) -> torch.Tensor:
        scale = 1.0
        for _ in range(2):
            scale = scale * random.random()
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] * scale
        return out

    with pytest.raises(exc.NotAllowedOnDevice, match=r"random\.random.*\n(.*\n)*.*hl\.rand"):
        on_device(torch.ones(40))
    with pytest.raises(exc.HostTensorRead, match=r"another number in the next call.*\n(.*\n)*.*as an argument"):
        in_a_loop(torch.ones(40))


def test_what_is_set_on_a_module_of_a_library_is_read_at_each_call():
    @helion.kernel(config=helion.Config(block_sizes=[16]))
    def scaled(x: torch.Tensor) -> torch.Tensor:
        scale = 2.0 if module.training else 3.0
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] * scale
        return out

    x = torch.ones(40)
    for training in (True, False, False, True):
        module.train(training)
        assert torch.equal(scaled(x), x * (2.0 if training else 3.0))
