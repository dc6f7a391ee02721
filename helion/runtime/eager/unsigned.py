"""Unsigned integers of 16 and 32 bits on the CPU, where PyTorch has few ops for them: computed in 64 bits and cut."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._pytree import tree_leaves
from torch.utils._pytree import tree_map

_LARGEST = {torch.uint16: 0xFFFF, torch.uint32: 0xFFFFFFFF}


def of_these(dtypes: Iterable[torch.dtype]) -> bool:
    """Whether one is of such integers."""
    return any(dtype in _LARGEST for dtype in dtypes)


def called(func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    """What a torch function gives, of such integers too.

    Raises:
        NotImplementedError: PyTorch cannot do it, and it is not for such integers.
    """
    try:
        return func(*args, **kwargs)
    except NotImplementedError:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if not of_these(tensor.dtype for tensor in tensors):
            raise
    like, given = _on_meta(args, kwargs)  # where PyTorch's own rules say what the results are of
    wanted = iter([leaf.dtype for leaf in tree_leaves(func(*like, **given)) if isinstance(leaf, torch.Tensor)])
    args, kwargs = _in_64_bits(args, kwargs)
    result = func(*args, **kwargs)
    return tree_map(lambda leaf: _cut(leaf, next(wanted)) if isinstance(leaf, torch.Tensor) else leaf, result)


def _in_64_bits(args: Any, kwargs: dict[str, Any]) -> Any:
    return tree_map(
        lambda leaf: leaf.to(torch.int64) if isinstance(leaf, torch.Tensor) and leaf.dtype in _LARGEST else leaf,
        (args, kwargs),
    )


def _on_meta(args: Any, kwargs: dict[str, Any]) -> Any:
    return tree_map(lambda leaf: leaf.to("meta") if isinstance(leaf, torch.Tensor) else leaf, (args, kwargs))


def _cut(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    value = value & _LARGEST[dtype] if dtype in _LARGEST else value
    return value.to(dtype)
