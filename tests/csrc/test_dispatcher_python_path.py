"""What sends a call of the dispatcher in C to the Python path, where a plan would not serve it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from triton import knobs

from helion import exc
from helion.runtime import device as helion_device
from helion.runtime import measure

from .support import SCALE
from .support import pair

# -- what takes the Python path
# -------------------------------------------------------------------------------------------


class Sub(torch.Tensor):
    pass


class Passing(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class Seeing(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(func)
        return func(*args, **(kwargs or {}))


def test_function_mode_takes_the_python_path(make):
    kernel = make()
    x, y = pair()
    kernel.warm(x, y)
    hits = kernel.plan_hits
    with Passing():
        torch.testing.assert_close(kernel(x, y), x + y)
    assert kernel.plan_hits == hits


@pytest.mark.guard("modes")
def test_dispatch_mode_sees_the_allocation(make):
    kernel = make()
    x, y = pair()
    kernel.warm(x, y)
    hits = kernel.plan_hits
    with Seeing() as mode:
        kernel(x, y)
    assert torch.ops.aten.empty_like.default in mode.seen
    assert kernel.plan_hits == hits
    kernel(x, y)
    assert kernel.plan_hits == hits + 1


def test_set_default_device_takes_the_python_path(make):
    kernel = make()
    x, y = pair()
    kernel.warm(x, y)
    hits = kernel.plan_hits
    with torch.device("cpu"):
        kernel(x, y)
    assert kernel.plan_hits == hits


def test_transform_is_refused_as_in_python(make):
    kernel = make()
    x, y = pair()
    kernel.warm(x, y)
    with pytest.raises(exc.InvalidAPIUsage, match=r"torch.func"):
        torch.func.vmap(lambda a: kernel(a, a))(torch.randn(2, 256))


def test_subclass_takes_the_python_path(make):
    kernel = make()
    x, y = pair()
    kernel.warm(x, y)
    hits = kernel.plan_hits
    kernel(x.as_subclass(Sub), y)
    assert kernel.plan_hits == hits


@pytest.mark.guard("requires_grad")
def test_requires_grad_takes_the_python_path_only_under_grad_mode(make):
    kernel = make()
    x, y = pair()
    kernel.warm(x, y)
    hits = kernel.plan_hits
    leaf = x.clone().requires_grad_()
    with pytest.warns(exc.RequiresGradWarning):
        kernel(leaf, y)
    assert kernel.plan_hits == hits
    with torch.no_grad():
        kernel(leaf, y)
    assert kernel.plan_hits == hits + 1


def test_lazily_negated_tensor_is_refused_as_in_python(make):
    kernel = make()
    kernel.warm(*pair())
    bad = torch.zeros(256, dtype=torch.complex64).conj().imag
    with pytest.raises(exc.InvalidAPIUsage, match="negated"):
        kernel(bad, bad)


@pytest.mark.guard("plain")
def test_tensor_that_does_not_show_its_memory_is_no_leaf(make):
    kernel = make()
    assert kernel.leaves_of((torch.zeros(4, dtype=torch.complex64).conj().imag,)) is None


@pytest.mark.guard("device")
@pytest.mark.softgpu(capability=90, software_only=True, devices=2)
def test_plan_runs_on_the_device_of_its_tensors_whichever_is_current(make):
    from tests import softgpu

    kernel = make()
    x, y = pair()
    kernel.warm(x, y)
    hits = kernel.plan_hits
    with softgpu.device(1):
        torch.testing.assert_close(kernel(x, y), x + y)
        assert softgpu.streams.current_device() == 1
    assert kernel.plan_hits == hits + 1
    kernel(x, y)
    assert kernel.plan_hits == hits + 2


@pytest.mark.softgpu(capability=90, software_only=True, devices=2)
def test_device_that_cannot_be_made_current_is_an_error_and_nothing_else(make, monkeypatch):
    from tests import softgpu

    kernel = make()
    x, y = pair()
    kernel.warm(x, y)
    before = softgpu.launches()

    def refuse(index):
        raise OSError(f"device {index} is gone")

    with softgpu.device(1):
        with monkeypatch.context() as broken:
            broken.setattr(helion_device.provider, "guard", refuse)
            with pytest.raises(OSError, match="device 0 is gone"):
                kernel(x, y)
        assert softgpu.launches() == before
        torch.testing.assert_close(kernel(x, y), x + y)


@pytest.mark.guard("device_tag")
@pytest.mark.softgpu(capability=90, software_only=True, devices=2)
def test_tensors_of_another_device_have_another_signature(make):
    from tests import softgpu

    kernel = make()
    x, y = pair()
    kernel.warm(x, y)
    hits = kernel.plan_hits
    kernel(softgpu.place(x.clone(), 1), y)
    assert kernel.plan_hits == hits


@pytest.mark.guard("stream")
def test_plan_launches_on_the_current_stream(make):
    from tests import softgpu

    kernel = make(SCALE)
    x = torch.ones(256)
    kernel.warm(x)
    graph = softgpu.Graph()
    before = x.clone()
    with graph.capture():
        kernel(x)
    torch.testing.assert_close(x, before)
    graph.replay()
    torch.testing.assert_close(x, 2 * before)


@pytest.mark.guard("measuring")
def test_measuring_takes_the_python_path(make, monkeypatch):
    kernel = make()
    x, y = pair()
    kernel.warm(x, y)
    hits = kernel.plan_hits
    monkeypatch.setattr(measure, "enabled", True)
    kernel(x, y)
    assert kernel.plan_hits == hits


@pytest.mark.guard("hooks")
@pytest.mark.parametrize("hook", ["launch_enter_hook", "launch_exit_hook"])
def test_profiler_attached_late_sees_launches(make, hook):
    kernel = make()
    x, y = pair()
    kernel.warm(x, y)
    hits = kernel.plan_hits
    seen = []
    chain = getattr(knobs.runtime, hook)
    chain.add(look := lambda metadata: seen.append(metadata.get()["name"]))
    try:
        kernel(x, y)
    finally:
        chain.remove(look)
    assert seen == ["_add_kernel"] and kernel.plan_hits == hits
    kernel(x, y)
    assert kernel.plan_hits == hits + 1


@pytest.mark.guard("hooks")
@pytest.mark.parametrize("hook", ["launch_enter_hook", "launch_exit_hook"])
def test_profiler_that_replaced_the_hook_before_it_had_anything_to_call_sees_launches(make, monkeypatch, hook):
    kernel = make()
    x, y = pair()
    kernel.warm(x, y)
    monkeypatch.setattr(knobs.runtime, hook, chain := type(getattr(knobs.runtime, hook))())
    hits = kernel.plan_hits
    for _ in range(2):
        kernel(x, y)
    assert kernel.plan_hits == hits + 2  # nothing to call yet: still a plan
    seen = []
    chain.add(lambda metadata: seen.append(metadata.get()["name"]))
    kernel(x, y)
    assert seen == ["_add_kernel"] and kernel.plan_hits == hits + 2


@pytest.mark.guard("hooks")
@pytest.mark.parametrize("hook", ["launch_enter_hook", "launch_exit_hook"])
def test_profiler_whose_chain_gets_another_list_sees_launches(make, monkeypatch, hook):
    kernel = make()
    x, y = pair()
    kernel.warm(x, y)
    kernel(x, y)
    hits, seen = kernel.plan_hits, []
    looks = [lambda metadata: seen.append(metadata.get()["name"])]
    monkeypatch.setattr(getattr(knobs.runtime, hook), "calls", looks)
    kernel(x, y)
    looks.clear()
    kernel(x, y)
    assert seen == ["_add_kernel"] and kernel.plan_hits == hits + 1


@pytest.mark.guard("knobs")
def test_debug_knob_takes_the_python_path(make, monkeypatch):
    kernel = make()
    x, y = pair()
    kernel.warm(x, y)
    hits = kernel.plan_hits
    with monkeypatch.context() as patch:
        patch.setattr(knobs.runtime, "debug", True)
        torch.testing.assert_close(kernel(x, y), x + y)
    assert kernel.plan_hits == hits
    kernel(x, y)
    assert kernel.plan_hits == hits + 1


@pytest.mark.guard("pre_run_hooks")
def test_pre_run_hooks_fire_on_every_call(make):
    kernel = make()
    x, y = pair()
    kernel.warm(x, y)
    seen = []
    kernel.module._add_kernel.add_pre_run_hook(lambda *args, **kwargs: seen.append(len(args)))
    kernel(x, y)
    kernel(x, y)
    assert seen == [3, 3]


@pytest.mark.guard("globals")
def test_mutated_global_raises_as_in_triton(make):
    kernel = make(
        "SCALE = tl.constexpr(2)\n"
        "@triton.jit\n"
        "def _twice(x, out, BLOCK_0: tl.constexpr = BLOCK_0):\n"
        "    i = tl.program_id(0) * BLOCK_0 + tl.arange(0, BLOCK_0)\n"
        "    tl.store(out + i, tl.load(x + i) * SCALE)\n"
        "def host(x, *, _launcher=_default_launcher):\n"
        "    out = torch.empty_like(x)\n"
        "    _launcher(_twice, (x.numel() // BLOCK_0,), x, out, num_warps=4, num_stages=1)\n"
        "    return out\n"
    )
    x = torch.randn(128)
    torch.testing.assert_close(kernel.warm(x), 2 * x)
    assert kernel.plan_count == 1
    import triton.language as tl

    kernel.module.SCALE = tl.constexpr(3)
    with pytest.raises(RuntimeError, match="SCALE has changed"):
        kernel(x)


@pytest.mark.guard("provider")
def test_replaced_provider_is_not_launched_on(make):
    kernel = make()
    x, y = pair()
    kernel.warm(x, y)
    hits = kernel.plan_hits
    previous = helion_device.set_provider(copy.copy(helion_device.get_provider()))
    try:
        kernel(x, y)
        assert kernel.plan_hits == hits
        helion_device.set_provider(helion_device.NoCuda())
        with pytest.raises(Exception):  # noqa: B017 - no device: whatever Triton or helion says
            kernel(x, y)
    finally:
        helion_device.set_provider(previous)
    assert kernel.plan_hits == hits
