"""Kernels with inputs and float64 references, run in every eager mode by test_modes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import torch

import helion.language as hl


@dataclasses.dataclass
class Case:
    """A kernel with inputs and what it should return.

    Attributes:
        kernel: the kernel function.
        make: generator -> arguments.
        expected: arguments (fresh copies) -> result or tuple of results.
        tolerance: largest absolute and relative error.
    """

    kernel: Callable[..., Any]
    make: Callable[[torch.Generator], tuple[Any, ...]]
    expected: Callable[..., Any]
    tolerance: float = 1e-5


CASES: dict[str, Case] = {}


def case(make: Callable[..., Any], expected: Callable[..., Any], tolerance: float = 1e-5) -> Callable[..., Any]:
    def add(kernel: Callable[..., Any]) -> Callable[..., Any]:
        CASES[kernel.__name__] = Case(kernel, make, expected, tolerance)
        return kernel

    return add


def randn(g: torch.Generator, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=g).to(dtype)


@case(lambda g: (randn(g, 129), randn(g, 129)), lambda x, y: x + y)
def add(x, y):
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


@case(lambda g: (randn(g, 33, 1), randn(g, 17)), lambda x, y: x + y)
def broadcast_add(x, y):
    x, y = torch.broadcast_tensors(x, y)
    out = torch.empty_like(x)
    for tile in hl.tile(out.size()):
        out[tile] = x[tile] + y[tile]
    return out


@case(lambda g: (randn(g, 33, 50),), lambda x: x.softmax(1))
def softmax_row(x):
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t, :] = torch.softmax(x[t, :], dim=1)
    return out


@case(lambda g: (randn(g, 20, 61),), lambda x: x.softmax(1))
def softmax_online(x):
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        m = hl.full([t], float("-inf"))
        s = hl.zeros([t])
        for k in hl.tile(x.size(1)):
            v = x[t, k]
            new = torch.maximum(m, v.amax(1))
            s = s * torch.exp(m - new) + torch.exp(v - new[:, None]).sum(1)
            m = new
        for k in hl.tile(x.size(1)):
            out[t, k] = torch.exp(x[t, k] - m[:, None]) / s[:, None]
    return out


@case(
    lambda g: (randn(g, 33, 70, dtype=torch.bfloat16), randn(g, 70, 20, dtype=torch.bfloat16)),
    lambda a, b: (a.double() @ b.double()).to(a.dtype),
    2e-2,
)
def matmul(a, b):
    m, k = a.shape
    _, n = b.shape
    out = torch.empty([m, n], dtype=a.dtype, device=a.device)
    for tm, tn in hl.tile([m, n]):
        acc = hl.zeros([tm, tn], dtype=torch.float32)
        for tk in hl.tile(k):
            acc = torch.addmm(acc, a[tm, tk], b[tk, tn])
        out[tm, tn] = acc
    return out


@case(lambda g: (randn(g, 3, 9, 17), randn(g, 3, 17, 6)), torch.bmm)
def batched_matmul(a, b):
    out = torch.empty([a.size(0), a.size(1), b.size(2)], dtype=a.dtype, device=a.device)
    for tb, tm, tn in hl.tile([a.size(0), a.size(1), b.size(2)]):
        acc = hl.zeros([tb, tm, tn])
        for tk in hl.tile(a.size(2)):
            acc = torch.baddbmm(acc, a[tb, tm, tk], b[tb, tk, tn])
        out[tb, tm, tn] = acc
    return out


@case(lambda g: (randn(g, 20, 64), randn(g, 64, 12)), lambda a, b: a @ b, 1e-4)
def split_k(a, b):
    out = torch.zeros([a.size(0), b.size(1)], dtype=a.dtype, device=a.device)
    for tm, tn, outer in hl.tile([a.size(0), b.size(1), a.size(1)], block_size=[None, None, 16]):
        acc = hl.zeros([tm, tn])
        for inner in hl.tile(outer.begin, outer.end):
            acc = torch.addmm(acc, a[tm, inner], b[inner, tn])
        hl.atomic_add(out, [tm, tn], acc)
    return out


@case(
    lambda g: (randn(g, 50, 8), torch.randint(0, 50, (33,), generator=g)),
    lambda table, index: table[index],
)
def embedding(table, index):
    out = torch.empty([index.size(0), table.size(1)], dtype=table.dtype, device=table.device)
    for t, e in hl.tile([index.size(0), table.size(1)]):
        out[t, e] = table[index[t], e]
    return out


def _segments(g: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    starts = torch.tensor([0, 10, 40, 40])
    return randn(g, 100), starts, torch.tensor([10, 40, 40, 100])


@case(_segments, lambda x, a, b: torch.stack([x[i:j].sum() for i, j in zip(a, b, strict=True)]))
def segment_sum(x, starts, ends):
    out = torch.empty([starts.size(0)], dtype=x.dtype, device=x.device)
    for i in hl.grid(starts.size(0)):
        acc = hl.zeros([])
        for t in hl.tile(starts[i], ends[i]):
            acc = acc + x[t].sum()
        out[i] = acc
    return out


@case(lambda g: (randn(g, 33, 50), randn(g, 50)), lambda x, w: x * torch.rsqrt((x * x).mean(1, True) + 1e-5) * w)
def rms_norm(x, weight):
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        v = x[t, :].to(torch.float32)
        inverse = torch.rsqrt((v * v).mean(dim=-1) + 1e-5)
        out[t, :] = (v * inverse[:, None] * weight[:].to(torch.float32)).to(x.dtype)
    return out


@case(
    lambda g: (randn(g, 3, 40, 16), randn(g, 3, 50, 16), randn(g, 3, 50, 16)),
    torch.nn.functional.scaled_dot_product_attention,
    1e-4,
)
def attention(q, k, v):
    out = torch.empty_like(q)
    hl.specialize(q.size(2))
    hl.specialize(k.size(2))
    hl.specialize(v.size(2))
    for b in hl.grid(q.size(0)):
        for tm in hl.tile(q.size(1)):
            m = hl.full([tm], float("-inf"))
            total = hl.zeros([tm])
            acc = hl.zeros([tm, 16])
            qs = q[b, tm, :] * 0.25
            for tn in hl.tile(k.size(1)):
                scores = torch.matmul(qs, k[b, tn, :].transpose(0, 1))
                new = torch.maximum(m, scores.amax(1))
                scale = torch.exp(m - new)
                p = torch.exp(scores - new[:, None])
                total = total * scale + p.sum(1)
                acc = torch.addmm(acc * scale[:, None], p, v[b, tn, :])
                m = new
            out[b, tm, :] = acc / total[:, None]
    return out


@case(
    lambda g: (torch.randint(0, 9, (300,), generator=g, dtype=torch.int32),),
    lambda x: torch.bincount(x, minlength=9).int(),
)
def histogram(x):
    out = torch.zeros([9], dtype=torch.int32, device=x.device)
    for t in hl.tile(x.size(0)):
        hl.atomic_add(out, [x[t]], 1)
    return out


@case(lambda g: (torch.randint(-3, 4, (40,), generator=g),), lambda x: torch.where(x > 0, x * 2, -x))
def branch_on_loaded_value(x):
    out = torch.empty_like(x)
    for i in hl.grid(x.size(0)):
        v = x[i]
        if v > 0:
            r = v * 2
        else:
            r = -v
        out[i] = r
    return out


@case(lambda g: (randn(g, 37),), lambda x: torch.nn.functional.pad(x, (1, 1))[:-2] + x)
def shifted(x):
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t - 1] + x[t]
    return out


@case(lambda g: (randn(g, 40),), lambda x: torch.nn.functional.pad(x, (0, 3))[3:])
def masked_load(x):
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        at = t.index + 3
        out[t] = hl.load(x, [at], extra_mask=at < x.size(0))
    return out


@case(lambda g: (randn(g, 9, 33, dtype=torch.float64),), lambda x: (x.cumsum(1), x.flip(1).cumprod(1).flip(1)))
def scans(x):
    sums, products = torch.empty_like(x), torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        v = x[t, :]
        sums[t, :] = hl.cumsum(v, 1)
        products[t, :] = hl.associative_scan(lambda a, b: a * b, v, 1, reverse=True)
    return sums, products


def _combine_argmax(value_a, index_a, value_b, index_b):
    take = (value_b > value_a) | ((value_b == value_a) & (index_b < index_a))
    return torch.where(take, value_b, value_a), torch.where(take, index_b, index_a)


@case(lambda g: (torch.randint(0, 5, (9, 32), generator=g).float(),), lambda x: (x.amax(1), x.argmax(1)))
def reduce_argmax(x):
    values = torch.empty([x.size(0)], dtype=x.dtype, device=x.device)
    indices = torch.empty([x.size(0)], dtype=torch.int64, device=x.device)
    for t in hl.tile(x.size(0)):
        v = x[t, :]
        at = hl.arange(32, dtype=torch.int64)[None, :].expand_as(v)
        best, where = hl.reduce(_combine_argmax, (v, at), 1, other=(float("-inf"), 0))
        values[t], indices[t] = best, where
    return values, indices


@case(
    lambda g: (torch.empty(20, 30), 1234),
    lambda x, s: hl.philox_rand.eager_rule(s, torch.arange(600).reshape(20, 30)),
    0,
)
def uniform(x, seed):
    for tm, tn in hl.tile([x.size(0), x.size(1)]):
        x[tm, tn] = hl.rand([tm, tn], seed)
    return x


@case(lambda g: (randn(g, 20, 8),), lambda x: (x[:, ::2], torch.stack([x, x + 1], -1)))
def split_and_join(x):
    even = torch.empty([x.size(0), 4], dtype=x.dtype, device=x.device)
    both = torch.empty([x.size(0), 8, 2], dtype=x.dtype, device=x.device)
    for t in hl.tile(x.size(0)):
        v = x[t, :]
        left, _ = hl.split(v.reshape(t, 4, 2))
        even[t, :] = left
        both[t, :, :] = hl.join(v, v + 1)
    return even, both


@case(lambda g: (randn(g, 5, 30),), lambda x: x.sum(0).expand(5, 30) + 0)
def two_phases(x):
    out = torch.empty_like(x)
    partial = torch.empty([x.size(1)], dtype=x.dtype, device=x.device)
    for t in hl.tile(x.size(1)):
        partial[t] = x[:, t].sum(0)
    hl.barrier()
    for tm, tn in hl.tile([x.size(0), x.size(1)]):
        out[tm, tn] = partial[tn][None, :] + hl.zeros([tm, tn])
    return out


@case(lambda g: (randn(g, 9, 150),), lambda x: (x.sum(1), x.amax(1), x.sum(1) - 1))
def lane_accumulators(x):
    block = hl.register_block_size(16, 64)
    sums = torch.empty([x.size(0)], dtype=x.dtype, device=x.device)
    largest = torch.empty_like(sums)
    shifted = torch.empty_like(sums)
    for t in hl.tile(x.size(0)):
        acc = hl.zeros([t, block])
        top = hl.full([t, block], float("-inf"))
        other = hl.zeros([t, block])
        for k in hl.tile(x.size(1), block_size=block):
            v = x[t, k]
            acc = acc + v
            top = torch.maximum(v, top)
            other += v
        sums[t] = acc.sum(1)
        largest[t] = top.amax(1)
        shifted[t] = other.sum(1) - 1
    return sums, largest, shifted


def _ragged(g: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    offsets = torch.tensor([0, 3, 3, 53, 54, 71, 71])
    return randn(g, 71), offsets


@case(_ragged, lambda x, o: torch.stack([x[a:b].sum() for a, b in itertools.pairwise(o.tolist())]))
def jagged_sum(data, offsets):
    rows = offsets.size(0) - 1
    out = torch.empty([rows], dtype=data.dtype, device=data.device)
    for t in hl.tile(rows):
        starts = offsets[t]
        lengths = offsets[t.index + 1] - starts
        acc = hl.zeros([t])
        for k in hl.jagged_tile(lengths):
            acc = acc + data[starts[:, None] + k.index[None, :]].sum(1)
        out[t] = acc
    return out


@case(lambda g: (randn(g, 50), 2.5, 3), lambda x, a, n: x * a * 3 + n)
def scalar_arguments(x, scale, n):
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        acc = hl.zeros([t])
        for _ in hl.static_range(3):
            acc = acc + x[t] * scale
        out[t] = acc + n
    return out
