"""Reductions along a dimension of size 0: what has no value there is one error in every mode."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere

CONFIG = helion.Config(block_sizes=[8])


def of_rows(x, op):
    out = torch.empty([x.size(0)], dtype=torch.float32, device=x.device)
    for tile in hl.tile(x.size(0)):
        out[tile] = op(x[tile, :])
    return out


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize(
    "op",
    [
        lambda v: v.amax(1),
        lambda v: torch.argmin(v, dim=-1).float(),
        lambda v: v.max(1, keepdim=True).values.sum(1),
        lambda v: torch.aminmax(v, dim=1)[0],
        lambda v: v.sum(1) + v.min(),
    ],
)
def test_the_largest_of_nothing(op: Any, static: bool) -> None:
    x = torch.zeros(3, 0)
    for settings in ({}, {"ref_mode": helion.RefMode.EAGER}):
        with pytest.raises(exc.EmptyReduction, match="has size 0"):
            helion.kernel(of_rows, static_shapes=static, **settings)(x, op)


@pytest.mark.parametrize(
    "op",
    [
        lambda v: v.logsumexp(1),
        lambda v: torch.softmax(v, 1).sum(1),
        lambda v: v.prod(1),
        lambda v: torch.maximum(v, v).sum(1),
        lambda v: v.mean(1),
    ],
)
def test_what_has_a_value_there(op: Any) -> None:
    x = torch.zeros(3, 0)
    run_everywhere(helion.kernel(of_rows), (x, op), lambda v, f: f(v), configs=[CONFIG], capabilities=[90])
