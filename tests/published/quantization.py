"""Kernels that quantize, and products of what is quantized."""

from __future__ import annotations

import torch

import helion.language as hl

from .table import Published
from .table import integers
from .table import randn


def per_token_quant_int8(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    q = torch.empty_like(x, dtype=torch.int8)
    scales = torch.empty([x.size(0), 1], dtype=torch.float32, device=x.device)
    for row in hl.tile(x.size(0)):
        values = x[row, :].to(torch.float32)
        scale = torch.clamp(values.abs().amax(-1), min=1e-10) / 127.0
        scales[row, 0] = scale
        q[row, :] = torch.round(values / scale[:, None]).to(torch.int8)
    return q, scales


def per_token_quant_int8_reference(x):
    x = x.float()
    scale = x.abs().amax(-1, keepdim=True).clamp(min=1e-10) / 127.0
    return torch.round(x / scale).to(torch.int8), scale


def per_group_quant_fp8(x: torch.Tensor, group: hl.constexpr) -> tuple[torch.Tensor, torch.Tensor]:
    m, n = x.size()
    q = torch.empty([m, n], dtype=torch.float8_e4m3fn, device=x.device)
    scales = torch.empty([m, n // group], dtype=torch.float32, device=x.device)
    for row in hl.tile(m):
        for g in hl.grid(n // group):
            values = x[row, g * group : (g + 1) * group].to(torch.float32)
            scale = values.abs().amax(-1).clamp(min=1e-10) / 448.0
            scales[row, g] = scale
            q[row, g * group : g * group + group] = (values / scale[:, None]).to(torch.float8_e4m3fn)
    return q, scales


def per_group_quant_fp8_reference(x, group):
    grouped = x.float().unflatten(1, (-1, group))
    scale = grouped.abs().amax(-1).clamp(min=1e-10) / 448.0
    return (grouped / scale[..., None]).to(torch.float8_e4m3fn).flatten(1), scale


def w8a8_block_int8_matmul(
    a: torch.Tensor, b: torch.Tensor, a_scale: torch.Tensor, b_scale: torch.Tensor, block: hl.constexpr
) -> torch.Tensor:
    m, k = a.size()
    n = b.size(0)
    out = torch.empty([m, n], dtype=torch.float32, device=a.device)
    for tm, tn in hl.tile([m, n]):
        acc = hl.zeros([tm, tn], dtype=torch.float32)
        for tk in hl.tile(k, block_size=block):
            product = hl.dot(a[tm, tk], b[tn, tk].T, out_dtype=torch.int32)
            scale = a_scale[tm, tk.id][:, None] * b_scale[tn.index // block, tk.id][None, :]
            acc += product.to(torch.float32) * scale
        out[tm, tn] = acc
    return out


def w8a8_block_int8_matmul_reference(a, b, a_scale, b_scale, block):
    wide_a = a.double() * a_scale.repeat_interleave(block, 1)
    wide_b = b.double() * b_scale.repeat_interleave(block, 0).repeat_interleave(block, 1)[: b.size(0)]
    return wide_a @ wide_b.T


def int4_weight_only_matmul(x: torch.Tensor, packed: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    m, k = x.size()
    n = packed.size(1)
    out = torch.empty([m, n], dtype=x.dtype, device=x.device)
    k = hl.specialize(k)
    bk = hl.register_block_size(16, 64)
    for tm, tn in hl.tile([m, n]):
        acc = hl.zeros([tm, tn], dtype=torch.float32)
        for tk in hl.tile(k // 2, block_size=bk):
            both = packed[tk, tn]
            low = (both & 15).to(torch.float32) - 8
            high = ((both >> 4) & 15).to(torch.float32) - 8
            weight = torch.stack([low, high], dim=1).reshape([tk.block_size * 2, tn.block_size])
            acc = hl.dot(x[tm, tk.begin * 2 : tk.begin * 2 + tk.block_size * 2], weight, acc=acc)
        out[tm, tn] = acc * scales[tn]
    return out


def int4_weight_only_matmul_reference(x, packed, scales):
    low, high = (packed.int() & 15) - 8, (packed.int() >> 4) - 8
    weight = torch.stack([low.to(x.dtype), high.to(x.dtype)], 1).flatten(0, 1)
    return x @ weight * scales


def awq_dequantize(
    packed: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, group: hl.constexpr
) -> torch.Tensor:
    k, columns = packed.size()
    out = torch.empty([k, columns * 8], dtype=scales.dtype, device=scales.device)
    for tk, tc in hl.tile([k, columns]):
        lane = hl.arange(8)
        shifts = ((lane % 2) * 4 + lane // 2) * 4  # the order 0 4 1 5 2 6 3 7 of AWQ
        weight = (packed[tk, tc][:, :, None] >> shifts[None, None, :]) & 15
        zero = (zeros[tk.index // group, tc][:, :, None] >> shifts[None, None, :]) & 15
        columns_out = tc.index[:, None] * 8 + lane[None, :]
        scale = scales[(tk.index // group)[:, None, None], columns_out[None, :, :]]
        out[tk.index[:, None, None], columns_out[None, :, :]] = (weight - zero).to(scales.dtype) * scale
    return out


def awq_dequantize_reference(packed, scales, zeros, group):
    shifts = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7]) * 4
    wide = [(x[..., None] >> shifts & 15).flatten(1) for x in (packed, zeros)]
    return (wide[0] - wide[1].repeat_interleave(group, 0)).to(scales.dtype) * scales.repeat_interleave(group, 0)


ROWS = {
    "per_token_quant_int8": Published(
        per_token_quant_int8, lambda rng: (randn(rng, 7, 50),), per_token_quant_int8_reference, "SGLang"
    ),
    "per_group_quant_fp8": Published(
        per_group_quant_fp8, lambda rng: (randn(rng, 7, 64), 16), per_group_quant_fp8_reference, "DeepSeek"
    ),
    "w8a8_block_int8_matmul": Published(
        w8a8_block_int8_matmul,
        lambda rng: (
            integers(rng, -128, 128, 20, 64).to(torch.int8),
            integers(rng, -128, 128, 40, 64).to(torch.int8),
            torch.rand(20, 2, generator=rng),
            torch.rand(2, 2, generator=rng),
            32,
        ),
        w8a8_block_int8_matmul_reference,
        "vLLM",
        256,
    ),
    "int4_weight_only_matmul": Published(
        int4_weight_only_matmul,
        lambda rng: (randn(rng, 10, 128), integers(rng, 0, 256, 64, 24).to(torch.uint8), randn(rng, 24)),
        int4_weight_only_matmul_reference,
        "torchao",
        512,
    ),
    "awq_dequantize": Published(
        awq_dequantize,
        lambda rng: (
            integers(rng, -(2**31), 2**31, 16, 5).int(),
            randn(rng, 2, 40),
            integers(rng, -(2**31), 2**31, 2, 5).int(),
            8,
        ),
        awq_dequantize_reference,
        "vLLM",
    ),
}
