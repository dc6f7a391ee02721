"""`helion.explain`: what it says of a call, and that it runs nothing."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from helion import _extension


def make(**settings) -> helion.Kernel:
    @helion.kernel(**settings)
    def twice(x: torch.Tensor, factor: float = 2.0) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] * factor
        return out

    return twice


def test_before_the_first_call_there_is_no_config_and_nothing_ran() -> None:
    kernel = make()
    said = helion.explain(kernel, torch.ones(100))
    assert said.config is None and not said.layers and not said.plan
    assert said.backend == "tiles" and said.target == "cpu"
    assert "the first call chooses one" in str(said)


def test_it_names_where_the_config_is_from() -> None:
    x = torch.ones(100)
    given = make(config=helion.Config(block_sizes=[32]))
    given(x)
    assert helion.explain(given, x).config_source == "the kernel's own config="
    computed = make()
    computed(x)
    assert helion.explain(computed, x).config_source.startswith("computed")
    computed.bind((x,)).set_config(helion.Config(block_sizes=[32]))
    assert helion.explain(computed, x).config_source == "set_config()"


@pytest.mark.compiles
@pytest.mark.softgpu(capability=90)
@pytest.mark.skipif(_extension.C is None, reason="plans are the extension's")
def test_it_sees_the_plan_of_this_call_and_of_no_other(softgpu) -> None:
    kernel = make(config=helion.Config(block_sizes=[32]))
    x = torch.ones(100, device=softgpu.device)
    kernel(x)
    assert "second call" in helion.explain(kernel, x).why_no_plan
    kernel(x)
    said = helion.explain(kernel, x, factor=3.0)
    assert said.plan and said.why_no_plan == "" and said.target == f"sm_{softgpu.capability}"
    assert [event.name for event in said.events][-2:] == ["compile", "plan"]
    assert not helion.explain(kernel, torch.ones(200, device=softgpu.device)).plan


@pytest.mark.compiles
@pytest.mark.softgpu(capability=90)
@pytest.mark.skipif(_extension.C is None, reason="plans are the extension's")
def test_it_says_what_keeps_host_code_from_being_a_plan(softgpu) -> None:
    @helion.kernel(config=helion.Config(block_sizes=[32]))
    def loud(x: torch.Tensor) -> torch.Tensor:
        print("called")
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile]
        return out

    x = torch.ones(100, device=softgpu.device)
    for _ in range(3):
        loud(x)
    assert "print()" in helion.explain(loud, x).why_no_plan


def test_guards_of_a_dynamic_trace_are_shown() -> None:
    @helion.kernel(static_shapes=False, config=helion.Config(block_sizes=[32]))
    def rows(x: torch.Tensor) -> torch.Tensor:
        out = x.new_empty(x.size(0))
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile, :].sum(-1)
        return out

    x = torch.ones(64, 100)
    rows(x)
    said = helion.explain(rows, x)
    assert said.guards == rows.bind((x,)).guards
    assert all(eval(guard, {"x": x}) for guard in said.guards)
