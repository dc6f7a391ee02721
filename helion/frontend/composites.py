"""torch functions that PyTorch makes of others in a way device code cannot follow: they read a value back to decide
something (`torch.cov` a warning), or write to parts of a tensor of their own (`pad` of mode "circular").

What each means is written here with functions that device code can follow.  These are functions of torch's, as user's
code calls them, not ATen ops: PyTorch takes them apart before an op is seen.  In ref mode PyTorch's own run.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from .. import exc
from .._compat_tracing import decomposition_table
from ..language import torch_overrides
from ..language.creation import full
from ..language.refusals import refused
from ..language.sorting import also_methods
from .rearranging import constant_size
from .rearranging import dim_of
from .rearranging import placed
from .rearranging import positions
from .rearranging import take
from .tiles_of_one import TILES_OF_ONE


def _cov(
    input: torch.Tensor,
    *,
    correction: int = 1,
    fweights: torch.Tensor | None = None,
    aweights: torch.Tensor | None = None,
) -> torch.Tensor:
    if input.dim() > 2:
        raise exc.ShapeMismatch(f"torch.cov takes values of at most 2 dimensions, got {input.dim()}")
    x = input.reshape([1, -1]) if input.dim() < 2 else input
    x = x if x.dtype.is_floating_point else x.to(torch.get_default_dtype())
    weights = fweights if aweights is None else aweights if fweights is None else fweights * aweights
    count: Any = constant_size(x, 1, "cov") if weights is None else torch.sum(weights)
    weighted = x if weights is None else x * weights
    mean = torch.sum(weighted, 1, True) / count
    lost: Any = correction
    if aweights is not None and weights is not None and correction:
        lost = correction * torch.sum(weights * aweights) / count
    norm = count - lost
    centered = x - mean
    right = centered if weights is None else centered * weights
    norm = torch.clamp_min(norm, 0) if isinstance(norm, torch.Tensor) else max(norm, 0)
    return (torch.mm(centered, right.to(centered.dtype).t()) / norm).squeeze()


def _corrcoef(input: torch.Tensor) -> torch.Tensor:
    c = _cov(input)
    if c.dim() == 0:
        return c / c
    deviation = torch.sqrt(torch.diagonal(c))
    return torch.clamp(c / deviation.unsqueeze(1) / deviation.unsqueeze(0), -1, 1)


def _gaussian_nll_loss(
    input: torch.Tensor,
    target: torch.Tensor,
    var: torch.Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> torch.Tensor:
    """Without PyTorch's check that no variance is negative, which would read values back."""
    if not isinstance(var, torch.Tensor):
        if var < 0:
            raise exc.InvalidAPIUsage("gaussian_nll_loss: the variance is negative")
        var = var * torch.ones_like(input)
    if var.dim() == input.dim() - 1:
        var = var.unsqueeze(-1)
    var = torch.clamp_min(var, eps)
    difference = input - target
    loss = 0.5 * (torch.log(var) + difference * difference / var)
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    return torch.mean(loss) if reduction == "mean" else torch.sum(loss) if reduction == "sum" else loss


def _pad(input: torch.Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Any:
    if mode != "circular":
        return NotImplemented
    for i in range(len(pad) // 2):
        dim = input.dim() - 1 - i
        before, after = pad[2 * i : 2 * i + 2]
        n = constant_size(input, dim, "pad")
        if max(before, after) > n:
            raise exc.ShapeMismatch(f"torch.nn.functional.pad: more than {n} elements around dimension {dim}")
        # Numbers below 0 take elements away, before what is left is wrapped around.
        cut, left = max(-before, 0), n + min(before, 0) + min(after, 0)
        index = torch.remainder(positions(n + before + after) - max(before, 0), max(left, 1)) + cut
        input = take(input, index, dim)
    return input


def _where(condition: Any, *values: Any, **named: Any) -> Any:
    if not isinstance(condition, torch.Tensor) or condition.dtype is not torch.uint8:
        return NotImplemented
    return torch.where(condition != 0, *values, **named)  # as PyTorch takes it, with a warning


#: Mode of interpolation -> the ATen op of a rank.
_UPSAMPLING = {
    "nearest": "upsample_nearest{}d",
    "nearest-exact": "_upsample_nearest_exact{}d",
    "linear": "upsample_linear{}d",
    "bilinear": "upsample_bilinear{}d",
    "trilinear": "upsample_trilinear{}d",
}


def _interpolate(
    input: torch.Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Any:
    """By PyTorch's decomposition, which takes tiles: the kernel asks for sizes as ints."""
    if "nearest" not in mode and not input.is_floating_point():
        # PyTorch's CPU has weights of 16 bits there, and its GPU those of float32: results differ by one.
        raise exc.UnsupportedDtype(
            f"torch.nn.functional.interpolate(mode={mode!r}) of {input.dtype}: PyTorch rounds it by another rule on "
            "each kind of device",
            fix="write the rule: `torch.nn.functional.interpolate(x.float(), ...).round().to(x.dtype)`.",
        )
    rank = input.dim() - 2
    op = getattr(torch.ops.aten, _UPSAMPLING.get(mode, "").format(rank) or "_", None)
    fits = all(isinstance(input.size(d), int) for d in range(2))
    if op is None or recompute_scale_factor or antialias or fits:
        return NotImplemented
    given = [constant_size(input, d, "interpolate") for d in range(2, input.dim())]
    factors = [scale_factor] * rank if isinstance(scale_factor, (int, float)) or scale_factor is None else scale_factor
    sizes = [size] * rank if isinstance(size, int) else size
    if sizes is None:
        sizes = [math.floor(n * factor) for n, factor in zip(given, factors, strict=True)]
    corners = () if "nearest" in mode else (bool(align_corners),)
    return decomposition_table[op.default](input, sizes, *corners, *factors)


def pairs(n: int, replacement: bool) -> tuple[torch.Tensor, torch.Tensor, int]:
    """First and second place of all pairs of `n` places, in order, and how many there are."""
    skipped = 0 if replacement else 1
    count = n * (n - 1) // 2 + (n if replacement else 0)
    index, row = positions(count), positions(n)
    # Where the pairs of each row begin among all pairs.
    starts = row * (n - skipped) - torch.div(row * (row - 1), 2, rounding_mode="floor")
    first = torch.sum((index.unsqueeze(1) >= starts.unsqueeze(0)).to(torch.int32), 1, dtype=torch.int32) - 1
    if not replacement:
        first = torch.clamp_max(first, max(n - 2, 0))  # the last row has no pair
    second = index - torch.gather(starts, 0, first) + first + skipped
    return first, second, count


def _combinations(input: torch.Tensor, r: int = 2, with_replacement: bool = False) -> Any:
    if input.dim() != 1:
        raise exc.ShapeMismatch(f"torch.combinations takes a value of one dimension, got {input.dim()}")
    n = constant_size(input, 0, "combinations")
    if r == 1:
        return input.unsqueeze(1)
    first, second, count = pairs(n, with_replacement)
    if r != 2 or not count:
        raise exc.TorchOpTracingError(
            op="torch.combinations",
            reason=f"r = {r} of {n} elements",
            fix="make pairs (`r=2`) of pairs, or make the combinations in host code.",
        )
    return torch.stack([take(input, first, 0), take(input, second, 0)], 1)


def _tensor_split(input: torch.Tensor, *places: Any, **options: Any) -> Any:
    if any(isinstance(value, torch.Tensor) for value in (*places, *options.values())):
        raise refused("tensor_split")
    return NotImplemented


def _instance_norm(input: torch.Tensor, *rest: Any, **options: Any) -> Any:
    """PyTorch's own, without running statistics or with those taken as they are."""
    given = dict(zip(("running_mean", "running_var", "weight", "bias", "use_input_stats"), rest), **options)
    if given.get("use_input_stats", True) and given.get("running_mean") is not None:
        raise refused("instance_norm")
    return NotImplemented


def _svd_lowrank(*args: Any, **options: Any) -> Any:
    raise refused("svd_lowrank")


def _pca_lowrank(*args: Any, **options: Any) -> Any:
    raise refused("pca_lowrank")


#: How far from the lower of two elements to the upper one a quantile between them is; None: as far as its rank.
_SHARES: dict[str, float | None] = {"lower": 0.0, "higher": 1.0, "midpoint": 0.5, "nearest": 0.0, "linear": None}


def _quantile(
    input: torch.Tensor,
    q: float | torch.Tensor,
    dim: int | None = None,
    keepdim: bool = False,
    *,
    interpolation: str = "linear",
    ignore_nan: bool = False,
) -> Any:
    """PyTorch before 2.12 asks for the number of elements, which in device code may be symbolic."""
    known = input.dtype in (torch.float32, torch.float64) and input.dim() > 0 and interpolation in _SHARES
    if not known or isinstance(q, torch.Tensor) or not 0 <= q <= 1:
        return NotImplemented  # PyTorch's, with its errors
    x = input.reshape([-1]) if dim is None else input
    along = 0 if dim is None else dim
    n = constant_size(x, along, "quantile")
    values = torch.sort(x, along).values  # nan is last
    nans = torch.sum(torch.isnan(x).to(torch.int64), along, True)
    if ignore_nan:
        rank = torch.clamp_min(n - 1 - nans, 0).to(x.dtype) * q
    else:
        rank = torch.where(nans > 0, float(n - 1), (n - 1) * torch.full_like(nans, q, dtype=x.dtype))
    lower = torch.round(rank) if interpolation == "nearest" else torch.floor(rank)
    below = torch.gather(values, along, lower.to(torch.int64))
    share = _SHARES[interpolation]
    if share == 0.0:
        found = below
    else:
        above = torch.gather(values, along, torch.ceil(rank).to(torch.int64))
        found = above if share == 1.0 else torch.lerp(below, above, rank - lower if share is None else share)
    if dim is None:
        return found.reshape([1] * input.dim() if keepdim else [])
    return found if keepdim else found.squeeze(along)


def _cross_entropy(
    input: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """Of probabilities: PyTorch before 2.12 asks for the number of elements, which in device code may be symbolic."""
    plain = size_average is None and reduce is None and reduction in ("none", "mean", "sum")
    if not plain or not target.is_floating_point() or target.dim() != input.dim() or not 0.0 <= label_smoothing <= 1.0:
        return NotImplemented  # PyTorch's, with its errors
    along = 1 if input.dim() > 1 else 0
    shares = target
    if label_smoothing:
        classes = constant_size(input, along, "cross_entropy with label_smoothing")
        shares = target * (1 - label_smoothing) + label_smoothing / classes
    terms = torch.log_softmax(input, along) * shares
    if weight is not None:
        terms = terms * (weight if along == input.dim() - 1 else weight[(slice(None), *[None] * (input.dim() - 2))])
    losses = -torch.sum(terms, along)
    return losses if reduction == "none" else losses.mean() if reduction == "mean" else losses.sum()


def _linear(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Any:
    """PyTorch before 2.12 asks for the number of elements, which in device code may be symbolic."""
    if input.dim() < 3 or weight.dim() != 2:
        return NotImplemented
    rows = input.reshape([math.prod(input.shape[:-1]), input.size(-1)])
    turned = weight.t()
    product = torch_overrides.mm(rows, turned) if bias is None else torch_overrides.addmm(bias, rows, turned)
    return product.reshape([*input.shape[:-1], weight.size(0)])


def _gradient(input: torch.Tensor, *, spacing: Any = 1, dim: Any = None, edge_order: int = 1) -> Any:
    """PyTorch asks each dimension for its size as a number."""
    dims = [dim] if isinstance(dim, int) else list(range(input.dim()) if dim is None else dim)
    apart = list(spacing) if isinstance(spacing, (list, tuple)) else [spacing] * len(dims)
    if len(apart) != len(dims) or edge_order not in (1, 2):
        return NotImplemented  # PyTorch's, with its errors
    return tuple(_slope(input, dim_of(input, d), step, edge_order) for d, step in zip(dims, apart, strict=True))


def _slope(x: torch.Tensor, dim: int, step: Any, order: int) -> torch.Tensor:
    """The slope along one dimension: of the neighbours' difference, at the ends one-sided."""
    n = constant_size(x, dim, "gradient")
    if n <= order:
        raise exc.ShapeMismatch(f"torch.gradient with edge_order={order} of {n} elements: it takes {order + 1}")
    if not x.dtype.is_floating_point:
        x = x.to(torch.get_default_dtype())
    at = positions(n)

    def near(offset: int) -> torch.Tensor:
        return take(x, torch.clamp(at + offset, 0, n - 1), dim)

    first, last = (placed(at == place, dim, x.dim()) for place in (0, n - 1))
    if isinstance(step, torch.Tensor):
        if order == 2:
            raise exc.TorchOpTracingError(
                op="torch.gradient",
                reason="edge_order=2 beside coordinates has no rule",
                fix="leave edge_order out.",
            )
        return _slope_along(x, placed(step, dim, x.dim()), near(-1), near(1), dim)
    slope = (near(1) - near(-1)) / step
    slope = torch.where(first | last, slope, slope / 2)
    if order == 2:
        slope = torch.where(first, (4 * near(1) - 3 * x - near(2)) / (2 * step), slope)
        slope = torch.where(last, (3 * x - 4 * near(-1) + near(-2)) / (2 * step), slope)
    return slope


def _slope_along(
    x: torch.Tensor, place: torch.Tensor, before: torch.Tensor, after: torch.Tensor, dim: int
) -> torch.Tensor:
    """The slope between neighbours that stand at `place`, of different distances."""
    n = constant_size(place, dim, "gradient")
    at = positions(n)
    left = place - take(place, torch.clamp_min(at - 1, 0), dim)
    right = take(place, torch.clamp_max(at + 1, n - 1), dim) - place
    first, last = (placed(at == end, dim, x.dim()) for end in (0, n - 1))
    inner = ((x - before) * (right / left) + (after - x) * (left / right)) / (left + right)
    return torch.where(first, (after - x) / right, torch.where(last, (x - before) / left, inner))


def _take_along_dim(input: torch.Tensor, indices: torch.Tensor, dim: int | None = None) -> torch.Tensor:
    if dim is None:
        input, indices, dim = input.reshape([-1]), indices.reshape([-1]), 0
    along = dim_of(input, dim)

    def spread(x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return x.expand([n if d == along or n != 1 else other.size(d) for d, n in enumerate(x.shape)])

    return torch.gather(spread(input, indices), along, spread(indices, input))


def _div(input: torch.Tensor, other: Any, *, rounding_mode: str | None = None) -> Any:
    narrow = all(getattr(x, "dtype", None) in (torch.float16, torch.bfloat16) for x in (input, other))
    if rounding_mode != "trunc" or not narrow:
        return NotImplemented
    return torch.trunc(input / other)  # which is rounded first; a quotient by a number is not


def _full_of(shape: Any, value: torch.Tensor, dtype: torch.dtype | None) -> Any:
    """A tensor of one element as the number of a factory function, which eager PyTorch reads."""
    if not isinstance(value, torch.Tensor) or value.dim():
        return NotImplemented
    if dtype is None:
        dtype = torch.get_default_dtype() if value.is_floating_point() else value.dtype
        dtype = dtype if dtype is torch.bool or dtype.is_floating_point else torch.int64
    return full(shape, value.to(dtype), dtype)


def _full(size: Any, fill_value: Any, *, dtype: torch.dtype | None = None, **_: Any) -> Any:
    return _full_of(size, fill_value, dtype)


def _full_like(like: torch.Tensor, fill_value: Any, *, dtype: torch.dtype | None = None, **_: Any) -> Any:
    return _full_of(like.shape, fill_value, dtype or like.dtype)


def _new_full(like: torch.Tensor, size: Any, fill_value: Any, *, dtype: torch.dtype | None = None, **_: Any) -> Any:
    return _full_of(size, fill_value, dtype or like.dtype)


def _clamp(x: torch.Tensor, min: Any = None, max: Any = None) -> Any:
    """With a number and a tensor of one element, which eager PyTorch reads, one after the other."""
    if min is None or max is None or isinstance(min, torch.Tensor) is isinstance(max, torch.Tensor):
        return NotImplemented
    return torch.clamp(torch.clamp(x, min=min), max=max)


def _kron(input: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    rank = max(input.dim(), other.dim())
    a, b = (x[(None,) * (rank - x.dim())] if x.dim() < rank else x for x in (input, other))
    every = slice(None)
    product = a[(every, None) * rank] * b[(None, every) * rank] if rank else a * b
    for dim in range(rank):
        product = product.flatten(dim, dim + 1)
    return product


def _vander(x: torch.Tensor, N: int | None = None, increasing: bool = False) -> torch.Tensor:
    if x.dim() != 1:
        raise exc.ShapeMismatch("torch.vander needs a vector", fix="flatten the operand: `v.reshape(-1)`.")
    count = constant_size(x, 0, "vander") if N is None else N
    if count == 0:
        raise exc.ShapeMismatch("torch.vander: N is 0, so that nothing is left", fix="leave it out.")
    wide = x.to(torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype)
    wide = wide if wide.dtype.is_floating_point else wide.to(torch.int64)
    powers = [torch.ones_like(wide)]
    while len(powers) < count:
        powers.append(powers[-1] * wide)
    stacked = torch.stack(powers if increasing else powers[::-1], 1)
    return stacked.to(x.dtype) if x.dtype.is_floating_point else stacked


def _matrix_norm(
    A: torch.Tensor,
    ord: Any = "fro",
    dim: Any = (-2, -1),
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Any:
    if isinstance(ord, str) or ord not in (1, -1, math.inf, -math.inf):
        return NotImplemented
    rows, columns = (d % A.dim() for d in dim)
    summed, other = (rows, columns) if abs(ord) == 1 else (columns, rows)
    sums = torch.sum(torch.abs(A if dtype is None else A.to(dtype)), summed, keepdim=True)
    found = torch.amax(sums, other, keepdim=True) if ord > 0 else torch.amin(sums, other, keepdim=True)
    return found if keepdim else found.sum((rows, columns))


def _norm(
    A: torch.Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Any:
    of_matrix = A.dim() == 2 if dim is None else isinstance(dim, (tuple, list)) and len(dim) == 2
    if ord is None or not of_matrix:
        return NotImplemented
    return _matrix_norm(A, ord, (0, 1) if dim is None else dim, keepdim, dtype=dtype)


#: A function of torch's -> what it means; NotImplemented where PyTorch's own does.
COMPOSITES: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.nn.functional.cross_entropy: _cross_entropy,
    torch.nn.functional.linear: _linear,
    torch.gradient: _gradient,
    torch.combinations: _combinations,
    **also_methods(
        quantile=_quantile,
        nanquantile=functools.partial(_quantile, ignore_nan=True),
        cov=_cov,
        corrcoef=_corrcoef,
        take_along_dim=_take_along_dim,
        clamp=_clamp,
        clip=_clamp,
        div=_div,
        divide=_div,
    ),
    **also_methods(kron=_kron),
    torch.vander: _vander,
    torch.linalg.matrix_norm: _matrix_norm,
    torch.linalg.norm: _norm,
    torch.full: _full,
    torch.full_like: _full_like,
    torch.Tensor.new_full: _new_full,
    torch.tensor_split: _tensor_split,
    torch.Tensor.tensor_split: _tensor_split,
    torch.svd_lowrank: _svd_lowrank,
    torch.pca_lowrank: _pca_lowrank,
    F.gaussian_nll_loss: _gaussian_nll_loss,
    F.instance_norm: _instance_norm,
    F.interpolate: _interpolate,
    F.pad: _pad,
    torch.where: _where,
    **TILES_OF_ONE,
}
