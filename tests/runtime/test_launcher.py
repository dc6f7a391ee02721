"""FastLauncher: one test per guard of the launch path, each with a mutation that makes it fail.

Tests marked ``mutation(...)`` are run a second time with the named guard taken out, and must fail then: see
``test_guard_tests_fail_without_their_guard``.
"""

from __future__ import annotations

import logging
import threading

import pytest
import torch
import triton
import triton.language as tl
from recording_driver import recording_gpu
from triton import knobs

from helion import exc
from helion.runtime import code_cache
from helion.runtime import default_launcher
from helion.runtime import launch_source
from helion.runtime import launcher as launcher_module
from helion.runtime import no_compile
from helion.runtime.host_function import clone_host_function
from helion.runtime.launcher import FastLauncher

HOST = '''\
import torch
import triton
import triton.language as tl

from helion.runtime import default_launcher as _default_launcher

{prelude}
@triton.jit
def _add_kernel(x, y, out, {scalar}BLOCK_0: tl.constexpr = 128):
    i = tl.program_id(0) * BLOCK_0 + tl.arange(0, BLOCK_0)
    tl.store(out + i, tl.load(x + i) + tl.load(y + i){extra})


def add(x, y, {scalar}*, out=None, _launcher=_default_launcher):
    if out is None:
        out = torch.empty_like(x)
    _launcher(_add_kernel, ({grid},), x, y, out, {scalar}num_warps=4, num_stages=1{options})
    return out
'''


def host_source(*, scalar=False, prelude="", extra="", grid="x.numel() // 128", options=""):
    return HOST.format(
        scalar="n, " if scalar else "",
        prelude=prelude,
        extra=extra + (" + n" if scalar else ""),
        grid=grid,
        options=options,
    )


class Bound:
    """What a BoundKernel does with a launcher: a host function of its own, primed on its first call."""

    def __init__(self, device=0, **source):
        self.module = code_cache.load_module(host_source(**source), "add")
        self.kernel = self.module._add_kernel
        self.host = clone_host_function(self.module.add)
        self.launcher = FastLauncher("add", device=device, host_function=self.host)
        self.host.__kwdefaults__["_launcher"] = self.launcher

    def __call__(self, *args, **kwargs):
        return self.host(*args, **kwargs)

    def layers(self):
        return self.launcher.stats.snapshot().layers

    def reasons(self):
        return self.launcher.stats.snapshot().reasons


@pytest.fixture(params=["direct", "compiled.run"])
def gpu(request, tmp_path, monkeypatch):
    """Both ways to launch: Triton 3.7's C function, and what is used where that cannot be (Triton 3.6, scratch memory)."""
    if request.param != "direct":
        monkeypatch.setattr(launcher_module._compat_triton, "_direct_launch", lambda launcher: None)
    monkeypatch.setattr(launcher_module._extension, "C", None)  # the driver is not one that C could call
    monkeypatch.setenv("HELION_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("HELION_SKIP_FAST_LAUNCHER", raising=False)
    code_cache.clear_modules()
    with recording_gpu() as gpu:
        yield gpu
    code_cache.clear_modules()


def pair(n=1024, **options):
    return torch.ones(n, **options), torch.ones(n, **options)


def misaligned(n=1024):
    x = torch.ones(n + 1)[1:]
    assert x.data_ptr() % 16 == 4
    return x


def mutation(name):
    """Name of the guard without which the test fails."""
    return pytest.mark.mutation(name)


# -- the fast path ------------------------------------------------------------------------------------------------------


def test_first_call_goes_to_triton_and_the_next_do_not(gpu, monkeypatch):
    add = Bound()
    x, y = pair()
    first = add(x, y)
    monkeypatch.setattr(type(add.kernel), "run", None)
    second = add(x, y)
    assert add.layers() == {"default_launcher": 1, "fast_launcher": 1}
    one, two = gpu.launches
    assert (one.function, one.grid, one.num_warps, one.stream) == (two.function, two.grid, two.num_warps, two.stream)
    assert one.pointers == (x.data_ptr(), y.data_ptr(), first.data_ptr())
    assert two.pointers == (x.data_ptr(), y.data_ptr(), second.data_ptr())


def test_launcher_returns_the_compiled_kernel_as_triton_does(gpu):
    add = Bound()
    x, y = pair()
    out = torch.empty_like(x)
    first = add.launcher(add.kernel, (8,), x, y, out, num_warps=4, num_stages=1)
    assert add.launcher(add.kernel, (8,), x, y, out, num_warps=4, num_stages=1) is first


def test_grids_of_every_rank(gpu):
    add = Bound()
    x, y = pair()
    out = torch.empty_like(x)
    for grid in [(8,), (8, 1), (4, 2, 1), (2, 3, 5)] * 2:
        add.launcher(add.kernel, grid, x, y, out, num_warps=4, num_stages=1)
        assert gpu.launches[-1].grid == (*grid, 1, 1)[:3]
    assert add.layers()["fast_launcher"] == 5  # (4, 2, 1) and (2, 3, 5) are one site


def test_parameters_and_tensors_share_a_site(gpu):
    add = Bound()
    x, y = pair()
    weight = torch.nn.Parameter(y, requires_grad=False)
    for _ in range(2):
        add(x, y)
        add(x, weight)
    assert add.layers() == {"default_launcher": 1, "fast_launcher": 3}


def test_scalars_are_passed_by_value(gpu):
    add = Bound(scalar=True)
    x, y = pair()
    for n in (3, 5, 7):
        add(x, y, n)
    assert [launch.scalars for launch in gpu.launches] == [(3,), (5,), (7,)]
    assert add.layers() == {"default_launcher": 1, "fast_launcher": 2}


def test_traceback_shows_the_generated_function(gpu):
    import traceback

    add = Bound()
    x, y = pair()
    add(x, y)
    gpu.fail_next("unspecified launch failure")
    with pytest.raises(RuntimeError) as caught:
        add(x, y)
    assert "(grid[0], 1, 1, stream, function" in "".join(traceback.format_exception(caught.value))


# -- guard 1: alignment -------------------------------------------------------------------------------------------------


@mutation("alignment")
def test_misaligned_pointer_gets_its_own_binary(gpu):
    add = Bound()
    x, y = pair()
    add(x, y)
    out = misaligned()
    add(x, y, out=out)
    add(x, y, out=out)
    aligned, first, second = gpu.launches
    assert aligned.function != first.function == second.function
    assert second.pointers[2] == out.data_ptr()


def test_each_misaligned_position_is_a_variant(gpu):
    add = Bound()
    x, y = pair()
    m = misaligned()
    calls = [(x, y, y), (m, y, y), (x, m, y), (x, y, m), (m, m, m)]
    for _ in range(2):
        for a, b, out in calls:
            add(a, b, out=out)
    functions = [launch.function for launch in gpu.launches]
    assert functions[:5] == functions[5:] and len(set(functions)) == 5


def test_alternating_alignment_stays_on_the_fast_path(gpu):
    add = Bound()
    x, y = pair()
    out = misaligned()
    for _ in range(10):
        add(x, y)
        add(x, y, out=out)
    assert add.layers() == {"default_launcher": 2, "fast_launcher": 18}


@mutation("int_bucket")
@pytest.mark.parametrize(("first", "second"), [(3, 1), (1, 3), (16, 17), (3, 2**40), (2**40, 2**63)])
def test_ints_in_different_buckets_get_different_binaries(gpu, first, second):
    add = Bound(scalar=True)
    x, y = pair()
    add(x, y, first)
    add(x, y, second)
    add(x, y, second)
    one, two, again = gpu.launches
    assert one.function != two.function == again.function
    assert add.layers() == {"default_launcher": 2, "fast_launcher": 1}


# -- guard 2: types -----------------------------------------------------------------------------------------------------


@mutation("type")
def test_subclass_goes_to_triton(gpu):
    class Sub(torch.Tensor):
        def data_ptr(self):
            return super().data_ptr() + 256

    add = Bound()
    x, y = pair()
    add(x, y)
    add(x.as_subclass(Sub), y, out=y)
    assert add.layers() == {"default_launcher": 2}
    assert add.reasons()["argument of type Sub"] == 1


@mutation("type")
def test_scalar_of_another_type_is_another_site(gpu):
    add = Bound(scalar=True)
    x, y = pair()
    for n in (3, 3.5, True, 3, 3.5, True):
        add(x, y, n)
    functions = [launch.function for launch in gpu.launches]
    assert functions[:3] == functions[3:] and len(set(functions)) == 3


# -- guard 4: knobs -----------------------------------------------------------------------------------------------------


@mutation("knobs")
def test_debug_knob_compiles_another_binary_and_finds_the_old_one_again(gpu, monkeypatch):
    add = Bound()
    x, y = pair()
    add(x, y)
    with monkeypatch.context() as patch:
        patch.setattr(knobs.runtime, "debug", True)
        add(x, y)
        add(x, y)
    add(x, y)
    plain, debug, debug_again, plain_again = [launch.function for launch in gpu.launches]
    assert plain == plain_again != debug == debug_again
    assert add.layers() == {"default_launcher": 2, "fast_launcher": 2}


@mutation("knobs")
def test_instrumentation_knob_is_part_of_the_launch_spec(gpu, monkeypatch):
    add = Bound()
    x, y = pair()
    add(x, y)
    seen = []
    monkeypatch.setattr(knobs.runtime, "jit_cache_hook", lambda **kwargs: seen.append(1) or True)
    add(x, y)
    assert seen == []
    monkeypatch.setattr(knobs.compilation, "instrumentation_mode", "consan")
    add(x, y)  # the cache hook declines to compile, so nothing is launched
    assert seen == [1] and len(gpu.launches) == 2


@mutation("knobs")
def test_stages_hook_is_asked_on_every_call(gpu, monkeypatch):
    add = Bound()
    x, y = pair()
    add(x, y)
    asked = []

    def hook(*args, **kwargs):
        if not args and not kwargs:
            asked.append(1)
            return "key", "hash"
        return None

    monkeypatch.setattr(knobs.runtime, "add_stages_inspection_hook", hook)
    for _ in range(2):
        asked.clear()
        add(x, y)
        assert asked
    assert gpu.launches[0].function != gpu.launches[1].function == gpu.launches[2].function


def test_unrelated_knob_does_not_leave_the_fast_path(gpu, monkeypatch):
    add = Bound()
    x, y = pair()
    add(x, y)
    monkeypatch.setattr(knobs.runtime, "jit_cache_hook", lambda **kwargs: None)
    add(x, y)
    assert add.layers() == {"default_launcher": 1, "fast_launcher": 1}


# -- guard 5: launch hooks ----------------------------------------------------------------------------------------------


@mutation("hooks")
def test_profiler_attached_late_sees_launches(gpu):
    add = Bound()
    x, y = pair()
    add(x, y)
    add(x, y)
    entered, left = [], []
    knobs.runtime.launch_enter_hook.add(enter := lambda metadata: entered.append(metadata.get()["name"]))
    knobs.runtime.launch_exit_hook.add(leave := lambda metadata: left.append(metadata.get()["stream"]))
    try:
        with gpu.stream(0x55):
            add(x, y)
    finally:
        knobs.runtime.launch_enter_hook.remove(enter)
        knobs.runtime.launch_exit_hook.remove(leave)
    add(x, y)
    assert entered == ["_add_kernel"] and left == [0x55]
    assert add.layers() == {"default_launcher": 1, "fast_launcher": 3}


@mutation("hooks")
def test_hook_assigned_as_a_plain_function(gpu, monkeypatch):
    add = Bound()
    x, y = pair()
    add(x, y)
    seen = []
    monkeypatch.setattr(knobs.runtime, "launch_enter_hook", lambda metadata: seen.append(metadata.get()["name"]))
    add(x, y)
    assert seen == ["_add_kernel"]


def test_launch_metadata_is_built_only_for_a_hook(gpu, monkeypatch):
    add = Bound()
    x, y = pair()
    compiled = add.launcher(add.kernel, (8,), x, y, y, num_warps=4, num_stages=1)
    built = []
    original = type(compiled).launch_metadata
    monkeypatch.setattr(
        type(compiled), "launch_metadata", lambda self, *args: built.append(args) or original(self, *args)
    )
    add(x, y)
    assert built == []
    knobs.runtime.launch_enter_hook.add(hook := lambda metadata: None)
    try:
        out = add(x, y)
    finally:
        knobs.runtime.launch_enter_hook.remove(hook)
    ((grid, _stream, *arguments),) = built
    assert grid == (8,) and arguments[-1] == 128 and arguments[2] is out


def test_hook_that_raises_keeps_its_error(gpu, monkeypatch):
    add = Bound()
    x, y = pair()
    add(x, y)

    def hook(metadata):
        raise RuntimeError("from the hook")

    monkeypatch.setattr(knobs.runtime, "launch_enter_hook", hook)
    with pytest.raises(RuntimeError, match=r"^from the hook$"):
        add(x, y)


# -- guards 6, 7: pre-run hooks, globals --------------------------------------------------------------------------------


@mutation("pre_run_hooks")
def test_pre_run_hooks_fire_on_every_call(gpu):
    add = Bound()
    x, y = pair()
    add(x, y)
    seen = []
    add.kernel.add_pre_run_hook(lambda *args, **kwargs: seen.append((len(args), kwargs["num_warps"])))
    add(x, y)
    add(x, y)
    assert seen == [(3, 4), (3, 4)]


@mutation("globals")
def test_mutated_global_raises_as_in_triton(gpu):
    add = Bound(prelude="SCALE = tl.constexpr(2)\n", extra=" * SCALE")
    x, y = pair()
    add(x, y)
    add(x, y)
    add.module.SCALE = tl.constexpr(3)
    with pytest.raises(RuntimeError, match="SCALE has changed"):
        add(x, y)
    add.module.SCALE = tl.constexpr(2)
    add(x, y)


# -- guard 8: device ----------------------------------------------------------------------------------------------------


@mutation("device")
def test_current_device_changed_after_priming(gpu):
    add = Bound(device=None)
    x, y = pair()
    add(x, y)
    add(x, y)
    with gpu.guard(1):
        add(x, y)
        add(x, y)
    add(x, y)
    assert [launch.device for launch in gpu.launches] == [0, 0, 1, 1, 0]
    assert add.layers() == {"default_launcher": 2, "fast_launcher": 3}


@mutation("device")
def test_launch_happens_on_the_kernels_own_device(gpu):
    add = Bound(device=1)
    x, y = (gpu.move(t, 1) for t in pair())
    out = gpu.move(torch.empty_like(x), 1)
    for _ in range(3):
        add(x, y, out=out)
        assert gpu.current_device() == 0
    with gpu.guard(1):
        add(x, y, out=out)
    assert [launch.device for launch in gpu.launches] == [1, 1, 1, 1]
    assert add.layers() == {"default_launcher": 1, "fast_launcher": 3}


def test_stream_is_that_of_the_kernels_device(gpu):
    add = Bound(device=1)
    gpu.state.streams = {0: 0xA, 1: 0xB}
    x, y = (gpu.move(t, 1) for t in pair())
    for _ in range(2):
        add(x, y, out=x)
    assert [launch.stream for launch in gpu.launches] == [0xB, 0xB]


@mutation("device_tag")
def test_tensor_that_moved_to_another_device_is_noticed(gpu):
    add = Bound(device=None)
    x, y = pair()
    add(x, y)
    add(gpu.move(torch.ones(1024), 1), y)
    assert add.layers() == {"default_launcher": 2}


# -- guard 9: stream and capture ----------------------------------------------------------------------------------------


@mutation("stream")
def test_stream_is_asked_on_every_launch(gpu):
    add = Bound()
    x, y = pair()
    for handle in (0, 1, 2, 0):
        with gpu.stream(handle):
            add(x, y)
    assert [launch.stream for launch in gpu.launches] == [0, 1, 2, 0]


@mutation("stream")
def test_capture_records_the_launch(gpu):
    add = Bound()
    x, y = pair()
    add(x, y)
    add(x, y)
    with gpu.capture() as graph:
        add(x, y)
    assert len(graph) == 1 and len(gpu.launches) == 2


# -- guard 10: failure --------------------------------------------------------------------------------------------------


def test_failed_priming_leaves_the_kernel_to_triton_and_says_so_once(gpu, monkeypatch, caplog):
    def broken(compiled):
        raise AttributeError("no attribute of that name")

    monkeypatch.setattr(launcher_module._compat_triton, "launch_handles", broken)
    add = Bound()
    x, y = pair()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            add(x, y)
    assert len(gpu.launches) == 3
    assert add.layers() == {"default_launcher": 3}
    assert [r.message for r in caplog.records] == [
        "add: launches go through Triton's own path from now on: priming failed: AttributeError: no attribute of that name"
    ]


def test_failed_compile_raises_tritons_error_every_time_and_is_logged_once(gpu, caplog):
    add = Bound(extra=" + undefined_name")
    x, y = pair()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with pytest.raises(triton.compiler.errors.CompilationError):
                add(x, y)
    assert len([r for r in caplog.records if "Triton failed" in r.message]) == 1


def test_skip_fast_launcher_variable(gpu, monkeypatch):
    monkeypatch.setenv("HELION_SKIP_FAST_LAUNCHER", "1")
    add = Bound()
    x, y = pair()
    add(x, y)
    add(x, y)
    assert add.layers() == {"default_launcher": 2}
    assert add.reasons() == {"HELION_SKIP_FAST_LAUNCHER is set": 2}


# -- guards 11, 12: override, shared source -----------------------------------------------------------------------------


def test_explicit_launcher_wins(gpu):
    add = Bound()
    x, y = pair()
    add(x, y)
    add(x, y)
    seen = []

    def trial(kernel, grid, *args, num_warps, num_stages):
        seen.append((kernel, grid, len(args), num_warps, num_stages))

    add.host(x, y, _launcher=trial)
    assert seen == [(add.kernel, (8,), 3, 4, 1)] and len(gpu.launches) == 2


def test_bound_kernels_that_share_a_module_keep_their_own_launchers(gpu):
    one, two = Bound(), Bound()
    assert one.module is two.module
    x, y = pair()
    one(x, y)
    one(x, y)
    assert one.module.add.__kwdefaults__["_launcher"] is default_launcher
    assert two.layers() == {}
    two(x, y)
    assert one.layers() == {"default_launcher": 1, "fast_launcher": 1} and two.layers() == {"default_launcher": 1}


# -- guard 13: extras ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["launch_cooperative_grid", "launch_pdl"])
def test_launch_attributes_reach_every_launch(gpu, option):
    add = Bound(options=f", {option}=True")
    x, y = pair()
    add(x, y)
    add(x, y)
    assert add.layers() == {"default_launcher": 1, "fast_launcher": 1}
    assert [(launch.cooperative, launch.pdl) for launch in gpu.launches] == [
        (option == "launch_cooperative_grid", option == "launch_pdl")
    ] * 2


def test_cluster_size_reaches_every_launch(gpu):
    add = Bound(options=", num_ctas=2")
    x, y = pair()
    add(x, y)
    add(x, y)
    assert add.layers() == {"default_launcher": 1, "fast_launcher": 1}
    assert [launch.num_ctas for launch in gpu.launches] == [2, 2]


def test_host_tensor_descriptor_stays_with_triton(gpu):
    source = """
import triton
import triton.language as tl


@triton.jit
def copy_kernel(src, out, BLOCK: tl.constexpr = 128):
    tl.store(out + tl.arange(0, BLOCK), src.load([0]))
"""
    from triton.tools.tensor_descriptor import TensorDescriptor

    kernel = code_cache.load_module(source, "copy").copy_kernel
    launcher = FastLauncher("copy", device=0)
    x, y = pair()
    for _ in range(2):
        with pytest.raises(AttributeError, match="fill_tma_descriptor"):  # the recording driver has none: Triton asked for it
            launcher(kernel, (1,), TensorDescriptor.from_tensor(x, [128]), y, num_warps=4, num_stages=1)
    assert launcher.stats.snapshot().reasons == {"argument of type TensorDescriptor": 2}


def test_scratch_memory_is_allocated_on_every_launch(gpu, monkeypatch):
    monkeypatch.setattr(launcher_module._compat_triton.CompiledKernel, "__init__", _with_scratch)
    sizes = []
    triton.set_allocator(lambda size, alignment, stream: sizes.append(size) or torch.empty(size, dtype=torch.int8))
    try:
        add = Bound()
        x, y = pair()
        add(x, y)
        add(x, y)
    finally:
        triton.set_allocator(launcher_module._compat_triton._allocation._NULL_ALLOCATOR)
    assert add.layers() == {"default_launcher": 1, "fast_launcher": 1}
    assert sizes == [8 * 64, 8 * 64]
    assert all(launch.scratch[0] is not None for launch in gpu.launches)


_original_init = launcher_module._compat_triton.CompiledKernel.__init__


def _with_scratch(self, *args):
    _original_init(self, *args)
    self.metadata = self.metadata._replace(global_scratch_size=64)


def test_argument_that_only_triton_understands(gpu):
    add = Bound(scalar=True)
    x, y = pair()
    for _ in range(2):
        add(x, y, tl.constexpr(3))
    assert add.layers() == {"default_launcher": 2}
    assert add.reasons() == {"argument of type constexpr": 2}


# -- guard 14: errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("primed", [False, True])
def test_driver_error_names_the_kernel_and_the_next_call_works(gpu, primed):
    add = Bound()
    x, y = pair()
    if primed:
        add(x, y)
    gpu.fail_next("out of memory")
    with pytest.raises(RuntimeError, match=r"Triton Error \[CUDA\]: out of memory \(launching kernel _add_kernel\)"):
        add(x, y)
    add(x, y)
    add(x, y)
    assert add.launcher.given_up is None
    assert add.layers()["fast_launcher"] >= 1


# -- guard 15: change while others call ---------------------------------------------------------------------------------


def test_eight_threads_prime_and_call_at_once(gpu):
    add = Bound()
    x, y = pair()
    m = misaligned()
    errors = []

    def work(i):
        try:
            for n in range(200):
                add(x, y, out=m if (n + i) % 2 else y)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(gpu.launches) == 1600 == sum(add.layers().values())
    by_pointer = {}
    for launch in gpu.launches:
        by_pointer.setdefault(launch.pointers[2], set()).add(launch.function)
    assert by_pointer[m.data_ptr()].isdisjoint(by_pointer[y.data_ptr()])


# -- no_compile ---------------------------------------------------------------------------------------------------------


def test_no_compile_raises_for_a_new_variant_and_not_for_a_known_one(gpu):
    add = Bound()
    x, y = pair()
    add(x, y)
    with no_compile():
        add(x, y)
        with pytest.raises(exc.CompilationForbidden, match=r"'add'.*compile _add_kernel.*not 16-byte aligned"):
            add(x, y, out=misaligned())
    add(x, y, out=misaligned())
    assert add.launcher.given_up is None


def test_no_compile_lets_through_what_triton_has_in_memory(gpu, monkeypatch):
    monkeypatch.setenv("HELION_SKIP_FAST_LAUNCHER", "1")
    add = Bound()
    x, y = pair()
    add(x, y)
    with no_compile():
        add(x, y)
        with pytest.raises(exc.CompilationForbidden):
            add(x, y, out=misaligned())


# -- the tests above notice a missing guard -------------------------------------------------------------------------------


def _without(monkeypatch, name):
    """Take the guard ``name`` out of the launch path."""
    import dataclasses

    m = launch_source
    if name in {guard.name for guard in m.GUARDS}:
        monkeypatch.setattr(m, "GUARDS", tuple(guard for guard in m.GUARDS if guard.name != name))
    elif name in ("type", "device_tag"):
        kinds = {
            key: dataclasses.replace(kind, guards=tuple(guard for guard in kind.guards if guard.name != name))
            for key, kind in m.KINDS.items()
        }
        monkeypatch.setattr(m, "KINDS", kinds)
    elif name == "int_bucket":
        monkeypatch.setattr(m, "KINDS", {k: dataclasses.replace(kind, variant="") for k, kind in m.KINDS.items()})
    else:
        original = m.launch_source
        before, after = {
            "alignment": (" & 15", " & 0"),
            "stream": ("stream = provider.current_stream(DEVICE)", "stream = SITE.__dict__.setdefault('s', 0)"),
            "hooks": ("enter = exit = metadata = None", "enter = exit = metadata = None; ENTER_ = EXIT_ = None; "),
        }[name]

        def mutated(*args):
            source = original(*args)
            assert before in source
            source = source.replace(before, after)
            if name == "hooks":
                source = source.replace("enter, exit = runtime", "_ = runtime").replace(
                    "if has_hooks(enter)", "if False and has_hooks(enter)"
                )
            return source

        monkeypatch.setattr(launcher_module, "launch_source", mutated)


def _marked():
    for name, function in sorted(globals().items()):
        for mark in getattr(function, "pytestmark", []):
            if mark.name == "mutation":
                cases = [
                    dict(zip(p.args[0] if isinstance(p.args[0], tuple) else [p.args[0]], p.args[1][0]))
                    for p in function.pytestmark
                    if p.name == "parametrize"
                ]
                yield pytest.param(mark.args[0], function, cases[0] if cases else {}, id=f"{mark.args[0]}-{name}")


@pytest.mark.parametrize(("guard", "test", "arguments"), list(_marked()))
def test_guard_tests_fail_without_their_guard(gpu, monkeypatch, guard, test, arguments):
    with monkeypatch.context() as patch:
        _without(patch, guard)
        code_cache.clear_modules()
        import inspect

        if "monkeypatch" in inspect.signature(test).parameters:
            arguments = {**arguments, "monkeypatch": patch}
        with pytest.raises((AssertionError, RuntimeError, TypeError, pytest.fail.Exception)):
            test(gpu, **arguments)


def test_every_guard_of_the_tables_has_a_mutation():
    tested = {param.values[0] for param in _marked()}
    by_construction = {"kernel", "options", "count"}  # which site a call belongs to: the tests below
    named = {guard.name for guard in launch_source.GUARDS}
    named |= {guard.name for kind in launch_source.KINDS.values() for guard in kind.guards}
    assert named - by_construction <= tested


@pytest.mark.parametrize("guard", ["kernel", "options", "count"])
def test_sites_of_one_launcher_are_told_apart(gpu, monkeypatch, guard):
    def run():
        gpu.launches.clear()
        code_cache.clear_modules()
        one, two = Bound(), Bound(extra=" + 1")
        x, y = pair()
        for _ in range(2):
            for kernel, grid, options in [
                (one.kernel, (8,), {"num_warps": 4}),
                (one.kernel, (8, 2), {"num_warps": 4}),
                (one.kernel, (8, 2), {"num_warps": 8}),
                (one.kernel, (8, 2), {"num_warps": 8, "launch_pdl": True}),
                (two.kernel, (8, 2), {"num_warps": 8, "launch_pdl": True}),
            ]:
                # What `one`'s host function would call: the function generated for the most recent site.
                launch = one.host.__kwdefaults__["_launcher"]
                launch(kernel, grid, x, y, y, num_stages=1, **options)
        first, second = gpu.launches[:5], gpu.launches[5:]
        assert first == second
        assert len({launch.function for launch in first}) == 4
        assert [launch.grid for launch in first] == [(8, 1, 1), (8, 2, 1), (8, 2, 1), (8, 2, 1), (8, 2, 1)]
        assert one.layers()["fast_launcher"] == 5

    run()
    with monkeypatch.context() as patch:
        _without(patch, guard)
        with pytest.raises((AssertionError, RuntimeError, ValueError)):
            run()
