"""A name outside a kernel function that gets a value of another kind: a number for an object, a tensor for a number."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch

import helion
import helion.language as hl

X = torch.linspace(-2, 3, 24)

#: What the kernels below read. Tests replace it.
GIVEN: Any = 2.0
act: Any = torch.sigmoid


class Options:
    """An object that a kernel hands to a function."""

    def __init__(self, gain: float) -> None:
        self.gain = gain


def of_options(value: torch.Tensor, options: Any) -> torch.Tensor:
    if isinstance(options, Options):
        return value * options.gain
    return value * 5 if options is Options else value - 1


def reads_any(x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(x)
    for tile in hl.tile(x.size(0)):
        if isinstance(GIVEN, (int, float)):
            out[tile] = x[tile] * GIVEN
        elif isinstance(GIVEN, torch.Tensor):
            out[tile] = x[tile] * GIVEN[tile]
        else:
            out[tile] = of_options(x[tile], GIVEN)
    return out


def expected(given: Any) -> torch.Tensor:
    return X * given if isinstance(given, (int, float, torch.Tensor)) else of_options(X, given)


@pytest.mark.parametrize("mode", ["off", "eager"])
def test_a_name_that_gets_a_value_of_another_kind(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    kernel = helion.kernel(reads_any, config=helion.Config(block_sizes=[8]), ref_mode=mode)
    mutable = Options(3.0)
    for given in (object(), 2.0, Options(4.0), mutable, Options, 2.5, X + 1, 3, {"a": mutable}, 2.0, mutable):
        monkeypatch.setitem(globals(), "GIVEN", given)
        for _ in range(2):
            assert torch.equal(kernel(X), expected(given)), given
    mutable.gain = 7.0
    assert torch.equal(kernel(X), expected(mutable))


def test_an_activation_of_the_library_by_another_name_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    @helion.kernel(config=helion.Config(block_sizes=[8]))
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.zeros_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = act(x[tile])
        return out

    for given in (torch.nn.functional.relu, torch.abs, torch.nn.functional.relu, lambda value: value * 2):
        monkeypatch.setitem(globals(), "act", given)
        for _ in range(2):
            assert torch.equal(kernel(X), given(X))


def test_a_number_of_numpys_that_host_code_computes_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "GIVEN", numpy.float64(2.5))

    @helion.kernel(config=helion.Config(block_sizes=[8]))
    def kernel(x: torch.Tensor) -> tuple[torch.Tensor, float]:
        twice = GIVEN * 2
        out = torch.full_like(x, twice)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] * twice + out[tile]
        return out, twice

    out, twice = kernel(X)
    assert torch.equal(out, X * 5 + 5) and twice == 5


@pytest.mark.softgpu(capability=90)
def test_a_plan_of_the_disk_counts_a_name_that_comes_again(softgpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    @helion.kernel(config=helion.Config(block_sizes=[8]))
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.zeros_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] * GIVEN
        return out

    x = X.to(softgpu.device)
    for given in (2.0, None, 2.0, 3.0):
        if given is None:
            monkeypatch.delitem(globals(), "GIVEN")
            with pytest.raises(helion.exc.UndefinedVariable):
                kernel(x)
            continue
        monkeypatch.setitem(globals(), "GIVEN", given)
        for _ in range(3):
            assert torch.equal(kernel(x), x * given)
