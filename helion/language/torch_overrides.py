"""torch functions that mean something else on tiles: products, random numbers, scans, sorting, written with `hl` ops.

In device code `torch.addmm(acc, a, b)` may mix a float32 accumulator with 16-bit operands and sums in
float32; `torch.rand` draws from Philox by position.  A handler that meets a key of `TORCH_OVERRIDES` calls
the value with the same arguments.  Everything else of torch keeps its own meaning.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from .. import exc
from .creation import full
from .matmul import ACCUMULATE_DTYPES
from .matmul import FP8_DTYPES
from .matmul import dot
from .matmul import dot_result_dtype
from .matmul import dot_shape
from .op import current_handler
from .outer_products import addr
from .outer_products import cartesian_prod
from .outer_products import meshgrid
from .outer_products import outer
from .random import element_offsets
from .random import philox_rand
from .random import philox_rand4x
from .random import randint as hl_randint
from .scans import cumprod as hl_cumprod
from .scans import cumsum as hl_cumsum
from .shapes import broadcast_shapes
from .shapes import same_size
from .shapes import shape_text
from .sorting import SORTING
from .sorting import also_methods
from .tile import Tile

# -- matrix products -----------------------------------------------------------------------------------


def _result_dtype(a: torch.Tensor, b: torch.Tensor, name: str) -> torch.dtype:
    for operand in (a, b):
        if operand.dtype in FP8_DTYPES:
            raise exc.UnsupportedDtype(op=name, dtype=operand.dtype, fix="use hl.dot(a, b), which gives float32.")
        if operand.dtype not in ACCUMULATE_DTYPES:
            raise exc.UnsupportedDtype(op=name, dtype=operand.dtype)
    return a.dtype


def _check_rank(name: str, ndim: int, *operands: torch.Tensor) -> None:
    for operand in operands:
        if not isinstance(operand, torch.Tensor) or operand.dim() != ndim:
            raise exc.ShapeMismatch(f"{name} needs tensors of {ndim} dimensions")


def _product(a: torch.Tensor, b: torch.Tensor, acc: torch.Tensor | None, out_dtype: torch.dtype | None) -> torch.Tensor:
    """`hl.dot`; of one column, as `einsum("ij,j->i", a, b)` makes it, a multiply and a sum: as of a vector.

    Tensor cores would take 8 columns or 16, of which one is asked for.
    """
    if not _is_one(b.shape[-1]):
        result: torch.Tensor = dot(a, b, acc, out_dtype)
        return result
    dot_shape(a, b)
    dtype = dot_result_dtype(a, b, acc, out_dtype)
    summed = ACCUMULATE_DTYPES[a.dtype]
    if _is_one(a.shape[-2]):
        products = (a.squeeze(-2).to(summed) * b.squeeze(-1).to(summed)).sum(-1, dtype=summed).unsqueeze(-1)
    else:
        products = (a.to(summed) * b.squeeze(-1).unsqueeze(-2).to(summed)).sum(-1, dtype=summed)
    products = products.unsqueeze(-1)
    return (products if acc is None else products + acc.to(summed)).to(dtype)


def _is_one(size: Any) -> bool:
    """Whether a dimension is of one by its shape, whatever the block sizes are; not known where nothing is traced."""
    return type(size) is int and size == 1 and current_handler().traces


def mm(input: torch.Tensor, mat2: torch.Tensor, out_dtype: torch.dtype | None = None) -> torch.Tensor:
    """torch.mm on tiles: summed in float32, rounded to `out_dtype`, by default the operands' dtype."""
    _check_rank("torch.mm", 2, input, mat2)
    return _product(input, mat2, None, out_dtype or _result_dtype(input, mat2, "torch.mm"))


def bmm(input: torch.Tensor, mat2: torch.Tensor, out_dtype: torch.dtype | None = None) -> torch.Tensor:
    """torch.bmm on tiles: summed in float32, rounded to `out_dtype`, by default the operands' dtype."""
    _check_rank("torch.bmm", 3, input, mat2)
    return _product(input, mat2, None, out_dtype or _result_dtype(input, mat2, "torch.bmm"))


def _add_product(
    acc: torch.Tensor, a: torch.Tensor, b: torch.Tensor, beta: Any, alpha: Any, out_dtype: torch.dtype | None
) -> torch.Tensor:
    if _is_number(beta, 1) and _is_number(alpha, 1):
        return _product(a, b, acc, out_dtype)
    return _scaled_sum(acc, _product(a, b, None, None), beta, alpha, out_dtype)


def _scaled_sum(
    acc: torch.Tensor, product: torch.Tensor, beta: Any, alpha: Any, out_dtype: torch.dtype | None = None
) -> torch.Tensor:
    """`beta * acc + alpha * product`, computed in the product's dtype and rounded once, by default to `acc`'s dtype."""
    for name, factor in (("beta", beta), ("alpha", alpha)):
        if not product.is_floating_point() and isinstance(factor, (float, torch.SymFloat)):
            raise exc.InvalidAPIUsage(f"{name} of a product of integers must be an integer, got {factor}")
    result: torch.Tensor
    if not _is_number(alpha, 1):
        product = product * alpha
    if not _is_number(beta, 0):
        product = product + acc.to(product.dtype) * beta
    result = product.to(out_dtype or acc.dtype)
    return result


def _is_number(value: Any, number: int) -> bool:
    return isinstance(value, (int, float)) and value == number


def addmm(
    input: torch.Tensor,
    mat1: torch.Tensor,
    mat2: torch.Tensor,
    out_dtype: torch.dtype | None = None,
    *,
    beta: Any = 1,
    alpha: Any = 1,
) -> torch.Tensor:
    """torch.addmm on tiles; the accumulator may have another dtype than the operands, and gives the result's unless
    `out_dtype` does."""
    _check_rank("torch.addmm", 2, mat1, mat2)
    return _add_product(input, mat1, mat2, beta, alpha, out_dtype)


def baddbmm(
    input: torch.Tensor,
    batch1: torch.Tensor,
    batch2: torch.Tensor,
    out_dtype: torch.dtype | None = None,
    *,
    beta: Any = 1,
    alpha: Any = 1,
) -> torch.Tensor:
    """torch.baddbmm on tiles; the accumulator may have another dtype than the operands."""
    _check_rank("torch.baddbmm", 3, batch1, batch2)
    return _add_product(input, batch1, batch2, beta, alpha, out_dtype)


def addbmm(
    input: torch.Tensor, batch1: torch.Tensor, batch2: torch.Tensor, *, beta: Any = 1, alpha: Any = 1
) -> torch.Tensor:
    """torch.addbmm on tiles: the sum over the batch is kept in the dtype products are summed in, and rounded once."""
    _check_rank("torch.addbmm", 3, batch1, batch2)
    product = _product(batch1, batch2, None, None)
    return _scaled_sum(input, product.sum(0, dtype=product.dtype), beta, alpha)


def matmul(input: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """torch.matmul and `@` on tiles: summed in float32, rounded to the operands' dtype."""
    for operand in (input, other):
        if not isinstance(operand, torch.Tensor) or not operand.dim():
            raise exc.ShapeMismatch("torch.matmul takes tensors of one dimension or more")
    dtype = _result_dtype(input, other, "torch.matmul")
    if input.dim() == 1 or other.dim() == 1:
        return _vector_product(input, other).to(dtype)
    batch = _broadcast_batch(input, other)
    if batch:
        input = input.expand(*batch, *input.shape[-2:])
        other = other.expand(*batch, *other.shape[-2:])
    return _product(input, other, None, dtype)


def _broadcast_batch(a: torch.Tensor, b: torch.Tensor) -> list[Any]:
    """The batch sizes both operands are expanded to; none for two matrices."""
    try:
        return broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except exc.ShapeMismatch:
        raise exc.DotBatchDimensionMismatch(left=shape_text(a.shape), right=shape_text(b.shape)) from None


def _vector_product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """A product with a vector: a multiply and a sum, in the dtype products are summed in."""
    if a.dtype is not b.dtype:
        raise exc.UnsupportedDtype(
            f"torch.matmul: operands have different dtypes, {a.dtype} and {b.dtype}", fix="convert one with `.to(...)`."
        )
    inner = (a.shape[-1], b.shape[-1] if b.dim() == 1 else b.shape[-2])
    if not same_size(*inner):
        raise exc.ShapeMismatch(f"torch.matmul: inner sizes differ: {shape_text(a.shape)} and {shape_text(b.shape)}")
    summed = ACCUMULATE_DTYPES[a.dtype]
    a, b = a.to(summed), b.to(summed)
    if b.dim() == 1:
        return (a * b).sum(-1, dtype=summed)
    return (a.unsqueeze(-1) * b).sum(-2, dtype=summed)


# -- random numbers ---------------------------------------------------------------------------------------


def _shape(size: tuple[Any, ...]) -> Any:
    return size[0] if len(size) == 1 and isinstance(size[0], (list, tuple)) else list(size)


def _sizes(value: torch.Tensor, name: str) -> list[Any]:
    return current_handler(name).sizes_of(value)


#: Bits of a seed above the number of the place that draws: they tell the iterations of loops apart.
_ITERATION_SHIFT, _ITERATION_BITS = 16, 48


def _seed(shape: Any, name: str) -> Any:
    """Seed of one draw: this launch's, the place's, and that of each iteration of a loop whose tile is not in `shape`.

    Such an iteration draws for the same positions as the one before it, and PyTorch draws new numbers each time.
    """
    h = current_handler(name)
    seed = h.torch_seed()
    items = shape if isinstance(shape, (list, tuple)) else [shape]
    tiles = [item if isinstance(item, Tile) else h.tile_of_size(item) for item in items]
    numbers = h.iterations([tile for tile in tiles if tile is not None])
    if not numbers:
        return seed
    total = full([], seed, dtype=torch.int64)
    bits = _ITERATION_BITS // len(numbers)
    for place, number in enumerate(numbers):
        total = total + full([], number, dtype=torch.int64) * (1 << (_ITERATION_SHIFT + place * bits))
    return total


def _uniform(shape: Any, name: str) -> torch.Tensor:
    result: torch.Tensor = philox_rand(_seed(shape, name), element_offsets(shape, name))
    return result


def _normal(shape: Any, name: str) -> torch.Tensor:
    """Standard normal numbers by the Box-Muller transform of two uniform ones."""
    first, second, _, _ = philox_rand4x(_seed(shape, name), element_offsets(shape, name))
    # 1e-7 keeps the logarithm finite; it is below the generator's resolution of 2**-31 only for a drawn 0.
    radius = torch.sqrt(-2.0 * torch.log(torch.clamp_min(first, 1.0e-7)))
    result: torch.Tensor = radius * torch.cos(second * (2.0 * math.pi))
    return result


def _cast(value: torch.Tensor, dtype: torch.dtype | None, default: torch.dtype, name: str) -> torch.Tensor:
    dtype = default if dtype is None else dtype
    if not dtype.is_floating_point:
        raise exc.UnsupportedDtype(op=name, dtype=dtype)
    return value.to(dtype)


def rand(*size: Any, dtype: torch.dtype | None = None, device: Any = None) -> torch.Tensor:
    """torch.rand in device code: seeded from torch's generator at each launch."""
    return _cast(_uniform(_shape(size), "torch.rand"), dtype, torch.get_default_dtype(), "torch.rand")


def rand_like(input: torch.Tensor, *, dtype: torch.dtype | None = None, device: Any = None) -> torch.Tensor:
    """torch.rand_like in device code."""
    return _cast(_uniform(_sizes(input, "torch.rand_like"), "torch.rand_like"), dtype, input.dtype, "torch.rand_like")


def randn(*size: Any, dtype: torch.dtype | None = None, device: Any = None) -> torch.Tensor:
    """torch.randn in device code: seeded from torch's generator at each launch."""
    return _cast(_normal(_shape(size), "torch.randn"), dtype, torch.get_default_dtype(), "torch.randn")


def randn_like(input: torch.Tensor, *, dtype: torch.dtype | None = None, device: Any = None) -> torch.Tensor:
    """torch.randn_like in device code."""
    return _cast(_normal(_sizes(input, "torch.randn_like"), "torch.randn_like"), dtype, input.dtype, "torch.randn_like")


def randint(*args: Any, dtype: torch.dtype = torch.int64, device: Any = None) -> torch.Tensor:
    """torch.randint(high, size) or (low, high, size) in device code."""
    if len(args) not in (2, 3):
        raise exc.InvalidAPIUsage("torch.randint takes (high, size) or (low, high, size)")
    low, high, size = args if len(args) == 3 else (0, *args)
    return hl_randint(size, low, high, _seed(size, "torch.randint")).to(dtype)


def dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    """torch.nn.functional.dropout in device code: elements are kept with probability `1 - p`."""
    if not training or _is_number(p, 0):
        return input
    kept = _uniform(_sizes(input, "dropout"), "dropout") >= p
    scaled = torch.zeros_like(input) if _is_number(p, 1) else input * (1.0 / (1.0 - p))
    return torch.where(kept, scaled, torch.zeros_like(input))


# -- scans --------------------------------------------------------------------------------------------------


def cumsum(input: torch.Tensor, dim: int, *, dtype: torch.dtype | None = None) -> torch.Tensor:
    """torch.cumsum on tiles."""
    result: torch.Tensor = hl_cumsum(input if dtype is None else input.to(dtype), dim)
    return result if dtype is None else result.to(dtype)


def cumprod(input: torch.Tensor, dim: int, *, dtype: torch.dtype | None = None) -> torch.Tensor:
    """torch.cumprod on tiles."""
    result: torch.Tensor = hl_cumprod(input if dtype is None else input.to(dtype), dim)
    return result if dtype is None else result.to(dtype)


def _reflected_matmul(self: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return matmul(other, self)


#: torch callable -> what it means in device code.
TORCH_OVERRIDES: dict[Callable[..., Any], Callable[..., Any]] = {
    **also_methods(mm=mm, bmm=bmm, addmm=addmm, baddbmm=baddbmm, matmul=matmul, cumsum=cumsum, cumprod=cumprod),
    **also_methods(outer=outer, ger=outer, addr=addr),
    torch.meshgrid: meshgrid,
    torch.cartesian_prod: cartesian_prod,
    torch.Tensor.__matmul__: matmul,
    torch.Tensor.__rmatmul__: _reflected_matmul,
    torch.rand: rand,
    torch.rand_like: rand_like,
    torch.randn: randn,
    torch.randn_like: randn_like,
    torch.randint: randint,
    torch.nn.functional.dropout: dropout,
    **SORTING,
}
