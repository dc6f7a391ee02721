"""Numbers that a dtype does not hold: written they are an error, in arithmetic infinity; in every mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere
from tests.support import ways

CONFIG = helion.Config(block_sizes=[8])
#: Compiled modes share the trace, which is where the error is.
MODES: list[dict[str, Any]] = [{}, {"ref_mode": helion.RefMode.EAGER}]


def applied(x, op, like):
    out = torch.empty(x.shape, dtype=like.dtype, device=x.device)
    for tile in hl.tile(x.size(0)):
        out[tile] = op(x[tile])
    return out


def stored(x, value: hl.constexpr):
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = value
    return out


WRITTEN: dict[str, tuple[torch.dtype, Callable[[torch.Tensor], torch.Tensor]]] = {
    "masked_fill": (torch.float16, lambda v: v.masked_fill(v > 0, -1e9)),
    "masked_fill beyond float32": (torch.float32, lambda v: v.masked_fill(v > 0, -1e39)),
    "masked_fill just beyond": (torch.float16, lambda v: v.masked_fill(v > 0, 65519.0)),
    "where": (torch.float32, lambda v: torch.where(v > 0, v, 1e39)),
    "clamp": (torch.float16, lambda v: v.clamp(max=1e6)),
    "full_like": (torch.float16, lambda v: torch.full_like(v, 1e6)),
    "leaky_relu": (torch.float32, lambda v: torch.nn.functional.leaky_relu(v, 1e39)),
    "alpha": (torch.float32, lambda v: torch.add(v, v, alpha=1e39)),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_number_that_is_written_must_be_held(name: str) -> None:
    dtype, op = WRITTEN[name]
    x = torch.tensor([0.5, -1.0, 2.0], dtype=dtype)
    with pytest.raises(RuntimeError):
        op(x)
    for settings in MODES:
        with pytest.raises(RuntimeError, match=r"does not hold|without overflow"):
            helion.kernel(applied, **settings)(x, op, x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    "op", [lambda v: v + 1e39, lambda v: 1e39 - v, lambda v: v / 1e39, lambda v: v * -1e39, lambda v: v < 1e39]
)
def test_a_number_in_arithmetic_is_infinity(op: Any, dtype: torch.dtype) -> None:
    x = torch.tensor([0.5, -1.0, 2.0], dtype=dtype)
    like = torch.empty(0, dtype=op(x).dtype)
    run_everywhere(
        helion.kernel(applied),
        (x, op, like),
        lambda v, f, _: f(v),
        configs=[CONFIG],
        reference_args=(x, op, like),
        capabilities=[90],
    )


@pytest.mark.parametrize(
    ("dtype", "value"),
    [(torch.float64, 0.1), (torch.float64, 1e300), (torch.float16, 1e6), (torch.uint8, -1), (torch.int32, 2.7)],
)
def test_a_number_stored_is_one_of_the_tensor(dtype: torch.dtype, value: float) -> None:
    x = torch.zeros(5, dtype=dtype)
    expected = x.clone()
    expected[:] = value
    for way in ways(helion.kernel(stored), (x, value), [CONFIG], (90,)):
        assert torch.equal(way.run(x, value), expected), way.name


@pytest.mark.parametrize(
    ("dtype", "value"), [(torch.uint8, 300), (torch.int32, 1 << 40), (torch.float32, 1e39), (torch.int8, float("inf"))]
)
def test_a_number_stored_must_be_held(dtype: torch.dtype, value: float) -> None:
    x = torch.zeros(5, dtype=dtype)
    for settings in MODES:
        with pytest.raises(exc.InvalidAPIUsage, match="does not hold"):
            helion.kernel(stored, **settings)(x, value)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8])
def test_an_integer_wraps_in_front_of_a_remainder(dtype: torch.dtype) -> None:
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = 1000 % x[tile]
        return out

    x = torch.arange(1, 100, dtype=dtype)
    run_everywhere(kernel, (x,), lambda _: 1000 % x, capabilities=[90], error_scale=0)
