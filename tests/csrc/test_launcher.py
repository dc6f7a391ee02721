"""CompiledLauncher and LaunchSpec by themselves: the guards of a launch, one test each."""

from __future__ import annotations

import gc
import sys
import weakref

import pytest
import torch
from triton import knobs

from helion.runtime import code_cache
from helion.runtime import default_launcher

from .support import HEADER

pytestmark = [pytest.mark.softgpu(capability=90, software_only=True), pytest.mark.compiles]

OPTIONS = {"num_warps": 4, "num_stages": 1}


@pytest.fixture
def module(C, softgpu, tmp_path, monkeypatch):
    monkeypatch.setenv("HELION_CACHE_DIR", str(tmp_path))
    code_cache.clear_modules()
    yield code_cache.load_module(HEADER + "def host():\n    pass\n", "host")
    code_cache.clear_modules()


class Site:
    """A primed launcher with a fallback that counts."""

    def __init__(self, C, kernel, args, grid=(2,)):
        self.fell_back = 0
        self.kernel, self.args, self.grid = kernel, args, grid
        self.launcher = C.CompiledLauncher()
        self.launcher.fallback = self.fallback
        assert self.launcher.prime(kernel, grid, args, **OPTIONS)

    def fallback(self, kernel, grid, *args, **keywords):
        self.fell_back += 1
        return default_launcher(kernel, grid, *args, **keywords)

    def __call__(self, *args, grid=None, **options):
        return self.launcher(self.kernel, grid or self.grid, *(args or self.args), **{**OPTIONS, **options})

    @property
    def launches(self):
        return self.launcher.launches


@pytest.fixture
def add(C, module):
    x, y = torch.randn(256), torch.randn(256)
    return Site(C, module._add_kernel, (x, y, torch.empty(256)))


def misaligned(n=256):
    return torch.randn(n + 1)[1:]


def test_unprimed_call_is_an_error(C):
    with pytest.raises(RuntimeError, match="not primed"):
        C.CompiledLauncher()(None, (1,), num_warps=4, num_stages=1)


def test_priming_does_not_launch(C, module):
    from tests import softgpu

    before = softgpu.launches()
    out = torch.zeros(256)
    Site(C, module._add_kernel, (torch.ones(256), torch.ones(256), out))
    assert softgpu.launches() == before and not out.any()


def test_launches_and_returns_the_compiled_kernel(add):
    from tests import softgpu

    before = softgpu.launches()
    compiled = add()
    x, y, out = add.args
    torch.testing.assert_close(out, x + y)
    assert softgpu.launches() == before + 1 and add.launches == 1 and add.fell_back == 0
    assert compiled is default_launcher(add.kernel, (2,), *add.args, **OPTIONS)


def test_subclass_of_the_launcher(C, module):
    class Mine(C.CompiledLauncher):
        extra = 3

    launcher = Mine()
    x = torch.ones(128)
    out = torch.empty(128)
    assert launcher.prime(module._add_kernel, (1,), (x, x, out), **OPTIONS)
    launcher(module._add_kernel, (1,), x, x, out, **OPTIONS)
    assert (out == 2).all() and launcher.launches == 1


@pytest.mark.parametrize("grid", [(2,), (2, 1), (1, 2, 1)])
def test_grids_of_every_rank(add, grid):
    add(grid=grid)
    assert add.launches == 1


def test_empty_grid_launches_nothing(add):
    from tests import softgpu

    before = softgpu.launches()
    add(grid=(0,))
    assert softgpu.launches() == before and add.fell_back == 0


@pytest.mark.parametrize("grid", [lambda meta: (2,), [2], (True,), (2**33,)])
def test_unusual_grids_are_tritons(add, grid):
    try:
        add(grid=grid)
    except Exception as error:  # whatever Triton says to it
        assert not isinstance(error, SystemError)
    assert add.fell_back == 1 and add.launches == 0


@pytest.mark.guard("alignment")
@pytest.mark.parametrize("position", [0, 1, 2])
def test_misaligned_pointer_is_another_variant(add, position):
    args = list(add.args)
    args[position] = misaligned()
    add(*args)
    assert add.fell_back == 1 and add.launches == 0
    assert add.launcher.prime(add.kernel, (2,), tuple(args), **OPTIONS)
    for _ in range(3):
        add(*args)
        torch.testing.assert_close(args[2], args[0] + args[1])
        add()
    assert add.fell_back == 1 and add.launches == 6


def test_tensor_without_elements(add):
    empty = torch.empty(0)
    add(empty, empty, empty, grid=(0,))
    assert add.launcher.variant_count == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int32])
def test_another_dtype_is_another_variant(add, dtype):
    add(*[t.to(dtype) for t in add.args])
    assert add.fell_back == 1


def test_other_options_are_another_variant(add):
    add(num_warps=8)
    assert add.fell_back == 1
    add()
    assert add.launches == 1


def test_other_kernel_through_one_launcher(C, module, add):
    x, out = torch.ones(256), torch.empty(256)
    args = (x, out, 3.0)
    assert add.launcher.prime(module._scale_kernel, (2,), args, **OPTIONS)
    add.launcher(module._scale_kernel, (2,), *args, **OPTIONS)
    assert (out == 3).all()
    add()
    torch.testing.assert_close(add.args[2], add.args[0] + add.args[1])
    assert add.fell_back == 0


@pytest.mark.parametrize("n", [0.5, -3.0, 2, -7, 16, 1, 0, 2**31 - 1, -(2**31), 2**31, 2**62, True, False])
def test_numbers_reach_the_kernel(C, module, n):
    x, out = torch.full((128,), 2.0, dtype=torch.float64), torch.empty(128, dtype=torch.float64)
    site = Site(C, module._scale_kernel, (x, out, n), grid=(1,))
    site()
    expected = torch.empty_like(out)
    default_launcher(module._scale_kernel, (1,), x, expected, n, **OPTIONS)
    assert torch.equal(out, expected) and site.launches == 1


@pytest.mark.guard("int_bucket")
def test_ints_of_one_class_share_a_variant(C, module):
    x, out = torch.ones(128), torch.empty(128)
    site = Site(C, module._scale_kernel, (x, out, 3), grid=(1,))
    for n in (5, 7, -9):
        site(x, out, n)
        assert (out == n).all()
    assert site.fell_back == 0
    for n in (1, 16, 2**40, 2.5, True):
        site(x, out, n)
    assert site.fell_back == 5


class Sub(torch.Tensor):
    pass


def test_subclass_of_tensor_is_tritons(add):
    x, y, out = add.args
    add(x.as_subclass(Sub), y, out)
    assert add.fell_back == 1 and add.launches == 0


@pytest.mark.guard("plain")
def test_lazily_negated_tensor_is_tritons(add):
    x, y, out = add.args
    add(torch._neg_view(x), y, out)
    assert add.fell_back == 1 and add.launches == 0


@pytest.mark.guard("modes")
def test_active_mode_sends_the_launch_to_triton(add):
    from torch.utils._python_dispatch import TorchDispatchMode

    with TorchDispatchMode():
        add()
    assert add.fell_back == 1 and add.launches == 0


def test_debug_knob_is_another_variant_and_back(add, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(knobs.runtime, "debug", True)
        add()
        assert add.fell_back == 1
        assert add.launcher.prime(add.kernel, add.grid, add.args, **OPTIONS)
        add()
    add()
    assert (add.fell_back, add.launches, add.launcher.variant_count) == (1, 2, 2)


def test_instrumentation_knob_is_part_of_the_spec(add, monkeypatch):
    monkeypatch.setattr(knobs.compilation, "instrumentation_mode", "consan")
    monkeypatch.setattr(knobs.runtime, "jit_cache_hook", lambda **_: True)
    add()
    assert add.fell_back == 1


def test_stages_hook_is_tritons(add, monkeypatch):
    def hook(*args, **kwargs):
        return ("key", "hash") if not args and not kwargs else None

    monkeypatch.setattr(knobs.runtime, "add_stages_inspection_hook", hook)
    add()
    add()
    assert add.fell_back == 2


@pytest.mark.parametrize("name", ["launch_enter_hook", "launch_exit_hook"])
def test_launch_hooks_are_seen(add, name, monkeypatch):
    seen = []
    chain = getattr(knobs.runtime, name)
    chain.add(look := lambda metadata: seen.append(1))
    try:
        add()
    finally:
        chain.remove(look)
    assert seen == [1]
    add()
    assert seen == [1] and add.launches == 1
    monkeypatch.setattr(knobs.runtime, name, lambda metadata: seen.append(2))
    add()
    assert seen == [1, 2]
    monkeypatch.setattr(knobs.runtime, name, None)
    add()
    assert add.launches == 2


def test_pre_run_hooks_fire(add):
    seen = []
    add.kernel.add_pre_run_hook(lambda *args, **kwargs: seen.append(1))
    add()
    assert seen == [1] and add.launches == 0


@pytest.mark.guard("device")
@pytest.mark.softgpu(capability=90, software_only=True, devices=2)
def test_other_current_device_is_tritons(add):
    from tests import softgpu

    with softgpu.device(1):
        add()
    assert add.fell_back == 1 and add.launches == 0
    add()
    assert add.launches == 1


@pytest.mark.guard("device_tag")
@pytest.mark.softgpu(capability=90, software_only=True, devices=2)
def test_tensor_on_another_device_is_another_variant(add):
    from tests import softgpu

    x, y, out = add.args
    add(softgpu.place(x.clone(), 1), y, out)
    assert add.fell_back == 1


@pytest.mark.guard("stream")
def test_stream_is_asked_for_at_every_launch(add):
    from tests import softgpu

    graph = softgpu.Graph()
    out = add.args[2]
    out.zero_()
    with graph.capture():
        add()
    assert not out.any() and graph.nodes == 1
    graph.replay()
    torch.testing.assert_close(out, add.args[0] + add.args[1])


def test_driver_error_names_error_and_kernel(add):
    from tests import softgpu

    softgpu.inject("launch", 1, 1)
    with pytest.raises(RuntimeError, match=r"^Triton Error \[CUDA\]: .+ \(launching kernel _add_kernel\)$"):
        add()
    add()
    assert add.launches == 1


def test_thread_without_a_context_gets_one(add):
    import threading

    errors = []

    def run():
        try:
            add()
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert errors == [] and add.launches == 1


@pytest.mark.parametrize("options", [{"launch_pdl": True}, {"num_ctas": 2}, {"launch_cooperative_grid": True}])
def test_options_of_a_launch_reach_it(C, module, options):
    x, y, out = torch.randn(512), torch.randn(512), torch.zeros(512)
    launcher = C.CompiledLauncher()
    launcher.prime(module._add_kernel, (4,), (x, y, out), **OPTIONS, **options)
    launcher(module._add_kernel, (4,), x, y, out, **OPTIONS, **options)
    assert launcher.launches == 1
    torch.testing.assert_close(out, x + y)


def test_without_a_fallback_the_launcher_primes_itself(C, module):
    x, out = torch.ones(128), torch.empty(128)
    launcher = C.CompiledLauncher()
    launcher.prime(module._add_kernel, (1,), (x, x, out), **OPTIONS)
    other = misaligned(128)
    for _ in range(3):
        launcher(module._add_kernel, (1,), x, other, out, **OPTIONS)
        torch.testing.assert_close(out, x + other)
    assert launcher.variant_count == 2 and launcher.launches == 2


def test_clear_forgets_variants(add):
    add.launcher.clear()
    with pytest.raises(RuntimeError, match="not primed"):
        add()


def test_fallback_must_be_callable(C):
    launcher = C.CompiledLauncher()
    with pytest.raises(TypeError):
        launcher.fallback = 3
    launcher.fallback = None
    assert launcher.fallback is None


def test_launcher_in_a_cycle_is_collected(add):
    holder = type("Holder", (), {})()
    holder.launcher = add.launcher
    add.launcher.fallback = lambda *args, _holder=holder, **kwargs: None
    gone = weakref.ref(holder)
    add.launcher = None
    del holder
    gc.collect()
    assert gone() is None


def test_launch_keeps_no_references(add):
    args = add.args
    before = [sys.getrefcount(a) for a in args]
    for _ in range(100):
        add()
    assert [sys.getrefcount(a) for a in args] == before


@pytest.mark.parametrize(
    "change",
    [
        {"params": [(0, "*fp32"), (9, "*fp32")]},
        {"params": [(0, "what")]},
        {"params": [0]},
        {"used_globals": [1]},
        {"jit_function": 3},
    ],
)
def test_malformed_launch_spec_is_an_error(C, module, change):
    x = torch.ones(128)
    good = {
        "compiled": None, "jit_function": module._add_kernel, "function": 1, "name": "k", "num_warps": 4, "shared": 0,
        "device": 0, "params": [(0, "*fp32")], "used_globals": [], "scratch": 2,
    }  # fmt: skip
    launcher = C.CompiledLauncher()
    with pytest.raises((TypeError, ValueError, AttributeError)):
        launcher.add_variant(module._add_kernel, (x,), {}, C.LaunchSpec(**{**good, **change}))


@pytest.mark.guard("late_hooks")
def test_a_binary_of_tritons_without_its_function_is_launched_while_no_hook_watches(C, module):
    common = {
        "compiled": None, "jit_function": None, "function": 1, "name": "k", "num_warps": 4, "shared": 0, "device": 0,
        "params": [(0, "*fp32")], "used_globals": [], "scratch": 2,
    }  # fmt: skip
    ours, tritons = C.LaunchSpec(**common), C.LaunchSpec(**common, of_triton=True)
    assert ours.guards_hold() and tritons.guards_hold()
    hook = knobs.runtime.launch_enter_hook
    hook.add(print)
    try:
        assert ours.guards_hold() and not tritons.guards_hold()
    finally:
        hook.remove(print)
    with knobs.runtime.scope():
        knobs.runtime.debug = not knobs.runtime.debug
        assert not tritons.guards_hold()
    assert tritons.guards_hold()
