"""The guards of the launch path: each condition under which a fast path would be wrong, once.

Whoever has to know them reads this table: the launch function that is generated in Python is made from its texts
(``source.py``), the extension's ``HELION_GUARD(name, ...)`` have its names (``csrc/guard.h``), docs/launch.md shows it,
and the tests take each guard out, in both paths, to see that its tests fail then.

Adding a guard is adding a row, its condition in ``csrc/``, and a test marked with its name in each path that has it.

Not here: the conditions in C, and what a path does about a call that a guard turns away.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["GUARDS", "Guard"]


class Guard(NamedTuple):
    """One row.

    Attributes:
        name: the guard's only name: in messages, in tests and in C.
        why: what went wrong without it.
        python: how it stands in the launch function that is generated in Python; "" where that path has it elsewhere.
            Names in capitals are constants of the function. ``{a}``, ``{p}`` and ``{tag}`` stand for an argument, its
            address and its device, ``{mismatch}`` for a kind's own condition.
        out: what stands there with the guard taken out.
        c: whether ``csrc/`` has it.
        elsewhere: where the Python path has it, if not in that function.
    """

    name: str
    why: str
    python: str = ""
    out: str = "False"
    c: bool = True
    elsewhere: str = ""


#: Triton's buckets of an int: exactly 1 is a constant, multiples of 16 are known to be, and the width follows the
#: value. ``csrc/argument.h`` makes the same of it.
_INT_BUCKET = (
    "(1 if {a} == 1 else 2 if not {a} & 15 else 0)"
    " + (0 if -0x80000000 <= {a} <= 0x7FFFFFFF else 4 if -0x8000000000000000 <= {a} <= 0x7FFFFFFFFFFFFFFF else 8)"
)

_FRONT = "the front's tensor check"
_POOL = "no pool without the extension"

#: In the order in which the generated function asks them, as far as it does.
GUARDS: tuple[Guard, ...] = (
    # -- of a launch
    Guard(
        "kernel",
        "a host function launches several kernels through one launcher",
        "triton_kernel is not KERNEL",
        c=False,
    ),
    Guard(
        "options",
        "a launch with other options is another binary",
        "num_warps != NUM_WARPS or num_stages != NUM_STAGES or options != OPTIONS",
        c=False,
    ),
    Guard(
        "count",
        "a grid of another rank, or other arguments, are read wrong",
        "len(args) != COUNT or len(grid) != RANK",
        c=False,
    ),
    Guard(
        # A stages hook decides anew on every call, so it is Triton's. Assigned knobs sit in the instance's dict;
        # comparing that is cheaper than reading three of them.
        "knobs",
        "`debug`, `instrumentation_mode` and `add_stages_inspection_hook` change the binary; flipped back, the old one",
        "(RUNTIME_KNOBS != RUNTIME_THEN or COMPILE_KNOBS != COMPILE_THEN) and knobs_changed(KNOBS)",
    ),
    Guard("pre_run_hooks", "hooks on the JITFunction would fire once only", "KERNEL.pre_run_hooks"),
    Guard(
        "globals",
        "Triton compiles values of globals in, and raises when one has changed since",
        "USED_GLOBALS and globals_changed(USED_GLOBALS)",
    ),
    Guard("device", "a `CUfunction` launched in another context", "provider.current_device() != DEVICE"),
    # -- of its arguments
    Guard(
        "type",
        "a subclass's `data_ptr` is not what it seems; a float where an int was is another binary",
        "{mismatch}",
        c=False,
    ),
    Guard("device_tag", "a pointer into another device's memory", "device_tag({a}) != {tag}"),
    Guard("memory", "a kernel reads at a null pointer, where the storage was freed", "not {p} and {a}.numel()"),
    Guard(
        "alignment", "a binary compiled for 16-byte aligned pointers faults on, or corrupts, others", "({p}) & 15", "0"
    ),
    Guard(
        "int_bucket", "a binary compiled for 1, a multiple of 16 or a narrow int is wrong for others", _INT_BUCKET, "0"
    ),
    # -- of the moment
    Guard(
        # Asked at every launch: it changes under torch.cuda.stream() and during graph capture.
        "stream",
        "a captured graph without the launch, or a launch on a stream of before",
        "provider.current_stream(DEVICE)",
        "0",
    ),
    Guard(
        # Read at every launch too; metadata is built only for somebody.
        "hooks",
        "a profiler that attaches after the first call sees nothing",
        "runtime.launch_enter_hook is not ENTER or runtime.launch_exit_hook is not EXIT or {hooked}",
    ),
    Guard(
        "late_hooks",
        "a profiler that attaches sees nothing of binaries that came from the cache before Triton was imported",
        elsewhere="plans of the cache are the extension's",
    ),
    # -- of a call
    Guard("modes", "under a mode, a transform or tracing a call would run instead of being recorded", elsewhere=_FRONT),
    Guard("plain", "what is in memory is not what a negated, sparse or wrapped tensor shows", elsewhere=_FRONT),
    Guard("requires_grad", "no warning that the result has no gradient", elsewhere=_FRONT),
    Guard(
        "value",
        "a number that host code computed with, or that was compiled in, is taken for another",
        elsewhere="the key",
    ),
    Guard(
        "code",
        "the kernel function has other code or other defaults since, as in a program that reloads modules",
        elsewhere="`PythonPath._call_python`",
    ),
    Guard(
        "outside",
        "a number of the module, or of a closure, that was compiled in has changed since",
        elsewhere="the key",
    ),
    Guard(
        "overlap",
        "code that takes its arguments to be apart has no barriers between what overlaps",
        elsewhere="the key",
    ),
    Guard(
        "default_dtype",
        "an allocation without a dtype has another after `torch.set_default_dtype`",
        elsewhere="host code runs",
    ),
    Guard("measuring", "`HELION_MEASURE_COMPILE_TIME` does not count the call", elsewhere="`PythonPath._call_python`"),
    Guard(
        "provider",
        "a binary that another driver loaded is launched through this one",
        elsewhere="Triton keeps its driver",
    ),
    Guard(
        "generation",
        "a plan recorded before a reset or a new Config brings the old binary back",
        elsewhere="`PythonPath._miss`",
    ),
    Guard("identity", "host code that asks `x is y` gets the answer of other arguments", elsewhere="host code runs"),
    Guard("allocator", "scratch memory is not from the allocator that a user gave Triton", elsewhere="Triton asks it"),
    Guard("autocast", "operations are replayed with the casts of another autocast state", elsewhere="host code runs"),
    # -- of the output pool
    Guard("capture", "a captured graph writes its outputs at every replay, whoever holds them then", elsewhere=_POOL),
    Guard("pool_object", "a tensor that somebody holds is handed out again", elsewhere=_POOL),
    Guard("pool_tensor", "a tensor that C++ holds is handed out again", elsewhere=_POOL),
    Guard("pool_storage", "memory that a view still shows is handed out again", elsewhere=_POOL),
    Guard("pool_weak_reference", "a weak reference comes back to life", elsewhere=_POOL),
    Guard("pool_class", "an object whose `__class__` was assigned is handed out", elsewhere=_POOL),
    Guard("pool_shape", "a tensor resized or set in place is handed out as it is", elsewhere=_POOL),
    Guard("pool_autograd", "`requires_grad_()` of its last user is still on", elsewhere=_POOL),
    Guard("pool_version", "the version counter tells that it was used before", elsewhere=_POOL),
    Guard("pool_attributes", "attributes that its last user set are still there", elsewhere=_POOL),
)
