"""What only a real GPU can show: streams that overlap, CUDA graphs, Inductor, the profiler, more than 2^31 elements.

Left out where there is no GPU (tests/softgpu/pytest_plugin.py): the launch path's rules themselves are tested on the
software GPU.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import pytest
import torch

import helion
import helion.language as hl
import helion.runtime.output_pool
from helion import _extension
from helion import exc

pytestmark = pytest.mark.real_gpu


def make_add(**options):
    @helion.kernel(config=helion.Config(block_sizes=[1024]), **options)
    def add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] + y[tile]
        return out

    return add


def randn(*size: int) -> torch.Tensor:
    return torch.randn(*size, device="cuda")


def steady(add, x, y):
    """Enough calls that the next one takes the fastest layer."""
    for _ in range(5):
        out = add(x, y)
    return out


@pytest.fixture
def output_pool():
    pool = helion.runtime.output_pool
    pool.configure(True)
    yield pool
    pool.configure(False)


def launches(kernel: Any) -> Counter[str]:
    """How many launches of it each layer has done."""
    return Counter(kernel.stats.snapshot().layers)


def test_steady_state_runs_as_a_plan_in_c(seed) -> None:
    assert _extension.C is not None, _extension.why_not
    add, x, y = make_add(), randn(4096), randn(4096)
    steady(add, x, y)
    before = launches(add)
    for _ in range(10):
        out = add(x, y)
    assert torch.equal(out, x + y)
    assert launches(add) - before == {"plan": 10}


def test_a_call_is_launched_on_the_current_stream(seed) -> None:
    add, x, y = make_add(), randn(4096), randn(4096)
    steady(add, x, y)
    late, stream = torch.zeros(4096, device="cuda"), torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # some 25 ms: on another stream the kernel would read the zeros
        late.copy_(x)
        out = add(late, y)
    on_default = add(late, y)  # does not wait for the side stream
    torch.cuda.synchronize()
    assert torch.equal(out, x + y)
    assert torch.equal(on_default, y)


@pytest.mark.parametrize("pool", [False, True], ids=["fresh", "pool"])
def test_capture_into_a_graph_and_replay(pool, seed, output_pool) -> None:
    output_pool.configure(pool)
    add, x, y = make_add(), randn(4096), randn(4096)
    steady(add, x, y)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = add(add(x, y), y)
    outside = add(x, y)  # must not be given memory that belongs to the graph
    for _ in range(3):
        x.normal_()
        before = outside.clone()
        graph.replay()
        torch.testing.assert_close(out, x + y + y)
        assert torch.equal(outside, before)


def test_first_call_inside_a_capture(seed) -> None:
    add, x, y = make_add(), randn(4096), randn(4096)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = add(x, y)
    x.normal_()
    graph.replay()
    assert torch.equal(out, x + y)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_inductor_compiles_a_function_that_calls_a_kernel(dynamic, seed) -> None:
    add = make_add(static_shapes=not dynamic)

    @torch.compile(fullgraph=True, dynamic=dynamic)
    def function(x, y):
        return torch.relu(add(x.sin(), y)) * 2

    for n in (4096, 5000):
        x, y = randn(n), randn(n)
        torch.testing.assert_close(function(x, y), torch.relu(x.sin() + y) * 2)


@pytest.mark.parametrize("warm", [False, True], ids=["first call", "steady state"])
def test_tensors_on_different_devices_are_refused(warm, seed) -> None:
    add, x, y = make_add(), randn(4096), randn(4096)
    if warm:
        steady(add, x, y)
    with pytest.raises(exc.DeviceMismatch):
        add(x, y.cpu())
    with pytest.raises(exc.DeviceMismatch):
        add(x.cpu(), y)
    assert torch.equal(add(x, y), x + y)


def test_profiler_attached_late_sees_the_kernels(seed) -> None:
    add, x, y = make_add(), randn(4096), randn(4096)
    steady(add, x, y)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
    ) as profile:
        add(x, y)
        torch.cuda.synchronize()
    assert any("_add_kernel" in event.name for event in profile.events())
    before = launches(add)
    add(x, y)
    assert launches(add) - before == {"plan": 1}


def test_threads_on_streams_of_their_own(seed) -> None:
    add = make_add()
    failures = []

    def work(n: int) -> None:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for i in range(300):
                x = torch.full((n,), float(i), device="cuda")
                out = add(x, x)
                if i % 50 == 0 and not torch.equal(out, x + x):
                    failures.append((n, i))

    threads = [threading.Thread(target=work, args=(1000 + i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        add.reset()
        time.sleep(0.01)
    for thread in threads:
        thread.join()
    assert not failures


def make_standardize():
    @helion.kernel(config=helion.Config(block_sizes=[16, 16, 16, 64], num_sm_multiplier=2))
    def standardize(x: torch.Tensor) -> torch.Tensor:
        mean, deviation = torch.empty_like(x[0]), torch.empty_like(x[0])
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(1)):
            mean[tile] = x[:, tile].mean(0)
        hl.barrier()
        for tile in hl.tile(x.size(1)):
            centered = x[:, tile] - mean[tile][None, :]
            deviation[tile] = torch.sqrt((centered * centered).mean(0))
        hl.barrier()
        for tile_m, tile_n in hl.tile(x.shape):
            out[tile_m, tile_n] = (x[tile_m, tile_n] - mean[tile_n][None, :]) / deviation[tile_n][None, :]
        return out

    return standardize


def standardized(x):
    return (x - x.mean(0)) / x.std(0, correction=0)


def test_phases_in_eager_calls_on_several_streams(seed) -> None:
    standardize = make_standardize()
    inputs = [randn(512, 1000) for _ in range(4)]
    streams = [torch.cuda.Stream() for _ in inputs]
    torch.cuda.synchronize()
    for _ in range(50):
        outs = []
        for x, stream in zip(inputs, streams):
            with torch.cuda.stream(stream):
                outs.append(standardize(x))
    torch.cuda.synchronize()
    for x, out in zip(inputs, outs):
        torch.testing.assert_close(out, standardized(x), rtol=1e-4, atol=1e-4)


def test_phases_in_graphs_that_run_at_the_same_time(seed) -> None:
    standardize = make_standardize()
    inputs = [randn(512, 1000) for _ in range(2)]
    standardize(inputs[0])
    graphs, outs, streams = [], [], [torch.cuda.Stream() for _ in inputs]
    for x in inputs:
        graphs.append(torch.cuda.CUDAGraph())
        with torch.cuda.graph(graphs[-1]):
            outs.append(standardize(x))
    for _ in range(50):
        for x in inputs:
            x.normal_()
        torch.cuda.synchronize()
        for graph, stream in zip(graphs, streams):
            with torch.cuda.stream(stream):
                graph.replay()
        torch.cuda.synchronize()
    for x, out in zip(inputs, outs):
        torch.testing.assert_close(out, standardized(x), rtol=1e-4, atol=1e-4)


def test_more_programs_than_fit_are_refused_and_the_next_call_works(seed) -> None:
    standardize = make_standardize()
    x = randn(512, 1000)
    many = helion.kernel(
        standardize.fn, config=helion.Config(block_sizes=[1, 1, 1, 1], num_warps=32, num_sm_multiplier=8)
    )
    with pytest.raises(RuntimeError, match=r"too many blocks in cooperative launch.*lower num_sm_multiplier"):
        many(x)
    torch.testing.assert_close(standardize(x), standardized(x), rtol=1e-4, atol=1e-4)


def test_inductor_leaves_a_kernel_with_phases_outside_of_its_graph(seed) -> None:
    standardize, x = make_standardize(), randn(512, 1000)
    compiled = torch.compile(lambda x: standardize(x * 2) + 1)
    torch.testing.assert_close(compiled(x), standardized(x) + 1, rtol=1e-4, atol=1e-4)


def test_unaligned_and_aligned_pointers_take_turns(seed) -> None:
    add, base = make_add(), randn(8192)
    for i in range(12):
        x, y = base[i % 3 : 4096 + i % 3], base[4000:8096]
        assert torch.equal(add(x, y), x + y)


@pytest.mark.parametrize("indexing", ["pointer", "tensor_descriptor"])
def test_more_elements_than_32_bits_count(indexing, seed) -> None:
    @helion.kernel(config=helion.Config(block_sizes=[64, 256], indexing=indexing))
    def plus_one(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size()):
            out[tile] = x[tile] + 1
        return out

    x = torch.randint(0, 100, (1 << 16, (1 << 15) + 64), dtype=torch.int8, device="cuda")
    assert x.numel() > 1 << 31
    assert torch.equal(plus_one(x), x + 1)


def test_pooled_outputs_are_never_reused_while_someone_can_see_them(seed, output_pool) -> None:
    add, x = make_add(), torch.zeros(4096, device="cuda")
    kept = [add(x, torch.full_like(x, float(i))) for i in range(50)]
    views = [add(x, torch.full_like(x, float(i)))[100:200] for i in range(50)]
    for i in range(50):
        add(x, x)
    for i in range(50):
        assert bool((kept[i] == i).all())
        assert bool((views[i] == i).all())


def test_a_kernel_without_a_config_is_not_tuned_in_a_capture(seed, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HELION_AUTOTUNE_EFFORT", "quick")
    monkeypatch.setenv("HELION_CACHE_DIR", str(tmp_path))

    @helion.kernel
    def scale(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] * 3
        return out

    x = randn(1 << 10)
    graph = torch.cuda.graph(torch.cuda.CUDAGraph())
    with pytest.raises(exc.AutotuningDisallowedInEnvironment, match="graph is being captured"), graph:
        scale(x)
    assert torch.equal(x * 3, 3 * x)


def test_a_kernel_without_a_config_is_tuned_on_its_first_call(seed, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HELION_AUTOTUNE_EFFORT", "quick")
    monkeypatch.setenv("HELION_CACHE_DIR", str(tmp_path))

    @helion.kernel(autotune_budget_seconds=15)
    def scale(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] * 3
        return out

    x = randn(1 << 20)
    assert torch.equal(scale(x), x * 3)
    assert torch.equal(scale(x), x * 3)
