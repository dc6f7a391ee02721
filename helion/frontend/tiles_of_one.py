"""What goes by whether a size is 1, for dimensions of tiles whose block size is the constant 1: theirs is.

Other tiles' sizes are the Config's to say, and the last tile's is smaller: no meaning may depend on them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from typing import Any
from typing import cast

import torch

from ..ir.space import BlockSize
from ..language.op import active_handler
from ..language.refusals import squeezes_a_tile
from ..language.shapes import canonical_dims
from ..language.sorting import also_methods

if TYPE_CHECKING:
    from .tracer import Tracer


def _block(x: torch.Tensor, dim: int) -> BlockSize | None:
    return cast("Tracer", active_handler()).env.space.block_of(x.size(dim))


def _is_one(x: torch.Tensor, dim: int) -> bool:
    block = _block(x, dim)
    return block is not None and block.fixed == 1


def _without(x: torch.Tensor, dims: list[int]) -> torch.Tensor:
    """A value without dimensions of one element: their maximum is that."""
    result = x
    for dim in sorted(dims, reverse=True):
        result = torch.any(result, dim) if x.dtype is torch.bool else torch.amax(result, dim)
    cast("Tracer", active_handler()).share((x, result))
    return result


def _squeeze(input: torch.Tensor, dim: Any = None, *others: int) -> Any:
    given = list(range(input.dim()))
    if dim is not None:
        given = canonical_dims(input, [*dim, *others] if isinstance(dim, (tuple, list)) else [dim, *others])
        for d in given:
            if _block(input, d) is not None and not _is_one(input, d):
                raise squeezes_a_tile(d)
    ones = [d for d in given if _is_one(input, d)]
    if not ones:
        return NotImplemented
    rest = tuple(d - sum(one < d for one in ones) for d in given if d not in ones)
    result = _without(input, ones)
    return torch.squeeze(result, rest) if rest else result


def _reshape(input: torch.Tensor, *shape: Any) -> Any:
    sizes = list(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else list(shape)
    if not all(isinstance(size, (int, torch.SymInt)) for size in sizes) or any(
        type(size) is int and size < 0 for size in sizes
    ):
        return NotImplemented
    blocks = [cast("Tracer", active_handler()).env.space.block_of(size) for size in sizes]
    ones = [d for d in range(input.dim()) if _is_one(input, d) and _block(input, d) not in blocks]
    return _without(input, ones).reshape(sizes) if ones else NotImplemented


#: A function of torch's -> what it means; NotImplemented where PyTorch's own does.
TILES_OF_ONE: dict[Callable[..., Any], Callable[..., Any]] = {
    **also_methods(squeeze=_squeeze, reshape=_reshape),
    torch.Tensor.view: _reshape,
}
