"""Products of 16-bit floats round before they are added to something, as eager PyTorch's do."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from tests.support import ways

pytestmark = [pytest.mark.gpu, pytest.mark.slow]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_product_and_a_sum_of_16_bits_are_not_one_operation(dtype: torch.dtype, seed: int) -> None:
    @helion.kernel
    def kernel(a, b):
        out = torch.empty([4, *a.shape], dtype=a.dtype, device=a.device)
        single = torch.empty_like(a)
        for t in hl.tile(a.size(0)):
            x, y = a[t], b[t]
            out[0, t] = x * y + x
            out[1, t] = x - x * y
            out[2, t] = x * y * 3 + 1
            out[3, t] = torch.where(y > 0, -(x * y), x)[:, None].expand(-1, 2).sum(1) + x
        for i in hl.grid(a.size(0)):
            single[i] = a[i] * b[i] + a[i]
        return out, single

    def reference(x, y):
        spread = torch.where(y > 0, -(x * y), x)[:, None].expand(-1, 2).sum(1) + x
        return torch.stack([x * y + x, x - x * y, x * y * 3 + 1, spread]), x * y + x

    a, b = torch.randn(500).to(dtype), torch.randn(500).to(dtype)
    for way in ways(kernel, (a, b), [{"block_sizes": [128]}], [80, 90]):
        torch.testing.assert_close(way.run(a, b), reference(a, b), rtol=0, atol=0, msg=lambda m: f"{way.name}: {m}")


@pytest.mark.parametrize("factor", [torch.int32, torch.int64, torch.uint8, torch.float64], ids=str)
def test_a_product_of_other_dtypes_is_converted_to_16_bits(factor: torch.dtype, seed: int) -> None:
    @helion.kernel
    def kernel(a, b):
        out = torch.empty([2, *b.shape], dtype=b.dtype, device=b.device)
        for t in hl.tile(b.size(0)):
            out[0, t] = (a[t] * 2).to(b.dtype) + b[t]
            out[1, t] = b[t] - (a[t] * a[t]).to(b.dtype)
        return out

    a = torch.randint(0, 9, [100]).to(factor)
    for dtype in (torch.float16, torch.bfloat16):
        b = torch.randn(100).to(dtype)
        expected = torch.stack([(a * 2).to(dtype) + b, b - (a * a).to(dtype)])
        for way in ways(kernel, (a, b), [{"block_sizes": [32]}], [80, 90]):
            torch.testing.assert_close(way.run(a, b), expected, rtol=0, atol=0, msg=lambda m: f"{way.name}: {m}")


def test_a_sum_of_products_is_one_number_in_all_lanes(seed: int) -> None:
    """Lanes with one element each rounded the products of others, and a loop that asks for the sum ended for half."""

    @helion.kernel
    def kernel(x, stop):
        out, steps = torch.empty_like(x), torch.empty_like(x)
        for b in hl.grid(x.size(0)):
            v = x[b, :]
            total = (v * v).sum()
            out[b, :] = v * 0 + total
            count = v * 0
            while total > stop[b]:
                v, count = v * 0.5, count + 1
                total = (v * v).sum()
            steps[b, :] = count
        return out, steps

    x = torch.randn(100, 32)
    for way in ways(kernel, (x, x[:, 0]), [{"num_warps": 1}], [80, 90]):
        sums, _ = way.run(x, torch.full([100], 1e9))
        assert (sums == sums[:, :1]).all(), way.name
        _, steps = way.run(x, sums.amin(1))
        assert (steps == 0).all(), way.name


def test_a_sum_of_products_by_a_function_of_the_users_is_one_number_in_all_lanes(seed: int) -> None:
    @helion.kernel
    def kernel(x, y):
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            total = hl.reduce(lambda a, b: a + b, x[t, :] * y[t, :], 1)
            out[t, :] = total[:, None] + x[t, :] * 0
        return out

    x, y = torch.randn(8, 16), torch.randn(8, 16)
    for way in ways(kernel, (x, y), [{"block_sizes": [4], "num_warps": 1}], [90]):
        out = way.run(x, y)
        assert torch.equal(out, out[:, :1].expand_as(out)), way.name
