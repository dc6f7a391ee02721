"""No elements: reductions along a dimension of size 0, what has no value being one error in every mode, and calls that
have nothing to store."""

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


def marks(xs: list[torch.Tensor], n: int, like: torch.Tensor) -> torch.Tensor:
    out = torch.ones([n], device=like.device)
    for _ in hl.grid(1):
        if n > 0:
            out[0] = 5.0
        for x in xs:
            out[:] = x[:]
    return out


@pytest.mark.parametrize(("xs", "n"), [([], 0), ([], 2), ([torch.arange(3.0)], 3)])
def test_a_call_whose_sizes_leave_nothing_to_store(xs: list[torch.Tensor], n: int) -> None:
    def expected(xs: list[torch.Tensor], n: int, like: torch.Tensor) -> torch.Tensor:
        return xs[0] if xs else torch.tensor([5.0, 1.0])[:n]

    run_everywhere(marks, (xs, n, torch.empty(1)), expected, configs=[helion.Config()], capabilities=[90])


def test_a_loop_that_stores_nothing_whatever_is_left_out() -> None:
    @helion.kernel(config=CONFIG)
    def unused(x: torch.Tensor, more: bool) -> torch.Tensor:
        out = torch.zeros_like(x)
        for t in hl.tile(x.size(0)):
            y = x[t] + 1
            if more:
                y = y + 1
        return out

    with pytest.raises(exc.EmptyDeviceLoopAfterDCE):
        unused(torch.randn(3), False)
