"""One computation written in five ways each: what a compiler must not care about.

Attention, a matrix product and a norm, with dimensions of one here and there: tiles of one matrix of a batch, numbers
in their place, `None`, `keepdim`, views.  `FORMS` has them with arguments and a Config; in each family it is the same
schedule, so the machine code should be too.  `codegen.py` counts it, `defaults_gpu.py` times it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch

import helion
import helion.language as hl

LOG2_E = math.log2(math.e)


# -- attention: softmax(q @ k.T / sqrt(head)) @ v for [batch, n, head] ----------------------------------------------


def attention_of_matrices(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """A batch's index is a number, and all values are matrices and vectors."""
    head = hl.specialize(q.size(-1))
    scale = LOG2_E / math.sqrt(head)
    out = torch.empty_like(q)
    for one, rows in hl.tile([q.size(0), q.size(1)], block_size=[1, None]):
        query = q[one.begin, rows, :]
        largest = hl.full([rows], float("-inf"))
        total = hl.zeros([rows])
        acc = hl.zeros([rows, head])
        for columns in hl.tile(k.size(1)):
            scores = hl.dot(query, k[one.begin, columns, :].t(), out_dtype=torch.float32)
            grown = torch.maximum(largest, scores.amax(1) * scale)
            weights = torch.exp2(scores * scale - grown[:, None])
            shrink = torch.exp2(largest - grown)
            total = total * shrink + weights.sum(1)
            acc = hl.dot(weights.to(v.dtype), v[one.begin, columns, :], acc=acc * shrink[:, None])
            largest = grown
        out[one.begin, rows, :] = acc / total[:, None]
    return out


def attention_of_batches(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Tiles of three dimensions, products of batches."""
    head = hl.specialize(q.size(-1))
    scale = LOG2_E / math.sqrt(head)
    out = torch.empty_like(q)
    turned = k.transpose(1, 2)
    for batch, rows in hl.tile([q.size(0), q.size(1)]):
        query = q[batch, rows, :]
        largest = hl.full([batch, rows], float("-inf"))
        total = torch.zeros_like(largest)
        acc = hl.zeros([batch, rows, head])
        for columns in hl.tile(k.size(1)):
            scores = torch.baddbmm(hl.zeros([batch, rows, columns]), query, turned[batch, :, columns])
            grown = torch.maximum(largest, torch.amax(scores, -1) * scale)
            weights = torch.exp2(scores * scale - grown[:, :, None])
            shrink = torch.exp2(largest - grown)
            total = total * shrink + weights.sum(-1)
            acc = torch.baddbmm(acc * shrink[:, :, None], weights.to(v.dtype), v[batch, columns, :])
            largest = grown
        out[batch, rows, :] = (acc / total[:, :, None]).to(out.dtype)
    return out


def attention_of_kept_dimensions(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Reductions that keep their dimension, and a carried state of [1, rows, 1]."""
    head = hl.specialize(q.size(-1))
    scale = LOG2_E / math.sqrt(head)
    out = torch.empty_like(q)
    for batch, rows in hl.tile([q.size(0), q.size(1)]):
        largest = hl.full([batch, rows, 1], float("-inf"))
        total = hl.zeros([batch, rows, 1])
        acc = hl.zeros([batch, rows, head])
        for columns in hl.tile(k.size(1)):
            scores = hl.dot(q[batch, rows, :], k[batch, columns, :].transpose(1, 2), out_dtype=torch.float32)
            grown = torch.maximum(largest, scores.amax(dim=-1, keepdim=True) * scale)
            weights = torch.exp2(scores * scale - grown)
            shrink = torch.exp2(largest - grown)
            total = total * shrink + weights.sum(dim=-1, keepdim=True)
            acc = hl.dot(weights.to(v.dtype), v[batch, columns, :], acc=acc * shrink)
            largest = grown
        out[batch, rows, :] = acc / total
    return out


def attention_of_grid(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """`hl.grid` over the batch, and a new dimension of one in every load."""
    head = hl.specialize(q.size(-1))
    scale = LOG2_E / math.sqrt(head)
    out = torch.empty_like(q)
    for one in hl.grid(q.size(0)):
        for rows in hl.tile(q.size(1)):
            query = q[one, None, rows, :]
            largest = hl.full([1, rows], float("-inf"))
            total = hl.zeros([1, rows])
            acc = hl.zeros([1, rows, head])
            for columns in hl.tile(k.size(1)):
                scores = hl.dot(query, k[one, None, columns, :].permute(0, 2, 1), out_dtype=torch.float32)
                grown = torch.maximum(largest, scores.amax(2) * scale)
                weights = torch.exp2(scores * scale - grown.unsqueeze(2))
                shrink = torch.exp2(largest - grown)
                total = total * shrink + weights.sum(2)
                acc = hl.dot(weights.to(v.dtype), v[one, None, columns, :], acc=acc * shrink.unsqueeze(-1))
                largest = grown
            out[one, rows, :] = (acc / total.unsqueeze(-1)).squeeze(0)
    return out


def attention_of_heads(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Tiles of four dimensions, two of one."""
    head = hl.specialize(q.size(-1))
    scale = LOG2_E / math.sqrt(head)
    out = torch.empty_like(q)
    queries, keys, values, outs = (t[:, None] for t in (q, k, v, out))
    for batch, heads, rows in hl.tile([q.size(0), 1, q.size(1)], block_size=[1, 1, None]):
        query = queries[batch, heads, rows, :]
        largest = hl.full([batch, heads, rows], float("-inf"))
        total = torch.zeros_like(largest)
        acc = hl.zeros([batch, heads, rows, head])
        for columns in hl.tile(k.size(1)):
            scores = hl.dot(query, keys[batch, heads, columns, :].mT, out_dtype=torch.float32)
            grown = torch.maximum(largest, scores.amax(-1) * scale)
            weights = torch.exp2(scores * scale - grown[..., None])
            shrink = torch.exp2(largest - grown)
            total = total * shrink + weights.sum(-1)
            acc = hl.dot(weights.to(v.dtype), values[batch, heads, columns, :], acc=acc * shrink[..., None])
            largest = grown
        outs[batch, heads, rows, :] = acc / total[..., None]
    return out


# -- a product: x [m, k] @ y [k, n] -----------------------------------------------------------------------------------


def matmul_of_matrices(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Matrices."""
    out = torch.empty([x.size(0), y.size(1)], dtype=x.dtype, device=x.device)
    for rows, columns in hl.tile(out.shape):
        acc = hl.zeros([rows, columns])
        for inner in hl.tile(x.size(1)):
            acc = torch.addmm(acc, x[rows, inner], y[inner, columns])
        out[rows, columns] = acc
    return out


def matmul_of_batches(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A batch of one, by views of the tensors."""
    out = torch.empty([x.size(0), y.size(1)], dtype=x.dtype, device=x.device)
    xs, ys, outs = x[None], y[None], out[None]
    for batch, rows, columns in hl.tile([1, x.size(0), y.size(1)], block_size=[1, None, None]):
        acc = hl.zeros([batch, rows, columns])
        for inner in hl.tile(x.size(1)):
            acc = torch.baddbmm(acc, xs[batch, rows, inner], ys[batch, inner, columns])
        outs[batch, rows, columns] = acc
    return out


def matmul_of_new_dimensions(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A new dimension at each load."""
    out = torch.empty([x.size(0), y.size(1)], dtype=x.dtype, device=x.device)
    for rows, columns in hl.tile(out.shape):
        acc = hl.zeros([1, rows, columns])
        for inner in hl.tile(x.size(1)):
            acc = hl.dot(x[None, rows, inner], y[inner, columns][None, :, :], acc=acc)
        out[rows, columns] = acc.squeeze(0)
    return out


def matmul_of_middle_dimension(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A running sum of [rows, 1, columns]."""
    out = torch.empty([x.size(0), y.size(1)], dtype=x.dtype, device=x.device)
    for rows, columns in hl.tile(out.shape):
        acc = hl.zeros([rows, 1, columns])
        for inner in hl.tile(x.size(1)):
            acc = acc + hl.dot(x[rows, inner], y[inner, columns])[:, None, :]
        out[rows, columns] = acc.reshape([rows, columns])
    return out


def matmul_of_turned(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Operands that are views of transposes, and a running sum with two more dimensions."""
    out = torch.empty([x.size(0), y.size(1)], dtype=x.dtype, device=x.device)
    turned = x.t()
    for rows, columns in hl.tile(out.shape):
        acc = hl.zeros([1, rows, columns, 1])
        for inner in hl.tile(x.size(1)):
            acc += hl.dot(turned[inner, rows].t(), y[inner, columns])[None, :, :, None]
        out[rows, columns] = acc.view([rows, columns])
    return out


# -- a norm: x * rsqrt(mean(x * x) + eps) * weight ---------------------------------------------------------------------


def norm_of_rows(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Tiles of rows."""
    out = torch.empty_like(x)
    for rows in hl.tile(x.size(0)):
        values = x[rows, :].to(torch.float32)
        scale = torch.rsqrt(torch.mean(values * values, dim=1) + 1e-5)
        out[rows, :] = values * scale[:, None] * weight[:].to(torch.float32)
    return out


def norm_of_kept_dimensions(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A mean that keeps its dimension, and a weight that has one more."""
    out = torch.empty_like(x)
    for rows in hl.tile(x.size(0)):
        values = x[rows, :].to(torch.float32)
        scale = torch.rsqrt((values * values).mean(-1, keepdim=True) + 1e-5)
        out[rows, :] = values * scale * weight[None, :].to(torch.float32)
    return out


def norm_of_vectors(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Numbers for rows."""
    out = torch.empty_like(x)
    for row in hl.grid(x.size(0)):
        values = x[row, :].to(torch.float32)
        scale = torch.rsqrt(torch.mean(values * values, -1) + 1e-5)
        out[row, :] = values * scale * weight[:].to(torch.float32)
    return out


def norm_of_batches(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Rows of a batch of one."""
    out = torch.empty_like(x)
    xs, outs = x[None], out[None]
    for batch, rows in hl.tile([1, x.size(0)], block_size=[1, None]):
        values = xs[batch, rows, :].float()
        scale = torch.rsqrt(torch.mean(values * values, dim=-1) + 1e-5)
        outs[batch, rows, :] = values * scale[:, :, None] * weight[None, None, :].float()
    return out


def norm_of_views(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Rows as columns and back."""
    out = torch.empty_like(x)
    for rows in hl.tile(x.size(0), block_size=1):
        values = x[rows, :].to(torch.float32).permute(1, 0)
        scale = torch.rsqrt(torch.mean(values * values, dim=0, keepdim=True) + 1e-5)
        scaled = values * scale * weight[:].to(torch.float32).view([x.size(1), 1])
        out[rows, :] = scaled.permute(1, 0)
    return out


@dataclasses.dataclass(frozen=True)
class Form:
    """One way to write a computation.

    Attributes:
        family: the computation.
        kernel: the kernel, without a Config.
        blocks: how many block sizes it leaves open, beside those of its family that all forms have.
    """

    family: str
    kernel: helion.Kernel
    blocks: int = 0

    @property
    def name(self) -> str:
        return self.kernel.name


@dataclasses.dataclass(frozen=True)
class Family:
    """What its forms have in common.

    Attributes:
        make_args: `make_args(size, dtype, device)` -> arguments.
        reference: the same in PyTorch.
        size: a realistic call's.
        small: a quick call's; odd on purpose.
        block_sizes: of the Config under which forms are compared.
        options: the rest of it.
    """

    make_args: Callable[..., tuple[torch.Tensor, ...]]
    reference: Callable[..., torch.Tensor]
    size: tuple[int, ...]
    small: tuple[int, ...]
    block_sizes: tuple[int, ...]
    options: dict[str, Any]


def _attention_args(size: tuple[int, ...], dtype: torch.dtype, device: str) -> tuple[torch.Tensor, ...]:
    batch, n, head = size
    return tuple(torch.randn(batch, n, head, device=device).to(dtype) for _ in range(3))


def _matmul_args(size: tuple[int, ...], dtype: torch.dtype, device: str) -> tuple[torch.Tensor, ...]:
    m, k, n = size
    return (torch.randn(m, k, device=device) / k**0.5).to(dtype), torch.randn(k, n, device=device).to(dtype)


def _norm_args(size: tuple[int, ...], dtype: torch.dtype, device: str) -> tuple[torch.Tensor, ...]:
    return torch.randn(size, device=device).to(dtype), torch.randn(size[1], device=device).to(dtype)


def _attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The batch as heads: of three dimensions PyTorch writes all scores to memory, which takes 28 times as long."""
    return torch.nn.functional.scaled_dot_product_attention(q[None], k[None], v[None])[0]


def _norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.rms_norm(x, [x.size(1)], weight, 1e-5)


FAMILIES = {
    "attention": Family(
        _attention_args,
        _attention,
        (64, 2048, 64),
        (3, 70, 32),
        (64, 64),
        {"num_warps": 4, "num_stages": 3},
    ),
    "matmul": Family(
        _matmul_args,
        torch.mm,
        (4096, 4096, 4096),
        (70, 50, 90),
        (128, 128, 64),
        {"num_warps": 4, "num_stages": 3},
    ),
    "norm": Family(_norm_args, _norm, (8192, 4096), (5, 300), (), {"num_warps": 8}),
}


def _forms() -> list[Form]:
    # A batch whose size a kernel leaves open comes first among its block sizes, and is one.
    written = {
        "attention": (
            (attention_of_matrices, 0),
            (attention_of_batches, 1),
            (attention_of_kept_dimensions, 1),
            (attention_of_grid, 0),
            (attention_of_heads, 0),
        ),
        "matmul": (
            (matmul_of_matrices, 0),
            (matmul_of_batches, 0),
            (matmul_of_new_dimensions, 0),
            (matmul_of_middle_dimension, 0),
            (matmul_of_turned, 0),
        ),
        "norm": (
            (norm_of_rows, 1),
            (norm_of_kept_dimensions, 1),
            (norm_of_vectors, 0),
            (norm_of_batches, 1),
            (norm_of_views, 0),
        ),
    }
    return [Form(family, helion.kernel(fn), ones) for family, forms in written.items() for fn, ones in forms]


FORMS = {form.name: form for form in _forms()}


def config_of(form: Form) -> helion.Config:
    """The schedule under which the forms of a family are compared."""
    family = FAMILIES[form.family]
    return helion.Config(block_sizes=[*[1] * form.blocks, *family.block_sizes], **family.options)
