"""FastLauncher: what is checked at every launch, so that the binary that runs is the one that Triton would run.

One test for each guard at least. Those marked ``mutation(name)`` are run a second time, by ``test_guard_mutations.py``,
with that guard taken out, and must fail then.
"""

from __future__ import annotations

import pytest
import torch
import triton.language as tl
from triton import knobs

from helion import exc

from .hand_written import HandWrittenHost
from .hand_written import misaligned
from .hand_written import pair

pytestmark = [pytest.mark.usefixtures("way_to_launch"), pytest.mark.compiles]

mutation = pytest.mark.mutation


# -- alignment and buckets of integers
# ----------------------------------------------------------------------------------


@mutation("alignment")
def test_misaligned_pointer_gets_its_own_binary(gpu):
    add = HandWrittenHost()
    x, y = pair()
    add(x, y)
    out = misaligned()
    add(x, y, out=out)
    add(x, y, out=out)
    aligned, first, second = gpu.launches
    assert aligned.function != first.function == second.function
    assert second.pointers[2] == out.data_ptr()


def test_each_misaligned_position_is_a_variant(gpu):
    add = HandWrittenHost()
    x, y = pair()
    m = misaligned()
    calls = [(x, y, y), (m, y, y), (x, m, y), (x, y, m), (m, m, m)]
    for _ in range(2):
        for a, b, out in calls:
            add(a, b, out=out)
    functions = [launch.function for launch in gpu.launches]
    assert functions[:5] == functions[5:] and len(set(functions)) == 5


def test_alternating_alignment_stays_on_the_fast_path(gpu):
    add = HandWrittenHost()
    x, y = pair()
    out = misaligned()
    for _ in range(10):
        add(x, y)
        add(x, y, out=out)
    assert add.layers() == {"default_launcher": 2, "fast_launcher": 18}


@mutation("int_bucket")
@pytest.mark.parametrize(("first", "second"), [(3, 1), (1, 3), (16, 17), (3, 2**40), (2**40, 2**63)])
def test_ints_in_different_buckets_get_different_binaries(gpu, first, second):
    add = HandWrittenHost(scalar=True)
    x, y = pair()
    add(x, y, first)
    add(x, y, second)
    add(x, y, second)
    one, two, again = gpu.launches
    assert one.function != two.function == again.function
    assert add.layers() == {"default_launcher": 2, "fast_launcher": 1}


# -- types
# --------------------------------------------------------------------------------------------------------------


@mutation("type")
def test_subclass_goes_to_triton(gpu):
    class Sub(torch.Tensor):
        def data_ptr(self):
            return super().data_ptr() + 256

    add = HandWrittenHost()
    x, y = pair()
    add(x, y)
    add(x.as_subclass(Sub), y, out=y)
    assert add.layers() == {"default_launcher": 2}
    assert add.reasons()["argument of type Sub"] == 1


@mutation("type")
def test_scalar_of_another_type_is_another_launch_function(gpu):
    add = HandWrittenHost(scalar=True)
    x, y = pair()
    for n in (3, 3.5, True, 3, 3.5, True):
        add(x, y, n)
    functions = [launch.function for launch in gpu.launches]
    assert functions[:3] == functions[3:] and len(set(functions)) == 3


@mutation("memory")
def test_tensor_whose_memory_was_freed_is_refused(gpu):
    add = HandWrittenHost()
    x, y = pair()
    add(x, y)
    x.untyped_storage().resize_(0)
    with pytest.raises(exc.InvalidAPIUsage, match="without memory"):
        add(x, y, out=y)


# -- knobs
# --------------------------------------------------------------------------------------------------------------


@mutation("knobs")
def test_debug_knob_compiles_another_binary_and_finds_the_old_one_again(gpu, monkeypatch):
    add = HandWrittenHost()
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
    add = HandWrittenHost()
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
    add = HandWrittenHost()
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
    add = HandWrittenHost()
    x, y = pair()
    add(x, y)
    monkeypatch.setattr(knobs.runtime, "jit_cache_hook", lambda **kwargs: None)
    add(x, y)
    assert add.layers() == {"default_launcher": 1, "fast_launcher": 1}


# -- launch hooks
# -------------------------------------------------------------------------------------------------------


@mutation("hooks")
def test_profiler_attached_late_sees_launches(gpu):
    add = HandWrittenHost()
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
    add = HandWrittenHost()
    x, y = pair()
    add(x, y)
    seen = []
    monkeypatch.setattr(knobs.runtime, "launch_enter_hook", lambda metadata: seen.append(metadata.get()["name"]))
    add(x, y)
    assert seen == ["_add_kernel"]


def test_launch_metadata_is_built_only_for_a_hook(gpu, monkeypatch):
    add = HandWrittenHost()
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
    add = HandWrittenHost()
    x, y = pair()
    add(x, y)

    def hook(metadata):
        raise RuntimeError("from the hook")

    monkeypatch.setattr(knobs.runtime, "launch_enter_hook", hook)
    with pytest.raises(RuntimeError, match=r"^from the hook$"):
        add(x, y)


# -- pre-run hooks and globals
# ------------------------------------------------------------------------------------------


@mutation("pre_run_hooks")
def test_pre_run_hooks_fire_on_every_call(gpu):
    add = HandWrittenHost()
    x, y = pair()
    add(x, y)
    seen = []
    add.kernel.add_pre_run_hook(lambda *args, **kwargs: seen.append((len(args), kwargs["num_warps"])))
    add(x, y)
    add(x, y)
    assert seen == [(3, 4), (3, 4)]


@mutation("globals")
def test_mutated_global_raises_as_in_triton(gpu):
    add = HandWrittenHost(prelude="SCALE = tl.constexpr(2)\n", extra=" * SCALE")
    x, y = pair()
    add(x, y)
    add(x, y)
    add.module.SCALE = tl.constexpr(3)
    with pytest.raises(RuntimeError, match="SCALE has changed"):
        add(x, y)
    add.module.SCALE = tl.constexpr(2)
    add(x, y)


# -- device
# -------------------------------------------------------------------------------------------------------------


@mutation("device")
def test_current_device_changed_after_priming(gpu):
    add = HandWrittenHost(device=None)
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
    add = HandWrittenHost(device=1)
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
    add = HandWrittenHost(device=1)
    gpu.state.streams = {0: 0xA, 1: 0xB}
    x, y = (gpu.move(t, 1) for t in pair())
    for _ in range(2):
        add(x, y, out=x)
    assert [launch.stream for launch in gpu.launches] == [0xB, 0xB]


@mutation("device_tag")
def test_tensor_that_moved_to_another_device_is_noticed(gpu):
    add = HandWrittenHost(device=None)
    x, y = pair()
    add(x, y)
    add(gpu.move(torch.ones(1024), 1), y)
    assert add.layers() == {"default_launcher": 2}


# -- stream and capture
# -------------------------------------------------------------------------------------------------


@mutation("stream")
def test_stream_is_asked_on_every_launch(gpu):
    add = HandWrittenHost()
    x, y = pair()
    for handle in (0, 1, 2, 0):
        with gpu.stream(handle):
            add(x, y)
    assert [launch.stream for launch in gpu.launches] == [0, 1, 2, 0]


@mutation("stream")
def test_capture_records_the_launch(gpu):
    add = HandWrittenHost()
    x, y = pair()
    add(x, y)
    add(x, y)
    with gpu.capture() as graph:
        add(x, y)
    assert len(graph) == 1 and len(gpu.launches) == 2
