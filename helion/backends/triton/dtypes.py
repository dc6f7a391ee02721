"""torch's dtypes in Triton's words, and what its products take."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from ... import exc
from ..._compat_torch import e4m3fn_overflows_to_nan
from ..text import Text
from ..text import call

TRITON_DTYPES: dict[torch.dtype, str] = {
    torch.bool: "tl.int1",
    torch.int8: "tl.int8",
    torch.int16: "tl.int16",
    torch.int32: "tl.int32",
    torch.int64: "tl.int64",
    torch.uint8: "tl.uint8",
    torch.uint16: "tl.uint16",
    torch.uint32: "tl.uint32",
    torch.uint64: "tl.uint64",
    torch.float16: "tl.float16",
    torch.bfloat16: "tl.bfloat16",
    torch.float32: "tl.float32",
    torch.float64: "tl.float64",
    torch.float8_e4m3fn: "tl.float8e4nv",
    torch.float8_e5m2: "tl.float8e5",
}


def triton_dtype(dtype: torch.dtype) -> str:
    """The Triton name of a torch dtype.

    Raises:
        exc.UnsupportedDtype: Triton has none.
    """
    try:
        return TRITON_DTYPES[dtype]
    except KeyError:
        raise exc.UnsupportedDtype(op="the Triton backend", dtype=dtype) from None


#: Integers that a float becomes by way of a wider one, of which the low bits stay: what eager PyTorch gives on a GPU
#: for numbers beyond their range. The hardware's own conversions end at 16 bits and saturate there, so that 1e9 became
#: 32767 as int16, and as int8 whatever the compiler held it in, -1 or 32767.
_BY_WAY_OF = {
    torch.int8: torch.int32,
    torch.int16: torch.int32,
    torch.uint8: torch.int64,
    torch.uint16: torch.uint32,
}


#: What Triton has no arithmetic of, nor numbers.
FLOATS8 = (torch.float8_e4m3fn, torch.float8_e5m2)

#: What rows and columns of a product are padded to; Triton takes fewer, but the fewer the less it was tried.
SMALLEST_SIDE = 16


def _by_way_of_float32(source: torch.dtype, dtype: torch.dtype) -> bool:
    """Whether PyTorch makes a float32 of a value first, and Triton has nothing shorter that is right: it has no
    conversions between 8-bit floats and integers or float64, and makes numbers of e5m2's inf and nan as bfloat16.
    """
    if source is dtype or source is torch.bool:
        return False
    if source in FLOATS8:
        direct = (torch.float32, torch.float16, *([torch.bfloat16] if source is torch.float8_e4m3fn else []))
        return dtype not in direct
    return dtype in FLOATS8 and source not in (torch.float32, torch.float16, torch.bfloat16)


def cast(text: Text, source: torch.dtype, dtype: torch.dtype, helper: Callable[..., Text]) -> Text:
    """A value of one dtype as another, as PyTorch converts it on a GPU; `helper` calls a function of ours."""
    if dtype is torch.float8_e5m2 and source is not dtype:
        return helper("hlt_to_e5m2", cast(text, source, torch.float32, helper))
    if _by_way_of_float32(source, dtype):
        text, source = text.to("tl.float32"), torch.float32
    if dtype is torch.bool:
        return text.differs(0)
    if dtype is torch.float8_e4m3fn and source not in (dtype, torch.bool) and e4m3fn_overflows_to_nan:
        text = helper("hlt_within_e4m3", text)  # the hardware's conversion ends at the largest number
    if source is torch.bool and dtype.is_floating_point:
        text = text.to("tl.float32" if dtype in FLOATS8 else "tl.int32")
    elif source.is_floating_point and dtype in _BY_WAY_OF:
        text = text.to(triton_dtype(_BY_WAY_OF[dtype]))
    return text.to(triton_dtype(dtype))


def is_negative_zero(value: object) -> bool:
    """Whether a number is -0.0, of which Triton makes 0.0 where it stands in its code."""
    return isinstance(value, float) and value == 0 and math.copysign(1, value) < 0


def negative_zero(dtype: torch.dtype, shape: object = "[]") -> Text:
    """-0.0, as a product that the compiler folds."""
    return call("tl.full", shape, -1.0, triton_dtype(dtype)) * 0.0


def smallest_k(dtype: torch.dtype) -> int:
    """Smallest K of tl.dot (triton.backends.nvidia.compiler.min_dot_size)."""
    return 32 if dtype.itemsize == 1 else 16
