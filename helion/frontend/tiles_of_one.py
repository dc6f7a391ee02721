"""What goes by whether a size is 1, for dimensions of tiles whose block size is the constant 1: theirs is.

Other tiles' sizes are the Config's to say, and the last tile's is smaller: no meaning may depend on them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from typing import Any
from typing import cast

import torch
from torch.utils._pytree import tree_map

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
    if not all(isinstance(size, (int, torch.SymInt)) for size in sizes):
        return NotImplemented
    blocks = [cast("Tracer", active_handler()).env.space.block_of(size) for size in sizes]
    has = [_block(input, d) for d in range(input.dim())]
    ones = [d for d in range(input.dim()) if _is_one(input, d) and has[d] not in blocks]
    new = {d for d, block in enumerate(blocks) if block is not None and block.fixed == 1 and block not in has}
    if not ones and not new:
        return NotImplemented
    result = _without(input, ones).reshape([1 if d in new else size for d, size in enumerate(sizes)])
    return result.expand([size if d in new else -1 for d, size in enumerate(sizes)]) if new else result


def _flatten(input: torch.Tensor, start_dim: int = 0, end_dim: int = -1) -> Any:
    first, last = (canonical_dims(input, [dim])[0] for dim in (start_dim, end_dim)) if input.dim() else (0, 0)
    ones = [d for d in range(first, last + 1) if input.dim() and _is_one(input, d)]
    if len(ones) == last + 1 - first:
        ones = ones[:-1]  # nothing else is there: the last one stays
    if not ones:
        return NotImplemented
    return torch.flatten(_without(input, ones), first, last - len(ones))


def _repeat(input: torch.Tensor, *repeats: Any) -> Any:
    counts = list(repeats[0]) if len(repeats) == 1 and isinstance(repeats[0], (tuple, list)) else list(repeats)
    several = [place for place, count in enumerate(reversed(counts), 1) if type(count) is not int or count != 1]
    dims = [input.dim() - place for place in several if place <= input.dim()]
    ones = [d for d in dims if _is_one(input, d)]
    return _plain(input, ones).repeat(counts) if ones else NotImplemented


def _plain(x: torch.Tensor, dims: list[int]) -> torch.Tensor:
    """A value whose dimensions of tiles of one are dimensions of the constant size 1."""
    result = _without(x, dims)
    for dim in sorted(dims):
        result = result.unsqueeze(dim)
    return result


def with_ones(args: Any, kwargs: Any) -> tuple[Any, Any] | None:
    """Arguments of a call that fails, with such dimensions as others of size 1, which broadcast; None if there are
    none: as long as a call goes by the tiles they are the tile's.
    """
    changed = False

    def plain(leaf: Any) -> Any:
        nonlocal changed
        if not isinstance(leaf, torch.Tensor) or not cast("Tracer", active_handler()).is_device_value(leaf):
            return leaf
        ones = [d for d in range(leaf.dim()) if _is_one(leaf, d)]
        changed = changed or bool(ones)
        return _plain(leaf, ones) if ones else leaf

    made = tree_map(plain, (args, kwargs))
    return made if changed else None


#: A function of torch's -> what it means; NotImplemented where PyTorch's own does.
TILES_OF_ONE: dict[Callable[..., Any], Callable[..., Any]] = {
    **also_methods(squeeze=_squeeze, reshape=_reshape, flatten=_flatten),
    torch.Tensor.view: _reshape,
    torch.Tensor.repeat: _repeat,
}
