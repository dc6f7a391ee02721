"""8-bit floats outside of products: PyTorch tells and compares them, and does no arithmetic with them."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere


def told(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
    same, other, nan = (torch.empty(x.shape, dtype=torch.bool, device=x.device) for _ in range(3))
    chosen = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        same[t] = x[t] == y[t]
        other[t] = x[t] != y[t]
        nan[t] = torch.isnan(x[t])
        chosen[t] = torch.where(x[t].float() > 0, x[t], y[t])
    return same, other, nan, chosen.view(torch.uint8)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_what_tells_them(dtype: torch.dtype, seed: int) -> None:
    x, y = torch.randn(40).to(dtype), torch.randn(40).to(dtype)
    y[:9] = x[:9]
    x[3] = y[5] = float("nan")

    def expected(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        chosen = torch.where(x.float() > 0, x.view(torch.uint8), y.view(torch.uint8))
        return x.float() == y.float(), x.float() != y.float(), x.float().isnan(), chosen

    run_everywhere(told, (x, y), expected, reference_args=(x, y), configs=[{"block_sizes": [16]}], capabilities=[90])


@pytest.mark.parametrize(
    "function",
    [lambda x, y: x + x, lambda x, y: x * 2.0, lambda x, y: x * y, torch.less, lambda x, y: -x, lambda x, y: x.amax(0)],
    ids=["add", "number", "float32", "less", "negative", "largest"],
)
def test_arithmetic_is_refused(function) -> None:
    """It was an error of Triton's, and x * y was computed with y rounded to 8 bits."""

    @helion.kernel(config=helion.Config(block_sizes=[16]))
    def kernel(x, y):
        out = torch.empty_like(y)
        for t in hl.tile(x.size(0)):
            out[t] = function(x[t], y[t]).to(torch.float32)
        return out

    with pytest.raises(exc.UnsupportedDtype, match="float8_e4m3fn"):
        kernel(torch.randn(40).to(torch.float8_e4m3fn), torch.randn(40))


TYPES = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
TYPES += [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def near(dtype: torch.dtype) -> torch.Tensor:
    """Numbers of an 8-bit float type, those halfway between them and their neighbours, and beyond its range."""
    numbers = torch.arange(128, dtype=torch.uint8).view(dtype).double()
    numbers = numbers[numbers.isfinite()]
    middles = (numbers[1:] + numbers[:-1]) / 2
    parts = [middles * factor for factor in (1, 1 + 2**-20, 1 - 2**-20, 1 + 2**-9, 1 - 2**-9)]
    last = torch.tensor([464.0, 465.0, 61439.0, 61440.0, 65504.0, 1e30, float("inf")]).double()
    found = torch.cat([numbers, *parts, last])
    return torch.cat([found, -found])


def values_of(source: torch.dtype, dtype: torch.dtype) -> torch.Tensor:
    if source.is_floating_point:
        return near(dtype).to(source)
    numbers = [0, 1] if source is torch.bool else [0, 1, 2, 3, 17, 19, 25, 100, 127, torch.iinfo(source).max]
    return torch.tensor(numbers, dtype=source)


def bits_of(x: torch.Tensor) -> torch.Tensor:
    """The bits of 8-bit floats; a nan has no sign."""
    bits = x.view(torch.uint8)
    return torch.where(bits == 0xFF, 0x7F, bits)


def converted(xs: list[torch.Tensor], dtype: torch.dtype) -> list[torch.Tensor]:
    outs = [torch.empty(x.shape, dtype=dtype, device=x.device) for x in xs]
    for x, out in zip(xs, outs):
        for t in hl.tile(x.size(0)):
            out[t] = x[t].to(dtype)
    return [bits_of(made) for made in outs]


@pytest.mark.parametrize(
    ("dtype", "capabilities"), [(torch.float8_e4m3fn, [90]), (torch.float8_e5m2, [80, 90])], ids=["e4m3", "e5m2"]
)
def test_conversions_to_them_are_pytorchs(dtype: torch.dtype, capabilities: list[int]) -> None:
    """Triton's own saturated, or rounded ties away, and were errors of its own for integers and float64."""
    xs = [values_of(source, dtype) for source in TYPES]
    if dtype is torch.float8_e4m3fn:
        xs.append(near(torch.float8_e5m2).to(torch.float8_e5m2))
    expected = [bits_of(x.to(dtype)) for x in xs]
    blocks = {"block_sizes": [512] * len(xs)}
    run_everywhere(converted, (xs, dtype), lambda xs, dtype: expected, configs=[blocks], capabilities=capabilities)


def unpacked(x: torch.Tensor, outs: list[torch.Tensor]) -> list[torch.Tensor]:
    for out in outs:
        for t in hl.tile(x.size(0)):
            out[t] = x[t].to(out.dtype)
    return outs


@pytest.mark.parametrize(
    ("dtype", "capabilities"), [(torch.float8_e4m3fn, [90]), (torch.float8_e5m2, [80, 90])], ids=["e4m3", "e5m2"]
)
def test_conversions_from_them_are_pytorchs(dtype: torch.dtype, capabilities: list[int]) -> None:
    """inf as bfloat16 was 65536."""
    numbers = torch.arange(256, dtype=torch.uint8).view(dtype)
    small = numbers.float().abs() < 100
    for x, types in ((numbers, TYPES[6:] + [torch.bool]), (numbers[small & (numbers.float() >= 0)], TYPES[1:6])):
        outs = [torch.empty(x.shape, dtype=to) for to in types]
        expected = [x.to(to) for to in types]
        blocks = {"block_sizes": [256] * len(outs)}
        run_everywhere(unpacked, (x, outs), lambda *_: expected, configs=[blocks], capabilities=capabilities)


def filled(x: torch.Tensor, number: float, dtype: torch.dtype) -> list[torch.Tensor]:
    outs = [torch.empty(x.shape, dtype=dtype, device=x.device) for _ in range(3)]
    for t in hl.tile(x.size(0)):
        outs[0][t] = hl.full([t], 0.0175, dtype=dtype)
        outs[1][t] = hl.full([t], number, dtype=dtype)
        outs[2][t] = hl.full([t], x[0], dtype=dtype)
    return [made.view(torch.uint8) for made in outs]


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=["e4m3", "e5m2"])
def test_numbers_of_them(dtype: torch.dtype) -> None:
    x = torch.full([9], 0.017578125)
    expected = [torch.full([9], number, dtype=dtype).view(torch.uint8) for number in (0.0175, -3.0, 0.017578125)]
    run_everywhere(filled, (x, -3.0, dtype), lambda *_: expected, capabilities=[90])


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=["e4m3", "e5m2"])
def test_rows_are_put_together(dtype: torch.dtype) -> None:
    def joined(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out = torch.empty([x.size(0), 8], dtype=x.dtype, device=x.device)
        for t in hl.tile(x.size(0)):
            out[t, :] = torch.cat([x[t, :], y[t, :]], 1)
        return out.float()

    args = torch.randn(5, 4).to(dtype), torch.randn(5, 4).to(dtype)
    run_everywhere(joined, args, lambda x, y: torch.cat([x, y], 1), capabilities=[90], error_scale=0)
