"""Single instructions of the asynchronous tables against layouts written down here a second time, from the PTX ISA."""

from __future__ import annotations

import ctypes
import struct

import pytest
import torch

from tests import softgpu as gpu
from tests.softgpu import async_kernels as ak
from tests.softgpu import native
from tests.softgpu.ptx import PtxKernel

pytestmark = pytest.mark.slow

HOPPER = pytest.mark.softgpu(capability=90, software_only=True)
BLACKWELL = pytest.mark.softgpu(capability=100, software_only=True)

SPANS = [0, 32, 64, 128]


def swizzle(offset: int, span: int) -> int:
    """Byte offset after the XOR swizzle: 16-byte chunk number within the 128-byte line XOR line number."""
    line, chunk, byte = offset // 128, offset // 16 % 8, offset % 16
    mask = span // 16 - 1 if span else 0
    return line * 128 + (chunk ^ (line & mask)) * 16 + byte


def arrange(matrix: torch.Tensor, k_major: bool, span: int) -> tuple[torch.Tensor, int, int]:
    """A (rows, k) operand, 32 bytes of k, as it lies in shared memory.

    Returns:
        its bytes, and the leading and stride byte offsets of its descriptor.
    """
    rows, k = matrix.shape
    size = matrix.element_size()
    if k_major:
        leading, stride = (128, 256) if not span else (0, 8 * span)
    elif span:
        leading, stride = 8 * span * (k // 8), 8 * span
    else:
        leading, stride = 128, 128 * (k // 8)
    offsets = torch.empty(rows, k, dtype=torch.int64)
    for r in range(rows):
        for j in range(k):
            along_k, along_r = j * size, r * size
            if k_major and not span:
                at = r % 8 * 16 + r // 8 * stride + along_k // 16 * leading + along_k % 16
            elif k_major:
                at = r % 8 * span + r // 8 * stride + along_k
            elif not span:
                at = along_r // 16 * stride + j % 8 * 16 + j // 8 * leading + along_r % 16
            else:
                at = along_r // span * leading + along_r % span + j % 8 * span + j // 8 * stride
            offsets[r, j] = swizzle(at, span)
    total = (int(offsets.max()) // 1024 + 1) * 1024
    memory = torch.zeros(total // size, dtype=matrix.view(_word(size)).dtype)
    memory[(offsets // size).flatten()] = matrix.contiguous().view(_word(size)).flatten()
    return memory, leading, stride


def _word(size: int) -> torch.dtype:
    return {1: torch.uint8, 2: torch.int16, 4: torch.int32}[size]


def operands(dtype: torch.dtype, m: int, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A, B and A B^T in float64. fp32 operands are tf32 values already."""
    k = 32 // dtype.itemsize
    torch.manual_seed(m + n)
    if not dtype.is_floating_point:
        info = torch.iinfo(dtype)
        a, b = (torch.randint(info.min, info.max + 1, (x, k)).to(dtype) for x in (m, n))
    else:
        a, b = (torch.randn(x, k).to(dtype) for x in (m, n))
        if dtype is torch.float32:
            a, b = ((x.view(torch.int32) & ~0x1FFF).view(torch.float32) for x in (a, b))
    return a, b, a.double() @ b.double().T


def check(result: torch.Tensor, expected: torch.Tensor) -> None:
    assert (result.double() - expected).abs().max() <= 2.0**-20 * expected.abs().max()


# ---- wgmma
# ----------------------------------------------------------------------------------------------------------------
WGMMA_TYPES = {
    torch.bfloat16: ("f32.bf16.bf16", torch.float32), torch.float16: ("f32.f16.f16", torch.float32),
    torch.float32: ("f32.tf32.tf32", torch.float32), torch.float8_e4m3fn: ("f32.e4m3.e4m3", torch.float32),
    torch.float8_e5m2: ("f32.e5m2.e5m2", torch.float32), torch.int8: ("s32.s8.s8", torch.int32),
    torch.uint8: ("s32.u8.u8", torch.int32),
}  # fmt: skip
HOPPER_LAYOUT = {0: 0, 128: 1, 64: 2, 32: 3}


def _wgmma(dtype: torch.dtype, a_k_major: bool, b_k_major: bool, span: int) -> None:
    a, b, expected = operands(dtype, 64, 32)
    types, out_dtype = WGMMA_TYPES[dtype]
    a_bytes, *a_strides = arrange(a, a_k_major, span)
    b_bytes, *b_strides = arrange(b, b_k_major, span)
    constants = [
        (lead >> 4) << 16 | (stride >> 4) << 32 | HOPPER_LAYOUT[span] << 62 for lead, stride in (a_strides, b_strides)
    ]
    flags = "" if out_dtype is torch.int32 else ", 1, 1"
    if dtype.itemsize == 2:
        flags += f", {int(not a_k_major)}, {int(not b_k_major)}"
    shape = f"m64n32k{a.shape[1]}"
    text = ak.wgmma(f"{shape}.{types}", 32, a_bytes.nbytes, b_bytes.nbytes, *constants, flags, 16)
    out = torch.zeros(128, 16, dtype=out_dtype)
    PtxKernel(text)(1, 128, a_bytes, b_bytes, out, shared=65536 + 1024)
    result = torch.zeros(64, 32, dtype=out_dtype)
    for thread in range(128):
        warp, lane = divmod(thread, 32)
        for i in range(16):
            result[16 * warp + lane // 4 + 8 * (i // 2 % 2), 8 * (i // 4) + 2 * (lane % 4) + i % 2] = out[thread, i]
    check(result, expected)


@HOPPER
@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("dtype", WGMMA_TYPES, ids=str)
def test_wgmma_of_every_type_and_swizzle(softgpu, dtype, span):
    _wgmma(dtype, True, True, span)


@HOPPER
@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("a_k_major,b_k_major", [(True, False), (False, True), (False, False)])
def test_wgmma_of_transposed_operands(softgpu, a_k_major, b_k_major, span):
    _wgmma(torch.float16, a_k_major, b_k_major, span)


# ---- tcgen05.mma
# -------------------------------------------------------------------------------------------------------------
#: kind, A's and B's type in the instruction descriptor, accumulator's type there
TCGEN05_TYPES = {
    torch.float16: ("f16", 0, 1), torch.bfloat16: ("f16", 1, 1), torch.float32: ("tf32", 2, 1),
    torch.float8_e4m3fn: ("f8f6f4", 0, 1),
    torch.float8_e5m2: ("f8f6f4", 1, 1), torch.uint8: ("i8", 0, 2), torch.int8: ("i8", 1, 2),
}  # fmt: skip
BLACKWELL_LAYOUT = {0: 0, 128: 2, 64: 4, 32: 6}


def _tcgen05(dtype: torch.dtype, m: int, a_k_major: bool, b_k_major: bool, span: int, negate: bool = False) -> None:
    a, b, expected = operands(dtype, m, 32)
    kind, operand_type, accumulator = TCGEN05_TYPES[dtype]
    a_bytes, *a_strides = arrange(a, a_k_major, span)
    b_bytes, *b_strides = arrange(b, b_k_major, span)
    constants = [
        (lead >> 4) << 16 | (stride >> 4) << 32 | 1 << 46 | BLACKWELL_LAYOUT[span] << 61
        for lead, stride in (a_strides, b_strides)
    ]
    idesc = accumulator << 4 | operand_type << 7 | operand_type << 10 | int(negate) << 13
    idesc |= int(not a_k_major) << 15 | int(not b_k_major) << 16 | (32 >> 3) << 17 | (m >> 4) << 24
    text = ak.tcgen05(kind, idesc, a_bytes.nbytes, b_bytes.nbytes, *constants, 32, zero="waited")
    out = torch.zeros(128, 32, dtype=torch.int32 if accumulator == 2 else torch.float32)
    PtxKernel(text, target="sm_100a")(1, 128, a_bytes, b_bytes, out, shared=65536 + 1024)
    if m == 64:  # 16 rows in the first lanes of each warp; nothing in the others
        assert not out.view(4, 2, 16, 32)[:, 1].any()
        out = out.view(4, 2, 16, 32)[:, 0].reshape(64, 32)
    check(out, -expected if negate else expected)


@BLACKWELL
@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("dtype", TCGEN05_TYPES, ids=str)
def test_tcgen05_mma_of_every_type_and_swizzle(softgpu, dtype, span):
    _tcgen05(dtype, 128, True, True, span)


@BLACKWELL
@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_tcgen05_mma_of_transposed_operands(softgpu, dtype, span):
    _tcgen05(dtype, 128, False, False, span)


@BLACKWELL
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8], ids=str)
def test_tcgen05_mma_of_64_rows(softgpu, dtype):
    _tcgen05(dtype, 64, True, True, 32)


@BLACKWELL
def test_tcgen05_mma_negates_an_operand(softgpu):
    _tcgen05(torch.bfloat16, 128, True, True, 0, negate=True)


# ---- tcgen05.ld and st
# --------------------------------------------------------------------------------------------------------
#: (TMEM lane, column) that register i of thread t holds; all of them span 8 columns with 4 registers.
FRAGMENTS = {
    "16x64b.x4": (lambda t, i: (t // 4 + 8 * (t // 2 % 2), 2 * i + t % 2), ""),
    "16x128b.x2": (lambda t, i: (t // 4 + 8 * (i % 2), 4 * (i // 2) + t % 4), ""),
    "16x256b.x1": (lambda t, i: (t // 4 + 8 * (i // 2), 2 * (t % 4) + i % 2), ""),
    "16x32bx2.x4": (lambda t, i: (t % 16, 4 * (t // 16) + i), ", 4"),
}


@BLACKWELL
@pytest.mark.parametrize("half", [0, 16])
@pytest.mark.parametrize("shape", FRAGMENTS)
def test_tcgen05_ld_fragment(softgpu, shape, half):
    place, split = FRAGMENTS[shape]
    text = ak.module(
        f"""
  ld.param.u64 %rd1, [out]; mov.u32 %r1, %tid.x; mov.u32 %r2, smem;
  tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%r2], 32;
  ld.shared.b32 %r3, [%r2];
  {" ".join(f"mad.lo.u32 %r{10 + i}, %r1, 100, {i};" for i in range(8))}
  tcgen05.st.sync.aligned.32x32b.x8.b32 [%r3], {ak.registers(10, 8)};
  tcgen05.wait::st.sync.aligned;
  add.u32 %r4, %r3, {half << 16};
  tcgen05.ld.sync.aligned.{shape}.b32 {ak.registers(20, 4)}, [%r4]{split};
  tcgen05.wait::ld.sync.aligned;
  mad.wide.u32 %rd2, %r1, 16, %rd1;
  st.global.v4.b32 [%rd2], {ak.registers(20, 4)};
  tcgen05.dealloc.cta_group::1.sync.aligned.b32 %r3, 32;
  ret;""",
        ".param .u64 out",
        target="sm_100a",
    )
    out = torch.zeros(32, 4, dtype=torch.int32)
    PtxKernel(text, target="sm_100a")(1, 32, out, shared=1024)
    expected = [[100 * (place(lane, i)[0] + half) + place(lane, i)[1] for i in range(4)] for lane in range(32)]
    assert out.tolist() == expected


# ---- tensor maps
# ----------------------------------------------------------------------------------------------------------------
DRIVER_TYPE = {torch.uint8: 0, torch.float32: 7, torch.bfloat16: 9}
INLINE_TYPE = {torch.uint8: 0, torch.float32: 7, torch.bfloat16: 10}


def driver_map(x: torch.Tensor, box: tuple[int, int], span: int, nan: bool = False) -> ctypes.Array[ctypes.c_char]:
    """The tensor map of a contiguous matrix, by the driver; ``box`` is (columns, rows)."""
    room = ctypes.create_string_buffer(128)
    u64, u32 = ctypes.c_uint64, ctypes.c_uint32
    native.call(
        "cuTensorMapEncodeTiled", room, DRIVER_TYPE[x.dtype], 2, ctypes.c_void_p(x.data_ptr()),
        (u64 * 2)(x.shape[1], x.shape[0]),
        (u64 * 1)(x.stride(0) * x.element_size()), (u32 * 2)(*box), (u32 * 2)(1, 1), 0, SPANS.index(span), 0, int(nan),
    )  # fmt: skip
    return room


def inline_map(x: torch.Tensor, box: tuple[int, int], span: int) -> ctypes.Array[ctypes.c_char]:
    """The same in the form that CuTe's host code writes."""
    flags = 0x00240002 | 1 << 4 | INLINE_TYPE[x.dtype] << 7 | SPANS.index(span) << 13
    words = struct.pack("<QII", x.data_ptr(), flags, x.stride(0) * x.element_size() >> 4)
    words = words.ljust(32, b"\0") + struct.pack("<II", x.shape[1] - 1, x.shape[0] - 1)
    words = words.ljust(55, b"\0") + bytes([box[0] - 1, box[1] - 1])
    return ctypes.create_string_buffer(words.ljust(128, b"\0"), 128)


def _load_box(tensor_map: ctypes.Array[ctypes.c_char], nbytes: int, x: int, y: int, rank: int = 2) -> torch.Tensor:
    """The raw bytes of shared memory after a TMA load at column x, row y (of a matrix)."""
    place, mode = ("{%r5, %r6}", ".tile") if rank == 2 else ("{%r5}", "")  # .tile is the default
    text = ak.module(
        f"""
  mov.b64 %rd1, map; cvta.param.u64 %rd1, %rd1; ld.param.u64 %rd2, [out]; ld.param.s32 %r5, [x]; ld.param.s32 %r6, [y];
  mov.u32 %r1, %tid.x; mov.u32 %r2, smem; add.u32 %r3, %r2, 16384; setp.eq.u32 %p1, %r1, 0;
  @%p1 mbarrier.init.shared::cta.b64 [%r3], 1;
  bar.sync 0;
  @%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r3], {nbytes};
  @%p1 cp.async.bulk.tensor.{rank}d.shared::cta.global{mode}.mbarrier::complete_tx::bytes [%r2], [%rd1, {place}], [%r3];
  {ak.wait("%r3", "0", "W")}
  mov.u32 %r7, %r1;
NEXT: setp.ge.u32 %p2, %r7, {nbytes // 16}; @%p2 bra END;
  mad.lo.u32 %r8, %r7, 16, %r2; mad.wide.u32 %rd3, %r7, 16, %rd2;
  ld.shared.v4.b32 {ak.registers(20, 4)}, [%r8]; st.global.v4.b32 [%rd3], {ak.registers(20, 4)};
  add.u32 %r7, %r7, 32; bra NEXT;
END: ret;""",
        ".param .align 64 .b8 map[128], .param .u64 out, .param .u32 x, .param .u32 y",
    )
    out = torch.zeros(nbytes, dtype=torch.uint8)
    PtxKernel(text)(1, 32, tensor_map, out, x, y, shared=16384 + 64)
    return out


def _boxed(matrix: torch.Tensor, box: tuple[int, int], x: int, y: int, fill: float) -> torch.Tensor:
    columns, rows = box
    padded = torch.full((matrix.shape[0] + 2 * rows, matrix.shape[1] + 2 * columns), fill, dtype=matrix.dtype)
    padded[rows : rows + matrix.shape[0], columns : columns + matrix.shape[1]] = matrix
    return padded[rows + y : 2 * rows + y, columns + x : 2 * columns + x].contiguous()


def _in_shared_memory(box: torch.Tensor, span: int) -> torch.Tensor:
    raw = box.view(torch.uint8).flatten()
    return raw.new_zeros(raw.numel()).index_put_((torch.tensor([swizzle(i, span) for i in range(raw.numel())]),), raw)


@HOPPER
@pytest.mark.parametrize("x,y", [(0, 0), (16, 3), (-8, -2), (56, 38), (200, 0)])
@pytest.mark.parametrize("encode", [driver_map, inline_map])
@pytest.mark.parametrize("span", SPANS)
def test_tensor_load_swizzles_and_fills_with_zeros_outside(softgpu, span, encode, x, y):
    matrix = torch.arange(40 * 64).view(40, 64).to(torch.bfloat16)
    box = ((span or 48) // 2, 10)
    raw = _load_box(encode(matrix, box, span), box[0] * box[1] * 2, x, y)
    expected = _boxed(matrix, box, x, y, 0.0) if x < 64 else torch.zeros(box[1], box[0], dtype=matrix.dtype)
    assert torch.equal(raw, _in_shared_memory(expected, span))


@HOPPER
def test_tensor_load_fills_with_nan_if_the_map_says_so(softgpu):
    matrix = torch.randn(8, 16)
    raw = _load_box(driver_map(matrix, (8, 8), 32, nan=True), 256, 12, 0).view(torch.float32)
    expected = _boxed(matrix, (8, 8), 12, 0, float("nan"))
    loaded = raw[torch.tensor([swizzle(4 * i, 32) // 4 for i in range(64)])].view(8, 8)
    assert torch.equal(loaded.isnan(), expected.isnan()) and torch.equal(loaded.nan_to_num(), expected.nan_to_num())


@HOPPER
@pytest.mark.parametrize("x", [0, 8, 88, -4])
def test_tensor_load_of_a_vector(softgpu, x):
    vector, room = torch.randn(100), ctypes.create_string_buffer(128)
    u64, u32 = ctypes.c_uint64, ctypes.c_uint32
    native.call(
        "cuTensorMapEncodeTiled", room, DRIVER_TYPE[vector.dtype], 1, ctypes.c_void_p(vector.data_ptr()),
        (u64 * 1)(100),
        (u64 * 1)(0), (u32 * 1)(32), (u32 * 1)(1), 0, 0, 0, 0,
    )  # fmt: skip
    expected = torch.cat([torch.zeros(32), vector, torch.zeros(32)])[32 + x : 64 + x]
    assert torch.equal(_load_box(room, 128, x, 0, rank=1).view(torch.float32), expected)


@HOPPER
def test_bytes_that_are_no_tensor_map(softgpu):
    with pytest.raises(gpu.DriverError, match="no tensor map"):
        _load_box(ctypes.create_string_buffer(bytes([7] * 128), 128), 256, 0, 0)


# ---- mbarriers and remote stores
# -----------------------------------------------------------------------------------------------
def _states(waits: str) -> torch.Tensor:
    text = ak.module(
        f"""
  ld.param.u64 %rd1, [out]; mov.u32 %r2, smem;
  mbarrier.init.shared::cta.b64 [%r2], 2;
  mbarrier.arrive.shared::cta.b64 %rd2, [%r2];
  mbarrier.test_wait.shared::cta.b64 %p1, [%r2], %rd2; selp.b32 %r3, 1, 0, %p1;
  mbarrier.arrive.shared::cta.b64 %rd3, [%r2];
  mbarrier.test_wait.shared::cta.b64 %p1, [%r2], %rd2; selp.b32 %r4, 1, 0, %p1;
  {waits}
  st.global.v2.b32 [%rd1], {{%r3, %r4}};
  ret;""",
        ".param .u64 out",
    )
    out = torch.full((2,), -1, dtype=torch.int32)
    PtxKernel(text)(1, 1, out, shared=64)
    return out


@HOPPER
def test_mbarrier_phase_by_its_state(softgpu):
    assert _states("").tolist() == [0, 1]


@HOPPER
def test_mbarrier_state_of_a_phase_long_past_is_a_fault(softgpu):
    with pytest.raises(gpu.DriverError, match="only the current phase and the one before"):
        _states("mbarrier.arrive.shared::cta.b64 _, [%r2], 2; mbarrier.test_wait.shared::cta.b64 %p1, [%r2], %rd2;")


@HOPPER
def test_remote_store_tells_the_barrier_beside_it(softgpu):
    text = ak.module(
        f"""
  ld.param.u64 %rd1, [out]; mov.u32 %r1, %tid.x; mov.u32 %r2, smem; add.u32 %r3, %r2, 1024;
  mov.u32 %r4, %cluster_ctarank;
  setp.eq.u32 %p1, %r1, 0;
  @%p1 mbarrier.init.shared::cta.b64 [%r3], 1;
  @%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r3], 128;
  barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
  xor.b32 %r5, %r4, 1; mad.lo.u32 %r6, %r1, 4, %r2; mapa.shared::cluster.u32 %r6, %r6, %r5;
  mapa.shared::cluster.u32 %r7, %r3, %r5;
  getctarank.shared::cluster.u32 %r8, %r7;
  mad.lo.u32 %r9, %r8, 1000, %r1;
  st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b32 [%r6], %r9, [%r7];
  {ak.wait("%r3", "0", "W")}
  mad.lo.u32 %r10, %r1, 4, %r2; ld.shared.b32 %r11, [%r10];
  mad.lo.u32 %r12, %r4, 32, %r1; mad.wide.u32 %rd2, %r12, 4, %rd1; st.global.b32 [%rd2], %r11;
  barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
  ret;""",
        ".param .u64 out",
        pragma=".reqntid 32 .reqnctapercluster 2",
    )
    out = torch.zeros(2, 32, dtype=torch.int32)
    PtxKernel(text)(2, 32, out, shared=2048)
    assert torch.equal(out, torch.arange(32).int() + torch.tensor([[0], [1000]]).int())
