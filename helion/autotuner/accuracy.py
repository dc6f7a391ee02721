"""The accuracy check: does a candidate compute what the baseline computes?

A result is everything a kernel leaves behind: what it returned and what it wrote into its arguments.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import torch

# Relative tolerance by dtype.  Candidates compute in the same precision as the baseline and differ in the
# order of additions and in intermediate rounding: about ten units in the last place of the result's dtype for
# half precisions, and for float32 what a tf32 product with another order of additions gives.
_RTOL: dict[torch.dtype, float] = {
    torch.float64: 1e-9,
    torch.float32: 1e-3,
    torch.float16: 1e-2,
    torch.bfloat16: 5e-2,
    torch.float8_e4m3fn: 0.3,
    torch.float8_e5m2: 0.6,
    torch.complex64: 1e-3,
    torch.complex128: 1e-9,
}


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far a result may be off: |actual - expected| <= atol + rtol * |expected|.

    Attributes:
        atol: absolute; None takes rtol times the root mean square of the expected tensor, since sums with
            cancellation are off relative to what was summed and not to what is left.
        rtol: relative; None goes by dtype.
    """

    atol: float | None = None
    rtol: float | None = None


def tensors_in(value: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """(where, tensor) for every tensor in nested tuples, lists and dicts."""
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from tensors_in(item, f"{path}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from tensors_in(item, f"{path}[{i}]")


def clone_args(args: Sequence[Any]) -> tuple[Any, ...]:
    """Arguments with tensors of their own: same values, sizes, strides and sharing of memory."""
    storages: dict[int, torch.Tensor] = {}

    def copy(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            storage = value.untyped_storage()
            flat = storages.get(storage.data_ptr())
            if flat is None or flat.untyped_storage().nbytes() != storage.nbytes():
                flat = torch.empty(0, dtype=torch.uint8, device=value.device).set_(storage.clone())  # type: ignore[call-overload]
                storages[storage.data_ptr()] = flat
            fresh = torch.empty(0, dtype=value.dtype, device=value.device)
            return fresh.set_(flat.untyped_storage(), value.storage_offset(), value.size(), value.stride())  # type: ignore[call-overload]
        if isinstance(value, dict):
            return {key: copy(item) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(copy(item) for item in value)
        return value

    with torch.no_grad():
        return tuple(copy(arg) for arg in args)


def run_for_result(fn: Callable[..., Any], args: Sequence[Any]) -> dict[str, torch.Tensor]:
    """Run on copies of the arguments.

    Returns:
        Where -> tensor, on the CPU: every returned tensor and every tensor argument as the kernel left it.
    """
    own = clone_args(args)
    returned = fn(*own)
    result = {f"result{path}": t for path, t in tensors_in(returned)}
    result.update({f"argument{path}": t for path, t in tensors_in(own)})
    return {where: t.detach().cpu() for where, t in result.items()}


def mismatch(expected: dict[str, torch.Tensor], actual: dict[str, torch.Tensor], tolerance: Tolerance) -> str | None:
    """What differs between two results, in words; None if they agree."""
    if expected.keys() != actual.keys():
        return f"returns {sorted(actual)} where the baseline returns {sorted(expected)}"
    for where, want in expected.items():
        problem = _tensor_mismatch(want, actual[where], tolerance)
        if problem is not None:
            return f"{where}: {problem}"
    return None


def _tensor_mismatch(want: torch.Tensor, got: torch.Tensor, tolerance: Tolerance) -> str | None:
    if want.shape != got.shape or want.dtype != got.dtype:
        return f"{got.dtype}{list(got.shape)} instead of {want.dtype}{list(want.shape)}"
    if want.numel() == 0:
        return None
    if not (want.is_floating_point() or want.is_complex()):
        wrong = int((want != got).sum())
        return f"{wrong} of {want.numel()} elements differ" if wrong else None
    exact = torch.complex128 if want.is_complex() else torch.float64
    w, g = want.to(exact), got.to(exact)
    same = (w == g) | (torch.isnan(w) & torch.isnan(g))
    finite = torch.isfinite(w)
    rtol = tolerance.rtol if tolerance.rtol is not None else _RTOL.get(want.dtype, 1e-3)
    if tolerance.atol is not None:
        atol = tolerance.atol
    else:
        atol = rtol * math.sqrt(float((w[finite].abs() ** 2).mean())) if bool(finite.any()) else 0.0
    error = (g - w).abs()
    wrong_at = ~same & ~(finite & torch.isfinite(g) & (error <= atol + rtol * w.abs()))
    count = int(wrong_at.sum())
    if not count:
        return None
    bad = error[wrong_at]
    worst = float(bad.nan_to_num(nan=math.inf).max())
    return f"{count} of {want.numel()} elements differ, by up to {worst:.3g} (allowed {atol:.3g} + {rtol:.3g} * |expected|)"
