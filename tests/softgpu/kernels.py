"""Triton kernels that the tests of the software GPU run: each one exercises an area of PTX."""

# mypy: ignore-errors
# Triton's language is not typed for mypy.

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra import libdevice

from helion.runtime.triton_helpers import hlt_grid_barrier


@triton.jit
def add(x, y, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    tl.store(out + i, tl.load(x + i, mask=mask) + tl.load(y + i, mask=mask), mask=mask)


@triton.jit
def softmax(x, out, n, stride, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    v = tl.load(x + row * stride + column, mask=column < n, other=-float("inf"))
    e = tl.exp(v - tl.max(v, 0))
    tl.store(out + row * stride + column, e / tl.sum(e, 0), mask=column < n)


@triton.jit
def layer_norm(x, weight, bias, out, n, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    mask = column < n
    v = tl.load(x + row * n + column, mask=mask, other=0.0).to(tl.float32)
    centred = tl.where(mask, v - tl.sum(v, 0) / n, 0.0)
    rstd = 1 / tl.sqrt(tl.sum(centred * centred, 0) / n + eps)
    w = tl.load(weight + column, mask=mask).to(tl.float32)
    b = tl.load(bias + column, mask=mask).to(tl.float32)
    tl.store(out + row * n + column, centred * rstd * w + b, mask=mask)


@triton.jit
def matmul(
    a,
    b,
    c,
    M,
    N,
    K,
    sam,
    sak,
    sbk,
    sbn,
    scm,
    scn,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    ACC: tl.constexpr,
):
    rm = tl.program_id(0) * BM + tl.arange(0, BM)
    rn = tl.program_id(1) * BN + tl.arange(0, BN)
    rk = tl.arange(0, BK)
    acc = tl.zeros((BM, BN), dtype=ACC)
    for k in range(0, K, BK):
        x = tl.load(
            a + rm[:, None] * sam + (k + rk)[None, :] * sak, mask=(rm[:, None] < M) & ((k + rk)[None, :] < K), other=0.0
        )
        y = tl.load(
            b + (k + rk)[:, None] * sbk + rn[None, :] * sbn, mask=((k + rk)[:, None] < K) & (rn[None, :] < N), other=0.0
        )
        acc = tl.dot(x, y, acc, out_dtype=ACC)
    tl.store(
        c + rm[:, None] * scm + rn[None, :] * scn,
        acc.to(c.dtype.element_ty),
        mask=(rm[:, None] < M) & (rn[None, :] < N),
    )


@triton.jit
def integer_atomics(x, out, n, BLOCK: tl.constexpr):
    """Six tables of 16 at ``out``, one an operation, indexed by value % 16."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    v = tl.load(x + i, mask=mask, other=0)
    key = v % 16
    tl.atomic_add(out + key, v, mask=mask)
    tl.atomic_max(out + 16 + key, v, mask=mask)
    tl.atomic_min(out + 32 + key, v, mask=mask)
    tl.atomic_xor(out + 48 + key, v, mask=mask)
    tl.atomic_and(out + 64 + key, v, mask=mask)
    tl.atomic_or(out + 80 + key, v, mask=mask)


@triton.jit
def float_atomic_add(x, key, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.atomic_add(out + tl.load(key + i, mask=i < n, other=0), tl.load(x + i, mask=i < n, other=0.0), mask=i < n)


@triton.jit
def exchange_and_cas(x, swapped, old, taken):
    i = tl.arange(0, 128)
    tl.store(old + i, tl.atomic_xchg(swapped + i, tl.load(x + i)))
    tl.atomic_cas(taken + tl.program_id(0) % 2, 0, tl.program_id(0) + 1)


@triton.jit
def ticket_lock(lock, counter):
    """Every program adds one to ``counter``, without an atomic, holding a lock."""
    while tl.atomic_cas(lock, 0, 1) == 1:
        pass
    tl.store(counter, tl.load(counter, volatile=True) + 1)
    tl.debug_barrier()
    tl.atomic_xchg(lock, 0)


@triton.jit
def rounds_of_neighbours(counts, ROUNDS: tl.constexpr):
    """In every round each program adds one and what its neighbour had to its own count."""
    i, n = tl.program_id(0), tl.num_programs(0)
    for _ in range(ROUNDS):
        theirs = tl.load(counts + (i + 1) % n)
        hlt_grid_barrier(False)
        tl.store(counts + i, tl.load(counts + i) + theirs + 1)
        hlt_grid_barrier(False)


@triton.jit
def nothing(x):
    """A kernel that does nothing."""


@triton.jit
def last_program_sums(x, partial, done, out, BLOCK: tl.constexpr, PROGRAMS: tl.constexpr):
    """The program that comes last adds up what all stored: order through an acquire-release counter."""
    i = tl.arange(0, BLOCK)
    tl.store(partial + tl.program_id(0), tl.sum(tl.load(x + tl.program_id(0) * BLOCK + i), 0))
    tl.debug_barrier()
    if tl.atomic_add(done, 1) == PROGRAMS - 1:
        tl.store(out, tl.sum(tl.load(partial + tl.arange(0, PROGRAMS), volatile=True), 0))


@triton.jit
def _plus(a, b):
    return a + b


@triton.jit
def scans(x, forward, backward, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    v = tl.load(x + i)
    tl.store(forward + i, tl.cumsum(v, 0))
    tl.store(backward + i, tl.associative_scan(v, 0, _plus, reverse=True))


@triton.jit
def sort_and_gather(x, index, ordered, gathered, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    v = tl.load(x + i)
    tl.store(ordered + i, tl.sort(v))
    tl.store(gathered + i, tl.gather(v, tl.load(index + i), 0))


@triton.jit
def philox(raw, uniform, normal, seed, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(raw + i, tl.randint(seed, i))
    tl.store(uniform + i, tl.rand(seed, i))
    tl.store(normal + i, tl.randn(seed, i))


@triton.jit
def print_values(x, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.device_print("value", tl.load(x + i))
    tl.device_print("count %", n)


@triton.jit
def check_below(x, limit, BLOCK: tl.constexpr):
    v = tl.load(x + tl.arange(0, BLOCK))
    tl.device_assert(v < limit, "too large")


@triton.jit
def elementary(x, out, n, BLOCK: tl.constexpr):
    """Rows of ``out``: elementary functions of x, in the order of ELEMENTARY."""
    i = tl.arange(0, BLOCK)
    v = tl.load(x + i)
    tl.store(out + 0 * n + i, tl.exp(v))
    tl.store(out + 1 * n + i, tl.log(v))
    tl.store(out + 2 * n + i, tl.sin(v))
    tl.store(out + 3 * n + i, tl.cos(v))
    tl.store(out + 4 * n + i, tl.sqrt_rn(v))
    tl.store(out + 5 * n + i, tl.rsqrt(v))
    tl.store(out + 6 * n + i, tl.erf(v))
    tl.store(out + 7 * n + i, tl.floor(v))
    tl.store(out + 8 * n + i, tl.ceil(v))
    tl.store(out + 9 * n + i, libdevice.tanh(v))
    tl.store(out + 10 * n + i, libdevice.pow(v, 1.5))
    tl.store(out + 11 * n + i, tl.div_rn(1.0, v))
    tl.store(out + 12 * n + i, tl.fma(v, v, v))
    tl.store(out + 13 * n + i, tl.exp2(v))
    tl.store(out + 14 * n + i, tl.log2(v))
    tl.store(out + 15 * n + i, libdevice.atan2(v, 2.0))
    tl.store(out + 16 * n + i, libdevice.rint(v))
    tl.store(out + 17 * n + i, libdevice.trunc(v))
    tl.store(out + 18 * n + i, tl.sigmoid(v))
    tl.store(out + 19 * n + i, libdevice.lgamma(v))
    tl.store(out + 20 * n + i, libdevice.log1p(v))
    tl.store(out + 21 * n + i, 1.0 / v)


ELEMENTARY = (
    "exp", "log", "sin", "cos", "sqrt", "rsqrt", "erf", "floor", "ceil", "tanh", "pow", "reciprocal", "fma", "exp2",
    "log2",
    "atan2", "rint", "trunc", "sigmoid", "lgamma", "log1p", "divide",
)  # fmt: skip


@triton.jit
def cast(x, out, BLOCK: tl.constexpr):
    """Converts x to out's element type, rounding as Triton does by default."""
    i = tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i).to(out.dtype.element_ty))


@triton.jit
def integer_ops(x, y, out, n, BLOCK: tl.constexpr):
    """Rows of ``out``: quotient, remainder, shifts, high product, bit operations."""
    i = tl.arange(0, BLOCK)
    a = tl.load(x + i)
    b = tl.load(y + i)
    tl.store(out + 0 * n + i, a // b)
    tl.store(out + 1 * n + i, a % b)
    tl.store(out + 2 * n + i, a >> (b & 31))
    tl.store(out + 3 * n + i, a << (b & 31))
    tl.store(out + 4 * n + i, tl.abs(a))
    tl.store(out + 5 * n + i, tl.minimum(a, b))
    tl.store(out + 6 * n + i, tl.maximum(a, b))
    tl.store(out + 7 * n + i, ~a ^ b)
    tl.store(out + 8 * n + i, tl.umulhi(a, b))
    tl.store(out + 9 * n + i, libdevice.clz(a))
    tl.store(out + 10 * n + i, libdevice.popc(a))
    tl.store(out + 11 * n + i, libdevice.brev(a))


@triton.jit
def small_float_ops(x, y, out, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    a = tl.load(x + i)
    b = tl.load(y + i)
    tl.store(out + 0 * n + i, a + b)
    tl.store(out + 1 * n + i, tl.maximum(a, b))
    tl.store(out + 2 * n + i, tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL))
    tl.store(out + 3 * n + i, tl.where(a < b, a, -b))
    tl.store(out + 4 * n + i, a / b)
    tl.store(out + 5 * n + i, tl.abs(a))
    tl.store(out + 6 * n + i, a * b - a)


@triton.jit
def reductions(x, columns, rows, index_of_max, index_of_min, M: tl.constexpr, N: tl.constexpr):
    i = tl.arange(0, M)
    j = tl.arange(0, N)
    v = tl.load(x + i[:, None] * N + j[None, :])
    tl.store(columns + j, tl.sum(v, 0))
    tl.store(rows + i, tl.max(v, 1))
    tl.store(index_of_max + j, tl.argmax(v, 0))
    tl.store(index_of_min + i, tl.argmin(v, 1))


@triton.jit
def transpose(x, out, M: tl.constexpr, N: tl.constexpr):
    i = tl.arange(0, M)
    j = tl.arange(0, N)
    v = tl.load(x + i[:, None] * N + j[None, :])
    tl.store(out + j[:, None] * M + i[None, :], tl.trans(v))


@triton.jit
def histogram(x, out, BLOCK: tl.constexpr, BINS: tl.constexpr):
    tl.store(out + tl.arange(0, BINS), tl.histogram(tl.load(x + tl.arange(0, BLOCK)), BINS))


@triton.jit
def uneven_work(x, out, BLOCK: tl.constexpr):
    """Even programs double, odd ones add 0 + 1 + ... + (program - 1)."""
    p = tl.program_id(0)
    i = p * BLOCK + tl.arange(0, BLOCK)
    v = tl.load(x + i)
    if p % 2 == 0:
        v = v * 2
    else:
        k = 0
        while k < p:
            v = v + k
            k += 1
    tl.store(out + i, v)


@triton.jit(noinline=True)
def _weighted(v, w):
    return v * w + 1


@triton.jit
def calls_a_function(x, out, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    v = tl.load(x + i)
    total = tl.sum(v, 0)
    tl.store(out + tl.program_id(0), _weighted(_weighted(total, 2.0), 3.0))


@triton.jit
def copy_by_descriptor(source, target, BM: tl.constexpr, BN: tl.constexpr):
    """Doubles a matrix, tile by tile, through two tensor descriptors made on the host."""
    i = tl.program_id(0) * BM
    j = tl.program_id(1) * BN
    target.store([i, j], source.load([i, j]) * 2)


@triton.jit
def transpose_by_device_descriptor(x, out, M, N, B: tl.constexpr):
    """Transposes through descriptors made in the kernel."""
    source = tl.make_tensor_descriptor(x, shape=[M, N], strides=[N, 1], block_shape=[B, B])
    target = tl.make_tensor_descriptor(out, shape=[N, M], strides=[M, 1], block_shape=[B, B])
    i = tl.program_id(0) * B
    j = tl.program_id(1) * B
    target.store([j, i], source.load([i, j]).T)


@triton.jit
def matmul_by_descriptor(a, b, c, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, SPECIALIZE: tl.constexpr):
    """A matrix product through TMA, with its loads in warps of their own if ``SPECIALIZE``."""
    i = tl.program_id(0) * BM
    j = tl.program_id(1) * BN
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for k in tl.range(0, K, BK, warp_specialize=SPECIALIZE):
        acc = tl.dot(a.load([i, k]), b.load([k, j]), acc)
    c.store([i, j], acc.to(c.dtype))
