"""The accuracy check: does a candidate compute what the baseline computes?

A result is everything a kernel leaves behind: what it returned and what it wrote into its arguments.  Results are
compared where they are: moving a gigabyte off a GPU for every candidate would take longer than everything else.
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
                flat = torch.empty(0, dtype=torch.uint8, device=value.device).set_(storage.clone())
                storages[storage.data_ptr()] = flat
            fresh = torch.empty(0, dtype=value.dtype, device=value.device)
            return fresh.set_(flat.untyped_storage(), value.storage_offset(), value.size(), value.stride())
        if isinstance(value, dict):
            return {key: copy(item) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(copy(item) for item in value)
        return value

    with torch.no_grad():
        return tuple(copy(arg) for arg in args)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a call leaves behind.

    Attributes:
        tensors: where -> tensor: every returned tensor, and every tensor argument that the call changed.
        unchanged: where, for the tensor arguments that are bit for bit what they were.
    """

    tensors: dict[str, torch.Tensor]
    unchanged: frozenset[str] = frozenset()


def outcome_of(returned: Any, after: Sequence[Any], before: Sequence[Any]) -> Outcome:
    """The outcome of a call.

    Args:
        returned: its return value.
        after: its arguments, as the call left them.
        before: copies of its arguments, as they were.
    """
    tensors = {f"result{path}": t.detach() for path, t in tensors_in(returned)}
    unchanged = set()
    for (path, now), (_, then) in zip(tensors_in(after), tensors_in(before)):
        if _same_bits(now, then):
            unchanged.add(f"argument{path}")
        else:
            tensors[f"argument{path}"] = now.detach()
    return Outcome(tensors, frozenset(unchanged))


def run_for_result(fn: Callable[..., Any], args: Sequence[Any]) -> Outcome:
    """Run on copies of the arguments."""
    own = clone_args(args)
    return outcome_of(fn(*own), own, args)


_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors of one dtype and shape hold the same bits (so NaN equals itself)."""
    a, b = a.detach(), b.detach()
    if a.is_complex():
        a, b = torch.view_as_real(a.resolve_conj()), torch.view_as_real(b.resolve_conj())
    bits = _BITS[a.element_size()]
    return torch.equal(a.view(bits), b.view(bits))


def mismatch(expected: Outcome, actual: Outcome, args: Sequence[Any], tolerance: Tolerance) -> str | None:
    """What differs between two outcomes, in words; None if they agree.

    Args:
        expected: the baseline's.
        actual: the candidate's.
        args: the arguments both were called with copies of.
        tolerance: how far floats may be off.
    """
    where_expected, where_actual = (set(o.tensors) | o.unchanged for o in (expected, actual))
    if where_expected != where_actual:
        return f"returns {sorted(where_actual)} where the baseline returns {sorted(where_expected)}"
    originals = {f"argument{path}": t for path, t in tensors_in(args)}
    for where in [*expected.tensors, *(w for w in actual.tensors if w not in expected.tensors)]:
        want, got = (o.tensors[where] if where in o.tensors else originals[where] for o in (expected, actual))
        problem = _tensor_mismatch(want.to(got.device), got, tolerance)
        if problem is not None:
            return f"{where}: {problem}"
    return None


CHUNK = 1 << 24
"""Elements compared at a time: a comparison in double precision takes some 50 bytes for each."""


def _tensor_mismatch(want: torch.Tensor, got: torch.Tensor, tolerance: Tolerance) -> str | None:
    if want.shape != got.shape or want.dtype != got.dtype:
        return f"{got.dtype}{list(got.shape)} instead of {want.dtype}{list(want.shape)}"
    if want.numel() == 0:
        return None
    if not (want.is_floating_point() or want.is_complex()):
        wrong = int((want != got).sum())
        return f"{wrong} of {want.numel()} elements differ" if wrong else None
    rtol = tolerance.rtol if tolerance.rtol is not None else _RTOL.get(want.dtype, 1e-3)
    chunks = list(zip(want.detach().reshape(-1).split(CHUNK), got.detach().reshape(-1).split(CHUNK)))
    atol = tolerance.atol if tolerance.atol is not None else rtol * _root_mean_square([w for w, _ in chunks])
    count, worst = 0, 0.0
    for w, g in chunks:
        wrong, by = _differences(w, g, atol, rtol)
        count, worst = count + wrong, max(worst, by)
    if not count:
        return None
    return (
        f"{count} of {want.numel()} elements differ, by up to {worst:.3g} (allowed {atol:.3g} "
        f"+ {rtol:.3g} * |expected|)"
    )


def _exact(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def _root_mean_square(parts: Sequence[torch.Tensor]) -> float:
    """Of the finite elements."""
    total, count = 0.0, 0
    for part in parts:
        w = _exact(part)
        finite = torch.isfinite(w)
        total += float(torch.where(finite, w.abs() ** 2, 0.0).sum())
        count += int(finite.sum())
    return math.sqrt(total / count) if count else 0.0


def _differences(want: torch.Tensor, got: torch.Tensor, atol: float, rtol: float) -> tuple[int, float]:
    """How many elements differ, and by how much at most."""
    w, g = _exact(want), _exact(got)
    same = (w == g) | (torch.isnan(w) & torch.isnan(g))
    error = (g - w).abs()
    within = torch.isfinite(w) & torch.isfinite(g) & (error <= atol + rtol * w.abs())
    wrong_at = ~(same | within)
    count = int(wrong_at.sum())
    return count, float(error[wrong_at].nan_to_num(nan=math.inf).max()) if count else 0.0
