"""Integers computed of a tile's place: Python's, that is, without an overflow, in every mode."""

from __future__ import annotations

import math

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from helion.fragments import PowerOfTwoFragment
from tests.support import run_everywhere
from tests.support import ways

M = 123456789
ROWS = 40


def _numbers(i, m):
    return [
        i * 2654435761, (i * 2654435761) & 0xFFFFFFFF, (i * M) % 1000003, i * 1000003 * 7919, i * m, i * i * i * i * i,
        (i + 1) << 33, (i - 20) // 7, (i - 20) % 7, i + 2**40, (m * (i + 1)) // 3, -(i * m) % 1000, max(i * m, 5),
        ~(i * m), 1 << i, 2 ** (i % 3), 2**i, (-3) ** (i % 7), m ** (i % 2 + 1), 2 ** max(3 - i, 0), m >> i,
    ]  # fmt: skip


COUNT = len(_numbers(0, 0))


def of_a_grid(x: torch.Tensor, m: int) -> torch.Tensor:
    out = torch.empty([x.size(0), COUNT], dtype=torch.int64, device=x.device)
    for i in hl.grid(x.size(0)):
        for place, number in enumerate(_numbers(i, m)):
            out[i, place] = number
    return out


def of_a_tile(x: torch.Tensor, m: int) -> torch.Tensor:
    out = torch.empty([x.size(0), COUNT], dtype=torch.int64, device=x.device)
    for tile in hl.tile(x.size(0), block_size=1):
        for place, number in enumerate(_numbers(tile.id, m)):
            out[tile.begin, place] = number
    return out


@pytest.mark.parametrize("kernel", [of_a_grid, of_a_tile])
@pytest.mark.parametrize("settings", [{}, {"static_shapes": False}, {"index_dtype": torch.int64}], ids=str)
def test_integers_of_places_do_not_overflow(kernel, settings, seed):
    args = (torch.empty(ROWS), M)
    expected = torch.tensor([_numbers(i, M) for i in range(ROWS)])
    run_everywhere(kernel, args, lambda *_: expected, reference_args=args, capabilities=[90], **settings)


def test_an_integer_to_a_power_that_may_be_negative_is_refused() -> None:
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for i in hl.grid(x.size(0)):
            out[i] = x[i] * 2 ** (3 - i)
        return out

    with pytest.raises(exc.NotAllowedOnDevice, match="power that may be negative"):
        helion.kernel(kernel)(torch.ones(6))


def powers_of_a_tunable(x: torch.Tensor) -> torch.Tensor:
    s = hl.register_tunable("s", PowerOfTwoFragment(1, 8, 2))
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] * 2**s + s**s + (-3) ** (s + 1)
    return out


def test_a_tunable_is_a_power() -> None:
    """Its stand-in while tracing is large, and was too large for a power."""
    expected = torch.arange(5) * 16 + 256 - 243
    configs = [{"block_sizes": [4], "s": 4}]
    kernel = helion.kernel(powers_of_a_tunable, config=helion.Config(**configs[0]))
    assert torch.equal(kernel(torch.arange(5)), expected)
    for way in ways(helion.kernel(powers_of_a_tunable), (torch.arange(5),), configs, [90]):
        if way.name not in ("tile executor", "ref mode"):  # by the tunable's default
            assert torch.equal(way.run(torch.arange(5)), expected), way.name


def rows_apart(x: torch.Tensor, apart: int, length: int) -> torch.Tensor:
    out = torch.zeros([length, 8], dtype=x.dtype, device=x.device)
    for i in hl.grid(length):
        begin = i * apart  # may be anything, so int64: as an index, a bound of a loop, and in a condition
        for t in hl.tile(begin, begin + 8):
            if begin + 8 <= apart * length:
                out[i, t.index - begin] = x[t] + x[begin]
    return out


@pytest.mark.parametrize("indexing", ["pointer", "block_ptr", "tensor_descriptor"])
def test_wide_integers_are_indices_bounds_and_conditions(indexing, seed):
    args = (torch.randn(60), 11, 5)

    def expected(x, apart, length):
        return torch.stack([x[i * apart : i * apart + 8] + x[i * apart] for i in range(length)])

    config = helion.Config(block_sizes=[4], indexing=indexing)
    run_everywhere(rows_apart, args, expected, configs=[config], capabilities=[90])


def test_a_product_with_a_small_constant_is_wide_where_the_range_is_not_known() -> None:
    """Of 2**21 elements 2000 times a place is beyond 32 bits, which a few elements cannot show."""
    for static, wide in ((True, False), (False, True)):

        @helion.kernel(static_shapes=static, config=helion.Config(block_sizes=[]))
        def kernel(x: torch.Tensor) -> torch.Tensor:
            out = torch.empty([x.size(0)], dtype=torch.int64, device=x.device)
            for i in hl.grid(x.size(0)):
                out[i] = i * 2000
            return out

        assert ("tl.int64)" in kernel.bind((torch.empty(10),)).to_triton_code()) is wide


def added_up(x: torch.Tensor, wide: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    sums = torch.empty_like(x)
    above = torch.empty([x.size(0)], dtype=torch.bool, device=x.device)
    for t in hl.tile(x.size(0)):
        total = hl.zeros([t], dtype=x.dtype)
        larger = hl.full([t], True, dtype=torch.bool)
        for j in hl.grid(wide.size(0)):
            total = total + x[t] * (j * 123457) - (t.begin * 3 + j)
            larger = larger & (x[t] > (j - 9) * 3000000000)
        sums[t] = total
        above[t] = larger
    return sums, above


@pytest.mark.parametrize("settings", [{}, {"static_shapes": False}, {"index_dtype": torch.int64}], ids=str)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int16])
def test_what_is_added_to_an_integer_tensor_leaves_its_dtype(dtype, settings) -> None:
    x, wide = torch.arange(-5, 6, dtype=dtype), torch.empty(5)

    def expected(x, wide):
        begins = torch.arange(x.size(0)) // 4 * 4
        total = sum(x.long() * (j * 123457) - (begins * 3 + j) for j in range(wide.size(0)))
        numbers = [torch.tensor((j - 9) * 3000000000).to(dtype) for j in range(wide.size(0))]  # as PyTorch compares
        above = torch.stack([x > number for number in numbers]).all(0)
        return total.to(dtype), above

    config = helion.Config(block_sizes=[4])
    kernel = helion.kernel(added_up, config=config, **settings)
    run_everywhere(kernel, (x, wide), expected, reference_args=(x, wide), configs=[config], capabilities=[80])


def of_the_rest(x: torch.Tensor, width: int) -> torch.Tensor:
    out = torch.empty([x.size(0)], dtype=x.dtype, device=x.device)
    for t in hl.tile(x.size(0), block_size=4):
        acc = hl.zeros([t])
        for c in hl.tile(t.begin + x.size(0) - width, x.size(0)):
            acc = acc + x[c, :].sum()
        out[t] = acc
    return out


@pytest.mark.parametrize("indexing", ["block_ptr", "tensor_descriptor"])
def test_boxes_at_a_place_that_is_computed_in_64_bits(indexing: str, seed: int) -> None:
    """Triton's have coordinates of 32 bits."""

    def expected(x, width):
        return torch.stack([x[i // 4 * 4 + x.size(0) - width :].sum() for i in range(x.size(0))])

    config = {"block_sizes": [8], "indexing": indexing}
    run_everywhere(
        of_the_rest, (torch.randn(33, 16), 30), expected, configs=[config], capabilities=[90], error_scale=64
    )


def _floats(i, n, g):
    return [
        i / 3, i * 0.1, 1.0 / (2 * i + 1), i**0.5, (i * g) ** 2, g**i, (i * g) % 0.15, (i + 0.3) / 7, (i * n) / 7,
        (i + n / 3) * g, abs(0.5 - i * 0.3), (i / 3) ** 3, 2 ** (i * g), max(i / 3, 0.5), (i * g) % n,
        (i * 3000000000) / 1e9, (i * n * 1000003 * 1000003) % 7 / 3, max(i / 3, 0.3), round(i * 0.7),
        int(i * 0.7 + 0.1), math.floor(i * 30000000000.5),
    ]  # fmt: skip


def floats_of_a_grid(x: torch.Tensor, n: int, g: float) -> torch.Tensor:
    out = torch.empty([x.size(0), 21], dtype=x.dtype, device=x.device)
    for i in hl.grid(x.size(0)):
        for place, number in enumerate(_floats(i, n, g)):
            out[i, place] = x[i] * 0 + number
    return out


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_floats_made_of_a_place_are_as_wide_as_what_they_meet(dtype: torch.dtype) -> None:
    expected = torch.tensor([_floats(i, 5, 0.1) for i in range(9)], dtype=torch.float64)
    args = torch.zeros(9, dtype=dtype), 5, 0.1
    run_everywhere(floats_of_a_grid, args, lambda *_: expected, capabilities=[90], error_scale=20)


def test_an_integer_that_leaves_64_bits_is_refused() -> None:
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for i in hl.grid(x.size(0)):
            out[i] = x[i] + (i * 6364136223846793005 + 1442695040888963407) % 1000003
        return out

    with pytest.raises(exc.BackendUnsupported, match="64 bits"):
        helion.kernel(kernel, config=helion.Config()).bind((torch.zeros(4, dtype=torch.int64),)).to_triton_code()


def test_a_number_that_is_chosen_beside_a_float64_is_one_too() -> None:
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for i in hl.grid(x.size(0)):
            a = x[i]
            out[i] = (a if a > 1 else 0.1) * 3
        return out

    x = torch.tensor([0.5, 1.5, 0.7], dtype=torch.float64)
    expected = torch.tensor([0.1 * 3, 4.5, 0.1 * 3], dtype=torch.float64)
    run_everywhere(kernel, (x,), lambda x: expected, configs=[{}], capabilities=[90], error_scale=1e-3)


def scaled_by_the_place(x: torch.Tensor, n: int) -> torch.Tensor:
    out = torch.empty([4, n, x.size(0)], dtype=x.dtype, device=x.device)
    for t in hl.tile(x.size(0)):
        for i in hl.grid(n):
            out[0, i, t] = torch.add(x[t], x[t] + 1, alpha=i / 3)
            out[1, i, t] = x[t].sub(x[t] * 2, alpha=i)
            out[2, i, t] = torch.rsub(x[t], x[t] + 1, alpha=i / 3)
            out[3, i, t] = torch.addcmul(x[t], x[t], x[t] + 1, value=i / 3)
    return out


def test_the_factor_of_a_sum_may_be_made_of_the_place() -> None:
    def expected(x: torch.Tensor, n: int) -> torch.Tensor:
        a = torch.arange(n, dtype=x.dtype)[:, None] / 3
        return torch.stack([x + (x + 1) * a, x - x * 6 * a, x + 1 - x * a, x + x * (x + 1) * a])

    x = torch.randn(5, dtype=torch.float64)
    run_everywhere(scaled_by_the_place, (x, 4), expected, configs=[{}], capabilities=[90], error_scale=1e-3)


def signs(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty([2, 4, x.size(0)], dtype=x.dtype, device=x.device)
    for t in hl.tile(x.size(0)):
        for i in hl.grid(4):
            out[0, i, t] = x[t] * (-1.0) ** i
            out[1, i, t] = x[t] * (-2.5) ** i
    return out


def test_a_negative_number_to_the_power_of_the_place() -> None:
    powers = torch.tensor([[(-1.0) ** i for i in range(4)], [(-2.5) ** i for i in range(4)]], dtype=torch.float64)
    run_everywhere(
        signs,
        (torch.randn(5, dtype=torch.float64),),
        lambda x: powers[:, :, None] * x,
        configs=[{}],
        capabilities=[90],
        error_scale=1e-3,
    )
