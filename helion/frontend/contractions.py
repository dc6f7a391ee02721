"""`einsum`, `tensordot` and `linear` as products of batches, where PyTorch's way to write them cannot be taken.

PyTorch merges dimensions until a product of matrices is left: `einsum("bij,lj->bil")` reshapes `[b, i, j]` to
`[b * i, j]`.  On a GPU that is a larger and faster product, where the sizes of the merged dimensions are powers of two.
A dimension of another constant size is padded there, and of fewer than 16 elements too, as the matrix units want so
many; merged with another one it would leave holes.  Such dimensions stay apart here, as dimensions of batches.

Not here: products themselves (`language/matmul.py`, `language/torch_overrides.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..ir.symbols import symbols_of
from ..language.matmul import ACCUMULATE_DTYPES
from ..language.matmul import dot
from ..language.op import current_handler
from ..language.shapes import broadcast_shapes

__all__ = ["einsum", "linear", "tensordot"]

#: The least size that the matrix units take as it is.
_LEAST = 16


def _is_padded(size: Any) -> bool:
    """Whether a dimension's lanes on a GPU are more than its elements, whatever the tile is."""
    if symbols_of(size):
        return current_handler("torch.einsum").tile_of_size(size) is None
    n = int(size)
    return n != 1 and (n < _LEAST or n & (n - 1) != 0)


class _Term:
    """An operand of a contraction: a value, and a label for each of its dimensions."""

    def __init__(self, value: torch.Tensor, labels: Sequence[Any]) -> None:
        self.value, self.labels = value, list(labels)

    def size(self, label: Any) -> Any:
        return self.value.size(self.labels.index(label))

    def summed(self, keep: set[Any]) -> _Term:
        """Without the labels that nothing else has."""
        dims = [dim for dim, label in enumerate(self.labels) if label not in keep]
        if not dims:
            return self
        value = torch.sum(self.value, dims, dtype=self.value.dtype)
        return _Term(value, [label for label in self.labels if label in keep])

    def arranged(self, labels: Sequence[Any]) -> torch.Tensor:
        """With dimensions in this order, of size 1 for labels that it does not have."""
        value = self.value.permute([self.labels.index(label) for label in labels if label in self.labels])
        for dim, label in enumerate(labels):
            if label not in self.labels:
                value = value.unsqueeze(dim)
        return value


def _merges_padded(groups: Sequence[Sequence[Any]]) -> bool:
    """Whether PyTorch would merge dimensions (their sizes, group by group) that cannot be."""
    return any(
        len([s for s in group if symbols_of(s) or int(s) != 1]) > 1 and any(map(_is_padded, group)) for group in groups
    )


def _product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """`torch.matmul` of batches, in the dtype that it sums in."""
    batch = broadcast_shapes(left.shape[:-2], right.shape[:-2])
    left, right = left.expand(*batch, *left.shape[-2:]), right.expand(*batch, *right.shape[-2:])
    product: torch.Tensor = dot(left, right, None, ACCUMULATE_DTYPES[left.dtype])
    return product


def _first_unpadded(term: _Term, labels: Sequence[Any]) -> Any:
    """The label to be a dimension of the matrices; None if there is no label."""
    return next(
        (label for label in reversed(labels) if not _is_padded(term.size(label))), labels[-1] if labels else None
    )


def _contract(a: _Term, b: _Term, keep: Sequence[Any]) -> _Term | None:
    """The sum of products over the labels that are not kept; None where PyTorch's own way can be taken."""
    a, b = a.summed({*keep, *b.labels}), b.summed({*keep, *a.labels})
    batch = [label for label in a.labels if label in b.labels and label in keep]
    inner = [label for label in a.labels if label in b.labels and label not in keep]
    rows = [label for label in a.labels if label not in b.labels]
    columns = [label for label in b.labels if label not in a.labels]
    sizes = [[term.size(label) for label in group] for term, group in ((a, batch), (a, rows), (b, columns), (a, inner))]
    if not inner or not _merges_padded(sizes):
        return None
    row, column, summed = _first_unpadded(a, rows), _first_unpadded(b, columns), _first_unpadded(a, inner)
    apart = [label for label in (*batch, *rows, *columns, *inner) if label not in (row, column, summed)]
    missing = object()  # a dimension of one where there is no row, or no column
    ends = [missing if row is None else row, missing if column is None else column]
    product = _product(a.arranged([*apart, ends[0], summed]), b.arranged([*apart, summed, ends[1]]))
    if column is None:
        product = product.squeeze(-1)
    if row is None:
        product = product.squeeze(-1 if column is None else -2)
    found = _Term(product, [*apart, *(label for label in (row, column) if label is not None)]).summed(set(keep))
    return _Term(found.value.to(a.value.dtype), found.labels)


def _contract_all(terms: list[_Term], out: Sequence[Any]) -> Any:
    while len(terms) > 1:
        first, second, *others = terms
        kept = {*out, *(label for term in others for label in term.labels)}
        found = _contract(
            first, second, [label for label in dict.fromkeys([*first.labels, *second.labels]) if label in kept]
        )
        if found is None:
            return NotImplemented
        terms = [found, *others]
    return terms[0].summed(set(out)).arranged(out)


def einsum(equation: Any, *operands: Any) -> Any:
    """`torch.einsum` of two operands or more, from left to right."""
    values = operands[0] if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else operands
    if not isinstance(equation, str) or "." in equation or len(values) < 2:
        return NotImplemented
    left, arrow, right = equation.replace(" ", "").partition("->")
    inputs = left.split(",")
    known = len(inputs) == len(values) and all(len(i) == v.dim() == len(set(i)) for i, v in zip(inputs, values))
    if not known or len({v.dtype for v in values}) > 1 or values[0].dtype not in ACCUMULATE_DTYPES:
        return NotImplemented  # diagonals, and PyTorch's own errors
    out = right if arrow else "".join(sorted(label for label in set(left) - {","} if left.count(label) == 1))
    if len(set(out)) != len(out) or not set(out) <= set(left):
        return NotImplemented
    return _contract_all([_Term(value, labels) for value, labels in zip(values, inputs)], list(out))


def tensordot(a: torch.Tensor, b: torch.Tensor, dims: Any = 2, out: torch.Tensor | None = None) -> Any:
    """`torch.tensordot`."""
    if isinstance(dims, int):
        pairs = [(a.dim() - dims + i, i) for i in range(dims)]
    elif isinstance(dims, (list, tuple)) and len(dims) == 2:
        lists = [d if isinstance(d, (list, tuple)) else [d] for d in dims]
        pairs = [(i % a.dim(), j % b.dim()) for i, j in zip(*lists)]
    else:
        return NotImplemented
    if out is not None or a.dtype is not b.dtype or a.dtype not in ACCUMULATE_DTYPES:
        return NotImplemented
    labels: list[Any] = [("b", dim) for dim in range(b.dim())]
    for i, j in pairs:
        labels[j] = ("a", i)
    first, second = _Term(a, [("a", dim) for dim in range(a.dim())]), _Term(b, labels)
    result = [label for label in (*first.labels, *labels) if (label in first.labels) != (label in labels)]
    return _contract_all([first, second], result)


def linear(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Any:
    """`torch.nn.functional.linear` of a value of three dimensions or more."""
    known = input.dim() > 2 and weight.dim() == 2 and input.dtype is weight.dtype and input.dtype in ACCUMULATE_DTYPES
    if not known or not _merges_padded([list(input.shape[:-1])]):
        return NotImplemented
    product = _product(input, weight.t())
    return (product if bias is None else product + bias).to(input.dtype)  # rounded once, as PyTorch's
