"""What torch ops that device code does not have are refused with: why, and what to write instead.

The names are those of ATen ops, or of torch's functions where PyTorch's own take them apart before an op is seen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch

from .. import exc

#: What PyTorch says of a number where it takes a tensor: `got (bool, Tensor, Tensor)`, `must be Tensor, not int`.
_NUMBER_TYPES = "(bool|int|float|EagerInt|SymBool|SymInt|SymFloat)"
_NUMBER = re.compile(rf"must be Tensor, not {_NUMBER_TYPES}|got \(([^)]*\b)?{_NUMBER_TYPES}\b")
_FACTORIZATION = (
    "each of its steps decides on the results of those before",
    "call it in host code, before the loops, and index its result there.",
)
_LENGTH = "how many elements it gives depends on their values"
_FIRST_OF_EACH = "mark the first of equal values: `s = torch.sort(x).values`, `torch.roll(s, 1, 0) != s`."
_COMPLEX = "complex numbers have no form in Triton", "load pairs of floats: pass torch.view_as_real(x)."
_HISTOGRAM = (
    "it has no form on tiles",
    "use torch.histc, or count: `torch.zeros(n).scatter_add(0, torch.bucketize(x, bounds), weights)`.",
)
_CROSS_ENTROPY = (
    "its chunks are for tensors in memory",
    "write `torch.nn.functional.cross_entropy(x @ weight.T, target)`.",
)

#: Name of an op -> why it is refused, and what to write instead.
_REFUSED = {
    **dict.fromkeys(
        ("cholesky", "cholesky_inverse", "cholesky_solve", "geqrf", "lu_unpack", "ormqr", "triangular_solve"),
        _FACTORIZATION,
    ),
    **dict.fromkeys(("svd_lowrank", "pca_lowrank"), _FACTORIZATION),
    "_unique2": (_LENGTH, _FIRST_OF_EACH),
    "unique_consecutive": (_LENGTH, "mark the first of equal neighbours: `torch.roll(x, 1, 0) != x`."),
    "masked_select": (
        _LENGTH,
        "keep the others as zeros, `torch.where(mask, x, 0)`, or say how many: `torch.nonzero_static(mask, size=n)`.",
    ),
    "nonzero": (_LENGTH, "say how many: `torch.nonzero_static(x, size=n)`."),
    "tensor_split": ("its places are in a tensor", "give them as a tuple of ints: `torch.tensor_split(x, (2, 5))`."),
    "view_as_complex": _COMPLEX,
    "histogram": _HISTOGRAM,
    "_histogramdd_from_bin_tensors": _HISTOGRAM,
    "_histogramdd_from_bin_cts": _HISTOGRAM,
    "_linear_cross_entropy_batch_chunked": _CROSS_ENTROPY,
    "_linear_cross_entropy_batch_chunked_no_reduction": _CROSS_ENTROPY,
    "_upsample_bilinear2d_aa": (
        "it has no form on tiles",
        "use torch.nn.functional.interpolate without antialias, or multiply by the matrix of its weights.",
    ),
    "grid_sampler_3d": (
        "it has no form on tiles",
        "gather each corner, `torch.gather(x.flatten(2), 2, places)`, and sum them with their weights.",
    ),
    "convolution": (
        "it has no form on tiles",
        "multiply windows by the weights, and pad by yourself: along one dimension "
        "`(torch.nn.functional.pad(v, (1, 1)).unfold(-1, 3, 1) * w[:]).sum(-1)`, with the 3 weights of `w`. Channels: "
        "one such sum for each, or torch.einsum.",
    ),
    "linalg.multi_dot": ("PyTorch chooses an order by the sizes", "write the products: `a @ b @ c`."),
    "hash_tensor": (
        "it has no form on tiles",
        "reduce the bits: `hl.reduce(torch.bitwise_xor, x.view(torch.int32), 0)`.",
    ),
    "instance_norm": (
        "it changes running statistics in place",
        "leave them out, and update them by themselves: `mean = x.mean((0, 2))`.",
    ),
}
#: The same for all ops whose names begin so.
_FAMILIES = {
    "linalg_": _FACTORIZATION,
    "_linalg_": _FACTORIZATION,
    "_fft_": (
        "Fourier transforms have no form on tiles",
        "call it in host code, before the loops, or multiply by the matrices of cosines and sines.",
    ),
}
_NO_RULE = "there is no rule for it"
_WRITE_OUT = "compute it in host code, or write it with pointwise ops, reductions and matrix products."
#: Name of a method that changes its operand in place -> what to write instead, where it has no other form.
_IN_PLACE = {
    "zero_": "assign zeros: `x = torch.zeros_like(x)`.",
    "resize_": "a value keeps its elements: use `x.reshape(...)`, or torch.nn.functional.pad.",
    "resize_as_": "a value keeps its elements: use `x.reshape(...)`, or torch.nn.functional.pad.",
}


def refused(name: str) -> exc.BaseError:
    """The error for an op that no rule is for.

    Args:
        name: without its namespace, `unique_consecutive`.
    """
    found = _REFUSED.get(name)
    if found is None:
        found = next((row for prefix, row in _FAMILIES.items() if name.startswith(prefix)), (_NO_RULE, _WRITE_OUT))
    if found[0] is _LENGTH:
        return exc.DataDependentOutputShapeNotSupported(op=f"torch.{name}", fix=found[1])
    return exc.TorchOpTracingError(op=f"torch.{name}", reason=found[0], fix=found[1])


def refused_in_place(op: str) -> exc.TorchOpTracingError:
    """The error for an op that changes its operand.

    Args:
        op: what it is called in the message, `torch.Tensor.zero_`.
    """
    fix = _IN_PLACE.get(op.rpartition(".")[2], "use the out-of-place form and assign its result.")
    return exc.TorchOpTracingError(op=op, reason="it changes its operand in place", fix=fix)


def of_number(error: BaseException) -> exc.InvalidAPIUsage | None:
    """What to say where a torch function was given a number: a tunable, or what ref mode has for what a branch sets
    (`flag = False; if x[i] > 0: flag = True`).
    """
    text = str(error).splitlines()[0] if str(error) else ""
    if not isinstance(error, TypeError) or "Tensor" not in str(error) or not _NUMBER.search(text):
        return None
    text = text.partition(", but expected")[0].replace("FakeTensor", "Tensor").replace("EagerInt", "int")
    text = re.sub(r"Sym(Bool|Int|Float)", _as_python, text)
    return exc.InvalidAPIUsage(
        f"a torch function takes a tensor and was given a number of Python's: {text}",
        fix="make a tensor of it, which is the same in every mode: `hl.full([], n)`, `hl.full([], flag, "
        "dtype=torch.bool)`; or use Python's own: `max(n, 0)`, `a if flag else b`.",
    )


def _as_python(found: re.Match[str]) -> str:
    return found[1].lower()


def squeezes_a_tile(dim: int) -> exc.TorchOpTracingError:
    """The error for `squeeze(dim)` of a tile's dimension."""
    return exc.TorchOpTracingError(
        op="torch.squeeze",
        reason=f"dimension {dim} is a tile's, whose size the Config and the place of the tile say",
        fix="leave it; a loop with one place at a time is hl.grid(n), or hl.tile(n, block_size=1).",
    )


#: Names of torch's functions and operators that subtract.
_DIFFERENCES = frozenset(["sub", "subtract", "rsub", "__sub__", "__rsub__", "__isub__"])


def check_difference(name: str, args: Sequence[Any]) -> None:
    """Check a call of torch's: PyTorch subtracts no bools, also not from numbers.

    Raises:
        exc.UnsupportedDtype: one of the operands is a tensor of them.
    """
    if name in _DIFFERENCES and any(isinstance(x, torch.Tensor) and x.dtype is torch.bool for x in args[:2]):
        raise exc.UnsupportedDtype(
            op="torch.sub",
            dtype=torch.bool,
            fix="convert the mask first, `(x > 0).to(torch.int32)`; to invert one write `~mask`.",
        )
