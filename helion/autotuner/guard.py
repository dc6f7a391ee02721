"""Where tuning must not start: under graph capture, in a data-loader worker, inside a tracer.

Each check is a row: why it is refused, and how it is noticed.  The cache is read before these checks, so a kernel
that is already tuned works everywhere.  A forked process without CUDA is refused before that, in `api.py`: it cannot
even ask which device it has.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import torch
import torch.utils.data
from torch._subclasses.fake_tensor import FakeTensor

from .. import exc
from .._environment import is_set
from .accuracy import tensors_in
from .worker import MARK


def _capturing(args: Sequence[Any]) -> bool:
    # Not initialized is also what a fork of a process that used CUDA is: asking for its stream would be an error.
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


def _fake(args: Sequence[Any]) -> bool:
    return any(isinstance(t, FakeTensor) or t.device.type == "meta" for _, t in tensors_in(args))


DISALLOW_VARIABLE = "HELION_DISALLOW_AUTOTUNING"


def _disallowed(args: Sequence[Any]) -> bool:
    return is_set(DISALLOW_VARIABLE)


_CHECKS: tuple[tuple[str, Callable[[Sequence[Any]], bool]], ...] = (
    (f"{DISALLOW_VARIABLE} is set", _disallowed),
    (
        "a CUDA graph is being captured, and measuring would become part of it; call the "
        "kernel once before the capture",
        _capturing,
    ),
    (
        "this is a torch data-loader worker process; call the kernel once in the main process",
        lambda args: torch.utils.data.get_worker_info() is not None,
    ),
    ("torch.compile is tracing; call the kernel once before", lambda args: torch.compiler.is_compiling()),
    ("the arguments hold no data (fake or meta tensors)", _fake),
    (
        "this process is itself a tuning worker; guard the script's own calls with `if __name__ == '__main__':`",
        lambda args: MARK in os.environ,
    ),
)


def check_environment(kernel: str, args: Sequence[Any]) -> None:
    """Refuse to tune where it cannot work.

    Raises:
        exc.AutotuningDisallowedInEnvironment: with the reason.
    """
    for reason, applies in _CHECKS:
        if applies(args):
            raise exc.AutotuningDisallowedInEnvironment(kernel=kernel, reason=reason)
