"""How torch ops come down to the small set the IR holds.

PyTorch's own decompositions do most of it; the rules here are for ops where those would leave the set (they
end in prims, or build whole index tensors).  Each rule is an ordinary function of tensors, run under the
tracer: what it calls is recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeVar
from typing import cast

import torch

from .. import exc
from .._compat_tracing import ELEMENTWISE_TYPE_PROMOTION_KIND as Kind
from .._compat_tracing import decomposition_table
from .._compat_tracing import elementwise_dtypes
from ..ir.symbols import is_symbolic
from ..ir.symbols import symbols_of
from ..language.op import active_handler
from ..language.shapes import canonical_dims
from ..language.shapes import same_shape
from ..language.shapes import shape_text

if TYPE_CHECKING:
    from .tracer import Tracer

_aten = torch.ops.aten
_prims = torch.ops.prims

Rule = TypeVar("Rule", bound=Callable[..., Any])
RULES: dict[torch._ops.OpOverload, Callable[..., Any]] = {}


def rule(*ops: torch._ops.OpOverload) -> Callable[[Rule], Rule]:
    """Decorator: a function that computes these ops with simpler ones."""

    def register(fn: Rule) -> Rule:
        for op in ops:
            RULES[op] = fn
        return fn

    return register


def _dims(x: torch.Tensor, dim: Any) -> list[int]:
    """A dim argument (None, int or list) as sorted non-negative ints."""
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return list(range(x.dim()))
    return canonical_dims(x, dim if isinstance(dim, (list, tuple)) else [dim])


def _one_by_one(op: Callable[..., torch.Tensor], x: torch.Tensor, dim: Any, keepdim: bool) -> torch.Tensor:
    for d in reversed(_dims(x, dim)):
        x = op(x, d, keepdim)
    return x


def _is_hosts(size: Any) -> bool:
    """Whether a size is one of the host's, under dynamic shapes: it has no partial tiles."""
    return cast("Tracer", active_handler()).env.space.is_host_value(size)


def _count(x: torch.Tensor, dim: Any) -> Any:
    """How many elements a reduction over `dim` covers.  The size of a tile's dimension may be more than the
    number of its valid elements, so those are counted on the device."""
    tiles = [d for d in _dims(x, dim) if symbols_of(x.size(d)) and not _is_hosts(x.size(d))]
    count: Any = 1
    for d in _dims(x, dim):
        if d not in tiles:
            count = count * x.size(d)
    if tiles:
        ones = torch.ones_like(x, dtype=torch.float32)
        return _aten.sum.dim_IntList(ones, _dims(x, dim), True)
    return count


def _reduce_dtype(x: torch.Tensor, dtype: torch.dtype | None) -> torch.dtype:
    if dtype is not None:
        return dtype
    return x.dtype if x.dtype.is_floating_point else torch.float32


@rule(_aten.mean.default, _aten.mean.dim)
def _mean(x: torch.Tensor, dim: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> torch.Tensor:
    if dtype is None and not x.dtype.is_floating_point:
        raise exc.UnsupportedDtype(op="mean", dtype=x.dtype)
    result = _reduce_dtype(x, dtype)
    wide = elementwise_dtypes(x.to(result), type_promotion_kind=Kind.DEFAULT)[0]
    wide = torch.float32 if result in (torch.bfloat16, torch.float16) else wide
    total = _aten.sum.dim_IntList(x.to(wide), _dims(x, dim), keepdim)
    count = _count(x, dim)
    if isinstance(count, torch.Tensor) and not keepdim:
        for d in reversed(_dims(x, dim)):
            count = count.squeeze(d)
    return (total / count).to(result)


def _var_parts(x: torch.Tensor, dim: Any, correction: Any, keepdim: bool) -> tuple[torch.Tensor, torch.Tensor]:
    wide = torch.float32 if x.dtype in (torch.bfloat16, torch.float16) else x.dtype
    xw = x.to(wide)
    dims = _dims(x, dim)
    count = _count(x, dim)
    mean = _aten.sum.dim_IntList(xw, dims, True) / count
    centered = xw - mean
    divisor = count - (1 if correction is None else correction)
    if not isinstance(divisor, torch.Tensor):
        divisor = torch.sym_max(divisor, 0)
    total = _aten.sum.dim_IntList(centered * centered, dims, True)
    var = total / divisor
    if not keepdim:
        for d in reversed(dims):
            var, mean = var.squeeze(d), mean.squeeze(d)
    return var, mean


@rule(_aten.var.correction)
def _var(x: torch.Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> torch.Tensor:
    return _var_parts(x, dim, correction, keepdim)[0].to(x.dtype)


@rule(_aten.var_mean.correction)
def _var_mean(x: torch.Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Any:
    var, mean = _var_parts(x, dim, correction, keepdim)
    return var.to(x.dtype), mean.to(x.dtype)


@rule(_aten.std.correction)
def _std(x: torch.Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> torch.Tensor:
    return torch.sqrt(_var_parts(x, dim, correction, keepdim)[0]).to(x.dtype)


@rule(_aten.native_layer_norm.default)
def _native_layer_norm(x: torch.Tensor, shape: Any, weight: Any, bias: Any, eps: float) -> Any:
    if not same_shape(x.shape[max(x.dim() - len(shape), 0) :], shape):
        raise exc.ShapeMismatch(
            left=f"normalized_shape {shape_text(shape)}", right=f"a value of shape {shape_text(x.shape)}"
        )
    dims = list(range(x.dim() - len(shape), x.dim()))
    xw = x.to(torch.float32) if x.dtype in (torch.bfloat16, torch.float16) else x
    var, mean = _var_parts(xw, dims, 0, True)
    rstd = torch.rsqrt(var + eps)
    out = (xw - mean) * rstd
    if weight is not None:
        out = out * weight
    if bias is not None:
        out = out + bias
    # PyTorch's kernels keep the statistics of 16-bit values in float32 on a GPU, and round them on a CPU.
    kept = x.dtype if x.device.type == "cpu" else xw.dtype
    return out.to(x.dtype), mean.to(kept), rstd.to(kept)


@rule(_aten.max.dim)
def _max_dim(x: torch.Tensor, dim: int, keepdim: bool = False) -> Any:
    return torch.amax(x, dim, keepdim), torch.argmax(x, dim, keepdim)


@rule(_aten.min.dim)
def _min_dim(x: torch.Tensor, dim: int, keepdim: bool = False) -> Any:
    return torch.amin(x, dim, keepdim), torch.argmin(x, dim, keepdim)


@rule(_aten.max.default)
def _max(x: torch.Tensor) -> torch.Tensor:
    return torch.amax(x, _dims(x, None))


@rule(_aten.min.default)
def _min(x: torch.Tensor) -> torch.Tensor:
    return torch.amin(x, _dims(x, None))


@rule(_aten.any.default, _aten.any.dim, _aten.any.dims)
def _any(x: torch.Tensor, dim: Any = None, keepdim: bool = False) -> torch.Tensor:
    return _as_truth(_number_true(_truth(x), dim, keepdim) != 0, x)


@rule(_aten.all.default, _aten.all.dim, _aten.all.dims)
def _all(x: torch.Tensor, dim: Any = None, keepdim: bool = False) -> torch.Tensor:
    return _as_truth(_number_true(~_truth(x), dim, keepdim) == 0, x)


def _truth(x: torch.Tensor) -> torch.Tensor:
    return x if x.dtype is torch.bool else x != 0


def _number_true(truth: torch.Tensor, dim: Any, keepdim: bool) -> torch.Tensor:
    """How many are true. A count, since unlike a maximum it is right where there is nothing to look at."""
    return _one_by_one(lambda v, d, k: torch.sum(v, d, k, dtype=torch.int32), truth.to(torch.int32), dim, keepdim)


def _as_truth(truth: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A truth as any and all give it: as a bool, but of uint8 as uint8."""
    return truth.to(torch.uint8) if x.dtype is torch.uint8 else truth


@rule(_aten.prod.default)
def _prod(x: torch.Tensor, *, dtype: torch.dtype | None = None) -> torch.Tensor:
    return _one_by_one(lambda v, d, k: torch.prod(v, d, k, dtype=dtype), x, None, False)


@rule(_aten.squeeze.default)
def _squeeze(x: torch.Tensor) -> torch.Tensor:
    return _aten.squeeze.dims(x, [d for d, size in enumerate(x.shape) if isinstance(size, int) and size == 1])


@rule(_aten.squeeze.dim)
def _squeeze_dim(x: torch.Tensor, dim: int) -> torch.Tensor:
    return _aten.squeeze.dims(x, [dim])


@rule(_aten.square.default)
def _square(x: torch.Tensor) -> torch.Tensor:
    return x * x


@rule(_aten.isfinite.default)
def _isfinite(x: torch.Tensor) -> torch.Tensor:
    if not x.dtype.is_floating_point:
        return torch.ones_like(x, dtype=torch.bool)
    return torch.logical_not(torch.isnan(x) | torch.isinf(x))


@rule(_aten.isnan.default)
def _isnan(x: torch.Tensor) -> torch.Tensor:
    return torch.ne(x, x)


@rule(_aten.relu.default)
def _relu(x: torch.Tensor) -> torch.Tensor:
    return torch.clamp_min(x, 0)


@rule(_aten.rsub.Scalar, _aten.rsub.Tensor)
def _rsub(x: torch.Tensor, other: Any, alpha: Any = 1) -> torch.Tensor:
    if isinstance(other, torch.Tensor):
        return torch.sub(other, x, alpha=alpha)
    x = x.to(torch.result_type(x, other))  # before it is negated: an integer may be unsigned
    return (-x * alpha if is_symbolic(alpha) or alpha != 1 else -x) + other


@rule(_aten.lcm.default)
def _lcm(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """PyTorch's own rule divides floats; its kernels compute narrow integers in C's int."""
    dtype = torch.promote_types(a.dtype, b.dtype)
    wide = torch.int32 if dtype in (torch.int8, torch.uint8, torch.int16) else dtype
    a, b = a.to(wide), b.to(wide)
    divisor = torch.gcd(a, b)
    none = divisor == 0
    multiple = torch.abs(torch.div(a, torch.where(none, 1, divisor), rounding_mode="trunc") * b)
    return torch.where(none, 0, multiple).to(dtype)


@rule(_aten.remainder.Scalar_Tensor)
def _remainder_of_number(number: Any, x: torch.Tensor) -> torch.Tensor:
    dtype = torch.result_type(x, number)
    if type(number) is int and not dtype.is_floating_point:
        least, most = torch.iinfo(dtype).min, torch.iinfo(dtype).max
        number = (number - least) % (most - least + 1) + least  # 1000 is 232 beside uint8
    return torch.remainder(torch.full((), number, dtype=dtype), x)


@rule(_aten.t.default)
def _t(x: torch.Tensor) -> torch.Tensor:
    return x.permute(tuple(reversed(range(x.dim()))))  # of a vector too: a view is another tensor


@rule(_aten.transpose.int)
def _transpose(x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    order = list(range(x.dim()))
    order[a], order[b] = order[b], order[a]
    return x.permute(order)


@rule(_prims.broadcast_in_dim.default)
def _broadcast_in_dim(x: torch.Tensor, shape: Any, dims: Any) -> torch.Tensor:
    for d in range(len(shape)):
        if d not in dims:
            x = x.unsqueeze(d)
    return x.expand(shape)


def prims_as_aten(op: torch._ops.OpOverload) -> torch._ops.OpOverload | None:
    """The ATen op that does what a prim does, for the pointwise and reduction prims PyTorch's references use."""
    name = op.name().split("::")[1].split(".")[0]
    renamed = {
        "sum": ("sum", "dim_IntList"),
        "prod": ("prod", "dim_int"),
        "div": ("div", "Tensor"),
        "where": ("where", "self"),
    }
    packet_name, overload = renamed.get(name, (name, ""))
    packet = getattr(_aten, packet_name, None)
    if packet is None:
        return None
    # "default" last: for binary ops that is the overload of two plain numbers.
    for candidate in (overload, "Tensor", "Tensor_Tensor", "default"):
        if candidate and candidate in packet.overloads():
            return getattr(packet, candidate)
    return None


@rule(_prims.where.default)
def _where(condition: torch.Tensor, a: Any, b: Any) -> torch.Tensor:
    like = next((v for v in (a, b) if isinstance(v, torch.Tensor)), condition)
    a, b = (
        v if isinstance(v, torch.Tensor) else torch.full((), v, dtype=like.dtype if like is not condition else None)
        for v in (a, b)
    )
    return _aten.where.self(condition, a, b)


@rule(_prims.var.default)
def _prims_var(x: torch.Tensor, dims: Any, correction: float = 1, *, output_dtype: Any = None) -> torch.Tensor:
    return _var_parts(x, dims, correction, False)[0].to(x.dtype)


def decomposition(op: torch._ops.OpOverload) -> Callable[..., Any] | None:
    """A function that computes `op` with simpler ops, or None when there is none."""
    known = RULES.get(op)
    if known is not None:
        return known
    if op.namespace == "prims":
        return prims_as_aten(op)
    found = decomposition_table.get(op)
    if found is not None:
        return found
    try:
        return op.decompose if op._can_decompose() else None
    except RuntimeError:  # an op of TorchScript's that the dispatcher does not have, `aten::size` for one
        return None
