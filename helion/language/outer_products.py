"""torch.outer, addr and meshgrid on tiles: each element of one vector with each of another.

Two vectors of one tile go together element by element where PyTorch's own way of writing these meets them, a column
beside a row of one dimension; written with both dimensions they are what they are called.
"""

from __future__ import annotations

from typing import Any

import torch

from .. import exc


def _vectors(name: str, *operands: Any) -> None:
    for operand in operands:
        if not isinstance(operand, torch.Tensor) or operand.dim() != 1:
            raise exc.ShapeMismatch(f"{name} needs vectors", fix="flatten the operands: `v.reshape(-1)`.")


def outer(input: torch.Tensor, vec2: torch.Tensor) -> torch.Tensor:
    """torch.outer on tiles: ``[n]`` and ``[m]`` make ``[n, m]``, of one tile, too."""
    _vectors("torch.outer", input, vec2)
    return input[:, None] * vec2[None, :]


def _check_addr_factor(name: str, factor: Any, dtype: torch.dtype) -> None:
    """PyTorch's rule: a factor is of no wider kind than the result."""
    if isinstance(factor, (bool, torch.SymBool)) and dtype != torch.bool:
        raise exc.InvalidAPIUsage(f"torch.addr: {name} is a bool, the result {dtype}", fix=f"write `int({name})`.")
    if isinstance(factor, (float, torch.SymFloat)) and not dtype.is_floating_point:
        raise exc.InvalidAPIUsage(
            f"torch.addr: {name} is a float, the result {dtype}",
            fix="convert the operands first: `v.to(torch.float32)`.",
        )


def addr(input: torch.Tensor, vec1: torch.Tensor, vec2: torch.Tensor, *, beta: Any = 1, alpha: Any = 1) -> torch.Tensor:
    """torch.addr on tiles: ``beta * input + alpha * outer(vec1, vec2)``; of bools, ``and`` and ``or`` of the same."""
    _vectors("torch.addr", vec1, vec2)
    product = outer(vec1, vec2)
    dtype = torch.promote_types(input.dtype, product.dtype)
    _check_addr_factor("beta", beta, dtype)
    _check_addr_factor("alpha", alpha, dtype)
    input = input[None, :] if input.dim() == 1 else input
    if dtype == torch.bool:
        return (input & (beta != 0)) | (product & (alpha != 0))
    product = product * alpha
    if isinstance(beta, (int, float)) and beta == 0:
        return product.to(dtype)
    return input * beta + product


def cartesian_prod(*tensors: torch.Tensor) -> torch.Tensor:
    """torch.cartesian_prod on tiles: ``[n]`` and ``[m]`` make ``[n * m, 2]``."""
    grids = [grid.flatten() for grid in meshgrid(*tensors, indexing="ij")]
    return torch.stack(grids, -1) if len(grids) > 1 else grids[0]


def meshgrid(*tensors: Any, indexing: str | None = None) -> tuple[torch.Tensor, ...]:
    """torch.meshgrid on tiles: each vector along a dimension of its own, as long as the others along theirs."""
    vectors = list(tensors[0]) if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)) else list(tensors)
    vectors = [v[None] if isinstance(v, torch.Tensor) and v.dim() == 0 else v for v in vectors]
    _vectors("torch.meshgrid", *vectors)
    dtypes = list(dict.fromkeys(str(v.dtype) for v in vectors))
    if len(dtypes) > 1:
        raise exc.InvalidAPIUsage(
            f"torch.meshgrid takes vectors of one dtype, got {' and '.join(dtypes)}",
            fix="convert them: `v.to(torch.float32)`.",
        )
    if indexing not in (None, "ij", "xy"):
        raise exc.InvalidAPIUsage(f"torch.meshgrid: indexing must be 'ij' or 'xy', got {indexing!r}")
    places = list(range(len(vectors)))
    if indexing == "xy" and len(vectors) > 1:
        places[:2] = 1, 0
    shape = [vectors[place].shape[0] for place in places]
    return tuple(
        vector[tuple(slice(None) if places[at] == number else None for at in range(len(vectors)))].expand(shape)
        for number, vector in enumerate(vectors)
    )
