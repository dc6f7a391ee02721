"""The guards of the launch path where launches really run: every layer, on the software GPU or a real one.

The same calls, results and errors through the whole call in C, the launcher in C, the launcher in Python, and Triton's
own. Where a guard is missing, the wrong binary runs, on the wrong stream, or not at all; see ``test_launch_guards.py``
for each guard taken out by itself.
"""

from __future__ import annotations

import threading

import pytest
import torch
from triton import knobs

import helion
import helion.language as hl
from helion import _extension
from helion import exc
from helion.runtime import code_cache
from helion.runtime import no_compile
from tests import softgpu as soft
from tests.extension import required_extension

pytestmark = [pytest.mark.softgpu(capability=80, devices=2), pytest.mark.compiles]

LAYERS = ["plan", "c_launcher", "fast_launcher", "default_launcher"]


class Layer:
    """Makes kernels whose calls run in one layer, and says whether they did."""

    def __init__(self, name, monkeypatch):
        if name in ("plan", "c_launcher"):
            required_extension()
        self.name = name
        monkeypatch.delenv("HELION_SKIP_FAST_LAUNCHER", raising=False)
        if name == "fast_launcher":
            monkeypatch.setattr(_extension, "C", None)
        if name == "default_launcher":
            monkeypatch.setenv("HELION_SKIP_FAST_LAUNCHER", "1")

    def kernel(self, fn, **options):
        kernel = helion.kernel(fn, config=helion.Config(block_sizes=[128]), **options)
        if (self.name != "plan" and _extension.C is not None) or (
            self.name != "plan" and hasattr(kernel, "dispatch_enabled")
        ):
            kernel.dispatch_enabled = False
        return kernel

    def add(self, **options):
        def add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            out = torch.empty_like(x)
            for tile in hl.tile(x.size(0)):
                out[tile] = x[tile] + y[tile]
            return out

        return self.kernel(add, **options)

    def accumulate(self, **options):
        def accumulate(out: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            for tile in hl.tile(x.size(0)):
                out[tile] = out[tile] + x[tile]
            return out

        return self.kernel(accumulate, **options)

    def used(self, kernel):
        return self.name in kernel.stats.snapshot().layers


@pytest.fixture(params=LAYERS)
def layer(request, monkeypatch, softgpu, tmp_path):
    # Equal sources share a module, and with it the binaries that other tests compiled.
    monkeypatch.setenv("HELION_CACHE_DIR", str(tmp_path))
    code_cache.clear_modules()
    yield Layer(request.param, monkeypatch)
    code_cache.clear_modules()


def randn(softgpu, n=1024):
    return torch.randn(n, device=softgpu.device)


def test_steady_state_runs_in_its_layer(softgpu, layer, seed):
    add = layer.add()
    for _ in range(6):
        x, y = randn(softgpu), randn(softgpu)
        torch.testing.assert_close(add(x, y), x + y)
    taken = add.stats.snapshot().layers
    assert layer.used(add) and taken[layer.name] >= 3 and sum(taken.values()) == 6


def test_alternating_alignment_of_an_output_argument(softgpu, layer, seed):
    accumulate = layer.accumulate()
    aligned, shifted = torch.zeros(1024, device=softgpu.device), torch.zeros(1025, device=softgpu.device)[1:]
    assert aligned.data_ptr() % 16 == 0 and shifted.data_ptr() % 16 == 4
    x = randn(softgpu)
    for n in range(1, 6):
        for out in (aligned, shifted):
            assert accumulate(out, x) is out
            torch.testing.assert_close(out, x * n)
    assert layer.used(accumulate)


def test_misaligned_input_after_aligned_ones(softgpu, layer, seed):
    add = layer.add()
    x, y = randn(softgpu), randn(softgpu)
    shifted = randn(softgpu, 1027)[3:]
    for _ in range(4):
        torch.testing.assert_close(add(x, y), x + y)
        torch.testing.assert_close(add(shifted, y), shifted + y)
        torch.testing.assert_close(add(x, shifted), x + shifted)


def test_alternating_shapes_dtypes_and_strides(softgpu, layer, seed):
    add = layer.add()
    pairs = [(randn(softgpu, n), randn(softgpu, n)) for n in (1000, 1024, 640, 129)]
    pairs.append((randn(softgpu).half(), randn(softgpu).half()))
    pairs.append((randn(softgpu, 2048)[::2], randn(softgpu)))
    for _ in range(4):
        for x, y in pairs:
            torch.testing.assert_close(add(x, y), x + y)


def test_subclass_and_parameter(softgpu, layer, seed):
    class Plain(torch.Tensor):
        pass

    add = layer.add()
    x, y = randn(softgpu), randn(softgpu)
    for _ in range(4):
        torch.testing.assert_close(add(x, y), x + y)
        torch.testing.assert_close(torch.Tensor(add(x, y.as_subclass(Plain))), x + y)
        torch.testing.assert_close(add(x, torch.nn.Parameter(y, requires_grad=False)), x + y)


def test_negated_tensor_is_refused(softgpu, layer, seed):
    add = layer.add()
    x, y = randn(softgpu), randn(softgpu)
    for _ in range(4):
        add(x, y)
        with pytest.raises(exc.InvalidAPIUsage, match="resolve_neg"):
            add(x, torch._neg_view(y))


def test_requires_grad_warns_once_in_every_layer(softgpu, layer, seed):
    add = layer.add()
    x, y = randn(softgpu), randn(softgpu).requires_grad_()
    with torch.no_grad():
        for _ in range(4):
            add(x, y)
    with pytest.warns(exc.RequiresGradWarning):
        add(x, y)


def test_backward_notices_that_a_kernel_wrote_a_saved_tensor(softgpu, layer, seed):
    accumulate = layer.accumulate()
    weight = randn(softgpu).requires_grad_()
    for _ in range(5):
        x, y = randn(softgpu), randn(softgpu)
        loss = (weight * x).sum()
        accumulate(x, y)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
        loss = (weight * x).sum()
        loss.backward()  # what the kernel only reads, and what it wrote before, is as it was saved
        assert (x._version, y._version) == (1, 0)


def test_one_tensor_for_a_written_and_a_read_argument(softgpu, layer, seed):
    accumulate = layer.accumulate()
    x = randn(softgpu)
    for n in range(1, 5):
        accumulate(x, x)
        assert x._version == n
    y = randn(softgpu)
    accumulate(x, y)
    assert (x._version, y._version) == (5, 0)


def test_in_place_kernel_on_inference_tensors(softgpu, layer, seed):
    accumulate = layer.accumulate()
    with torch.inference_mode():
        x, y = torch.zeros(1024, device=softgpu.device), randn(softgpu)
    for n in range(1, 5):
        accumulate(x, y)
        torch.testing.assert_close(x, y * n)


def test_output_of_a_kernel_is_as_new(softgpu, layer, seed):
    add = layer.add()
    x, y = randn(softgpu), randn(softgpu)
    for _ in range(4):
        assert add(x, y)._version == 0
    assert (x._version, y._version) == (0, 0)


def test_vmap_is_refused_in_every_layer(softgpu, layer, seed):
    add = layer.add()
    x, y = randn(softgpu), randn(softgpu)
    for _ in range(4):
        add(x, y)
    with pytest.raises(exc.InvalidAPIUsage, match="vmap"):
        torch.func.vmap(lambda a: add(a, y))(x.repeat(2, 1))


def test_dispatch_mode_sees_the_allocation(softgpu, layer, seed):
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    add = layer.add()
    x, y = randn(softgpu), randn(softgpu)
    for _ in range(4):
        add(x, y)
    with Watch():
        out = add(x, y)
    torch.testing.assert_close(out, x + y)
    assert any("empty_like" in name for name in seen)


def test_debug_knob_flipped_and_flipped_back(softgpu, layer, monkeypatch, seed):
    add = layer.add()
    x, y = randn(softgpu), randn(softgpu)
    compiled = []
    monkeypatch.setattr(knobs.runtime, "jit_post_compile_hook", lambda **kwargs: compiled.append(kwargs["repr"]))
    for _ in range(4):
        add(x, y)
    assert len(compiled) == 1
    with monkeypatch.context() as patch:
        patch.setattr(knobs.runtime, "debug", True)
        for _ in range(3):
            torch.testing.assert_close(add(x, y), x + y)
        assert len(compiled) == 2
    for _ in range(3):
        torch.testing.assert_close(add(x, y), x + y)
    assert len(compiled) == 2


def test_profiler_attached_after_priming_sees_every_launch(softgpu, layer, seed):
    add = layer.add()
    x, y = randn(softgpu), randn(softgpu)
    for _ in range(4):
        add(x, y)
    seen = []
    knobs.runtime.launch_enter_hook.add(hook := lambda metadata: seen.append(metadata.get()["name"]))
    try:
        for _ in range(3):
            torch.testing.assert_close(add(x, y), x + y)
    finally:
        knobs.runtime.launch_enter_hook.remove(hook)
    add(x, y)
    assert seen == ["_add_kernel"] * 3


def test_pre_run_hooks_fire_on_every_call(softgpu, layer, seed):
    add = layer.add()
    x, y = randn(softgpu), randn(softgpu)
    for _ in range(4):
        add(x, y)
    jit = add.bind((x, y)).traced_host_function().__globals__["_add_kernel"]
    seen = []
    jit.add_pre_run_hook(lambda *args, **kwargs: seen.append(len(args)))
    for _ in range(3):
        add(x, y)
    jit.pre_run_hooks.clear()
    add(x, y)
    assert seen == [3, 3, 3]


@pytest.mark.softgpu(capability=80, devices=2, software_only=True)
def test_each_call_runs_on_the_device_of_its_arguments(softgpu, layer, seed):
    accumulate = layer.accumulate()
    pairs = [[soft.place(randn(softgpu), index) for _ in range(2)] for index in (0, 1)]
    for _n in range(4):
        for index, (out, x) in enumerate(pairs):
            expected = out + x
            with soft.device(index):
                torch.testing.assert_close(accumulate(out, x), expected)


@pytest.mark.softgpu(capability=80, devices=2, software_only=True)
def test_current_device_changed_after_priming(softgpu, layer, seed):
    add = layer.add()
    x, y = randn(softgpu), randn(softgpu)
    for _ in range(4):
        add(x, y)
    with soft.device(1):
        for _ in range(4):
            torch.testing.assert_close(add(x, y), x + y)
    torch.testing.assert_close(add(x, y), x + y)


@pytest.mark.softgpu(capability=80, devices=2, software_only=True)
def test_first_calls_while_another_device_is_current(softgpu, layer, seed):
    add = layer.add()
    x, y = randn(softgpu), randn(softgpu)
    with soft.device(1):
        for _ in range(6):
            torch.testing.assert_close(add(x, y), x + y)
    for _ in range(4):
        torch.testing.assert_close(add(x, y), x + y)
    taken = add.stats.snapshot().layers
    assert taken[layer.name] >= (8 if layer.name == "plan" else 2), taken


@pytest.mark.softgpu(capability=80, software_only=True)
def test_captured_launches_replay_with_new_contents(softgpu, layer, seed):
    accumulate = layer.accumulate()
    out, x = torch.zeros(1024), randn(softgpu)
    for _ in range(4):
        accumulate(out, x)
    out.zero_()
    graph = soft.Graph()
    with graph.capture():
        accumulate(out, x)
    assert graph.nodes == 1 and not out.any()
    for n in range(1, 4):
        graph.replay()
        torch.testing.assert_close(out, x * n)
    x.fill_(5.0)
    out.zero_()
    graph.replay()
    torch.testing.assert_close(out, x)
    accumulate(out, x)
    torch.testing.assert_close(out, x * 2)


def test_cuda_graph(softgpu, layer, seed):
    if softgpu.software:
        return  # captured by `test_captured_launches_replay_with_new_contents`
    accumulate = layer.accumulate()
    out, x = torch.zeros(1024, device="cuda"), randn(softgpu)
    for _ in range(4):
        accumulate(out, x)
    out.zero_()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        accumulate(out, x)
    for n in range(1, 4):
        graph.replay()
        torch.testing.assert_close(out, x * n)


@pytest.mark.softgpu(capability=80, software_only=True)
def test_launches_go_to_the_current_stream(softgpu, layer, seed):
    accumulate = layer.accumulate()
    out, x = torch.zeros(1024), randn(softgpu)
    for _ in range(4):
        accumulate(out, x)
    # Launches on a stream that is being captured are the ones that do not run.
    first, second = soft.Graph(), soft.Graph()
    with first.capture():
        accumulate(out, x)
    with second.capture():
        accumulate(out, x)
        accumulate(out, x)
    assert (first.nodes, second.nodes) == (1, 2)


@pytest.mark.softgpu(capability=80, software_only=True)
@pytest.mark.parametrize("code", [2, 700, 999])
def test_driver_error_names_the_kernel_and_the_next_call_works(softgpu, layer, seed, code):
    add = layer.add()
    x, y = randn(softgpu), randn(softgpu)
    for calls in (0, 1, 4):
        for _ in range(calls):
            torch.testing.assert_close(add(x, y), x + y)
        soft.inject("launch", 1, code)
        with pytest.raises(RuntimeError, match="_add_kernel"):
            add(x, y)
        torch.testing.assert_close(add(x, y), x + y)


def test_explicit_launcher_wins(softgpu, layer, seed):
    add = layer.add()
    x, y = randn(softgpu), randn(softgpu)
    for _ in range(4):
        add(x, y)
    seen = []
    run = add.bind((x, y)).compile_config(None)
    run(x, y, _launcher=lambda kernel, grid, *args, num_warps, num_stages: seen.append((grid, len(args))))
    assert seen == [((8,), 3)]


def test_set_config_and_reset_between_calls(softgpu, layer, seed):
    add = layer.add()
    x, y = randn(softgpu), randn(softgpu)
    for size, warps in ((128, 4), (256, 8), (64, 2), (128, 4)):
        add.bind((x, y)).set_config(helion.Config(block_sizes=[size], num_warps=warps))
        for _ in range(4):
            torch.testing.assert_close(add(x, y), x + y)
    add.reset()
    for _ in range(4):
        torch.testing.assert_close(add(x, y), x + y)


def test_eight_threads_call_while_another_resets_and_reconfigures(softgpu, layer, seed):
    add = layer.add()
    pairs = [(randn(softgpu, 256), randn(softgpu, 256)) for _ in range(8)]
    expected = [x + y for x, y in pairs]
    add(*pairs[0])
    stop = threading.Event()
    errors = []

    def work(i):
        try:
            while not stop.is_set():
                torch.testing.assert_close(add(*pairs[i]), expected[i])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for i in range(6):
        if i % 3 == 2:
            add.reset()
        else:
            add.bind(pairs[0]).set_config(helion.Config(block_sizes=[(64, 128)[i % 2]], num_warps=(2, 4)[i % 2]))
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []


def test_replaced_launchers_are_freed_and_their_counts_kept(softgpu, layer, seed):
    import gc
    import weakref

    add = layer.add()
    x, y = randn(softgpu), randn(softgpu)
    add(x, y)
    bound = add.bind((x, y))
    launcher = weakref.ref(bound.runner((x, y)))
    for _ in range(4):
        add(x, y)
    before = add.stats.snapshot().launches
    bound.set_config(helion.Config(block_sizes=[64]))
    bound._compiled.clear()  # the BoundKernel keeps compiled Configs for the way back
    add(x, y)
    gc.collect()
    assert launcher() is None
    assert before == 5 and add.stats.snapshot().launches == 6


@pytest.mark.softgpu(capability=80, devices=2, software_only=True)
def test_threads_on_devices_of_their_own(softgpu, layer, seed):
    accumulate = layer.accumulate()
    errors = []

    def work(index):
        try:
            with soft.device(index):
                out, x = (soft.place(tensor, index) for tensor in (torch.zeros(256), torch.randn(256)))
                for n in range(1, 20):
                    accumulate(out, x)
                    torch.testing.assert_close(out, x * n)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i % 2,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_inference_mode_autocast_and_no_grad(softgpu, layer, seed):
    add = layer.add()
    x, y = randn(softgpu), randn(softgpu)
    for _ in range(3):
        torch.testing.assert_close(add(x, y), x + y)
        with torch.inference_mode():
            out = add(x, y)
            assert out.is_inference()
            torch.testing.assert_close(out, x + y)
        with torch.no_grad():
            torch.testing.assert_close(add(x, y), x + y)
        with torch.autocast(softgpu.device.type, dtype=torch.bfloat16):
            # Kernels say themselves what they compute in: autocast does not change it.
            assert add(x, y).dtype is torch.float32


def test_no_compile_is_quiet_in_the_steady_state(softgpu, layer, seed):
    add = layer.add()
    x, y = randn(softgpu), randn(softgpu)
    for _ in range(4):
        add(x, y)
    with no_compile():
        for _ in range(3):
            torch.testing.assert_close(add(x, y), x + y)
        with pytest.raises(exc.CompilationForbidden):
            add(x.half(), y.half())
        with pytest.raises(exc.CompilationForbidden):
            add(x, randn(softgpu, 1025)[1:])
    torch.testing.assert_close(add(x.half(), y.half()), (x.half() + y.half()))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_torch_compile_gives_right_results(softgpu, layer, backend, monkeypatch, seed):
    import torch.utils._triton

    monkeypatch.setattr(torch.utils._triton, "has_triton", lambda: True)
    torch._dynamo.reset()
    add = layer.add()
    x, y = randn(softgpu), randn(softgpu)
    for _ in range(3):
        add(x, y)
    compiled = torch.compile(lambda a, b: add(a * 2, b).relu(), backend=backend, fullgraph=True)
    for _ in range(2):
        torch.testing.assert_close(compiled(x, y), (x * 2 + y).relu())
    torch._dynamo.reset()


def test_torch_compile_of_an_in_place_kernel(softgpu, layer, monkeypatch, seed):
    import torch.utils._triton

    monkeypatch.setattr(torch.utils._triton, "has_triton", lambda: True)
    torch._dynamo.reset()
    accumulate = layer.accumulate()
    compiled = torch.compile(lambda out, x: accumulate(out, x) * 2, backend="aot_eager", fullgraph=True)
    out, x = torch.zeros(1024, device=softgpu.device), randn(softgpu)
    for n in range(1, 3):
        torch.testing.assert_close(compiled(out, x), x * n * 2)
        torch.testing.assert_close(out, x * n)
    torch._dynamo.reset()
