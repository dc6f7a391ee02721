"""Names are given out once, definitions made once; what a user's variable is called never matters."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from helion.backends.text import Text
from helion.backends.triton.scope import Scope
from helion.ir.names import RESERVED
from helion.ir.names import Names
from tests.support import run_everywhere

pytestmark = pytest.mark.gpu


def test_a_name_is_given_out_once() -> None:
    names = Names(["x"])
    given = [names.unique("x"), names.unique("y"), names.unique("y"), names.unique("x_1")]
    assert given == ["x_1", "y", "y_1", "x_1_1"]


@pytest.mark.parametrize("wanted", [*sorted(RESERVED), "for", "1st", "a.b", "", "α b"])
def test_a_name_is_an_identifier_that_means_nothing_else(wanted: str) -> None:
    name = Names(RESERVED).unique(wanted)
    exec(f"{name} = 1", {})
    assert name not in RESERVED


def test_a_definition_is_seen_in_inner_blocks() -> None:
    outer = Scope(Names())
    inner = Scope(outer)
    outer.define("a", Text("1"))
    assert inner.define("a", Text("1")) == Text("a")
    assert (outer.lines(), inner.lines()) == (["a = 1"], [])


def test_shared_definitions_are_told_apart_by_what_they_say() -> None:
    names = Names()
    outer = Scope(names)
    inner = Scope(outer)
    first = outer.share("mask", Text("a") < 1)
    assert inner.share("other", Text("a") < 1) == first
    second = inner.share("mask", Text("a") < 2)
    assert second != first
    assert inner.lines() == [f"{second} = a < 2"]
    assert Scope(outer).share("mask", Text("a") < 2) != second  # it is not visible there


@helion.kernel
def doubles(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for rows, columns in hl.tile([x.size(0), x.size(1)]):
        flat_mask = x[rows, columns] > 0
        flat_index = torch.where(flat_mask, 2.0, 3.0)
        out[rows, columns] = x[rows, columns] * flat_index
    return out


@helion.kernel
def sums_rows(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x[:, 0])
    for total_tiles in hl.tile(x.size(0)):
        mask_5 = x[total_tiles, :] > 0.0
        range_8 = torch.where(mask_5, x[total_tiles, :], 1.0)
        out[total_tiles] = range_8.sum(1)
    return out


@helion.kernel(static_shapes=False)
def fills(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    longer = torch.zeros(x.size(0), x.size(1) + 1, device=x.device)
    shorter = torch.zeros(x.size(0), x.size(1) - 1, device=x.device)
    for rows in hl.tile(x.size(0)):
        longer[rows, :] = hl.full([rows, x.size(1) + 1], 1.0)
        shorter[rows, :] = hl.full([rows, x.size(1) - 1], 2.0)
    return longer, shorter


@pytest.mark.parametrize("config", [{}, {"flatten_loops": [True]}, {"pid_type": "persistent_interleaved"}])
def test_variables_of_the_user_do_not_hide_those_of_the_emitter(config: dict[str, Any]) -> None:
    x = torch.randn(7, 9)
    run_everywhere(
        doubles, (x,), lambda x: torch.where(x > 0, x * 2, x * 3), configs=[{"block_sizes": [4, 4], **config}]
    )


@pytest.mark.parametrize("pid_type", ["flat", "persistent_interleaved", "persistent_blocked"])
def test_variables_named_like_ranges_and_masks(pid_type: str) -> None:
    x = torch.randn(13, 5)
    config = {"block_sizes": [4], "pid_type": pid_type}
    run_everywhere(sums_rows, (x,), lambda x: torch.where(x > 0, x, 1.0).sum(1), configs=[config], error_scale=8)


def test_masks_of_sizes_that_differ_in_a_sign_are_two() -> None:
    x = torch.randn(6, 10)
    expected = (torch.ones(6, 11).double(), torch.full((6, 9), 2.0).double())
    run_everywhere(fills, (x,), lambda x: expected, configs=[{"block_sizes": [4]}])
