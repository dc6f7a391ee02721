"""torch's dtypes in Triton's words, and what its products take."""

from __future__ import annotations

import torch

from ... import exc

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


def smallest_k(dtype: torch.dtype) -> int:
    """Smallest K of tl.dot (triton.backends.nvidia.compiler.min_dot_size)."""
    return 32 if dtype.itemsize == 1 else 16
