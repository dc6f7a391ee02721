"""What one matrix kernel computes: operands, sizes, epilogue. No schedule, no printing, no toolkit.

`MatmulSpec` says ``out[b, m, n] = epilogue(sum_k a[b, m, k] * b[b, k, n])`` with an fp32 accumulator. Operands are
described by their *logical* axes (A: m, k; B: n, k; output and auxiliary operands: m, n) and the stride of each, in
elements, so that transposed and column-major tensors need no copy.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import torch

from ... import exc

__all__ = [
    "AUX_KINDS",
    "Aux",
    "Epilogue",
    "MatmulSpec",
    "Operand",
    "Statement",
    "cutlass_name",
    "element_bytes",
    "refuse",
]

AuxKind = Literal["value", "scalar", "row", "column", "matrix"]
AUX_KINDS: tuple[AuxKind, ...] = ("value", "scalar", "row", "column", "matrix")

# torch dtype -> the toolkit's name for it. What is not here cannot appear in a kernel of this backend.
_CUTLASS: dict[torch.dtype, str] = {
    torch.float8_e4m3fn: "Float8E4M3FN",
    torch.float8_e5m2: "Float8E5M2",
    torch.bfloat16: "BFloat16",
    torch.float16: "Float16",
    torch.float32: "Float32",
    torch.int32: "Int32",
    torch.int64: "Int64",
    torch.bool: "Boolean",
}
FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)
OPERAND_DTYPES = (*FP8, torch.bfloat16, torch.float16)
OUT_DTYPES = (torch.bfloat16, torch.float16, torch.float32, *FP8)

# A TMA tensor map wants its base address and every stride but the innermost as multiples of 16 bytes
# (CUDA driver API, cuTensorMapEncodeTiled).
TMA_ALIGNMENT = 16


def refuse(reason: str, fix: str = 'backend="triton" runs this kernel.') -> exc.BackendUnsupported:
    """The error for a kernel this backend does not map; the caller raises it."""
    return exc.BackendUnsupported(backend="cute", reason=reason, fix=fix)


def cutlass_name(dtype: torch.dtype) -> str:
    """The toolkit's class name of ``dtype``, e.g. ``BFloat16``. Raises BackendUnsupported for a dtype it has no use
    for.
    """
    try:
        return _CUTLASS[dtype]
    except KeyError:
        raise refuse(f"there is no {dtype} in its kernels") from None


def element_bytes(dtype: torch.dtype) -> int:
    return dtype.itemsize


@dataclasses.dataclass(frozen=True)
class Operand:
    """A, B or the output: a matrix, or a batch of them.

    Args:
        dtype: element type.
        outer: stride of the m axis (A, output) or of the n axis (B), in elements.
        inner: stride of the k axis (A, B) or of the n axis (output), in elements.
        batch: stride of the batch axis, in elements; 0 when every batch uses the same matrix.
        alignment: bytes that divide the data pointer.
    """

    dtype: torch.dtype
    outer: int
    inner: int
    batch: int = 0
    alignment: int = TMA_ALIGNMENT

    @property
    def inner_major(self) -> bool:
        """Whether the inner axis is the contiguous one (A, B: K-major; output: row-major)."""
        return self.inner == 1

    @property
    def leading(self) -> int:
        """The stride, in elements, of the axis that is not contiguous."""
        return self.outer if self.inner == 1 else self.inner

    def tma_problem(self) -> str | None:
        """Why no TMA tensor map can describe this operand, or None."""
        if self.outer != 1 and self.inner != 1:
            return f"neither axis is contiguous (strides {self.outer} and {self.inner})"
        size = element_bytes(self.dtype)
        if self.alignment % TMA_ALIGNMENT:
            return f"its data pointer is aligned to {self.alignment} bytes, not to {TMA_ALIGNMENT}"
        for what, stride in (("row", self.leading), ("batch", self.batch)):
            if stride * size % TMA_ALIGNMENT:
                return (
                    f"its {what} stride of {stride} elements is {stride * size} bytes,"
                    f" not a multiple of {TMA_ALIGNMENT}"
                )
        return None


@dataclasses.dataclass(frozen=True)
class Aux:
    """An operand of the epilogue beside the accumulator.

    Args:
        name: a Python identifier, unique in the epilogue; also the kernel's parameter.
        dtype: element type.
        kind: ``value`` a number passed by value; ``scalar`` one element a batch; ``row`` one element a column of the
            output (m stride 0); ``column`` one element a row (n stride 0); ``matrix`` one an element.
        m, n, batch: strides in elements, 0 where broadcast.
        alignment: bytes that divide the data pointer.
        in_place: it is the output, which other threads store while this one reads.
    """

    name: str
    dtype: torch.dtype
    kind: AuxKind
    m: int = 0
    n: int = 0
    batch: int = 0
    alignment: int = 16
    in_place: bool = False

    @staticmethod
    def from_strides(name: str, dtype: torch.dtype, m: int, n: int, batch: int = 0, alignment: int = 16) -> Aux:
        """The operand whose kind its strides tell: (0, 0) scalar, (0, s) row, (s, 0) column, (s, t) matrix."""
        kind: AuxKind = ("matrix" if n else "column") if m else ("row" if n else "scalar")
        return Aux(name, dtype, kind, m, n, batch, alignment)

    def vector_elements(self, limit: int) -> int:
        """Elements one thread may load at once along n: a power of two, at most 16 bytes and ``limit``; 1 if
        strided.
        """
        if self.n != 1:
            return 1
        size = element_bytes(self.dtype)
        whole = math.gcd(16, self.alignment, self.m * size, self.batch * size, limit * size)
        return max(whole // size, 1)


Input = str | int | float | bool


@dataclasses.dataclass(frozen=True)
class Statement:
    """One pointwise operation of the epilogue, in single-assignment form.

    Args:
        name: the value it defines.
        op: a row of `epilogue.OPS`, e.g. ``mul``, ``where``, ``cast``.
        inputs: names of earlier values (``acc``, an Aux, a statement) or Python numbers.
        dtype: type of the result; arithmetic is done in it, except that bf16 and fp16 compute in fp32 as eager PyTorch
            does.
        comment: where the statement comes from, e.g. ``kernel.py:12``; printed behind it.
    """

    name: str
    op: str
    inputs: tuple[Input, ...]
    dtype: torch.dtype
    comment: str = ""


@dataclasses.dataclass(frozen=True)
class Epilogue:
    """Pointwise statements on the accumulator ``acc`` (fp32) and the auxiliary operands; ``result`` names what is
    stored.
    """

    aux: tuple[Aux, ...] = ()
    statements: tuple[Statement, ...] = ()
    result: str = "acc"


@dataclasses.dataclass(frozen=True)
class MatmulSpec:
    """One matrix kernel.

    Args:
        name: kernel function's name; used in generated names.
        m, n, k: sizes in elements, any positive numbers.
        a, b, out: operands. A and B may be fp8 (also one e4m3 and one e5m2), bf16 or fp16 (both the same).
        batch: number of matrices; 1 for none.
        epilogue: what happens between accumulator and store.
        fast_accumulate: sm_90a fp8 only: let the tensor core add along all of k in its own, narrower, fp8
            accumulator, as ``torch._scaled_mm(use_fast_accum=True)`` does. tcgen05 always accumulates in fp32.
    """

    name: str
    m: int
    n: int
    k: int
    a: Operand
    b: Operand
    out: Operand
    batch: int = 1
    epilogue: Epilogue = Epilogue()
    fast_accumulate: bool = False

    @property
    def store_through_tma(self) -> bool:
        """Whether the output can be stored through TMA; else each thread stores its own elements."""
        return self.out.inner == 1 and self.out.tma_problem() is None

    def check(self) -> None:
        """Raise BackendUnsupported, naming the operand and the reason, if no schedule can run this."""
        if min(self.m, self.n, self.k, self.batch) < 1:
            raise refuse(f"sizes m={self.m}, n={self.n}, k={self.k}, batch={self.batch} are not all positive")
        a, b = self.a.dtype, self.b.dtype
        for label, dtype in (("A", a), ("B", b)):
            if dtype not in OPERAND_DTYPES:
                raise refuse(f"operand {label} is {dtype}; it multiplies {_names(OPERAND_DTYPES)}")
        if a != b and not (a in FP8 and b in FP8):
            raise refuse(f"operands A and B are {a} and {b}; only two fp8 types can be mixed")
        if self.out.dtype not in OUT_DTYPES:
            raise refuse(f"the output is {self.out.dtype}; it stores {_names(OUT_DTYPES)}")
        for label, operand in (("A", self.a), ("B", self.b)):
            problem = operand.tma_problem()
            if problem is not None:
                raise refuse(
                    f"operand {label} cannot be loaded through TMA: {problem}",
                    'pad that dimension (or make a contiguous copy), or use backend="triton".',
                )
        for aux in self.epilogue.aux:
            cutlass_name(aux.dtype)


def _names(dtypes: tuple[torch.dtype, ...]) -> str:
    return ", ".join(str(d).removeprefix("torch.") for d in dtypes)
