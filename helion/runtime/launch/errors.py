"""What is said when the driver refuses a launch: the same in the launch function, on the slow path and in C."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from typing import Any

from ... import _compat_torch
from ... import _compat_triton_abi as _abi
from ... import exc
from .slow_compile import loop_keys

__all__ = [
    "driver_error",
    "is_driver_error",
    "message",
    "not_compiled",
    "not_written",
    "too_few_registers",
    "too_large",
]

#: Words of the driver's -> what to do about it.
_HINTS = {
    "too many blocks in cooperative launch": (
        "the programs of a kernel with hl.barrier() run at the same time;"
        " lower num_sm_multiplier or num_warps in its Config"
    ),
}

_NO_PLACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM})


def message(error: str, kernel: str) -> str:
    """The words of a driver's error, the kernel and what to do.

    ``csrc/driver.cpp`` comes here as well, with the driver's words put as Triton puts them: what catches the one error
    catches the other.
    """
    hint = "".join(f": {advice}" for words, advice in _HINTS.items() if words in error)
    if _compat_torch.cuda_in_bad_fork():
        hint = (
            ": this process was forked from one that had used CUDA, and cannot use it;"
            " start it with multiprocessing's start method 'spawn' or 'forkserver'"
        )
    return f"{error} (launching kernel {kernel}){hint}"


def driver_error(kernel: Any, error: RuntimeError) -> RuntimeError:
    """A driver's error as Triton raised it, with the kernel's name."""
    return RuntimeError(message(str(error), kernel.__name__))


def too_large(kernel: Any, error: Exception) -> exc.InvalidConfig:
    """A Config whose kernel needs more of the GPU than it has: Triton finds that once it has compiled it."""
    needed, limit, what = (
        getattr(error, "required", "?"),
        getattr(error, "limit", "?"),
        getattr(error, "name", "memory"),
    )
    return exc.InvalidConfig(
        reason=f"kernel {kernel.__name__} needs {needed} of {what}, the GPU has {limit}",
        fix="lower block_sizes, num_stages or range_num_stages; more num_warps help where it is tensor memory. A "
        "product over a whole dimension (x[i, :] @ y[:, j]) holds all of it: go over it in a loop, for k in "
        "hl.tile(x.size(1)): acc = torch.addmm(acc, x[i, k], y[k, j]).",
    )


def too_few_registers(kernel: Any, error: Exception) -> exc.InvalidConfig | None:
    """A Config whose maxnreg has no room for an instruction, if that is what ptxas says."""
    found = re.search(r"Insufficient registers \((\d+)\).*register target of (\d+)", str(error))
    if found is None:
        return None
    return exc.InvalidConfig(
        reason=f"an instruction of {kernel.__name__} needs {found[2]} registers a thread, maxnreg allows {found[1]}",
        fix="leave maxnreg out of the Config, or give it a larger one, 64 or 128.",
    )


def not_compiled(kernel: Any, options: Mapping[str, Any], error: Exception) -> exc.BaseError | None:
    """A kernel on which one of Triton's passes fails: that is said on stderr, in the words of its IR."""
    if "PassManager::run failed" not in str(error):
        return None
    if keys := loop_keys(kernel):
        return exc.InvalidConfig(
            reason=f"one of Triton's passes fails on kernel {kernel.__name__}, which has {'; '.join(keys.values())}",
            fix=f"leave {', '.join(keys)} out of the Config, one at a time; the generated source is at "
            f"{kernel.fn.__code__.co_filename}.",
        )
    given = ", ".join(f"{name}={value!r}" for name, value in options.items())
    return exc.TritonError(
        kernel=kernel.__name__,
        config=given or "its options",
        reason="one of Triton's passes failed; another Config may do",
        path=kernel.fn.__code__.co_filename,
    )


def not_written(kernel: Any, options: Mapping[str, Any], error: OSError) -> exc.TritonError | None:
    """A kernel that Triton could not compile because a file cannot be written; None for other errors of the system's,
    which may be a launch hook's own."""
    if error.errno not in _NO_PLACE:
        return None
    return exc.TritonError(
        kernel=kernel.__name__,
        config=", ".join(f"{name}={value!r}" for name, value in options.items()) or "its options",
        reason=f"its files cannot be written: {error}",
        fix="make room, or set TRITON_CACHE_DIR (else ~/.triton/cache) and TMPDIR to directories that can be written; "
        "the next call tries again.",
    )


def is_driver_error(error: BaseException) -> bool:
    """Whether ``error`` comes from the driver; a launch hook may have raised something of its own."""
    return type(error) is RuntimeError and str(error).startswith(_abi.DRIVER_ERROR)
