"""`hl.dot_scaled` in the forms that models come in: mxfp8, mxfp4, nvfp4, and weights alone; unpacking fp4 by hand."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from helion.cross_compile import cross_compile
from tests.support import run_everywhere

E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
DTYPES = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2, "bf16": torch.bfloat16, "fp16": torch.float16}


def operand(rows: int, k: int, fmt: str, scales: str | None) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """[rows, k] as it is stored, its scales, and its values."""
    if fmt == "e2m1":
        bits = torch.randint(0, 16, (rows, k))
        stored, values = (bits[:, ::2] | bits[:, 1::2] << 4).to(torch.uint8), E2M1[bits].double()
    else:
        stored = torch.randn(rows, k).to(DTYPES[fmt])
        values = stored.double()
    if scales is None:
        return stored, None, values
    if scales == "nv":
        scale = (torch.rand(rows, k // 16) * 4 + 0.1).to(torch.float8_e4m3fn)
        return stored, scale, values * scale.double().repeat_interleave(16, 1)
    exponents = torch.randint(110, 140, (rows, k // 32), dtype=torch.uint8)
    return stored, exponents, values * torch.exp2(exponents.double() - 127).repeat_interleave(32, 1)


@helion.kernel(config=helion.Config(block_sizes=[16, 32]))
def product(a, sa, fmt_a: hl.constexpr, b, sb, fmt_b: hl.constexpr) -> torch.Tensor:
    out = torch.empty([a.size(0), b.size(1)], dtype=torch.float32, device=a.device)
    for m, n in hl.tile([a.size(0), b.size(1)]):
        left = None if sa is None else sa[m, :]
        right = None if sb is None else sb[n, :]
        out[m, n] = hl.dot_scaled(a[m, :], left, fmt_a, b[:, n], right, fmt_b)
    return out


FORMS = {
    "mxfp8": ("e4m3", "mx", "e4m3", "mx"),
    "mxfp8 of both kinds": ("e5m2", "mx", "e4m3", "mx"),
    "mxfp4": ("e2m1", "mx", "e2m1", "mx"),
    "nvfp4": ("e2m1", "nv", "e2m1", "nv"),
    "mxfp4 weights": ("bf16", None, "e2m1", "mx"),
    "nvfp4 weights": ("bf16", None, "e2m1", "nv"),
    "mxfp4 weights with fp16": ("fp16", None, "e2m1", "mx"),
    "mxfp8 with mxfp4": ("e4m3", "mx", "e2m1", "mx"),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str, seed: int) -> None:
    fmt_a, scales_a, fmt_b, scales_b = FORMS[form]
    a, sa, left = operand(20, 64, fmt_a, scales_a)
    b, sb, right = operand(40, 64, fmt_b, scales_b)
    expected = left @ right.T
    args = (a, sa, fmt_a, b.T.contiguous(), sb, fmt_b)
    # The values themselves are exact; sums are float32.
    scale = float(expected.abs().max())
    run_everywhere(
        product,
        args,
        lambda *_: expected,
        reference_args=args,
        configs=[product.configs[0]],
        error_scale=max(32.0, 2 * scale),
        capabilities=[90],
    )


@pytest.mark.parametrize("scales", ["mx", "nv"])
def test_beside_a_product_over_as_many_as_there_are_groups(scales: str, seed: int) -> None:
    """Its operands are padded, and the scales were with them: a group had fewer elements."""

    def function(a, sa, b, sb, c, d) -> tuple[torch.Tensor, torch.Tensor]:
        out = torch.empty([a.size(0), b.size(1)], dtype=torch.float32, device=a.device)
        other = torch.empty([a.size(0), b.size(1)], dtype=torch.float32, device=a.device)
        for m, n in hl.tile([a.size(0), b.size(1)]):
            out[m, n] = hl.dot_scaled(a[m, :], sa[m, :], "e2m1", b[:, n], sb[n, :], "e2m1")
            other[m, n] = c[m, :].float() @ d[:, n].float()
        return out, other

    a, sa, left = operand(20, 64, "e2m1", scales)
    b, sb, right = operand(40, 64, "e2m1", scales)
    assert sa is not None
    c, d = torch.randint(-4, 4, (20, sa.size(1))), torch.randint(-4, 4, (sa.size(1), 40))
    expected = left @ right.T, (c @ d).double()
    args = (a, sa, b.T.contiguous(), sb, c, d)
    run_everywhere(
        function,
        args,
        lambda *_: expected,
        reference_args=args,
        configs=[{"block_sizes": [16, 32]}],
        error_scale=max(32.0, 2 * float(expected[0].abs().max())),
        capabilities=[90],
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.compiles
def test_forms_compile_for_blackwell(form: str, seed: int) -> None:
    fmt_a, scales_a, fmt_b, scales_b = FORMS[form]
    a, sa, _ = operand(256, 128, fmt_a, scales_a)
    b, sb, _ = operand(256, 128, fmt_b, scales_b)
    args = (a, sa, fmt_a, b.T.contiguous(), sb, fmt_b)
    (stages,) = cross_compile(product.bind(args), args, {"block_sizes": [128, 128]}, 100)
    scaled = {"nvfp4": "mxf4nvf4", "mxfp4": "mxf4", "mxfp8": "mxf8f6f4"}
    assert scaled.get(form, "mma") in stages["ptx"]


@helion.kernel(config=helion.Config(block_sizes=[16, 16, 64]))
def in_steps(a: torch.Tensor, sa: torch.Tensor, b: torch.Tensor, sb: torch.Tensor) -> torch.Tensor:
    out = torch.empty([a.size(0), b.size(1)], dtype=torch.float32, device=a.device)
    block = hl.register_block_size(32, 128)
    for m, n in hl.tile([a.size(0), b.size(1)]):
        acc = hl.zeros([m, n])
        for k in hl.tile(a.size(1) * 2, block_size=block):
            begin, group = k.begin // 2, k.begin // 16
            acc = hl.dot_scaled(
                a[m, begin : begin + block // 2],
                sa[m, group : group + block // 16],
                "e2m1",
                b[begin : begin + block // 2, n],
                sb[n, group : group + block // 16],
                "e2m1",
                acc,
            )
        out[m, n] = acc
    return out


def test_a_loop_over_k_takes_parts_of_values_and_scales(seed: int) -> None:
    a, sa, left = operand(20, 160, "e2m1", "nv")
    b, sb, right = operand(24, 160, "e2m1", "nv")
    args = (a, sa, b.T.contiguous(), sb)
    configs = [{"block_sizes": [64, 16, 16]}]
    kernel = helion.kernel(in_steps.fn)
    run_everywhere(
        kernel,
        args,
        lambda *_: left @ right.T,
        reference_args=args,
        configs=configs,
        error_scale=1000,
        capabilities=[90],
    )


def dequantize(packed: torch.Tensor, scale: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    out = torch.empty([packed.size(0), packed.size(1) * 2], dtype=torch.float32, device=packed.device)
    for m, n in hl.tile([packed.size(0), packed.size(1)], block_size=[None, 8]):
        pair = packed[m, n].to(torch.int32)
        low, high = table[pair & 0xF], table[pair >> 4]
        values = torch.stack([low, high], dim=-1).reshape(m, n.block_size * 2)
        out[m, n.begin * 2 : n.begin * 2 + n.block_size * 2] = values * scale[m, n.id][:, None].to(torch.float32)
    return out


def test_unpacking_fp4_by_a_table(seed: int) -> None:
    packed, scale, values = operand(20, 64, "e2m1", "nv")
    run_everywhere(
        dequantize, (packed, scale, E2M1), lambda *_: values, reference_args=(packed,), error_scale=0, capabilities=[90]
    )


def test_scales_of_nvfp4_are_of_fp4() -> None:
    a, _, _ = operand(16, 64, "e4m3", None)
    scale = torch.ones(16, 4).to(torch.float8_e4m3fn)
    with pytest.raises(exc.UnsupportedDtype, match="goes with the format 'e2m1'"):
        product(a, scale, "e4m3", a.T.contiguous(), None, "e4m3")


def test_float_scales_are_refused_with_what_to_pass() -> None:
    a, _, _ = operand(16, 64, "e4m3", None)
    with pytest.raises(exc.UnsupportedDtype, match="uint8 exponents"):
        product(a, torch.ones(16, 2), "e4m3", a.T.contiguous(), None, "e4m3")


def copies(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(0)], dtype=torch.float32, device=x.device)
    for t in hl.tile(x.size(0)):
        out[t] = x[t].to(torch.float32)
    return out


@pytest.mark.parametrize("name", ["float8_e8m0fnu", "float4_e2m1fn_x2"])
def test_dtypes_without_arithmetic_are_refused_with_what_to_pass(name: str) -> None:
    dtype = getattr(torch, name, None)
    if dtype is None:
        pytest.skip(f"this PyTorch has no {name}")
    stored = torch.arange(8, dtype=torch.uint8)
    with pytest.raises(exc.UnsupportedDtype, match=r"pass x\.view\(torch\.uint8\)"):
        helion.kernel(copies)(stored.view(dtype))
    assert torch.equal(helion.kernel(copies)(stored.view(dtype).view(torch.uint8)), torch.arange(8.0))
