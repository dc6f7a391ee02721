"""Host tensors of ref mode whose sizes follow from values: `x[x > 0]`, `mask.nonzero()`, and what is made of them."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from ...language.containers import tensors_of_call

#: Functions of torch's that give as many elements as values say.
_OF_VALUES = frozenset(
    {"argwhere", "bincount", "masked_select", "nonzero", "repeat_interleave", "unique", "unique_consecutive"}
)


def note_selections(selected: dict[int, torch.Tensor], name: str, args: Any, kwargs: Any, result: Any) -> None:
    """Take notice of such tensors.

    Args:
        selected: those of a run so far, by identity.
        name: a function of torch's that host code has called.
        args, kwargs: what with.
        result: what it gave.
    """
    given = tensors_of_call(args, kwargs)
    by_mask = name == "__getitem__" and any(tensor.dtype is torch.bool for tensor in given[1:])
    if name in _OF_VALUES or by_mask or any(id(tensor) in selected for tensor in given):
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        selected.update({id(tensor): tensor for tensor in made if all(tensor is not other for other in given)})
