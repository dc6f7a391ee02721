"""What the catalog says about one example, and how its results are compared with the reference.

Here: the `Example` record, the rule for allowed errors.  Not here: the table itself (`catalog`), running it (`bench`,
    `demo`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

import helion

Size = tuple[int, ...]

FLOATS = (torch.float32, torch.float16, torch.bfloat16)

#: Rounding error of one operation, a few units in the last place; times `error_scale` of an example.
ROUNDING = {
    torch.float64: 1e-12,
    torch.float32: 2e-6,
    torch.float16: 2e-3,
    torch.bfloat16: 1.6e-2,
    torch.float8_e4m3fn: 1.3e-1,
}
#: float32 products on tensor cores round their operands to 10 bits.
TF32 = 4e-3


@dataclasses.dataclass(frozen=True)
class Example:
    """One kernel of the examples.

    Attributes:
        name: unique name.
        kernel: the kernel, or a function that calls several.
        reference: the same in PyTorch, right for float64 too.
        make_args: `make_args(*size, dtype=..., device=...)` -> arguments, random from torch's generator.
        size: sizes of a realistic call on a GPU.
        small: sizes of a quick call anywhere; odd on purpose.
        dtype: dtype of a realistic call.
        dtypes: dtypes it is meant for.
        uses_dot: it multiplies matrices, which on tensor cores rounds float32 operands to tf32.
        error_scale: how many times the rounding error of one operation its results may be off.
        tolerance: error allowed at the realistic size, a part of the largest result; None follows from the dtypes.
        configs: schedules worth trying at the realistic size; the default schedule if there is none.
        eager: what to compare the time with; None for `reference`.
        flops: `flops(*size)` -> floating-point operations of a call, for kernels that are limited by arithmetic.
    """

    name: str
    kernel: helion.Kernel
    reference: Callable[..., Any]
    make_args: Callable[..., tuple[Any, ...]]
    size: Size
    small: Size
    dtype: torch.dtype = torch.float32
    dtypes: tuple[torch.dtype, ...] = FLOATS
    uses_dot: bool = False
    error_scale: float = 1.0
    tolerance: float | None = None
    configs: tuple[helion.Config, ...] = ()
    eager: Callable[..., Any] | None = None
    flops: Callable[..., float] | None = None

    def args(self, size: Size | None = None, dtype: torch.dtype | None = None, device: str = "cpu") -> tuple[Any, ...]:
        """Arguments of the given (default: small) size and dtype."""
        return self.make_args(*(self.small if size is None else size), dtype=dtype or self.dtype, device=device)

    def allowed(self, dtype: torch.dtype) -> float:
        """Error that a result of a dtype may have at the realistic size, as a part of the largest expected value."""
        if not dtype.is_floating_point:
            return 0.0
        if self.tolerance is not None:
            return self.tolerance
        unit = max(ROUNDING[dtype], ROUNDING.get(self.dtype, 0.0)) * self.error_scale
        return max(unit, TF32) if self.uses_dot and torch.float32 in (dtype, self.dtype) else unit


def tensors(value: Any) -> list[torch.Tensor]:
    """The tensors in nested tuples and lists, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for v in value for t in tensors(v)] if isinstance(value, (tuple, list)) else []


def in_double(value: Any) -> Any:
    """`value` with every floating-point tensor in it in float64: arguments for a reference of higher precision."""
    if isinstance(value, torch.Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(in_double(v) for v in value))
    return type(value)(in_double(v) for v in value) if isinstance(value, (tuple, list)) else value


def errors(actual: Any, expected: Any) -> list[tuple[torch.Tensor, float]]:
    """Each tensor of a result with its largest error, as a part of the largest expected value.

    Raises:
        ValueError: the results differ in number, shape, or in where they are not finite.
    """
    found = []
    pairs = list(zip(tensors(actual), tensors(expected)))
    if len(tensors(actual)) != len(tensors(expected)):
        raise ValueError(f"{len(tensors(actual))} results, expected {len(tensors(expected))}")
    for a, e in pairs:
        if a.shape != e.shape:
            raise ValueError(f"a result of shape {list(a.shape)}, expected {list(e.shape)}")
        wide = e.double()
        finite = wide.isfinite()
        if (
            not torch.equal(a.double()[~finite].nan_to_num(), wide[~finite].nan_to_num())
            or not a.double()[finite].isfinite().all()
        ):
            raise ValueError("results that are not finite where they should be, or the other way round")
        difference = (a.double() - wide)[finite].abs()
        largest = max(float(wide[finite].abs().max()), torch.finfo(torch.float32).tiny) if difference.numel() else 1.0
        found.append((a, float(difference.max()) / largest if difference.numel() else 0.0))
    return found
