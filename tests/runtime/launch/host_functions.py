"""Host functions as users write them: all add two tensors, and what stands before and after differs.

The table that ``test_host_functions.py`` runs; `FUNCTIONS` has their names in order.
"""

from __future__ import annotations

import math

import torch

import helion
import helion.language as hl


def empty_like(x, y):
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def empty_of_shape(x, y):
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def new_empty(x, y):
    out = x.new_empty(x.size())
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def zeros(x, y):
    out = torch.zeros_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def full_like(x, y):
    out = torch.full_like(x, -1.0)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def broadcast_and_promote(x, y):
    x, y = torch.broadcast_tensors(x, y)
    out = torch.empty(x.shape, dtype=torch.promote_types(x.dtype, y.dtype), device=x.device)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def result_type(x, y):
    out = torch.empty(x.shape, dtype=torch.result_type(x, y), device=x.device)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def dtype_by_condition(x, y):
    out = torch.empty_like(x, dtype=torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def finfo(x, y):
    limit = torch.finfo(x.dtype).max
    out = torch.full_like(x, limit)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def finfo_eps(x, y):
    eps = torch.finfo(x.dtype).eps
    out = torch.empty_like(x)
    assert eps > 0
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def iinfo(x, y):
    low = torch.iinfo(torch.int32).min
    out = torch.empty_like(x) if low < 0 else torch.zeros_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def unpack_size(x, y):
    (n,) = x.size()
    out = torch.empty([n], dtype=x.dtype, device=x.device)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def numel(x, y):
    n = x.numel()
    out = x.new_empty(n)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def shape_arithmetic(x, y):
    n = x.shape[0]
    half = n // 2
    out = x.new_empty(half * 2 + n % 2)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def max_of_sizes(x, y):
    n = max(x.size(0), y.size(0))
    out = x.new_empty([n])
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def product_loop(x, y):
    n = 1
    for size in x.shape:
        n *= size
    out = x.new_empty([n])
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def next_power_of_2(x, y):
    n = helion.next_power_of_2(x.size(0))
    out = torch.empty_like(x)
    assert n >= x.size(0)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def cdiv(x, y):
    n = helion.cdiv(x.size(0), 64) * 64
    out = x.new_empty([n])[: x.size(0)]
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def math_function(x, y):
    n = math.ceil(math.sqrt(x.size(0)))
    out = torch.empty_like(x)
    assert n > 0
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def to_same_dtype(x, y):
    x = x.to(torch.float32)
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def to_other_dtype(x, y):
    y = y.to(torch.float64).to(x.dtype)
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def to_device(x, y):
    y = y.to(x.device)
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def float_method(x, y):
    x = x.float()
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def type_as(x, y):
    y = y.type_as(x)
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def contiguous(x, y):
    x = x.contiguous()
    y = y.contiguous()
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def contiguous_copy(x, y):
    y = y.view(16, 16).t().contiguous().view(-1)
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def clone(x, y):
    x = x.clone()
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def view_flat(x, y):
    x = x.view(-1)
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def reshape(x, y):
    x = x.reshape(16, 16).reshape(-1)
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def flatten(x, y):
    x = x.flatten()
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def result_as_matrix(x, y):
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out.view(16, -1)


def result_slice(x, y):
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out[:128]


def result_unsqueezed(x, y):
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out.unsqueeze(0)


def result_transposed(x, y):
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out.view(16, 16).t()


def two_outputs(x, y):
    out = torch.empty_like(x)
    extra = torch.zeros_like(y)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out, extra


def list_of_outputs(x, y):
    out = torch.empty_like(x)
    extra = torch.ones_like(y)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return [out, extra]


def output_and_input(x, y):
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out, x


def output_and_number(x, y):
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out, x.size(0)


def optional_output(x, y, out=None):
    if out is None:
        out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def optional_bias(x, y, bias=None):
    if bias is not None:
        y = y + bias
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def optional_dtype(x, y, dtype: hl.constexpr = None):
    out = torch.empty_like(x, dtype=dtype or x.dtype)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def flag(x, y, keep: bool = False):
    out = torch.empty_like(x) if not keep else torch.zeros_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def string_mode(x, y, mode: str = "sum"):
    assert mode in ("sum", "mean")
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def assert_shapes(x, y):
    assert x.shape == y.shape, f"shapes {x.shape} and {y.shape}"
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def assert_dtype(x, y):
    assert x.dtype == y.dtype and x.is_floating_point()
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def assert_device(x, y):
    assert x.device == y.device, "devices"
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def assert_contiguous(x, y):
    assert x.is_contiguous() and x.stride(0) == 1
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def raise_untaken(x, y):
    if x.ndim != 1:
        raise ValueError(f"expected one dimension, got {x.ndim} of {tuple(x.shape)}")
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def early_return(x, y):
    if x.numel() == 0:
        return torch.empty_like(x)
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def isinstance_check(x, y):
    assert isinstance(x, torch.Tensor)
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def scaled_by_number(x, y, scale: float = 1.0):
    y = y * scale
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def arithmetic_before(x, y):
    y = 2 * y - 1
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def arithmetic_after(x, y):
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out + 1


def sum_after(x, y):
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out.sum()


def cast_after(x, y):
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out.to(torch.bfloat16)


def mean_before(x, y):
    y = y - y.mean()
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def clamp_before(x, y):
    y = y.clamp(min=0)
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def cat_before(x, y):
    y = torch.cat([y[:128], y[128:]])
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def stack_before(x, y):
    y = torch.stack([y, y])[0]
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def where_before(x, y):
    y = torch.where(y > 0, y, 0.0)
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def copy_into(x, y):
    out = torch.empty_like(x)
    out.copy_(y)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def arange(x, y):
    y = y + torch.arange(x.size(0), device=x.device, dtype=x.dtype)
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def comprehension(x, y):
    sizes = [size for size in x.shape if size]
    out = x.new_empty(sizes)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def in_place(x, y):
    out = x
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return x


def nothing_returned(x, y, out=None):
    out = x
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return


#: The functions, by name.
FUNCTIONS = {
    function.__name__: function
    for function in (
        empty_like,
        empty_of_shape,
        new_empty,
        zeros,
        full_like,
        broadcast_and_promote,
        result_type,
        dtype_by_condition,
        finfo,
        finfo_eps,
        iinfo,
        unpack_size,
        numel,
        shape_arithmetic,
        max_of_sizes,
        product_loop,
        next_power_of_2,
        cdiv,
        math_function,
        to_same_dtype,
        to_other_dtype,
        to_device,
        float_method,
        type_as,
        contiguous,
        contiguous_copy,
        clone,
        view_flat,
        reshape,
        flatten,
        result_as_matrix,
        result_slice,
        result_unsqueezed,
        result_transposed,
        two_outputs,
        list_of_outputs,
        output_and_input,
        output_and_number,
        optional_output,
        optional_bias,
        optional_dtype,
        flag,
        string_mode,
        assert_shapes,
        assert_dtype,
        assert_device,
        assert_contiguous,
        raise_untaken,
        early_return,
        isinstance_check,
        scaled_by_number,
        arithmetic_before,
        arithmetic_after,
        sum_after,
        cast_after,
        mean_before,
        clamp_before,
        cat_before,
        stack_before,
        where_before,
        copy_into,
        arange,
        comprehension,
        in_place,
        nothing_returned,
    )
}
