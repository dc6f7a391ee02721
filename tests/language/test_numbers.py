"""Numbers among a kernel's arguments: Python's arithmetic on them, in host code and in device code, and on a tile's
place.
"""

from __future__ import annotations

import math

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere

pytestmark = pytest.mark.slow

SMALL = helion.Config(block_sizes=[8])


def everywhere(kernel, args, expected, **options):
    kernel = helion.kernel(kernel, config=SMALL, static_shapes=options.pop("static_shapes", True))
    options = {"capabilities": [90], "configs": [SMALL], **options}
    run_everywhere(kernel, args, expected, reference_args=args, **options)


def integer_arithmetic(n, m):
    return [
        n // 2, n % 3, n // -3, n % -3, n // m, n % m, (n + 1) // 2 * 2, n / m, n >> 1, n << 2, n & 6, n | 9, n ^ 5,
        -n, ~n, abs(n), n**2, n**-1, 2 ** abs(m), min(n, m), max(n, 2), int(n / 2), float(n), round(n / 3),
        math.floor(n / 2), math.ceil(n / 2),
        divmod(n, m)[0], divmod(n, m)[1], n // 2.0, n % 2.5, n * 1.5, (n - m) * 0.5, math.sqrt(abs(n)), math.exp(n / 4),
    ]  # fmt: skip


def float_arithmetic(s, n):
    return [
        s * n, s / 3, s // 1, s % 2, s**2, abs(s) ** 0.5, 2.0**s, 1 - s, 1 / s, -s, abs(s), min(s, 1.0), max(s, 1),
        int(s), round(s), round(s, 1), math.floor(s), math.ceil(s), math.trunc(s), math.exp(s), math.log(abs(s)),
        math.sqrt(abs(s)), math.tanh(s), math.pow(abs(s), 1.5), math.copysign(1.0, s), s if s > 1 else 1.0, s > n,
    ]  # fmt: skip


def in_device_code(x, a, b, compute, count: hl.constexpr):
    out = torch.empty([count, x.size(0)], dtype=torch.float64, device=x.device)
    for tile in hl.tile(x.size(0)):
        numbers = compute(a, b)
        for i in range(count):
            out[i, tile] = torch.zeros([tile], dtype=torch.float64) + numbers[i]
    return out


def integers_in_host_code(x, n, m, count: hl.constexpr):
    out = torch.empty([count, x.size(0)], dtype=torch.float64, device=x.device)
    numbers = [
        n // m,
        n % m,
        n / m,
        n >> 1,
        -n,
        ~n,
        abs(n),
        n**2,
        int(n / 2),
        float(n),
        math.floor(n / 2),
        divmod(n, m)[0],
        n * 1.5,
        math.exp(n / 4),
    ]
    for tile in hl.tile(x.size(0)):
        for i in range(count):
            out[i, tile] = torch.zeros([tile], dtype=torch.float64) + numbers[i]
    return out


def floats_in_host_code(x, s, n, count: hl.constexpr):
    out = torch.empty([count, x.size(0)], dtype=torch.float64, device=x.device)
    numbers = [
        s * n,
        s // 1,
        s % 2,
        s**2,
        abs(s) ** 0.5,
        2.0**s,
        abs(s),
        min(s, 1.0),
        int(s),
        round(s),
        math.ceil(s),
        math.log(abs(s)),
        s if s > 1 else 1.0,
    ]
    for tile in hl.tile(x.size(0)):
        for i in range(count):
            out[i, tile] = torch.zeros([tile], dtype=torch.float64) + numbers[i]
    return out


def integers_by_python(n, m):
    return [
        n // m,
        n % m,
        n / m,
        n >> 1,
        -n,
        ~n,
        abs(n),
        n**2,
        int(n / 2),
        float(n),
        math.floor(n / 2),
        divmod(n, m)[0],
        n * 1.5,
        math.exp(n / 4),
    ]


def floats_by_python(s, n):
    return [
        s * n,
        s // 1,
        s % 2,
        s**2,
        abs(s) ** 0.5,
        2.0**s,
        abs(s),
        min(s, 1.0),
        int(s),
        round(s),
        math.ceil(s),
        math.log(abs(s)),
        s if s > 1 else 1.0,
    ]


def expected_rows(numbers):
    return torch.tensor([float(v) for v in numbers], dtype=torch.float64)[:, None].expand(-1, 10)


@pytest.mark.parametrize("compute, a, b", [
    (integer_arithmetic, -7, 3), (integer_arithmetic, 7, -3), (float_arithmetic, -2.7, 3), (float_arithmetic, 2.5, -4),
], ids=lambda value: getattr(value, "__name__", value))  # fmt: skip
def test_numbers_in_device_code_are_pythons(compute, a, b):
    expected = expected_rows(compute(a, b))
    everywhere(in_device_code, (torch.empty(10), a, b, compute, len(expected)), lambda *args: expected)


@pytest.mark.parametrize("kernel, by_python, a, b", [
    (integers_in_host_code, integers_by_python, -7, 3), (floats_in_host_code, floats_by_python, -2.7, 3),
], ids=lambda value: getattr(value, "__name__", value))  # fmt: skip
def test_numbers_in_host_code_are_pythons(kernel, by_python, a, b):
    expected = expected_rows(by_python(a, b))
    everywhere(kernel, (torch.empty(10), a, b, len(expected)), lambda *args: expected)


def scaled(x: torch.Tensor, n: int, s: float) -> torch.Tensor:
    out = torch.empty_like(x)
    n = n * 2 + 1
    s = s**2
    growth = math.exp(s)
    for tile in hl.tile(x.size(0)):
        out[tile] = x[tile] * n * s + growth
    return out


def test_a_parameter_may_be_bound_anew(seed):
    everywhere(scaled, (torch.randn(20), 3, 0.5), lambda x, n, s: x * 7 * 0.25 + math.exp(0.25), error_scale=4)


def places(x: torch.Tensor, n: int) -> torch.Tensor:
    out = torch.empty([12, x.size(0)], device=x.device)
    for tile in hl.tile(x.size(0)):
        b, zero = tile.begin, hl.zeros([tile])
        numbers = [
            (b - 20) // 8,
            (b - 20) % n,
            abs(b - 20),
            b / 16,
            b * 0.5,
            min(b, 16),
            b**2,
            math.floor(b * 0.3),
            ~b,
            b & 12,
            b >> 1,
            b // n,
        ]
        for i in hl.static_range(12):
            out[i, tile] = zero + numbers[i]
    return out


def test_numbers_of_a_tiles_place():
    def expected(x, n):
        def of(b):
            return [
                (b - 20) // 8,
                (b - 20) % n,
                abs(b - 20),
                b / 16,
                b * 0.5,
                min(b, 16),
                b**2,
                math.floor(b * 0.3),
                ~b,
                b & 12,
                b >> 1,
                b // n,
            ]

        return torch.tensor([of(i // 8 * 8) for i in range(x.size(0))]).T.float()

    everywhere(places, (torch.empty(40), 3), expected)


def product_of_arguments(x: torch.Tensor, n: int, m: int) -> torch.Tensor:
    out = torch.empty([x.size(0)], dtype=torch.int64, device=x.device)
    for tile in hl.tile(x.size(0)):
        out[tile] = torch.zeros([tile], dtype=torch.int64) + n * m
    return out


def test_integers_do_not_overflow():
    everywhere(product_of_arguments, (torch.empty(10), 10**5, 10**5), lambda x, n, m: torch.full([10], n * m))


def times(x: torch.Tensor, factor: float) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = x[tile] * factor
    return out


def test_floats_are_doubles_beside_float64(seed):
    everywhere(times, (torch.randn(20, dtype=torch.float64), 0.1), lambda x, f: x * f, error_scale=1e-4)


def bias_correction(x: torch.Tensor, beta: float, step: int) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = x[tile] / (1 - beta**step)
    return out


@pytest.mark.parametrize("static_shapes", [True, False])
def test_numbers_are_computed_in_double_precision(static_shapes, seed):
    # 1 - 0.999 in float32 is off by 5e-5 of itself.
    everywhere(
        bias_correction, (torch.randn(20), 0.999, 1), lambda x, b, t: x / (1 - b**t), static_shapes=static_shapes
    )


def test_functions_of_numbers_serve_every_value():
    kernel = helion.kernel(bias_correction, config=SMALL)
    x = torch.ones(8)
    bound = {kernel.bind((x, beta, step)) for beta, step in ((0.5, 2), (0.9, 3), (0.25, 7))}
    assert len(bound) == 1
    torch.testing.assert_close(kernel(x, 0.25, 7), x / (1 - 0.25**7))


def signed(x: torch.Tensor, factor: float) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        if factor < 0:
            out[tile] = -x[tile]
        else:
            out[tile] = x[tile]
    return out


def test_a_branch_on_a_float_argument_is_taken_for_each_value():
    kernel, x = helion.kernel(signed, config=SMALL), torch.arange(5.0)
    for factor in (1.5, -2.0, 0.5, float("-inf"), 3.0):
        assert torch.equal(kernel(x, factor), -x if factor < 0 else x)


def function_of_a_place(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = x[tile] * math.exp(tile.begin)
    return out


def test_a_function_of_a_tiles_place_is_refused():
    with pytest.raises(exc.NotAllowedOnDevice, match=r"math\.exp of a number"):
        helion.kernel(function_of_a_place, config=SMALL)(torch.ones(20))


def beside_numbers(x):
    """Numbers that the dtypes do not hold, or hold something else for."""
    out = torch.empty([x.size(0), 12], dtype=torch.int64, device=x.device)
    for tile in hl.tile(x.size(0)):
        v = x[tile]
        found = [v + 300, v & 0xFFFFFFFF, v * -70000, v - (1 << 40), v > -1, v == 256, v < 300, v >= -(2**33), v != 44]
        found += [tile.end - v, v + tile.begin + 250, v < 2**40]
        for i in hl.static_range(12):
            out[tile, i] = found[i].to(torch.int64)
    return out


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64], ids=str)
def test_numbers_that_integers_do_not_hold_are_their_low_bits(dtype, seed):
    x = torch.randint(-128, 128, (20,)).to(dtype)

    def expected(x):
        v, end = x, torch.tensor([8] * 8 + [16] * 8 + [20] * 4)
        begin = torch.tensor([0] * 8 + [8] * 8 + [16] * 4)
        found = [v + 300, v & 0xFFFFFFFF, v * -70000, v - (1 << 40), v > -1, v == 256, v < 300, v >= -(2**33), v != 44]
        found += [end.to(dtype) - v, v + begin.to(dtype) + 250, v < 2**40]
        return torch.stack([f.to(torch.int64) for f in found], 1)

    everywhere(beside_numbers, (x,), expected)


def compares(x):
    out = torch.empty([x.size(0), 6], dtype=torch.bool, device=x.device)
    for tile in hl.tile(x.size(0)):
        v = x[tile]
        out[tile, 0] = v == 0.1
        out[tile, 1] = v >= 0.1
        out[tile, 2] = v < 0.3
        out[tile, 3] = v != 1e10
        out[tile, 4] = v > 1
        out[tile, 5] = v <= 0.1
    return out


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32], ids=str)
def test_comparisons_with_numbers_are_in_the_tensors_dtype(dtype):
    x = torch.tensor([0.1, 0.3, -0.1, 1, 0.2, 0.0999, 0.1001, 2]).to(dtype)
    numbers = [lambda v: v == 0.1, lambda v: v >= 0.1, lambda v: v < 0.3, lambda v: v != 1e10, lambda v: v > 1]
    everywhere(compares, (x,), lambda x: torch.stack([f(x) for f in [*numbers, lambda v: v <= 0.1]], 1))


def of_one_dtype(x: torch.Tensor, s: float) -> torch.Tensor:
    out = torch.empty([x.size(0), 8], dtype=torch.float32, device=x.device)
    for tile in hl.tile(x.size(0)):
        v = x[tile]
        out[tile, 0] = v % 0.3
        out[tile, 1] = torch.fmod(v, -0.3)
        out[tile, 2] = 7.3 // v
        out[tile, 3] = v % s
        out[tile, 4] = torch.fmod(v, s)
        out[tile, 5] = (v == s).float()
        out[tile, 6] = (v <= s).float()
        out[tile, 7] = s // v
    return out


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_numbers_are_of_the_tensors_dtype_where_pytorch_makes_operands_alike(dtype):
    x = torch.tensor([0.3, 7.5, -3.375, 1.828125, 3.650390625, 100, -0.7, 0.30078125]).to(dtype)
    parts = [
        lambda v: v % 0.3, lambda v: torch.fmod(v, -0.3), lambda v: 7.3 // v, lambda v: v % 0.3,
        lambda v: torch.fmod(v, 0.3), lambda v: v == 0.3, lambda v: v <= 0.3, lambda v: 0.3 // v,
    ]  # fmt: skip
    everywhere(of_one_dtype, (x, 0.3), lambda x, s: torch.stack([part(x).float() for part in parts], 1))


def beside_loaded_numbers(x: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(0), 5], dtype=torch.float32, device=x.device)
    for tile in hl.tile(x.size(0)):
        v = x[tile]
        out[tile, 0] = (v == s[0]).float()
        out[tile, 1] = v % s[0]
        out[tile, 2] = s[0] - v
        out[tile, 3] = torch.fmod(v, s[0])
        out[tile, 4] = (s[0] < v).float()
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_loaded_numbers_are_of_the_tensors_dtype_first(dtype):
    x = torch.tensor([0.3, 7.5, -3.375, 1.828125, 100, -0.7]).bfloat16()
    s = torch.tensor([0.3], dtype=dtype)

    def expected(x, s):
        of_x = s[0].to(x.dtype)
        parts = [x == of_x, x % of_x, of_x - x, torch.fmod(x, of_x), of_x < x]
        return torch.stack([part.float() for part in parts], 1)

    everywhere(beside_loaded_numbers, (x, s), expected)


def less_than_numbers(x: torch.Tensor, s: float) -> torch.Tensor:
    out = torch.empty([x.size(0), 3], dtype=torch.float32, device=x.device)
    for tile in hl.tile(x.size(0)):
        out[tile, 0] = 1.5 - x[tile]
        out[tile, 1] = s - x[tile]
        out[tile, 2] = torch.rsub(x[tile], 1.5, alpha=2)
    return out


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8], ids=str)
def test_integers_are_taken_from_floats_as_floats(dtype):
    x = torch.tensor([0, 1, 2, 100, torch.iinfo(dtype).min, torch.iinfo(dtype).max]).to(dtype)
    everywhere(less_than_numbers, (x, 0.25), lambda x, s: torch.stack([1.5 - x, s - x, 1.5 - 2.0 * x], 1))


def with_computed_numbers(x: torch.Tensor, y: torch.Tensor, b: int) -> tuple[torch.Tensor, ...]:
    sums, places, less = (torch.empty([x.size(0)], dtype=torch.int64, device=x.device) for _ in range(3))
    for t in hl.tile(x.size(0)):
        sums[t] = x[t] + b * 2
        places[t] = t.index + b // 7 + (t.begin - t.begin + b)
        less[t] = (y[t] + b * 2) < y[t]
    return sums, places, less


@pytest.mark.parametrize("b", [60, 2**40 + 1, -(2**33)])
@pytest.mark.parametrize("static_shapes", [True, False])
def test_numbers_that_the_host_computes_wrap_as_the_tensors_dtype_does(b: int, static_shapes: bool) -> None:
    x, y = torch.arange(40, dtype=torch.int32), torch.arange(40, dtype=torch.uint8) * 6
    index = torch.arange(40, dtype=torch.int32)
    expected = (x + b * 2, index + b // 7 + b, (y + b * 2) < y)
    run_everywhere(
        with_computed_numbers, (x, y, b), lambda *_: tuple(e.long() for e in expected), static_shapes=static_shapes
    )


def with_integers(i: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    out = torch.empty([5, h.size(0)], device=h.device)
    for t in hl.tile(h.size(0)):
        a, b = i[t], h[t]
        out[0, t] = a + b
        out[1, t] = a * b
        out[2, t] = (a == b).float() + (a.to(h.dtype) == a).float()
        out[3, t] = torch.maximum(a, b)
        out[4, t] = b / a
    return out


@pytest.mark.parametrize("integers", [torch.int16, torch.int64])
@pytest.mark.parametrize("floats", [torch.float16, torch.bfloat16])
def test_integers_beside_narrow_floats_are_rounded_first(integers: torch.dtype, floats: torch.dtype) -> None:
    i = torch.tensor([4797, 4798, 2049, -4797, 257], dtype=integers)
    h = torch.tensor([-1.5, 1.5, -0.75, 1.0, 0.25]).to(floats)
    rows = [i + h, i * h, (i == h).float() + 1, torch.maximum(i, h), h / i]
    expected = torch.stack([row.double() for row in rows])
    run_everywhere(with_integers, (i, h), lambda *_: expected, capabilities=[90])


#: Functions of float64 values and numbers that float32 does not have.
WITH_NUMBERS = [
    lambda x: x.clamp(-0.9, 0.9),
    lambda x: (x * 1e18).clamp(-1e15, 1e15),
    lambda x: x.clamp(min=0.1),
    lambda x: torch.clamp_max(x, 0.1),
    lambda x: torch.nn.functional.hardtanh(x, -0.9, 0.9),
    lambda x: torch.where(x > 0.1, x, -0.7),
    lambda x: torch.nn.functional.threshold(x, 0.1, 0.7),
    lambda x: torch.nn.functional.softshrink(x, 0.3),
    lambda x: x.masked_fill(x < 0, 0.1) % 0.3,
    lambda x: torch.lerp(x, x * 2, 0.3) // 0.3,
]


def functions_with_numbers(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty([len(WITH_NUMBERS), x.size(0)], dtype=x.dtype, device=x.device)
    for t in hl.tile(x.size(0)):
        for i, function in enumerate(WITH_NUMBERS):
            out[i, t] = function(x[t])
    return out


def test_numbers_beside_float64_are_not_rounded(seed):
    run_everywhere(
        helion.kernel(functions_with_numbers, config=SMALL),
        (torch.linspace(-3, 3, 33, dtype=torch.float64),),
        lambda x: torch.stack([function(x) for function in WITH_NUMBERS]),
        capabilities=[90],
        configs=[SMALL],
        error_scale=0.01,  # of float64's rounding, which is what is left
    )


def extremes_of_scalars(x: torch.Tensor, a: float) -> torch.Tensor:
    out = torch.empty([x.size(0), 4], dtype=x.dtype, device=x.device)
    for i in hl.grid(x.size(0)):
        v = x[i]
        out[i, 0] = max(v, 0.1)
        out[i, 1] = min(v, a)
        out[i, 2] = max(a, v, -0.7)
        out[i, 3] = min(0.3, max(v, a))
    return out


def test_pythons_extremes_of_a_float64_and_numbers_are_not_rounded(seed):
    def expected(x, a):
        rows = [(max(v, 0.1), min(v, a), max(a, v, -0.7), min(0.3, max(v, a))) for v in x.tolist()]
        return torch.tensor(rows, dtype=torch.float64)

    args = (torch.linspace(-1, 1, 21, dtype=torch.float64), 0.123456789)
    run_everywhere(extremes_of_scalars, args, expected, reference_args=args, error_scale=0, capabilities=[90])


def inner_or_last(x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(x)
    n = x.size(1)
    for t in hl.tile(x.size(0)):
        for i in hl.grid(n):
            inside = keep[t] & ((i > 0) | (i + 3 < n)) ^ (i == 2)
            out[t, i] = torch.where(inside, x[t, i], 0.0)
            out[t, i] = hl.load(out, [t, i], extra_mask=(t.begin > -1 and i + 1 < n) & inside)
    return out


def test_a_mask_goes_with_a_condition_on_a_tiles_place(seed: int) -> None:
    """PyTorch's `tensor & flag` asked for the truth of the flag, which only the kernel knows."""

    def expected(x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        i = torch.arange(7)
        inside = (keep != 0)[:, None] & ((i > 0) | (i + 3 < 7)) ^ (i == 2)
        return torch.where(inside & (i + 1 < 7), x, 0.0)

    run_everywhere(inner_or_last, (torch.randn(5, 7), torch.rand(5) > 0.4), expected, capabilities=[90])


def conditions_as_numbers(x: torch.Tensor, dt: float, m: int) -> torch.Tensor:
    out = torch.empty([x.size(0), 8], dtype=x.dtype, device=x.device)
    for i in hl.grid(x.size(0)):
        out[i, 0] = x[i] + (i != 1) * dt
        out[i, 1] = x[i] + ((i > 2 and i < 5) + (i >= m)) * dt - -(i == 0)
        out[i, 2] = x[i] + int(2 < i <= m) * dt + float(not i > 7) * max(i < 3, 2 * (i == 6))
        out[i, 3] = x[i] + ((i > 2) == 1) * dt + ((i > 2) == (m > 2)) * 2 + ((i > 2) != True)  # noqa: E712
        out[i, 4] = x[i] if (i > 2) is True else dt
        out[i, 5] = x[i] + (i in (2, m)) * dt + (i not in [3, 4]) / 2
        out[i, 6] = x[i] + ((i > 2) ^ (i > 5)) * dt + bool(i % 3) * 2
        out[i, 7] = x[i] + 2 ** (i > 2) + True**i + (i < 2) / 3
    return out


def test_conditions_on_a_tiles_place_are_the_numbers_that_pythons_are(seed: int) -> None:
    """Some were refused, `(i > 2) == 1` and `(i > 2) is True` were never true; `dt` is not rounded to float32."""

    def expected(x: torch.Tensor, dt: float, m: int) -> torch.Tensor:
        out = torch.empty([x.size(0), 8], dtype=x.dtype)
        for i in range(x.size(0)):
            out[i, 0] = x[i] + (i != 1) * dt
            out[i, 1] = x[i] + ((2 < i < 5) + (i >= m)) * dt + (i == 0)
            out[i, 2] = x[i] + (2 < i <= m) * dt + (i <= 7) * max(i < 3, 2 * (i == 6))
            out[i, 3] = x[i] + (i > 2) * dt + ((i > 2) == (m > 2)) * 2 + (i <= 2)
            out[i, 4] = x[i] if i > 2 else torch.tensor(dt).item()
            out[i, 5] = x[i] + (i in (2, m)) * dt + (i not in [3, 4]) / 2
            out[i, 6] = x[i] + (2 < i <= 5) * dt + (i % 3 != 0) * 2
            out[i, 7] = x[i] + 2 ** (i > 2) + 1 + (i < 2) / 3
        return out

    args = (torch.arange(9, dtype=torch.float64) + 0.5, 0.5, 4)
    everywhere(conditions_as_numbers, args, expected)


def divisors(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    common, multiple = torch.empty_like(a), torch.empty_like(a)
    for t in hl.tile(a.size(0)):
        common[t], multiple[t] = torch.gcd(a[t], b[t]), torch.lcm(a[t], b[t])
    return common, multiple


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_greatest_common_divisors(dtype: torch.dtype, seed: int) -> None:
    """Fibonacci's numbers take the most steps; PyTorch's own rule for lcm divides floats."""
    numbers = [0, 1]
    while numbers[-1] + numbers[-2] <= torch.iinfo(dtype).max:
        numbers.append(numbers[-1] + numbers[-2])
    signs = 1 if dtype is torch.uint8 else 1 - 2 * torch.arange(len(numbers) - 1) % 4
    a, b = (torch.tensor(part) * signs for part in (numbers[1:], numbers[:-1]))
    args = (a.to(dtype), b.to(dtype))
    everywhere(divisors, args, lambda a, b: (torch.gcd(a, b), torch.lcm(a, b)), error_scale=0)


@pytest.mark.parametrize("dispatch", [True, False])
@pytest.mark.parametrize("wrapped", [False, True])
def test_numbers_in_a_tuple_that_is_constant_count_by_value(dispatch: bool, wrapped: bool) -> None:
    """The second call had the first one's code."""

    @helion.kernel
    def scaled(x: torch.Tensor, factors: hl.constexpr) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] * factors[0] + factors[1][0]
        return out

    scaled.dispatch_enabled = dispatch
    x = torch.ones(3)
    for factors in ((2.0, (1.0,)), (3.0, (1.0,)), (3.0, (4.0,)), (2.0, (1.0,))):
        given = hl.constexpr(factors) if wrapped else factors
        for _ in range(3):
            assert scaled(x, given).tolist() == [factors[0] + factors[1][0]] * 3
