"""Arithmetic is eager PyTorch's, bit for bit where PyTorch's is exact: in the tile executor, in ref mode and in
generated code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere

Expressions = Callable[..., list[Any]]


def evaluate(inputs, outs, expressions):
    """Each of `expressions(*inputs)` into one of `outs`."""
    for tile in hl.tile(inputs[0].size(0)):
        values = expressions([x[tile] for x in inputs])
        for out, value in zip(outs, values, strict=True):
            out[tile] = value
    return outs


def check(inputs: list[torch.Tensor], expressions: Expressions, error_scale: float = 0) -> None:
    """Run `expressions` everywhere; values and dtypes must be those of eager PyTorch."""
    expected = tuple(e.contiguous() for e in expressions(inputs))
    outs = tuple(torch.zeros(e.shape, dtype=e.dtype) for e in expected)
    kernel = helion.kernel(evaluate, config=helion.Config(block_sizes=[16]))
    args = (tuple(inputs), outs, expressions)
    run_everywhere(
        kernel,
        args,
        lambda *_: expected,
        configs=[{"block_sizes": [16]}],
        reference_args=args,
        error_scale=error_scale,
        capabilities=[90],
    )


def pairs(values: list[Any], dtype: torch.dtype) -> list[torch.Tensor]:
    """Every pair of some values."""
    t = torch.tensor(values, dtype=dtype)
    return [t.repeat_interleave(len(values)), t.repeat(len(values))]


SPECIAL = [float("nan"), float("inf"), float("-inf"), 0.0, -0.0, 1.0, -2.5, 3.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_nan_and_infinity(dtype):
    def minima_and_comparisons(v):
        a, b = v
        return [
            torch.maximum(a, b),
            torch.minimum(a, b),
            torch.fmax(a, b),
            torch.fmin(a, b),
            torch.clamp(a, -1, 2),
            torch.relu(a),
            a < b,
            a <= b,
            a > b,
            a >= b,
            a == b,
            a != b,
            torch.isnan(a),
            torch.isinf(a),
            torch.isfinite(a),
            torch.where(a > b, a, b),
            torch.nan_to_num(a),
        ]

    check(pairs(SPECIAL, dtype), minima_and_comparisons)


def test_reductions_of_nan():
    @helion.kernel(config=helion.Config(block_sizes=[4]))
    def reduce(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outs = tuple(torch.empty([x.size(0)]) for _ in range(4))
        for tile in hl.tile(x.size(0)):
            row = x[tile, :]
            outs[0][tile] = row.amax(1)
            outs[1][tile] = row.amin(1)
            outs[2][tile] = row.argmax(1).to(torch.float32)
            outs[3][tile] = row.argmin(1).to(torch.float32)
        return outs

    x = torch.randn(6, 9)
    x[1, 3] = x[2, 0] = x[2, 8] = float("nan")
    x[3, :] = float("-inf")
    x[4, :] = float("inf")
    run_everywhere(
        reduce,
        (x,),
        lambda x: (x.amax(1), x.amin(1), x.argmax(1).float(), x.argmin(1).float()),
        error_scale=0,
        capabilities=[80],
    )


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.int64], ids=str)
def test_integer_division_rounds_as_pytorch(dtype):
    def divisions(v):
        a, b = v
        return [
            a // b,
            a % b,
            torch.div(a, b, rounding_mode="trunc"),
            torch.div(a, b, rounding_mode="floor"),
            torch.fmod(a, b),
            a / b,
            a // 3,
            a % -3,
            -7 // b,
        ]

    a, b = pairs([-100, -7, -3, -1, 1, 2, 3, 7, 99], dtype)
    check([a, b], divisions)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64], ids=str)
def test_shifts_and_bits(dtype):
    unsigned = dtype is torch.uint8

    def shifts(v):
        a, s = v
        return [a << s, a >> s, a & s, a | s, a ^ s, ~a, a << 1, a >> 1, 1 << s]

    a = torch.tensor([0, 1, 5, 100, 127, 200 if unsigned else -128, 255 if unsigned else -1, 3], dtype=dtype)
    s = torch.arange(a.numel(), dtype=dtype)
    check([a, s], shifts)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64], ids=str)
def test_shifts_by_more_than_the_width_or_less_than_nothing(dtype):
    def shifts(v):
        a, s = v
        return [a << s, a >> s, a << 70, a >> 70]

    amounts = [8, 31, 32, 63, 64, 100] + ([] if dtype is torch.uint8 else [-1, -40])
    a, _ = pairs([1, 100, 3 if dtype is torch.uint8 else -5, 7, 0, 2, 9, 50][: len(amounts)], dtype)
    check([a, torch.tensor(amounts, dtype=dtype).repeat(len(amounts))], shifts)


def test_arithmetic_shift_of_negative_numbers_and_wrapping():
    def wraps(v):
        a, b = v
        return [a + b, a - b, a * b, -a, abs(a), a >> 31, a**2, a ** b.clamp(0, 40)]

    check(pairs([-(2**31), 2**31 - 1, -1, 0, 1, 3, -3, 123456], torch.int32), wraps)


def test_unsigned_numbers():
    def operations(v):
        a, b = v
        return [
            a + b,
            a - b,
            a * b,
            a // b,
            a % b,
            a < b,
            a > b,
            torch.maximum(a, b),
            torch.minimum(a, b),
            a.to(torch.float32),
            a.to(torch.int32),
        ]

    check(pairs([1, 2, 100, 127, 128, 200, 255], torch.uint8), operations)


def test_bools():
    def operations(v):
        a, b = v
        return [
            a + b,
            a * b,
            a & b,
            a | b,
            a ^ b,
            ~a,
            a < b,
            a >= b,
            torch.maximum(a, b),
            torch.minimum(a, b),
            a.to(torch.int64) + b,
        ]

    check(pairs([True, False], torch.bool), operations)


PROMOTIONS = [
    (torch.bfloat16, torch.float32),
    (torch.float16, torch.bfloat16),
    (torch.int32, torch.float16),
    (torch.int8, torch.int64),
    (torch.uint8, torch.int8),
    (torch.bool, torch.float32),
    (torch.int64, torch.float32),
    (torch.float64, torch.float32),
]


@pytest.mark.parametrize(("left", "right"), PROMOTIONS, ids=str)
def test_types_are_promoted_as_in_pytorch(left, right):
    def operations(v):
        a, b = v
        return [a + b, a * b, torch.where(a > b, a, b), a + 1, a * 2.0, b + True, torch.maximum(a, b)]

    a, b = torch.tensor([0, 1, 2, 100]), torch.tensor([1, 1, 3, 7])
    check([a.to(left), b.to(right)], operations)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_16_bit_floats_round_after_every_operation(dtype, seed):
    def operations(v):
        a, b = v
        return [
            a + b,
            a * b,
            a * b + a,
            (a + b) - b,
            a / b,
            a.to(torch.float32) * b,
            (a.to(torch.float32) / 3).to(dtype),
        ]

    check([torch.randn(100).to(dtype), torch.randn(100).to(dtype)], operations)


@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64], ids=str)
def test_index_dtype(index_dtype):
    @helion.kernel(config=helion.Config(block_sizes=[8]), index_dtype=index_dtype)
    def gather(x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        out = torch.empty([at.size(0)], dtype=x.dtype, device=x.device)
        for tile in hl.tile(at.size(0)):
            out[tile] = x[at[tile]] + x[tile.index % x.size(0)]
        return out

    for dtype in (torch.int32, torch.int64, torch.int8):
        args = (torch.randn(30), torch.randint(0, 30, (21,)).to(dtype))
        expected = args[0][args[1].long()] + args[0][:21]
        run_everywhere(gather, args, lambda *_: expected, error_scale=0, reference_args=args, capabilities=[80])


def test_an_offset_beyond_32_bits():
    """Rows so far apart that their distance does not fit into 32 bits: the tensor is a view with a huge stride."""

    @helion.kernel(config=helion.Config(block_sizes=[2]))
    def code(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty([x.size(0)], device=x.device)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile, 0]
        return out

    x = torch.empty(0, device="meta").as_strided((4, 1), (2**31, 1))
    with pytest.raises(helion.exc.IndexOffsetOutOfRangeForInt32):
        helion.kernel(code.fn, index_dtype=torch.int32).bind((x,))
    assert ".to(tl.int64)" in code.bind((x,)).to_triton_code()


def test_the_index_of_a_loop_between_64_bit_bounds_has_the_index_dtype():
    """debug_dtype_asserts puts a static assert behind every value: each has the dtype that the front end gave it."""

    def tail_positions(x: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        out = torch.zeros(x.shape, dtype=torch.int32, device=x.device)
        for i in hl.grid(x.size(0)):
            for tile in hl.tile(starts[i], x.size(1), block_size=8):
                out[i, tile] = tile.index * 2 + tile.begin
        return out

    x, starts = torch.empty(3, 40), torch.tensor([8, 16, 0])
    columns = torch.arange(40)
    begins = starts[:, None] + (columns - starts[:, None]) // 8 * 8
    expected = torch.where(columns >= starts[:, None], columns * 2 + begins, 0).int()
    kernel = helion.kernel(tail_positions, debug_dtype_asserts=True)
    run_everywhere(kernel, (x, starts), lambda *_: expected, configs=[{}], error_scale=0, capabilities=[80])


def outer_sum(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    out = torch.empty([a.size(0), b.size(0)], dtype=a.dtype, device=a.device)
    for tile_a, tile_b in hl.tile([a.size(0), b.size(0)]):
        out[tile_a, tile_b] = a[tile_a][:, None] + b[tile_b][None, :]
    return out


def captured_row(a: torch.Tensor, row) -> torch.Tensor:
    out = torch.empty_like(a)
    for tile in hl.tile(a.size(0)):
        out[tile] = a[tile] + row(tile)
    return out


@pytest.mark.parametrize("static_shapes", [True, False])
def test_an_output_larger_than_any_input_gets_64_bit_offsets(static_shapes):
    kernel = helion.kernel(outer_sum, static_shapes=static_shapes)
    a = torch.zeros(70_000, dtype=torch.int8)
    bound = kernel.variant((a, a))
    assert "tl.int64" in bound.to_triton_code()
    small = kernel.variant((a[:100], a))
    assert small is not bound and "tl.int64" not in small.to_triton_code()
    with pytest.raises(exc.IndexOffsetOutOfRangeForInt32, match="'out'"):
        helion.kernel(outer_sum, static_shapes=static_shapes, index_dtype=torch.int32).bind((a, a))


@pytest.mark.slow
def test_a_large_captured_tensor_gets_64_bit_offsets():
    rows = torch.empty(2**31 + 8, dtype=torch.int8)  # not touched, so it takes no memory
    bound = helion.kernel(captured_row).bind((torch.zeros(8, dtype=torch.int8), lambda tile: rows[tile]))
    assert "tl.int64" in bound.to_triton_code()


def test_any_and_all_of_uint8_are_uint8():
    def kernel(x, outs):
        for tile in hl.tile(x.size(0)):
            row = x[tile, :]
            some, every = row.any(1), row.all(1)
            assert some.dtype is torch.uint8 and every.dtype is torch.uint8
            outs[0, tile] = some + 255
            outs[1, tile] = every + 1
        return outs

    x = torch.tensor([[0, 0, 0], [0, 2, 3], [1, 2, 3]], dtype=torch.uint8)
    args = x, torch.empty(2, 3, dtype=torch.uint8)
    run_everywhere(
        kernel, args, lambda x, _: torch.stack([x.any(1) + 255, x.all(1) + 1]), reference_args=args, capabilities=[90]
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_float_division_rounds_as_pytorch(dtype):
    def divisions(v):
        a, b = v
        return [torch.div(a, b, rounding_mode="trunc"), a // b, a % b, torch.fmod(a, b), 7.5 // b, a // 0.25, -7.5 % b]

    check(pairs([-7.5, -1.0, 0.1, 0.3, 2.5, 9.0], dtype), divisions)
