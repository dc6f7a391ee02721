"""Matrix products: `hl.dot` and `hl.dot_scaled`.

torch's own products (`torch.addmm`, `mm`, `bmm`, `baddbmm`, `matmul`, `@`) are expressed by `hl.dot` in
`torch_overrides`.
"""

from __future__ import annotations

from typing import Any

import torch

from .. import exc
from .op import Product
from .op import device_op
from .shapes import check_broadcasts_to
from .shapes import same_size
from .shapes import shape_text

FP8_DTYPES = frozenset({torch.float8_e4m3fn, torch.float8_e5m2})
#: Operand dtype -> dtype that products are summed in.
ACCUMULATE_DTYPES: dict[torch.dtype, torch.dtype] = {
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float32: torch.float32,
    torch.float64: torch.float64,
    torch.int8: torch.int32,
    **dict.fromkeys(FP8_DTYPES, torch.float32),
}
#: Format of a dot_scaled operand -> (dtypes it may be stored in, elements per stored value).
SCALED_FORMATS: dict[str, tuple[tuple[torch.dtype, ...], int]] = {
    "e2m1": ((torch.uint8,), 2),
    "e4m3": ((torch.float8_e4m3fn, torch.uint8), 1),
    "e5m2": ((torch.float8_e5m2, torch.uint8), 1),
    "bf16": ((torch.bfloat16,), 1),
    "fp16": ((torch.float16,), 1),
}
#: Elements along K that share one scale of dot_scaled (OCP Microscaling Formats v1.0, section 5.2).
SCALE_GROUP = 32
#: Dtype of scales -> elements that share one: exponents (e8m0), or the numbers of NVFP4.
SCALE_GROUPS = {torch.uint8: SCALE_GROUP, torch.float8_e4m3fn: 16}


@device_op(product=Product(0, 1))
def dot(
    a: torch.Tensor, b: torch.Tensor, acc: torch.Tensor | None = None, out_dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Matrix product `a @ b (+ acc)`.

    Args:
        a: [M, K] or [..., M, K]; float16, bfloat16, float32, float64, int8, float8_e4m3fn or float8_e5m2.
        b: [K, N] or [..., K, N], of as many dimensions; the dtype of `a` (the two fp8 dtypes may be mixed).
        acc: accumulator that broadcasts to [..., M, N], added to the product.
        out_dtype: dtype of the result. Default: `acc`'s; without `acc` float32 for float operands, float64
            for float64, int32 for int8.

    Returns:
        [M, N] or [..., M, N] of `out_dtype`.  Products are summed in float32 (float64 for float64, int32 for
        int8), `acc` included, and rounded to `out_dtype` once.  float32 operands are multiplied as the
        setting `dot_precision` says on a GPU ("tf32" by default), in full float32 in eager modes.

    Raises:
        exc.ShapeMismatch: ranks or inner sizes do not fit.
        exc.DotBatchDimensionMismatch: batch sizes differ.
        exc.UnsupportedDtype: a dtype outside the list.
    """
    raise NotImplementedError


@dot.set_shape_rule
def _(a: torch.Tensor, b: torch.Tensor, acc: torch.Tensor | None, out_dtype: torch.dtype | None) -> torch.Tensor:
    shape = dot_shape(a, b)
    dtype = dot_result_dtype(a, b, acc, out_dtype)
    if acc is not None:
        check_broadcasts_to(acc.shape, shape, "hl.dot: acc")
    return torch.empty(shape, dtype=dtype, device=a.device)


def dot_shape(a: Any, b: Any) -> list[Any]:
    """Shape of `hl.dot(a, b)`; raises where the operands' do not go together."""
    shape = _product_shape(a, b, "hl.dot")
    if not same_size(a.shape[-1], b.shape[-2]):
        raise exc.ShapeMismatch(f"hl.dot: inner sizes differ: {shape_text(a.shape)} and {shape_text(b.shape)}")
    return shape


def dot_result_dtype(
    a: torch.Tensor, b: torch.Tensor, acc: torch.Tensor | None, out_dtype: torch.dtype | None
) -> torch.dtype:
    """Dtype of `hl.dot(a, b, acc, out_dtype)`; raises for operands it has no meaning for."""
    for operand in (a, b):
        if operand.dtype not in ACCUMULATE_DTYPES:
            raise exc.UnsupportedDtype(
                op="hl.dot",
                dtype=operand.dtype,
                fix="convert both: `.to(torch.int8)` where the values fit, else a floating dtype that holds them, "
                "`.to(torch.float32)` or `.to(torch.float64)`.",
            )
    if a.dtype is not b.dtype and not (a.dtype in FP8_DTYPES and b.dtype in FP8_DTYPES):
        raise exc.UnsupportedDtype(
            f"hl.dot: operands have different dtypes, {a.dtype} and {b.dtype}", fix="convert one with `.to(...)`."
        )
    summed = ACCUMULATE_DTYPES[a.dtype]
    result = out_dtype or (summed if acc is None else acc.dtype)
    if result.is_floating_point != summed.is_floating_point:
        raise exc.UnsupportedDtype(f"hl.dot: products of {a.dtype} cannot be accumulated in {result}")
    return result


def _product_shape(a: Any, b: Any, what: str) -> list[Any]:
    for operand in (a, b):
        if not isinstance(operand, torch.Tensor):
            raise exc.InvalidAPIUsage(f"{what} needs tensors, got {type(operand).__name__}")
    if a.dim() != b.dim() or a.dim() < 2:
        raise exc.ShapeMismatch(
            f"{what} needs two matrices or two batches of matrices: {shape_text(a.shape)} and {shape_text(b.shape)}"
        )
    if not all(map(same_size, a.shape[:-2], b.shape[:-2])):
        raise exc.DotBatchDimensionMismatch(left=shape_text(a.shape), right=shape_text(b.shape))
    return [*a.shape[:-1], b.shape[-1]]


def _packed(a: Any, a_scale: Any, fmt_a: str, b: Any, b_scale: Any, fmt_b: str, *rest: Any) -> tuple[int, int]:
    return SCALED_FORMATS[fmt_a][1], SCALED_FORMATS[fmt_b][1]


@device_op(product=Product(0, 3, SCALE_GROUP, _packed))
def dot_scaled(
    a: torch.Tensor,
    a_scale: torch.Tensor | None,
    fmt_a: str,
    b: torch.Tensor,
    b_scale: torch.Tensor | None,
    fmt_b: str,
    acc: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Matrix product of block-scaled operands (OCP Microscaling formats, and NVFP4).

    Element (m, k) of the left matrix is `decode(a)[m, k] * 2 ** (a_scale[m, k // 32] - 127)`, and with scales of
    float8_e4m3fn `decode(a)[m, k] * a_scale[m, k // 16]`.  On GPUs of compute capability 10 the tensor cores multiply
    such operands in tiles of 128 rows; elsewhere, and where only one operand has scales, their values are multiplied
    as bfloat16, which holds them exactly, or as tf32 ("fp16").

    Args:
        a: [M, K] of `fmt_a`; for "e2m1" [M, K / 2] of uint8, low four bits first.
        a_scale: [M, K / 32] uint8 exponents (e8m0; 255 is nan), [M, K / 16] float8_e4m3fn of "e2m1", or None for all
            ones.
        fmt_a: "e2m1", "e4m3", "e5m2", "bf16" or "fp16".
        b: [K, N] of `fmt_b`; for "e2m1" [K / 2, N] of uint8.
        b_scale: [N, K / 32] uint8 exponents, [N, K / 16] float8_e4m3fn of "e2m1", or None.
        fmt_b: format of `b`.
        acc: accumulator [M, N], float32.
        out_dtype: result dtype, float32 if left out (or `acc`'s dtype).

    Returns:
        [M, N] of `out_dtype`, summed in float32.

    Raises:
        exc.ShapeMismatch: ranks, inner sizes or numbers of scales do not fit.
        exc.UnsupportedDtype: an operand or its scales have a dtype outside the list.
        exc.InvalidAPIUsage: an unknown format.
    """
    raise NotImplementedError


@dot_scaled.set_shape_rule
def _(
    a: torch.Tensor,
    a_scale: torch.Tensor | None,
    fmt_a: str,
    b: torch.Tensor,
    b_scale: torch.Tensor | None,
    fmt_b: str,
    acc: torch.Tensor | None,
    out_dtype: torch.dtype | None,
) -> torch.Tensor:
    shape = _product_shape(a, b, "hl.dot_scaled")
    if len(shape) != 2:
        raise exc.ShapeMismatch("hl.dot_scaled needs matrices of two dimensions")
    packed = [_check_scaled(t, fmt, name) for t, fmt, name in ((a, fmt_a, "a"), (b, fmt_b, "b"))]
    inner = (a.shape[1] * packed[0], b.shape[0] * packed[1])
    if not same_size(*inner):
        raise exc.ShapeMismatch(f"hl.dot_scaled: inner sizes differ: {inner[0]} and {inner[1]}")
    for scale, fmt, rows, name in ((a_scale, fmt_a, a.shape[0], "a_scale"), (b_scale, fmt_b, b.shape[1], "b_scale")):
        _check_scale(scale, fmt, rows, inner[0], name)
    if acc is not None:
        check_broadcasts_to(acc.shape, shape, "hl.dot_scaled: acc")
    dtype = out_dtype or (torch.float32 if acc is None else acc.dtype)
    return torch.empty(shape, dtype=dtype, device=a.device)


def _check_scaled(tensor: torch.Tensor, fmt: str, name: str) -> int:
    if fmt not in SCALED_FORMATS:
        raise exc.InvalidAPIUsage(
            f"hl.dot_scaled: unknown format {fmt!r} of {name}", fix=f"use one of {', '.join(SCALED_FORMATS)}."
        )
    dtypes, packed = SCALED_FORMATS[fmt]
    if tensor.dtype not in dtypes:
        raise exc.UnsupportedDtype(
            f"hl.dot_scaled: {name} of format {fmt} has dtype {tensor.dtype}",
            fix=f"store it as {' or '.join(str(d) for d in dtypes)}.",
        )
    return packed


def _check_scale(scale: torch.Tensor | None, fmt: str, rows: Any, inner: Any, name: str) -> None:
    if scale is None:
        return
    group = SCALE_GROUPS.get(scale.dtype)
    if group is None:
        raise exc.UnsupportedDtype(
            f"hl.dot_scaled: {name} has dtype {scale.dtype}",
            fix="pass uint8 exponents (`scale.view(torch.uint8)` of float8_e8m0fnu), or float8_e4m3fn for 'e2m1'.",
        )
    if scale.dtype is not torch.uint8 and fmt != "e2m1":
        raise exc.UnsupportedDtype(
            f"hl.dot_scaled: {name} of {scale.dtype} goes with the format 'e2m1', not {fmt!r}",
            fix="pass uint8 exponents, one for 32 elements.",
        )
    if isinstance(inner, int) and inner % group:
        raise exc.ShapeMismatch(f"hl.dot_scaled: K = {inner} is not a multiple of {group}")
    groups = inner // group
    symbolic_groups = not (isinstance(groups, int) and isinstance(scale.shape[1], int)) if scale.dim() == 2 else False
    fits = scale.dim() == 2 and same_size(scale.shape[0], rows) and (symbolic_groups or scale.shape[1] == groups)
    if not fits:
        raise exc.ShapeMismatch(
            f"hl.dot_scaled: {name} has shape {shape_text(scale.shape)}, expected {shape_text([rows, groups])}"
        )
