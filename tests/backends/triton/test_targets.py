"""8-bit floats on each GPU: what works is right, what the GPU lacks is an error of ours."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from tests.support import CAPABILITIES
from tests.support import run_everywhere

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2


@helion.kernel(config=helion.Config(block_sizes=[32]))
def there_and_back(x: torch.Tensor, narrow: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rounded, widened = torch.empty_like(x), torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        rounded[tile] = x[tile].to(narrow.dtype).to(torch.float32)
        widened[tile] = narrow[tile].to(torch.float32)
    return rounded, widened


@helion.kernel(config=helion.Config(block_sizes=[16, 16, 32]))
def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    out = torch.empty([a.size(0), b.size(1)], dtype=torch.float32, device=a.device)
    for tile_m, tile_n in hl.tile([a.size(0), b.size(1)]):
        acc = hl.zeros([tile_m, tile_n], dtype=torch.float32)
        for tile_k in hl.tile(a.size(1)):
            acc = hl.dot(a[tile_m, tile_k], b[tile_k, tile_n], acc=acc)
        out[tile_m, tile_n] = acc
    return out


@helion.kernel(config=helion.Config(block_sizes=[32, 32]))
def scaled_product(
    a: torch.Tensor, sa: torch.Tensor, fmt_a: hl.constexpr, b: torch.Tensor, sb: torch.Tensor, fmt_b: hl.constexpr
) -> torch.Tensor:
    out = torch.empty([a.size(0), b.size(1)], dtype=torch.float32, device=a.device)
    for tile_m, tile_n in hl.tile([a.size(0), b.size(1)]):
        out[tile_m, tile_n] = hl.dot_scaled(a[tile_m, :], sa[tile_m, :], fmt_a, b[:, tile_n], sb[tile_n, :], fmt_b)
    return out


def capabilities_of(dtype: torch.dtype) -> list[int]:
    return [c for c in CAPABILITIES if dtype is E5M2 or c >= 89]


@pytest.mark.parametrize("dtype", [E4M3, E5M2], ids=str)
def test_conversions_of_partial_tiles(dtype, seed):
    args = (torch.randn(50) * 8, (torch.randn(50) * 8).to(dtype))
    expected = (args[0].to(dtype).float(), args[1].float())
    run_everywhere(there_and_back, args, lambda *_: expected, error_scale=0, capabilities=capabilities_of(dtype))


@pytest.mark.parametrize("dtype", [E4M3, E5M2], ids=str)
def test_products(dtype, seed):
    args = (torch.randn(20, 40).to(dtype), torch.randn(40, 24).to(dtype))
    run_everywhere(
        product,
        args,
        lambda a, b: a.double() @ b.double(),
        reference_args=args,
        error_scale=32,
        capabilities=capabilities_of(dtype),
    )


def check_refused(kernel, args, match):
    with pytest.raises(helion.exc.BackendUnsupported, match=match) as caught:
        helion.Kernel(kernel.fn, configs=kernel.configs, settings=kernel.settings)(*args)
    assert caught.value.location is not None


@pytest.mark.softgpu(capability=80, software_only=True)
def test_float8_e4m3fn_needs_sm_89(softgpu):
    args = (torch.randn(50), torch.randn(50).to(E4M3))
    check_refused(there_and_back, args, r"torch.float8_e4m3fn needs compute capability 8.9 or later, this GPU has 8.0")


def test_dot_scaled_with_float16_on_sm_80(seed):
    scale = torch.full((32, 2), 127, dtype=torch.uint8)
    bits = torch.randint(0, 255, (32, 32), dtype=torch.uint8)
    args = (bits, scale, "e2m1", torch.randn(64, 32).half(), scale, "fp16")
    table = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    table = torch.cat([table, -table]).double()
    left = table[torch.stack([bits & 0xF, bits >> 4], -1).flatten(1).long()]
    expected = left @ args[3].double()
    run_everywhere(scaled_product, args, lambda *_: expected, reference_args=args, error_scale=100, capabilities=[80])
