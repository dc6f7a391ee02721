"""Kernels with one synchronisation that may be left out, as PTX and as Triton, for tests of the race detector."""

# mypy: ignore-errors
# Triton's language is not typed for mypy.

from __future__ import annotations

import triton
import triton.language as tl

#: Thread t of a CTA stores t to word t of `words`; after `{sync}` it loads word `t ^ {other}` and stores it to out[t].
#: `{before}` and `{after}` come before and after the two.
_EXCHANGE = """
.visible .entry kernel(.param .u64 out, .param .u64 scratch) {{
  .reg .pred %p<8>; .reg .b32 %r<16>; .reg .b64 %rd<16>;
  .shared .align 16 .b8 words[4096];
  mov.u32 %r1, %tid.x; mov.u32 %r9, %ctaid.x;
  ld.param.u64 %rd1, [out]; ld.param.u64 %rd6, [scratch];
  mov.u32 %r2, words;
  mad.lo.u32 %r3, %r1, 4, %r2; mad.wide.u32 %rd7, %r1, 4, %rd6;
  xor.b32 %r4, %r1, {other};
  mad.lo.u32 %r5, %r4, 4, %r2; mad.wide.u32 %rd8, %r4, 4, %rd6;
  {before}
  {store}
  {sync}
  {load}
  mad.wide.u32 %rd2, %r1, 4, %rd1;
  st.global.b32 [%rd2], %r6;
  {after}
  ret;
}}"""
_ACCESS = {
    "shared": {"store": "st.shared.b32 [%r3], %r1;", "load": "ld.shared.b32 %r6, [%r5];"},
    "global": {"store": "st.global.b32 [%rd7], %r1;", "load": "ld.global.b32 %r6, [%rd8];"},
    "bytes": {"store": "st.global.b8 [%rd7+3], %r1;", "load": "ld.global.b8 %r6, [%rd8+3];"},
}


def exchange(space: str, other: int, sync: str, before: str = "", after: str = "") -> str:
    """(out, scratch): each thread reads what thread ``t ^ other`` wrote to ``space``: "shared", "global" or "bytes"."""
    return _EXCHANGE.format(other=other, sync=sync, before=before, after=after, **_ACCESS[space])


#: Warp 0 fills 32 words, warp 1 reads them; `{release}` and `{acquire}` are what each does between.
_PRODUCER = """
.visible .entry kernel(.param .u64 out, .param .u64 data, .param .u64 flag) {{
  .reg .pred %p<8>; .reg .b32 %r<16>; .reg .b64 %rd<16>;
  .shared .align 16 .b8 words[256];
  ld.param.u64 %rd1, [out]; ld.param.u64 %rd2, [data]; ld.param.u64 %rd3, [flag];
  mov.u32 %r1, %tid.x; and.b32 %r2, %r1, 31;
  mov.u32 %r10, words;
  setp.ne.u32 %p5, %r2, 0;
  mad.wide.u32 %rd4, %r2, 4, %rd2; mad.wide.u32 %rd5, %r2, 4, %rd1;
  {start}
  {who}
  setp.ge.u32 %p1, %r3, 1;
  @%p1 bra CONSUMER;
  st.global.b32 [%rd4], %r2;
  {release}
  bra END;
CONSUMER:
  {acquire}
  ld.global.b32 %r4, [%rd4];
  st.global.b32 [%rd5], %r4;
END:
  ret;
}}"""


def producer(release: str, acquire: str, *, blocks: bool = False, start: str = "") -> str:
    """(out, data, flag): the first warp (or block) writes, the second reads."""
    who = "mov.u32 %r3, %ctaid.x;" if blocks else "shr.u32 %r3, %r1, 5;"
    return _PRODUCER.format(release=release, acquire=acquire, who=who, start=start)


#: Publishing a flag, and waiting for it, with the modifiers of the access and a fence.
def publish(modifiers: str, fence: str = "", sync: str = "bar.warp.sync -1;") -> str:
    return f"{sync} {fence} @!%p5 st{modifiers}.global.b32 [%rd3], 1;"


def await_flag(modifiers: str, fence: str = "", sync: str = "bar.warp.sync -1;") -> str:
    return f"AGAIN: ld{modifiers}.global.b32 %r5, [%rd3]; setp.eq.u32 %p2, %r5, 0; @%p2 bra AGAIN; {fence} {sync}"


@triton.jit
def reverse_row(scratch, out, N: tl.constexpr, BARRIER: tl.constexpr):
    """Stores a row, and loads it backwards in the same program."""
    i = tl.arange(0, N)
    tl.store(scratch + i, i)
    if BARRIER:
        tl.debug_barrier()
    tl.store(out + i, tl.load(scratch + N - 1 - i))


@triton.jit
def shift_in_place(x, steps, N: tl.constexpr, BARRIER: tl.constexpr):
    """Steps of a loop, each of which reads what the last stored beside it: a race around the back edge."""
    i = tl.arange(0, N)
    for _ in range(steps):
        v = tl.load(x + (i + 1) % N)
        if BARRIER:
            tl.debug_barrier()
        tl.store(x + i, v)
        if BARRIER:
            tl.debug_barrier()


@triton.jit
def floyd_warshall(d, N: tl.constexpr, BARRIER: tl.constexpr):
    i = tl.arange(0, N)
    for k in range(N):
        through = tl.load(d + i * N + k)[:, None] + tl.load(d + k * N + i)[None, :]
        here = tl.load(d + i[:, None] * N + i[None, :])
        if BARRIER:
            tl.debug_barrier()
        tl.store(d + i[:, None] * N + i[None, :], tl.minimum(here, through))
        if BARRIER:
            tl.debug_barrier()


@triton.jit
def lu_in_place(a, N: tl.constexpr, BARRIER: tl.constexpr):
    i = tl.arange(0, N)
    at = a + i[:, None] * N + i[None, :]
    for k in range(N - 1):
        pivot = tl.load(a + k * N + k)
        column = tl.load(a + i * N + k)
        row = tl.load(a + k * N + i)
        here = tl.load(at)
        if BARRIER:
            tl.debug_barrier()
        factor = column / pivot
        new = tl.where(i[None, :] == k, factor[:, None], here - factor[:, None] * row[None, :])
        tl.store(at, tl.where((i[:, None] > k) & (i[None, :] >= k), new, here))
        if BARRIER:
            tl.debug_barrier()


@triton.jit
def same_value(x, out, N: tl.constexpr):
    """Every program stores the same value to the same place, and every warp of it a replica of a small tile."""
    tl.store(out, tl.load(x))
    i = tl.arange(0, N)
    mine = x + 64 + tl.program_id(0) * N + i
    tl.store(mine, tl.load(mine) + 1)


@triton.jit
def neighbours(x, N: tl.constexpr, APART: tl.constexpr):
    """Programs that write what others read, or (``APART``) read their own."""
    p = tl.program_id(0)
    i = tl.arange(0, N)
    source = p if APART else (p + 1) % tl.num_programs(0)
    tl.store(x + p * N + i, tl.load(x + source * N + i) + 1)


@triton.jit
def fill(x, value, N: tl.constexpr):
    tl.store(x + tl.arange(0, N), value)
