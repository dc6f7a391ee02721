"""`hl.register_tunable`: values of every kind that a Config can give, in host code and in device code."""

from __future__ import annotations

import itertools

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from helion.fragments import BooleanFragment
from helion.fragments import EnumFragment
from helion.fragments import IntegerFragment
from tests.support import run_everywhere


def of_all_kinds(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scale = hl.register_tunable("scale", EnumFragment((0.5, 2.0, 0.1)))
    shifted = hl.register_tunable("shifted", EnumFragment((True, False)))
    kept = hl.register_tunable("kept", BooleanFragment())
    count = hl.register_tunable("count", EnumFragment((0, 3, 5)))
    repeats = hl.register_tunable("repeats", IntegerFragment(0, 2, 1))
    out, sized = torch.empty_like(x), torch.zeros([count + 1])
    again = scale * 2 + 1
    for t in hl.tile(x.size(0)):
        v = x[t] * scale
        if shifted:
            v = v + count
        if count > 0:
            v = v * 3
        if kept and repeats == 0:
            v = v - again
        if scale > 1.0:
            v = v + 100
        added = 7 if shifted else 8
        for _ in hl.grid(repeats):
            v = v + x[t]
        out[t] = (v if kept else -v) + added
    return out, sized


def reference(
    x: torch.Tensor, scale: float, shifted: bool, kept: bool, count: int, repeats: int
) -> tuple[torch.Tensor, torch.Tensor]:
    v = x * scale + (count if shifted else 0)
    v = v * 3 if count > 0 else v
    v = v - (scale * 2 + 1) if kept and repeats == 0 else v
    v = v + (100 if scale > 1.0 else 0) + repeats * x
    return (v if kept else -v) + (7 if shifted else 8), torch.zeros(count + 1)


CHOICES = list(itertools.product((0.5, 2.0, 0.1), (True, False), (True, False), (0, 3), (0, 2)))


@pytest.mark.parametrize("values", CHOICES[::7])
def test_each_choice_is_the_configs(values: tuple[float, bool, bool, int, int], seed: int) -> None:
    """`if count > 0` was decided once for all Configs: a tunable was taken to be positive."""
    config = {"block_sizes": [2], **dict(zip(("scale", "shifted", "kept", "count", "repeats"), values))}
    x = torch.randn(5, dtype=torch.float64)
    kernel = helion.kernel(of_all_kinds, config=helion.Config(**config))
    run_everywhere(kernel, (x,), lambda x: reference(x, *values), configs=[config], capabilities=[90])


@pytest.mark.parametrize("config", [{"scale": 2}, {"shifted": 1}, {"kept": 0}, {"count": 4}, {"repeats": 1.0}])
@pytest.mark.parametrize("ref_mode", helion.RefMode)
def test_a_value_of_another_kind_is_refused(config: dict[str, float], ref_mode: helion.RefMode) -> None:
    kernel = helion.kernel(of_all_kinds, config=helion.Config(block_sizes=[2], **config), ref_mode=ref_mode)
    with pytest.raises(exc.InvalidConfig, match=next(iter(config))):
        kernel(torch.ones(3))


def test_strings_are_refused_with_what_to_write_instead() -> None:
    def named(x: torch.Tensor) -> torch.Tensor:
        mode = hl.register_tunable("mode", EnumFragment(("twice", "once")))
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            out[t] = x[t] * 2 if mode == "twice" else x[t]
        return out

    def counted(x: torch.Tensor) -> torch.Tensor:
        mode = hl.register_tunable("mode", EnumFragment(range(2)))
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            out[t] = x[t] * 2 if mode == 0 else x[t]
        return out

    with pytest.raises(exc.NotSupportedYet, match=r"choices of str") as error:
        helion.kernel(named)(torch.ones(3))
    assert "EnumFragment(range(" in str(error.value)
    kernel = helion.kernel(counted, config=helion.Config(block_sizes=[2], mode=1))
    assert torch.equal(kernel(torch.ones(3)), torch.ones(3))


@pytest.mark.parametrize("flag", [True, False])
def test_a_bool_is_0_or_1_beside_a_number(flag: bool) -> None:
    def kernel(x: torch.Tensor) -> torch.Tensor:
        flag = hl.register_tunable("flag", BooleanFragment())
        factor = 2 if flag > 0 else 3
        more = flag + 1
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            out[t] = x[t] * factor + more * (flag * 3)
        return out

    config = helion.Config(block_sizes=[4], flag=flag)
    for mode in (helion.RefMode.OFF, helion.RefMode.EAGER):
        x = torch.randn(9)
        expected = x * (2 if flag else 3) + (flag + 1) * (flag * 3)
        assert torch.equal(helion.kernel(kernel, config=config, ref_mode=mode)(x), expected)
