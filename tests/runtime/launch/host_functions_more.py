"""More host functions as users write them, with helpers of their own; a part of ``host_functions.py``'s table."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import torch

import helion.language as hl

EPS = 0.5


def ceil_div(a, b):
    return (a + b - 1) // b


def new_output(like, other, *, dtype=None):
    """Checks, and allocates."""
    assert like.shape == other.shape, (like.shape, other.shape)
    return torch.empty_like(like, dtype=dtype or like.dtype, memory_format=torch.contiguous_format)


def blocks_of(n, block=128):
    return ceil_div(n, block) if n > 0 else 0


def helper_allocates(x, y):
    out = new_output(x, y)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def helper_of_helper(x, y):
    blocks = blocks_of(x.size(0))
    out = x.new_empty(blocks * 128)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out[: x.size(0)], blocks


def helper_reads_a_constant(x, y):
    eps = epsilon(x.dtype)
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t] + eps
    return out


def epsilon(dtype):
    return EPS if dtype == torch.float32 else 2 * EPS


def walrus(x, y):
    n = min(x.size(0), m) if (m := y.size(0)) else 0
    out = torch.empty([n], dtype=x.dtype, device=x.device)
    for t in hl.tile(n):
        out[t] = x[t] + y[t]
    return out


def dtype_from_a_table(x, y):
    accumulator = {torch.float16: torch.float32, torch.bfloat16: torch.float32}.get(x.dtype, x.dtype)
    out = torch.empty(x.shape, dtype=accumulator, device=x.device)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out.to(x.dtype)


def torch_check(x, y):
    torch._check(x.size(0) == y.size(0), lambda: f"sizes {x.size(0)} and {y.size(0)} differ")
    out = torch.zeros(x.size(0), dtype=torch.float32, device=x.device)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out.type(x.dtype)


def keywords_from_a_dict(x, y):
    like = dict(dtype=x.dtype, device=x.device)  # noqa: C408
    out, count = torch.empty(x.shape, **like), torch.zeros((1,), **like)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out, count


def floating_dtype(x, y):
    dtype = x.dtype if x.dtype.is_floating_point else torch.get_default_dtype()
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def leading_dims(x, y):
    *batch, n = x.shape
    x_rows, y_rows = x.reshape(-1, n), y.reshape(-1, n)
    out = torch.empty_like(x_rows)
    for t in hl.tile(n):
        out[0, t] = x_rows[0, t] + y_rows[0, t]
    return out.view(*batch, n)


def checks_in_a_loop(x, y):
    for dim, (a, b) in enumerate(zip(x.shape, y.shape)):
        if a != b:
            raise RuntimeError(f"dim {dim}: {a} != {b}")
    if any(tensor.dtype != torch.float32 for tensor in (x, y)):
        raise ValueError(f"expected float32, not {x.dtype} and {y.dtype}")
    out = x.new_empty(math.prod(x.shape))
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out.view(x.shape)


class Pair(NamedTuple):
    out: torch.Tensor
    scale: float = 2.0


@dataclasses.dataclass
class Output:
    out: torch.Tensor
    rest: tuple[torch.Tensor, int]
    names: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Frozen:
    out: torch.Tensor
    given: torch.Tensor


def returns_a_dict(x, y):
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return {"out": out, "n": x.size(0), 3: {"x": x, "view": out.view(2, -1)}}


def returns_a_named_tuple(x, y):
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return Pair(out)


def returns_a_dataclass(x, y) -> Output:
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return Output(out, rest=(y, x.size(0)))


def returns_a_frozen_dataclass(x, y):
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return [Frozen(given=x, out=out)]


#: The functions, by name.
FUNCTIONS = {
    function.__name__: function
    for function in (
        helper_allocates,
        helper_of_helper,
        helper_reads_a_constant,
        walrus,
        dtype_from_a_table,
        torch_check,
        keywords_from_a_dict,
        floating_dtype,
        leading_dims,
        checks_in_a_loop,
        returns_a_dict,
        returns_a_named_tuple,
        returns_a_dataclass,
        returns_a_frozen_dataclass,
    )
}
