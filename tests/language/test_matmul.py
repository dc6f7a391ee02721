"""Products: hl.dot, hl.dot_scaled and torch's own in device code, against float64."""

from __future__ import annotations

import pytest
import torch

import helion.language as hl
from helion import exc
from tests.support import run_everywhere

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2**-8, torch.float16: 2**-11}


def matrix(rng, *shape, dtype=torch.float32):
    if dtype is torch.int8:
        return torch.randint(-128, 128, shape, generator=rng).to(dtype)
    return torch.randn(*shape, generator=rng).to(dtype)


def once(ref, body, *operands):
    """`body` on whole operands, loaded in device code."""
    results = []

    def kernel(*operands):
        for _ in hl.grid(1):
            results.append(body(*(x[(slice(None),) * x.dim()] for x in operands)))
        return operands[0]

    ref(kernel, *operands)
    return results[0]


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_dot_of_floats_accumulates_in_float32_or_wider(ref, rng, dtype):
    a, b = matrix(rng, 17, 65, dtype=dtype), matrix(rng, 65, 9, dtype=dtype)
    got = once(ref, hl.dot, a, b)
    assert got.dtype is (torch.float64 if dtype is torch.float64 else torch.float32)
    tolerance = 1e-12 if dtype is torch.float64 else 1e-5
    torch.testing.assert_close(got.double(), a.double() @ b.double(), rtol=tolerance, atol=tolerance * 65)


@pytest.mark.parametrize("b_dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_dot_of_fp8_is_exact_products_summed_in_float32(ref, rng, b_dtype):
    a, b = matrix(rng, 8, 32).to(torch.float8_e4m3fn), matrix(rng, 32, 8).to(b_dtype)
    got = once(ref, hl.dot, a, b)
    torch.testing.assert_close(got.double(), a.double() @ b.double(), rtol=1e-5, atol=1e-4)


def test_dot_of_int8_is_exact_int32(ref, rng):
    a, b = matrix(rng, 5, 300, dtype=torch.int8), matrix(rng, 300, 4, dtype=torch.int8)
    acc = torch.randint(-(2**20), 2**20, (5, 4), generator=rng, dtype=torch.int32)
    got = once(ref, hl.dot, a, b, acc)
    assert got.dtype is torch.int32
    assert torch.equal(got.long(), a.long() @ b.long() + acc)


def test_dot_adds_the_accumulator_before_the_one_rounding(ref):
    """1 + 2**-9 is not a bfloat16, but 1 + 2**-9 - 1 is."""
    a, b = torch.tensor([[1.0, 2.0**-5]]).bfloat16(), torch.tensor([[1.0], [2.0**-4]]).bfloat16()
    got = once(ref, lambda a, b, acc: hl.dot(a, b, acc), a, b, torch.tensor([[-1.0]]).bfloat16())
    assert got.dtype is torch.bfloat16 and got.item() == 2.0**-9


def test_dot_rounds_to_out_dtype(ref, rng):
    a, b = matrix(rng, 8, 16, dtype=torch.bfloat16), matrix(rng, 16, 8, dtype=torch.bfloat16)
    got = once(ref, lambda a, b: hl.dot(a, b, out_dtype=torch.float16), a, b)
    assert torch.equal(got, (a.float() @ b.float()).half())


def test_dot_of_batches(ref, rng):
    a, b = matrix(rng, 3, 4, 5), matrix(rng, 3, 5, 6)
    torch.testing.assert_close(once(ref, hl.dot, a, b), torch.bmm(a, b))


@pytest.mark.parametrize(
    ("shapes", "error"),
    [
        (((4, 5), (6, 7)), exc.ShapeMismatch),
        (((4,), (4, 4)), exc.ShapeMismatch),
        (((2, 4, 5), (3, 5, 6)), exc.DotBatchDimensionMismatch),
        (((2, 4, 5), (5, 6)), exc.ShapeMismatch),
    ],
)
def test_dot_of_shapes_that_do_not_fit_is_an_error(ref, shapes, error):
    with pytest.raises(error):
        once(ref, hl.dot, *(torch.ones(s) for s in shapes))


@pytest.mark.parametrize(
    ("a", "b"), [(torch.int32, torch.int32), (torch.bool, torch.bool), (torch.float16, torch.bfloat16)]
)
def test_dot_of_dtypes_without_a_product_is_an_error(ref, a, b):
    with pytest.raises(exc.UnsupportedDtype):
        once(ref, hl.dot, torch.ones(4, 4).to(a), torch.ones(4, 4).to(b))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("product", "shapes"),
    [
        (lambda a, b: a @ b, ((9, 33), (33, 5))),
        (torch.mm, ((9, 33), (33, 5))),
        (torch.matmul, ((3, 9, 33), (33, 5))),
        (torch.matmul, ((9, 33), (3, 33, 5))),
        (torch.matmul, ((1, 9, 33), (3, 33, 5))),
        (torch.matmul, ((33,), (33, 5))),
        (torch.matmul, ((2, 9, 33), (33,))),
        (torch.matmul, ((33,), (33,))),
        (torch.bmm, ((3, 9, 33), (3, 33, 5))),
        (lambda a, b: a.bmm(b), ((3, 9, 33), (3, 33, 5))),
    ],
)
def test_torch_products_round_to_the_operands_dtype_once(ref, rng, dtype, product, shapes):
    a, b = (matrix(rng, *s, dtype=dtype) for s in shapes)
    got = once(ref, product, a, b)
    expected = torch.matmul(a.double(), b.double())
    assert got.dtype is dtype and got.shape == expected.shape
    torch.testing.assert_close(got.double(), expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * 10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_addmm_takes_a_float32_accumulator_with_16_bit_operands(ref, rng, dtype):
    acc, a, b = matrix(rng, 9, 5), matrix(rng, 9, 33, dtype=dtype), matrix(rng, 33, 5, dtype=dtype)
    got = once(ref, torch.addmm, acc, a, b)
    assert got.dtype is torch.float32
    torch.testing.assert_close(got.double(), acc.double() + a.double() @ b.double(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("beta", "alpha"), [(1, 1), (0.5, 2.0), (0, 1), (1, -1)])
def test_addmm_scales_with_alpha_and_beta(ref, rng, beta, alpha):
    acc, a, b = matrix(rng, 5), matrix(rng, 9, 33), matrix(rng, 33, 5)
    got = once(ref, lambda *t: torch.addmm(*t, beta=beta, alpha=alpha), acc, a, b)
    torch.testing.assert_close(got, torch.addmm(acc, a, b, beta=beta, alpha=alpha), rtol=1e-5, atol=1e-4)


def test_baddbmm_and_its_method_form(ref, rng):
    acc, a, b = matrix(rng, 3, 9, 5), matrix(rng, 3, 9, 7), matrix(rng, 3, 7, 5)
    torch.testing.assert_close(once(ref, lambda c, a, b: c.baddbmm(a, b), acc, a, b), torch.baddbmm(acc, a, b))


def test_a_tiled_product_equals_the_whole_one(ref, rng, blocks):
    def kernel(a, b):
        m, k = a.shape
        out = torch.empty([m, b.size(1)], dtype=a.dtype)
        for tm, tn in hl.tile([m, b.size(1)]):
            acc = hl.zeros([tm, tn])
            for tk in hl.tile(k):
                acc = torch.addmm(acc, a[tm, tk], b[tk, tn])
            out[tm, tn] = acc.to(out.dtype)
        return out

    if blocks is not None and blocks["block_sizes"][0] == 1:
        blocks = {"block_sizes": [4] * 3}
    a, b = matrix(rng, 33, 50, dtype=torch.bfloat16), matrix(rng, 50, 20, dtype=torch.bfloat16)
    got = ref(kernel, a, b, config=blocks)
    torch.testing.assert_close(got.double(), a.double() @ b.double(), rtol=2**-8, atol=0.02)


def test_matmul_of_fp8_points_to_hl_dot(ref):
    x = torch.ones(4, 4).to(torch.float8_e4m3fn)
    with pytest.raises(exc.UnsupportedDtype, match=r"use hl\.dot"):
        once(ref, torch.matmul, x, x)


# -- dot_scaled ----------------------------------------------------------------------------------------------

E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]


def random_scaled(rng, rows, k, fmt):
    """(stored operand [rows, K stored], its float64 values) with random finite values."""
    if fmt == "e2m1":
        bits = torch.randint(0, 16, (rows, k), generator=rng)
        values = torch.tensor(E2M1, dtype=torch.float64)[bits]
        return (bits[:, ::2] | bits[:, 1::2] << 4).to(torch.uint8), values
    dtype = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2, "bf16": torch.bfloat16, "fp16": torch.float16}[fmt]
    stored = torch.randn(rows, k, generator=rng).to(dtype)
    return stored, stored.double()


@pytest.mark.parametrize("fmt_b", ["e2m1", "e4m3", "bf16"])
@pytest.mark.parametrize("fmt_a", ["e2m1", "e4m3", "e5m2", "bf16", "fp16"])
def test_dot_scaled_decodes_and_scales_both_operands(ref, rng, fmt_a, fmt_b):
    a, a_values = random_scaled(rng, 6, 96, fmt_a)
    b, b_values = random_scaled(rng, 5, 96, fmt_b)
    a_scale, b_scale = (torch.randint(120, 134, (r, 3), generator=rng).to(torch.uint8) for r in (6, 5))
    b = b.T.contiguous() if fmt_b != "e2m1" else b.T
    got = once(ref, lambda a, s, b, t: hl.dot_scaled(a, s, fmt_a, b, t, fmt_b), a, a_scale, b, b_scale)

    def scaled(values, scale):
        return values * torch.exp2(scale.double() - 127).repeat_interleave(32, 1)

    expected = scaled(a_values, a_scale) @ scaled(b_values, b_scale).T
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-3 * expected.abs().max().item())


def test_dot_scaled_without_scales_adds_the_accumulator(ref, rng):
    a, a_values = random_scaled(rng, 4, 32, "e4m3")
    b, b_values = random_scaled(rng, 4, 32, "e4m3")
    acc = torch.ones(4, 4)
    got = once(ref, lambda a, b, c: hl.dot_scaled(a, None, "e4m3", b, None, "e4m3", c), a, b.T.contiguous(), acc)
    torch.testing.assert_close(got.double(), a_values @ b_values.T + 1, rtol=1e-5, atol=1e-4)


def test_dot_scaled_turns_the_scale_255_into_nan(ref):
    a = torch.ones(2, 32).to(torch.float8_e4m3fn)
    scale = torch.tensor([[127], [255]], dtype=torch.uint8)
    got = once(ref, lambda a, s, b: hl.dot_scaled(a, s, "e4m3", b, None, "e4m3"), a, scale, a.T.contiguous())
    assert torch.equal(got.isnan(), torch.tensor([[False, False], [True, True]]))


def sums_of_products(x, y):
    total = torch.zeros([1], device=x.device)
    largest = torch.zeros([x.size(0), 2], device=x.device)
    for rows in hl.tile(x.size(0), block_size=64):
        running = hl.zeros([], dtype=torch.float32)
        for k in hl.tile(x.size(1)):
            running += hl.dot(x[rows, k], y[k, :]).sum()
        hl.atomic_add(total, [0], running)
        row_sums = hl.dot(x[rows, :], y[:, :]).sum(1)
        largest[rows, 0] = row_sums.amax()
        largest[rows, 1] = row_sums.argmax()
    return total, largest


def test_products_are_reduced_to_scalars(seed):
    """Triton's pass for tensor memory asserted on each such kernel, on compute capability 10."""

    def reference(x, y):
        found = [(part.amax(), part.argmax()) for part in (x @ y).sum(1).split(64)]
        largest = torch.stack([torch.stack([value, place.double()]) for value, place in found])
        return (x @ y).sum()[None], largest.repeat_interleave(64, 0)

    x, y = (torch.randint(-3, 4, [128, 64]).bfloat16(), torch.randint(-3, 4, [64, 64]).bfloat16())
    configs = [{"block_sizes": [32]}]
    for capability in (90, 100):
        run_everywhere(sums_of_products, (x, y), reference, configs=configs, capabilities=[capability])
