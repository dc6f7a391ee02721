"""Single PTX instructions against what the PTX ISA says they compute, on edge values and random ones.

Triton's kernels (test_triton_kernels.py) cover the common instructions; these are the ones it emits seldom or never.
"""

from __future__ import annotations

import functools
import math
import operator
import struct
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch

from tests.softgpu.ptx import PtxKernel

pytestmark = pytest.mark.softgpu(capability=100, software_only=True)

M32, M64 = 2**32 - 1, 2**64 - 1
LANES = 64

#: How a type is kept in memory and in a register.
_STORAGE = {16: ("b16", torch.int16), 32: ("b32", torch.int32), 64: ("b64", torch.int64)}


def run(body: str, inputs: list[tuple[int, list[int]]], out_bits: int, declare: str = "") -> list[int]:
    """Run ``body`` in 64 threads. It reads registers a, b, c, ... (inputs: bits and unsigned values) and writes d."""
    loads, params, args = [], [], []
    for i, (bits, values) in enumerate(inputs):
        kind, dtype = _STORAGE[bits]
        name = "abcefg"[i]
        params.append(f".param .u64 p{i}")
        loads.append(
            f".reg .{kind} {name};\n"
            f" ld.param.u64 addr, [p{i}]; mad.wide.u32 addr, tid, {bits // 8}, addr; "
            f"ld.global.{kind} {name}, [addr];"
        )
        signed = [v - (1 << bits) if v >> (bits - 1) else v for v in values]
        args.append(torch.tensor(signed, dtype=dtype))
    kind, dtype = _STORAGE[out_bits]
    out = torch.zeros(LANES, dtype=dtype)
    text = f"""
.visible .entry kernel({", ".join([*params, ".param .u64 result"])}) {{
 .reg .b32 tid; .reg .b64 addr; .reg .{kind} d; .reg .pred p, q; {declare}
 mov.u32 tid, %tid.x;
 {chr(10).join(loads)}
 {body}
 ld.param.u64 addr, [result]; mad.wide.u32 addr, tid, {out_bits // 8}, addr; st.global.{kind} [addr], d;
 ret;
}}"""
    PtxKernel(text, target="sm_100a")(1, LANES, *args, out)
    return [v % (1 << out_bits) for v in out.tolist()]


def words(bits: int, seed: int) -> list[int]:
    """Edge values, then random ones."""
    top = 1 << bits
    edges = [0, 1, 2, 31, 32, 33, 63, 64, 255, 256, top - 1, top - 2, top // 2, top // 2 - 1, top // 2 + 1, top // 3]
    generator = torch.Generator().manual_seed(seed)
    high, low = (torch.randint(0, 2**32, (LANES,), generator=generator).tolist() for _ in range(2))
    return ([e % top for e in edges] + [((h << 32) | x) % top for h, x in zip(high, low)])[:LANES]


def signed(v: int, bits: int) -> int:
    return v - (1 << bits) if v >> (bits - 1) else v


def f32(v: int) -> float:
    return struct.unpack("<f", struct.pack("<I", v))[0]


def bits32(v: float) -> int:
    return struct.unpack("<I", struct.pack("<f", v))[0]


A, B, C = words(32, 1), words(32, 2), words(32, 3)
A64, B64, C64 = words(64, 4), words(64, 5), words(64, 6)


def _prmt(a: int, b: int, s: int) -> int:
    data = (b << 32 | a).to_bytes(8, "little")
    out = []
    for i in range(4):
        n = s >> (4 * i) & 15
        byte = data[n & 7]
        out.append((0xFF if byte & 0x80 else 0) if n & 8 else byte)
    return int.from_bytes(bytes(out), "little")


def _bfe(a: int, pos: int, length: int, bits: int, is_signed: bool) -> int:
    pos, length = pos & 255, length & 255
    if length == 0:
        return 0
    sign_at = min(pos + length - 1, bits - 1)
    fill = is_signed and a >> sign_at & 1
    out = 0
    for i in range(bits):
        bit = (a >> (pos + i)) & 1 if i < length and pos + i < bits else int(bool(fill))
        out |= bit << i
    return out


def _bfi(a: int, b: int, pos: int, length: int) -> int:
    pos, length = pos & 255, length & 255
    for i in range(length):
        if pos + i < 32:
            b = b & ~(1 << (pos + i)) | (a >> i & 1 if i < 32 else 0) << (pos + i)
    return b


def _lop3(a: int, b: int, c: int, table: int) -> int:
    return sum(((table >> ((a >> i & 1) << 2 | (b >> i & 1) << 1 | c >> i & 1)) & 1) << i for i in range(32))


THREE_WORDS: dict[str, Callable[[int, int, int], int]] = {
    "prmt.b32 d, a, b, c;": lambda a, b, c: _prmt(a, b, c),
    "prmt.b32.f4e d, a, b, c;": lambda a, b, c: ((b << 32 | a) >> (8 * (c & 3))) & M32,
    "prmt.b32.rc8 d, a, b, c;": lambda a, b, c: ((a >> (8 * (c & 3))) & 255) * 0x01010101,
    "prmt.b32.rc16 d, a, b, c;": lambda a, b, c: ((a >> (16 * (c & 1))) & 0xFFFF) * 0x00010001,
    "bfe.u32 d, a, b, c;": lambda a, b, c: _bfe(a, b, c, 32, False),
    "bfe.s32 d, a, b, c;": lambda a, b, c: _bfe(a, b, c, 32, True),
    "lop3.b32 d, a, b, c, 0x96;": lambda a, b, c: a ^ b ^ c,
    "lop3.b32 d, a, b, c, 0xca;": lambda a, b, c: _lop3(a, b, c, 0xCA),
    "shf.l.wrap.b32 d, a, b, c;": lambda a, b, c: ((b << 32 | a) << (c & 31) >> 32) & M32,
    "shf.l.clamp.b32 d, a, b, c;": lambda a, b, c: ((b << 32 | a) << min(c, 32) >> 32) & M32,
    "shf.r.wrap.b32 d, a, b, c;": lambda a, b, c: ((b << 32 | a) >> (c & 31)) & M32,
    "shf.r.clamp.b32 d, a, b, c;": lambda a, b, c: ((b << 32 | a) >> min(c, 32)) & M32,
    "mad.lo.s32 d, a, b, c;": lambda a, b, c: (a * b + c) & M32,
    "mad.hi.u32 d, a, b, c;": lambda a, b, c: ((a * b >> 32) + c) & M32,
    "mad.hi.s32 d, a, b, c;": lambda a, b, c: ((signed(a, 32) * signed(b, 32) >> 32) + c) & M32,
    "sad.s32 d, a, b, c;": lambda a, b, c: (abs(signed(a, 32) - signed(b, 32)) + c) & M32,
    "sad.u32 d, a, b, c;": lambda a, b, c: (abs(a - b) + c) & M32,
    "dp4a.u32.u32 d, a, b, c;": lambda a, b, c: (
        (sum((a >> i & 255) * (b >> i & 255) for i in (0, 8, 16, 24)) + c) & M32
    ),
    "dp4a.s32.u32 d, a, b, c;": lambda a, b, c: (
        (sum(signed(a >> i & 255, 8) * (b >> i & 255) for i in (0, 8, 16, 24)) + c) & M32
    ),
    "slct.b32.s32 d, a, b, c;": lambda a, b, c: a if signed(c, 32) >= 0 else b,
}


@pytest.mark.parametrize("text", THREE_WORDS)
def test_three_words(softgpu, text):
    assert run(text, [(32, A), (32, B), (32, C)], 32) == [THREE_WORDS[text](a, b, c) & M32 for a, b, c in zip(A, B, C)]


TWO_WORDS: dict[str, Callable[[int, int], int]] = {
    "add.sat.s32 d, a, b;": lambda a, b: max(-(2**31), min(2**31 - 1, signed(a, 32) + signed(b, 32))),
    "sub.sat.s32 d, a, b;": lambda a, b: max(-(2**31), min(2**31 - 1, signed(a, 32) - signed(b, 32))),
    "mul.hi.s32 d, a, b;": lambda a, b: signed(a, 32) * signed(b, 32) >> 32,
    "mul24.lo.u32 d, a, b;": lambda a, b: (a & 0xFFFFFF) * (b & 0xFFFFFF),
    "shl.b32 d, a, b;": lambda a, b: a << b if b < 32 else 0,
    "shr.u32 d, a, b;": lambda a, b: a >> b if b < 32 else 0,
    "shr.s32 d, a, b;": lambda a, b: signed(a, 32) >> min(b, 31),
    "bmsk.clamp.b32 d, a, b;": lambda a, b: (((1 << min(b, 32)) - 1) << a) if a < 32 else 0,
    "bmsk.wrap.b32 d, a, b;": lambda a, b: ((1 << (b & 31)) - 1) << (a & 31),
    "szext.clamp.s32 d, a, b;": lambda a, b: signed(a & ((1 << b) - 1), b) if 0 < b < 32 else (0 if b == 0 else a),
    "szext.clamp.u32 d, a, b;": lambda a, b: a & ((1 << b) - 1) if b < 32 else a,
    "add.s16x2 d, a, b;": lambda a, b: a + b & 0xFFFF | (a >> 16) + (b >> 16) << 16,
    "min.s16x2 d, a, b;": lambda a, b: sum(
        (min(signed(a >> i & 0xFFFF, 16), signed(b >> i & 0xFFFF, 16)) & 0xFFFF) << i for i in (0, 16)
    ),
    "max.u16x2 d, a, b;": lambda a, b: sum(max(a >> i & 0xFFFF, b >> i & 0xFFFF) << i for i in (0, 16)),
    "setp.lo.u32 p, a, b; selp.b32 d, 1, 0, p;": lambda a, b: int(a < b),
    "setp.hs.u32 p, a, b; selp.b32 d, 1, 0, p;": lambda a, b: int(a >= b),
    "setp.gt.s32 p|q, a, b; selp.b32 d, 1, 0, q;": lambda a, b: int(not signed(a, 32) > signed(b, 32)),
    "setp.ne.s32 q, a, 1; setp.eq.xor.s32 p, b, 2, !q; selp.b32 d, 1, 0, p;": lambda a, b: int((b == 2) != (a == 1)),
    "set.ge.u32.s32 d, a, b;": lambda a, b: M32 if signed(a, 32) >= signed(b, 32) else 0,
    "set.lt.f32.u32 d, a, b;": lambda a, b: 0x3F800000 if a < b else 0,
    "copysign.f32 d, a, b;": lambda a, b: a & 0x80000000 | b & 0x7FFFFFFF,
    "{ .reg .b16 x, y; mov.b32 {x, _}, a; mov.b32 {_, y}, b; mov.b32 d, {y, x}; }": lambda a, b: (
        (a & 0xFFFF) << 16 | b >> 16
    ),
    "{ .reg .b8 x; .reg .b16 s; cvt.u8.u32 s, a; cvt.s32.s8 d, s; add.u32 d, d, b; }": lambda a, b: (
        signed(a & 255, 8) + b
    ),
    "cvt.pack.sat.s16.s32 d, a, b;": lambda a, b: (
        (max(-32768, min(32767, signed(a, 32))) & 0xFFFF) << 16 | max(-32768, min(32767, signed(b, 32))) & 0xFFFF
    ),
}


@pytest.mark.parametrize("text", TWO_WORDS)
def test_two_words(softgpu, text):
    if "szext" in text or "bmsk" in text or text.startswith("sh"):
        b_values = [v % 40 for v in B]
        a_values = [v % 40 for v in A] if "bmsk" in text else A
    else:
        a_values, b_values = A, B
    assert run(text, [(32, a_values), (32, b_values)], 32) == [
        TWO_WORDS[text](a, b) & M32 for a, b in zip(a_values, b_values)
    ]


def _fns(mask: int, base: int, n: int) -> int:
    if n == 0:
        return base if mask >> base & 1 else M32
    positions = [i for i in (range(base, 32) if n > 0 else range(base, -1, -1)) if mask >> i & 1]
    return positions[abs(n) - 1] if abs(n) <= len(positions) else M32


def test_fns_finds_the_nth_set_bit(softgpu):
    base, n = [v % 32 for v in B], [v % 9 - 4 for v in C]
    got = run("fns.b32 d, a, b, c;", [(32, A), (32, base), (32, [v & M32 for v in n])], 32)
    assert got == [_fns(a, b, c) for a, b, c in zip(A, base, n)]


def test_bfi_inserts_a_field(softgpu):
    pos, length = [v % 40 for v in B], [v % 40 for v in C]
    got = run("bfi.b32 d, a, 0x5a5a5a5a, b, c;", [(32, A), (32, pos), (32, length)], 32)
    assert got == [_bfi(a, 0x5A5A5A5A, p, n) for a, p, n in zip(A, pos, length)]


ONE_WORD: dict[str, Callable[[int], int]] = {
    "bfind.u32 d, a;": lambda a: a.bit_length() - 1,
    "bfind.shiftamt.u32 d, a;": lambda a: 32 - a.bit_length() if a else M32,
    "bfind.s32 d, a;": lambda a: (a if a < 2**31 else ~a & M32).bit_length() - 1,
    "cnot.b32 d, a;": lambda a: int(a == 0),
    "not.b32 d, a;": lambda a: ~a,
    "neg.s32 d, a;": lambda a: -a,
    "abs.s32 d, a;": lambda a: abs(signed(a, 32)),
    "cvt.sat.u8.s32 d, a;": lambda a: max(0, min(255, signed(a, 32))),
    "cvt.sat.s8.u32 d, a;": lambda a: min(127, a),
    "isspacep.shared p, 0; selp.b32 d, 1, 0, p;": lambda a: 0,
}


@pytest.mark.parametrize("text", ONE_WORD)
def test_one_word(softgpu, text):
    if "cvt.sat" in text:
        text_in = "{ .reg .b16 s; " + text.replace(" d,", " s,") + " cvt.u32.u16 d, s; }"
        assert [v & 0xFF for v in run(text_in, [(32, A)], 32)] == [ONE_WORD[text](a) & 0xFF for a in A]
        return
    assert run(text, [(32, A)], 32) == [ONE_WORD[text](a) & M32 for a in A]


def test_a_128_bit_addition_with_carries(softgpu):
    """(a, b) + (c, c) as low and high halves of 32 bits each, then borrow back."""
    body = "{ .reg .b32 lo, hi; add.cc.u32 lo, a, c; addc.u32 hi, b, c; mov.b64 d, {lo, hi}; }"
    got = run(body, [(32, A), (32, B), (32, C)], 64)
    assert got == [((b << 32 | a) + (c << 32 | c)) & M64 for a, b, c in zip(A, B, C)]
    body = "{ .reg .b32 lo, hi; sub.cc.u32 lo, a, c; subc.u32 hi, b, c; mov.b64 d, {lo, hi}; }"
    got = run(body, [(32, A), (32, B), (32, C)], 64)
    assert got == [((b << 32 | a) - (c << 32 | c)) & M64 for a, b, c in zip(A, B, C)]


def test_a_wide_product_from_mad_with_carries(softgpu):
    """a * b + (c, c): low with mad.lo.cc, high with madc.hi."""
    body = "{ .reg .b32 lo, hi; mad.lo.cc.u32 lo, a, b, c; madc.hi.u32 hi, a, b, c; mov.b64 d, {lo, hi}; }"
    got = run(body, [(32, A), (32, B), (32, C)], 64)
    assert got == [(a * b + (c << 32 | c)) & M64 for a, b, c in zip(A, B, C)]


WIDE: dict[str, Callable[[int, int], int]] = {
    "mul.lo.u64 d, a, b;": lambda a, b: a * b,
    "mul.hi.u64 d, a, b;": lambda a, b: a * b >> 64,
    "mul.hi.s64 d, a, b;": lambda a, b: signed(a, 64) * signed(b, 64) >> 64,
    "div.u64 d, a, b;": lambda a, b: a // b if b else M64,
    "rem.u64 d, a, b;": lambda a, b: a % b if b else a,
    "max.s64 d, a, b;": lambda a, b: max(signed(a, 64), signed(b, 64)),
    "xor.b64 d, a, b;": lambda a, b: a ^ b,
    "setp.lt.s64 p, a, b; selp.b64 d, a, b, p;": lambda a, b: min(signed(a, 64), signed(b, 64)),
}


@pytest.mark.parametrize("text", WIDE)
def test_64_bit_words(softgpu, text):
    assert run(text, [(64, A64), (64, B64)], 64) == [WIDE[text](a, b) & M64 for a, b in zip(A64, B64)]


# ---- floats with a rounding mode: the exact result as a fraction, rounded by hand
# ------------------------------------------
FLOATS = [bits32(v) for v in (1.0, -1.0, 1e-3, -1e-3, 3.0, 0.1, -0.1, 1e30, 1e-30, 7.0, -13.5, 2.0**-20)] + [
    v for v in words(32, 7) + words(32, 8) if 0x30000000 < v & 0x7FFFFFFF < 0x50000000
]
FLOATS = (FLOATS * 8)[: 2 * LANES]


def _neighbours(exact, candidate: float) -> tuple[float, float]:
    """The floats next below and above an exact value, from one that is near."""
    t = torch.tensor(candidate, dtype=torch.float32)
    while Fraction(t.item()) > exact:
        t = torch.nextafter(t, torch.tensor(-math.inf))
    while Fraction(torch.nextafter(t, torch.tensor(math.inf)).item()) <= exact:
        t = torch.nextafter(t, torch.tensor(math.inf))
    low = t.item()
    return low, low if Fraction(low) == exact else torch.nextafter(t, torch.tensor(math.inf)).item()


@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
@pytest.mark.parametrize("op", ["add", "mul", "fma", "div"])
def test_directed_rounding(softgpu, op, mode):
    a, b, c = FLOATS[:LANES], FLOATS[LANES:], FLOATS[7 : 7 + LANES]
    text = f"fma.{mode}.f32 d, a, b, c;" if op == "fma" else f"{op}.{mode}.f32 d, a, b;"
    got = run(text, [(32, a), (32, b), (32, c)], 32)
    for x, y, z, r in zip(map(f32, a), map(f32, b), map(f32, c), map(f32, got)):
        fx, fy, fz = Fraction(x), Fraction(y), Fraction(z)
        exact = {"add": lambda: fx + fy, "mul": lambda: fx * fy, "fma": lambda: fx * fy + fz, "div": lambda: fx / fy}[
            op
        ]()
        if not 2.0**-120 < abs(exact) < 2.0**120:
            continue
        low, high = _neighbours(exact, r)
        if mode == "rn":
            assert abs(Fraction(r) - exact) <= min(exact - Fraction(low), Fraction(high) - exact)
        else:
            expected = {"rm": low, "rp": high, "rz": low if exact > 0 else high}[mode]
            assert r == expected, (x, y, z)


def test_flush_to_zero_and_saturation(softgpu):
    tiny = [1, 0x80000001, 0x007FFFFF, 0x00800000] * 16
    ones = [bits32(1.0)] * LANES
    assert run("mul.ftz.f32 d, a, b;", [(32, tiny), (32, ones)], 32) == [0, 0x80000000, 0, 0x00800000] * 16
    assert run("mul.f32 d, a, b;", [(32, tiny), (32, ones)], 32) == tiny
    values = [bits32(v) for v in (-1.0, 0.25, 3.0, math.nan)] * 16
    assert run("add.sat.f32 d, a, 0f00000000;", [(32, values)], 32) == [0, bits32(0.25), bits32(1.0), 0] * 16


def test_minimum_of_nan_and_zeros(softgpu):
    nan, zero, minus = bits32(math.nan), 0, 0x80000000
    a, b = [nan, bits32(2.0), zero, minus] * 16, [bits32(1.0), nan, minus, zero] * 16
    assert run("min.f32 d, a, b;", [(32, a), (32, b)], 32) == [bits32(1.0), bits32(2.0), minus, minus] * 16
    assert run("max.f32 d, a, b;", [(32, a), (32, b)], 32) == [bits32(1.0), bits32(2.0), zero, zero] * 16
    assert all(math.isnan(f32(v)) for v in run("min.NaN.f32 d, a, b;", [(32, a), (32, b)], 32)[:2])


def test_extrema_of_integers_that_are_not_negative(softgpu):
    a, b = [-1 & 0xFFFFFFFF, 5, -7 & 0xFFFFFFFF, 3] * 16, [-2 & 0xFFFFFFFF, -3 & 0xFFFFFFFF, 4, 9] * 16
    assert run("max.relu.s32 d, a, b;", [(32, a), (32, b)], 32) == [0, 5, 4, 9] * 16
    assert run("min.relu.s32 d, a, b;", [(32, a), (32, b)], 32) == [0, 0, 0, 3] * 16
    pairs = [0xFFFF0005] * LANES  # -1 and 5
    assert run("max.relu.s16x2 d, a, b;", [(32, pairs), (32, [0xFFFEFFFE] * LANES)], 32) == [0x00000005] * LANES
    assert run("min.relu.s16x2 d, a, b;", [(32, pairs), (32, [0x00070007] * LANES)], 32) == [0x00000005] * LANES


COMPARISONS = {
    "eq": lambda x, y: x == y, "ne": lambda x, y: x != y and not (math.isnan(x) or math.isnan(y)),
    "lt": lambda x, y: x < y,
    "equ": lambda x, y: x == y or math.isnan(x) or math.isnan(y), "neu": lambda x, y: x != y,
    "ltu": lambda x, y: not x >= y, "leu": lambda x, y: not x > y, "gtu": lambda x, y: not x <= y,
    "geu": lambda x, y: not x < y,
    "num": lambda x, y: not (math.isnan(x) or math.isnan(y)), "nan": lambda x, y: math.isnan(x) or math.isnan(y),
}  # fmt: skip


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_float_comparisons_with_nan(softgpu, comparison):
    values = [bits32(v) for v in (0.0, -0.0, 1.0, math.nan, math.inf, -math.inf, 1.0, -2.5)]
    a, b = [x for x in values for _ in values], values * 8
    got = run(f"setp.{comparison}.f32 p, a, b; selp.b32 d, 1, 0, p;", [(32, a), (32, b)], 32)
    assert got == [int(COMPARISONS[comparison](f32(x), f32(y))) for x, y in zip(a, b)]


@pytest.mark.parametrize(
    "mode,function", [("rzi", math.trunc), ("rmi", math.floor), ("rpi", math.ceil), ("rni", round)]
)
def test_float_to_integer_rounds_and_clamps(softgpu, mode, function):
    values = [0.5, -0.5, 1.5, 2.5, -2.5, 1e10, -1e10, 3.7] * 8
    got = run(f"cvt.{mode}.s32.f32 d, a;", [(32, [bits32(v) for v in values])], 32)
    assert [signed(v, 32) for v in got] == [max(-(2**31), min(2**31 - 1, function(v))) for v in values]
    special = [bits32(math.nan), bits32(math.inf), bits32(-math.inf), bits32(-3.0)] * 16
    assert run(f"cvt.{mode}.u32.f32 d, a;", [(32, special)], 32) == [0, M32, 0, 0] * 16
    assert run(f"cvt.{mode}.s64.f32 d, a;", [(32, special)], 64)[:3] == [1 << 63, 2**63 - 1, 1 << 63]


def test_packed_fp8_conversions_saturate(softgpu):
    values = [0.0, 1.0, -1.5, 447.0, 1000.0, -1e9, 0.001, math.nan] * 8
    a = [bits32(v) for v in values]
    got = run("{ .reg .b16 s; cvt.rn.satfinite.e4m3x2.f32 s, a, b; cvt.u32.u16 d, s; }", [(32, a), (32, a[::-1])], 32)
    clamped = torch.tensor(values).clamp(-448, 448)
    expected = clamped.to(torch.float8_e4m3fn).view(torch.uint8).tolist()
    # NaN may carry either sign bit
    assert [v & 0x7F7F for v in got] == [(h << 8 | low) & 0x7F7F for h, low in zip(expected, expected[::-1])]


# ---- across lanes
# -------------------------------------------------------------------------------------------------------------
def _warps(values: list[int]) -> list[list[int]]:
    return [values[:32], values[32:]]


def test_redux_and_votes(softgpu):
    assert run("redux.sync.add.s32 d, a, -1;", [(32, A)], 32) == [sum(w) & M32 for w in _warps(A) for _ in w]
    assert run("redux.sync.max.s32 d, a, -1;", [(32, A)], 32) == [
        max(signed(v, 32) for v in w) & M32 for w in _warps(A) for _ in w
    ]
    assert run("redux.sync.xor.b32 d, a, -1;", [(32, A)], 32)[0] == functools.reduce(operator.xor, A[:32])
    ballot = run("setp.gt.u32 p, a, 100; vote.sync.ballot.b32 d, p, -1;", [(32, A)], 32)
    assert ballot == [sum(int(v > 100) << i for i, v in enumerate(w)) for w in _warps(A) for _ in w]
    unanimous = run("setp.ge.u32 p, a, 0; vote.sync.all.pred q, p, -1; selp.b32 d, 1, 0, q;", [(32, A)], 32)
    assert unanimous == [1] * LANES


def test_redux_of_floats_on_sm_100(softgpu):
    a = FLOATS[:LANES]
    got = run("redux.sync.min.abs.f32 d, a, -1;", [(32, a)], 32)
    assert got == [bits32(min(abs(f32(v)) for v in w)) for w in _warps(a) for _ in w]


def test_match_finds_lanes_with_the_same_value(softgpu):
    a = [v % 5 for v in A]
    got = run("match.any.sync.b32 d, a, -1;", [(32, a)], 32)
    assert got == [sum(int(x == y) << i for i, y in enumerate(w)) for w in _warps(a) for x in w]
    got = run("match.all.sync.b32 d|p, b, -1; selp.b32 d, d, 7, p;", [(32, a), (32, [3] * 32 + a[32:])], 32)
    assert got == [M32] * 32 + [7] * 32


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
def test_shuffles_within_segments_of_8_lanes(softgpu, mode):
    """The clamp and segment masks of c = 0x1807 / 0x1800: four independent segments."""
    c = 0x1800 if mode == "up" else 0x1807
    got = run(f"shfl.sync.{mode}.b32 d|p, a, 3, {c}, -1; @!p mov.b32 d, -1;", [(32, A)], 32)
    expected = []
    for w in _warps(A):
        for lane in range(32):
            base, k = lane & ~7, lane & 7
            source = {"up": k - 3, "down": k + 3, "bfly": k ^ 3, "idx": 3}[mode]
            expected.append(w[base + source] if 0 <= source < 8 else M32)
    assert got == expected


def test_elect_chooses_one_lane(softgpu):
    got = run("mov.b32 d, 0; elect.sync _|p, -1; @p mov.b32 d, 1;", [], 32)
    assert got == ([1] + [0] * 31) * 2


def test_barrier_reductions_over_the_block(softgpu):
    count = sum(v > 100 for v in A)
    assert run("setp.gt.u32 p, a, 100; bar.red.popc.u32 d, 0, p;", [(32, A)], 32) == [count] * LANES
    assert run("setp.gt.u32 p, a, 100; bar.red.or.pred q, 0, p; selp.b32 d, 1, 0, q;", [(32, A)], 32) == [1] * LANES
    assert run("setp.gt.u32 p, a, 100; bar.red.and.pred q, 0, p; selp.b32 d, 1, 0, q;", [(32, A)], 32) == [0] * LANES


# ---- 16-bit and packed floats
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind,dtype", [("f16", torch.float16), ("bf16", torch.bfloat16)])
def test_packed_arithmetic(softgpu, kind, dtype):
    torch.manual_seed(11)
    x, y, z = (torch.randn(2 * LANES).to(dtype) for _ in range(3))
    as_words = lambda t: [v & M32 for v in t.view(torch.int32).tolist()]  # noqa: E731
    back = lambda values: torch.tensor([signed(v, 32) for v in values], dtype=torch.int32).view(dtype)  # noqa: E731
    inputs = [(32, as_words(t)) for t in (x, y, z)]
    assert torch.equal(back(run(f"add.{kind}x2 d, a, b;", inputs, 32)), x + y)
    assert torch.equal(back(run(f"mul.{kind}x2 d, a, b;", inputs, 32)), x * y)
    assert torch.equal(back(run(f"max.{kind}x2 d, a, b;", inputs, 32)), torch.maximum(x, y))
    assert torch.equal(back(run(f"neg.{kind}x2 d, a;", inputs, 32)), -x)
    holes = torch.where(torch.arange(2 * LANES) % 3 == 0, torch.nan, x)
    low = lambda t: [v & 0xFFFF for v in t.view(torch.int16)[:LANES].tolist()]  # noqa: E731
    packed = back(run(f"max.NaN.{kind}x2 d, a, b;", [(32, as_words(holes)), inputs[1]], 32))
    scalar = run(f"max.NaN.{kind} d, a, b;", [(16, low(holes)), (16, low(y))], 16)
    torch.testing.assert_close(packed, torch.maximum(holes, y), rtol=0, atol=0, equal_nan=True)
    scalar = torch.tensor([signed(v, 16) for v in scalar], dtype=torch.int16).view(dtype)
    torch.testing.assert_close(scalar, torch.maximum(holes, y)[:LANES], rtol=0, atol=0, equal_nan=True)
    fused = (x.double() * y.double() + z.double()).to(dtype)
    assert torch.equal(back(run(f"fma.rn.{kind}x2 d, a, b, c;", inputs, 32)), fused)
    relu = torch.where(fused > 0, fused, torch.zeros_like(fused))
    assert torch.equal(back(run(f"fma.rn.relu.{kind}x2 d, a, b, c;", inputs, 32)), relu)


def test_two_floats_in_one_register_on_sm_100(softgpu):
    torch.manual_seed(12)
    x, y, z = (torch.randn(2 * LANES) for _ in range(3))
    as_words = lambda t: [v & M64 for v in t.view(torch.int64).tolist()]  # noqa: E731
    got = run("fma.rn.f32x2 d, a, b, c;", [(64, as_words(t)) for t in (x, y, z)], 64)
    result = torch.tensor([signed(v, 64) for v in got], dtype=torch.int64).view(torch.float32)
    assert torch.equal(result, (x.double() * y.double() + z.double()).float())


# ---- the rest
# ------------------------------------------------------------------------------------------------------------------
APPROXIMATE = {
    "sin.approx.f32": math.sin, "cos.approx.ftz.f32": math.cos, "lg2.approx.f32": lambda v: math.log2(abs(v)),
    "tanh.approx.f32": math.tanh, "ex2.approx.ftz.f32": lambda v: 2.0**v, "rcp.approx.f32": lambda v: 1 / v,
    "rsqrt.approx.f32": lambda v: 1 / math.sqrt(abs(v)), "sqrt.approx.ftz.f32": lambda v: math.sqrt(abs(v)),
}  # fmt: skip


@pytest.mark.parametrize("op", APPROXIMATE)
def test_approximate_functions(softgpu, op):
    values = [f32(bits32(0.37 * (i + 1) * (-1) ** i)) for i in range(LANES)]
    prepare = "abs.f32 a, a; " if op.startswith(("lg2", "rsqrt", "sqrt")) else ""
    got = run(f"{prepare}{op} d, a;", [(32, [bits32(v) for v in values])], 32)
    for v, r in zip(values, got):
        assert math.isclose(f32(r), APPROXIMATE[op](v), rel_tol=3e-7, abs_tol=1e-7), v


@pytest.mark.parametrize(
    "test,index",
    [
        ("finite", (0, 3, 4)),
        ("infinite", (1,)),
        ("number", (0, 1, 3, 4)),
        ("notanumber", (2,)),
        ("normal", (0,)),
        ("subnormal", (3,)),
    ],
)
def test_testp_classifies_floats(softgpu, test, index):
    values = [bits32(1.5), bits32(-math.inf), bits32(math.nan), 5, 0] + [0] * (LANES - 5)
    got = run(f"testp.{test}.f32 p, a; selp.b32 d, 1, 0, p;", [(32, values)], 32)
    assert [i for i in range(5) if got[i]] == list(index)


def test_activemask_is_the_lanes_of_the_branch(softgpu):
    lanes = list(range(32)) * 2
    got = run(
        "setp.lt.u32 p, a, 10; @p bra LOW; activemask.b32 d; bra END; LOW: activemask.b32 d; END:", [(32, lanes)], 32
    )
    assert got == [0x3FF if lane < 10 else M32 ^ 0x3FF for lane in lanes]


def test_movmatrix_transposes_a_fragment(softgpu):
    """Lane l holds row l / 4, columns 2 (l % 4) and the next, of 8 x 8 halves."""
    element = lambda r, c: 8 * r + c  # noqa: E731
    a = [element(lane // 4, 2 * (lane % 4)) | element(lane // 4, 2 * (lane % 4) + 1) << 16 for lane in range(32)]
    got = run("movmatrix.sync.aligned.m8n8.trans.b16 d, a;", [(32, a * 2)], 32)
    assert got[:32] == [
        element(2 * (lane % 4), lane // 4) | element(2 * (lane % 4) + 1, lane // 4) << 16 for lane in range(32)
    ]


@pytest.mark.parametrize(
    "op,function",
    [("add.u32", sum), ("max.s32", max), ("min.u32", min), ("or.b32", lambda v: functools.reduce(operator.or_, v))],
)
def test_red_updates_memory(softgpu, op, function):
    values = [3 + 5 * i % 61 for i in range(LANES)]
    start = 1000 if op.startswith("min") else 0
    body = f"""
 {{ .shared .align 4 .b8 cell[4]; st.shared.b32 [cell], {start}; bar.sync 0;
   red.shared.{op} [cell], a; bar.sync 0; ld.shared.b32 d, [cell]; }}"""
    assert run(body, [(32, values)], 32) == [function([start, *values])] * LANES


def test_inc_and_dec_wrap_at_their_bound(softgpu):
    body = """
 { .shared .align 4 .b8 cells[8]; st.shared.v2.b32 [cells], {0, 0}; bar.sync 0;
   atom.shared.inc.u32 d, [cells], 6; atom.shared.dec.u32 a, [cells+4], 6; bar.sync 0;
   ld.shared.v2.b32 {d, a}, [cells]; mad.lo.u32 d, a, 100, d; }"""
    assert run(body, [(32, A)], 32) == [100 * (-LANES % 7) + LANES % 7] * LANES


def test_instructions_that_only_order_or_hint_change_nothing(softgpu):
    body = """
 { .reg .b64 policy;
   createpolicy.fractional.L2::evict_last.b64 policy, 0f3F800000;
   prefetch.global.L2 [addr]; prefetchu.L1 [addr]; applypriority.global.L2::evict_normal [addr], 128;
   membar.gl; fence.acq_rel.gpu; fence.sc.sys; nanosleep.u32 20; pmevent 7; griddepcontrol.wait;
   griddepcontrol.launch_dependents;
   barrier.cta.sync 1; ld.param.u64 addr, [p0]; mad.wide.u32 addr, tid, 4, addr;
   ldu.global.b32 d, [addr]; ld.global.nc.L1::no_allocate.L2::cache_hint.L2::128B.b32 a, [addr], policy;
   xor.b32 a, a, d; add.u32 d, d, a; }"""
    assert run(body, [(32, A)], 32) == A


def test_products_of_doubles(softgpu):
    a, b = ([x * 0.37 - 3 for x in range(LANES)], [1 / (x + 0.5) for x in range(LANES)])
    bits = [[struct.unpack("<Q", struct.pack("<d", v))[0] for v in values] for values in (a, b)]
    got = run("mul.f64 d, a, b;", [(64, bits[0]), (64, bits[1])], 64)
    assert got == [struct.unpack("<Q", struct.pack("<d", x * y))[0] for x, y in zip(a, b)]
