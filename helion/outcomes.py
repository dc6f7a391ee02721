"""Traces a kernel function for one call, and finds out what its host code decides in that call where it must.

Not here: the trace (`frontend.trace`), the run that finds out (`runtime.eager.prefix`), and which variant a call gets
(`kernel`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

from . import exc
from .arguments import common_device
from .frontend.host_decisions import Outcomes
from .frontend.host_decisions import Undecided
from .frontend.host_decisions import noting
from .runtime.eager.prefix import can_run
from .runtime.eager.prefix import run_prefix

if TYPE_CHECKING:
    from .ir.device_ir import KernelIR
    from .kernel import Kernel


def outcomes_of(kernel: Kernel, args: Sequence[Any], error: exc.BaseError | None = None) -> Outcomes:
    """What the conditions of a kernel function's host code are in a call: it is run up to the first device loop.

    Args:
        kernel: the kernel.
        args: the call's arguments, all of them, by position.
        error: what to say where they have no values.

    Raises:
        exc.HostTensorRead: they have none, as under torch.compile.
        Whatever the function does.
    """
    if not can_run(args):
        message = "host code decides on what a tensor holds, and is traced with tensors that hold nothing"
        error = error or exc.HostTensorRead(message)
        error.advice = (
            "decide outside of the kernel function, or leave the call out of the graph "
            "(`torch.compiler.disable(kernel)(...)`), or out of the kernel that makes it."
        )
        raise error
    found: list[tuple[int, bool]] = []

    def note(number: int, condition: object) -> bool:
        found.append((number, bool(condition)))
        return found[-1][1]

    given = args[: kernel.fn.__code__.co_argcount]
    stopped = run_prefix(noting(kernel.fn, note), given, common_device(kernel, tuple(args)))
    return Outcomes(found, stopped)


def trace_call(kernel: Kernel, args: tuple[Any, ...]) -> KernelIR:
    """The traced kernel for calls like one.

    Args:
        kernel: the kernel.
        args: the call's arguments, all of them, by position.

    Raises:
        exc.BaseError: the function, or the arguments, are not acceptable.
    """
    from .frontend.trace import trace_kernel  # loads sympy and torch._dynamo

    specializer = kernel.specializer
    names = list(specializer.signature.parameters)

    def trace(outcomes: Outcomes | None) -> KernelIR:
        return trace_kernel(
            kernel.fn,
            dict(zip(names, args)),
            kernel.settings,
            common_device(kernel, args),
            frozenset(names[i] for i in specializer.constexpr),
            specializer.overlapping(args),
            specializer.all_varying(args),
            specializer.outside_tensors(),
            outcomes,
            kernel.warned,
        )

    try:
        return trace(None)
    except Undecided as undecided:
        error = undecided.error
    return trace(outcomes_of(kernel, args, error))
