"""Hand-written PTX with asynchronous copies and matrix units, as text with one thing left out or changed.

Each function returns a module for ``PtxKernel``; its keyword arguments choose a fault, and without any the kernel is
right.
"""

from __future__ import annotations

HEADER = ".version 8.7\n.target {target}\n.address_size 64\n.extern .shared .align 1024 .b8 smem[];\n"


def module(body: str, params: str, target: str = "sm_90a", pragma: str = "") -> str:
    """``body`` as the entry ``kernel`` with a stock of registers: %p<16>, %h<8>, %r<400>, %rd<32>."""
    return (
        HEADER.format(target=target)
        + f".visible .entry kernel({params}) {pragma} {{\n"
        + ".reg .pred %p<16>; .reg .b16 %h<8>; .reg .b32 %r<400>; .reg .b64 %rd<32>;\n"
        + body
        + "\n}\n"
    )


def wait(address: str, parity: str, label: str, kind: str = "try_wait.parity") -> str:
    """Wait in a loop until the barrier's phase of this parity has completed."""
    return f"{label}: mbarrier.{kind}.shared::cta.b64 %p15, [{address}], {parity}; @!%p15 bra {label};"


def ring(
    stages: int = 3,
    *,
    buffers: int = 0,
    full_wait: bool = True,
    empty_wait: bool = True,
    first_phase: int = 0,
    expect: int = 512,
    initialise: bool = True,
    scribble: bool = False,
) -> str:
    """(in, out, tiles): warp 0 copies 512-byte tiles into a ring of shared memory, warp 1 writes them out.

    Args:
        buffers: pieces of memory the stages share; ``stages`` is right, fewer are too few.
        full_wait, empty_wait: whether the consumer waits for data and the producer for room.
        first_phase: parity the consumer starts with; 0 is right.
        expect: bytes announced a tile; 512 is right.
        initialise: whether the barriers are initialised.
        scribble: the consumer writes to a stage before it waits for the data.
    """
    buffers = buffers or stages
    init = "\n".join(
        f"mbarrier.init.shared::cta.b64 [%r4+{4096 + 16 * i}], 1; mbarrier.init.shared::cta.b64 "
        f"[%r4+{4104 + 16 * i}], 32;"
        for i in range(stages)
    )
    step = f"""
  add.u32 %r6, %r6, 1; setp.eq.u32 %p4, %r6, {stages}; selp.b32 %r6, 0, %r6, %p4; selp.b32 %r11, 1, 0, %p4;
  xor.b32 %r7, %r7, %r11;
  add.u32 %r5, %r5, 1; setp.lt.u32 %p5, %r5, %r3;"""
    place = (
        f"mad.lo.u32 %r8, %r6, 16, %r4; add.u32 %r8, %r8, 4096; min.u32 %r10, %r6, {buffers - 1}; "
        "mad.lo.u32 %r10, %r10, 512, %r4;"
    )
    return module(
        f"""
  ld.param.u64 %rd1, [in]; ld.param.u64 %rd2, [out]; ld.param.u32 %r3, [tiles];
  mov.u32 %r1, %tid.x; shr.u32 %r2, %r1, 5; and.b32 %r12, %r1, 31; mov.u32 %r4, smem;
  setp.ne.u32 %p1, %r1, 0; @%p1 bra READY;
  {init if initialise else ""}
  fence.mbarrier_init.release.cluster;
READY: bar.sync 0;
  mov.u32 %r5, 0; mov.u32 %r6, 0; mov.u32 %r7, 0;
  setp.ne.u32 %p2, %r2, 0; @%p2 bra CONSUMER_START;
  setp.ne.u32 %p1, %r12, 0; @%p1 bra END;
PRODUCER:
  {place} xor.b32 %r9, %r7, 1;
  {wait("%r8+8", "%r9", "W1") if empty_wait else ""}
  mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r8], {expect};
  cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [%r10], [%rd1], 512, [%r8];
  add.u64 %rd1, %rd1, 512; {step} @%p5 bra PRODUCER;
  bra END;
CONSUMER_START:
  mad.wide.u32 %rd2, %r12, 16, %rd2; mov.u32 %r7, {first_phase};
CONSUMER:
  {place}
  {"mad.lo.u32 %r13, %r12, 16, %r10; st.shared.b32 [%r13], %r12;" if scribble else ""}
  {wait("%r8", "%r7", "W2") if full_wait else ""}
  mad.lo.u32 %r10, %r12, 16, %r10;
  ld.shared.v4.b32 {{%r20, %r21, %r22, %r23}}, [%r10];
  st.global.v4.b32 [%rd2], {{%r20, %r21, %r22, %r23}};
  mbarrier.arrive.shared::cta.b64 _, [%r8+8];
  add.u64 %rd2, %rd2, 512; {step} @%p5 bra CONSUMER;
END: ret;""",
        ".param .u64 in, .param .u64 out, .param .u32 tiles",
    )


def store(*, fence: bool = True, barrier: bool = True, read_wait: bool = True, end_wait: bool = True) -> str:
    """(out): 128 threads write their number to shared memory, one stores 512 bytes to ``out``; then the same with 1000
    added,
    from the same memory, to ``out + 512``.

    Args:
        fence: whether the threads' writes are made visible to the asynchronous proxy.
        barrier: whether the storing thread waits for the writers.
        read_wait: whether the memory is reused only after the first store has read it.
        end_wait: whether the kernel waits for the second store's reads before it ends.
    """

    def half(base: int, offset: int, wait_after: bool) -> str:
        return f"""
  add.u32 %r5, %r1, {base}; st.shared.b32 [%r3], %r5;
  {"fence.proxy.async.shared::cta;" if fence else ""}
  {"bar.sync 0;" if barrier else ""}
  @%p1 cp.async.bulk.global.shared::cta.bulk_group [%rd1+{offset}], [%r4], 512;
  @%p1 cp.async.bulk.commit_group;
  {"@%p1 cp.async.bulk.wait_group.read 0;" if wait_after else ""}
  bar.sync 0;"""

    return module(
        f"""
  ld.param.u64 %rd1, [out]; mov.u32 %r1, %tid.x; mov.u32 %r4, smem; mad.lo.u32 %r3, %r1, 4, %r4;
  setp.eq.u32 %p1, %r1, 0;
  {half(0, 0, read_wait)} {half(1000, 512, end_wait)}
  ret;""",
        ".param .u64 out",
    )


def exchange(*, before: bool = True, after: bool = True, twice: bool = False) -> str:
    """(out): in a cluster of two, each CTA of 32 threads reads what the other wrote to its shared memory.

    Args:
        before: whether the cluster synchronises between writing and reading.
        after: whether a CTA stays until the other has read.
        twice: arrive at the cluster barrier twice without waiting.
    """
    sync = "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;"
    return module(
        f"""
  ld.param.u64 %rd1, [out]; mov.u32 %r1, %tid.x; mov.u32 %r2, %cluster_ctarank; mov.u32 %r4, smem;
  mad.lo.u32 %r3, %r1, 4, %r4; mad.lo.u32 %r5, %r2, 1000, %r1; st.shared.b32 [%r3], %r5;
  {"barrier.cluster.arrive.aligned;" if twice else ""}
  {sync if before else ""}
  xor.b32 %r6, %r2, 1; mapa.shared::cluster.u32 %r7, %r3, %r6; ld.shared::cluster.b32 %r8, [%r7];
  mad.lo.u32 %r9, %r2, 32, %r1; mad.wide.u32 %rd2, %r9, 4, %rd1; st.global.b32 [%rd2], %r8;
  {sync if after else ""}
  ret;""",
        ".param .u64 out",
        pragma=".reqntid 32 .reqnctapercluster 2",
    )


def registers(first: int, count: int) -> str:
    """``{%r10, %r11, ...}``"""
    return "{" + ", ".join(f"%r{first + i}" for i in range(count)) + "}"


def load_operands(a_bytes: int, b_bytes: int, load_wait: bool = True) -> str:
    """Thread 0 brings A and B to shared memory at 0 and at the next multiple of 1024; all wait. Barrier at 64 KiB."""
    b_at = (a_bytes + 1023) // 1024 * 1024
    return f"""
  mov.u32 %r1, %tid.x; mov.u32 %r2, smem; add.u32 %r3, %r2, {b_at}; add.u32 %r4, %r2, 65536; setp.eq.u32 %p1, %r1, 0;
  @%p1 mbarrier.init.shared::cta.b64 [%r4], 1;
  @%p1 mbarrier.init.shared::cta.b64 [%r4+8], 1;
  bar.sync 0;
  @%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r4], {a_bytes + b_bytes};
  @%p1 cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [%r2], [%rd1], {a_bytes}, [%r4];
  @%p1 cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [%r3], [%rd2], {b_bytes}, [%r4];
  {wait("%r4", "0", "LOADED") if load_wait else ""}"""


def descriptor(register: str, address: str, constant: int) -> str:
    """A matrix descriptor for the tile at ``address``, whose other fields are ``constant``."""
    return f"bfe.u32 %r9, {address}, 4, 14; cvt.u64.u32 {register}, %r9; or.b64 {register}, {register}, {constant};"


def wgmma(
    instruction: str,
    n: int,
    a_bytes: int,
    b_bytes: int,
    a_constant: int,
    b_constant: int,
    flags: str,
    count: int,
    *,
    load_wait: bool = True,
    result_wait: bool = True,
    reuse_early: bool = False,
) -> str:
    """(a, b, out): one warpgroup, one wgmma of 64 x n; lane by lane its ``count`` accumulator words go to ``out``.

    Args:
        flags: the scale and transpose operands, as text.
        load_wait, result_wait: whether the operands and the result are waited for.
        reuse_early: overwrite operand A before the result is waited for.
    """
    return module(
        f"""
  ld.param.u64 %rd1, [a]; ld.param.u64 %rd2, [b]; ld.param.u64 %rd3, [out];
  {load_operands(a_bytes, b_bytes, load_wait)}
  {descriptor("%rd4", "%r2", a_constant)} {descriptor("%rd5", "%r3", b_constant)}
  {" ".join(f"mov.b32 %r{20 + i}, 0;" for i in range(count))}
  wgmma.fence.sync.aligned; setp.ne.u32 %p2, 0, 0;
  wgmma.mma_async.sync.aligned.{instruction} {registers(20, count)}, %rd4, %rd5, %p2{flags};
  wgmma.commit_group.sync.aligned;
  {"mad.lo.u32 %r10, %r1, 4, %r2; st.shared.b32 [%r10], %r1;" if reuse_early else ""}
  {"wgmma.wait_group.sync.aligned 0;" if result_wait else ""}
  mad.wide.u32 %rd6, %r1, {4 * count}, %rd3;
  {" ".join(f"st.global.b32 [%rd6+{4 * i}], %r{20 + i};" for i in range(count))}
  ret;""",
        ".param .u64 a, .param .u64 b, .param .u64 out",
    )


def tcgen05(
    kind: str,
    idesc: int,
    a_bytes: int,
    b_bytes: int,
    a_constant: int,
    b_constant: int,
    columns: int,
    *,
    steps: int = 1,
    load_wait: bool = True,
    commit_wait: bool = True,
    zero: str = "",
    dealloc: bool = True,
    column_shift: int = 0,
) -> str:
    """(a, b, out): 128 threads, ``steps`` equal MMAs into ``columns`` columns; lane by lane those go to ``out``.

    Args:
        load_wait, commit_wait: whether operands and result are waited for.
        zero: ``"waited"`` clears the accumulator with tcgen05.st and adds to it, ``"unwaited"`` forgets
            tcgen05.wait::st, ``"never"`` adds to what nothing wrote.
        dealloc: whether tensor memory is freed.
        column_shift: columns beside the allocation that the accumulator is put at.
    """
    clear = (
        f"tcgen05.st.sync.aligned.32x32b.x{columns}.b32 [%r12], {{{', '.join(['%r19'] * columns)}}};"
        if zero and zero != "never"
        else ""
    )
    multiplications = " ".join(
        f"@%p1 tcgen05.mma.cta_group::1.kind::{kind} [%r13], %rd4, %rd5, {idesc}, {'%p4' if i else '%p2'};"
        for i in range(steps)
    )
    return module(
        f"""
  ld.param.u64 %rd1, [a]; ld.param.u64 %rd2, [b]; ld.param.u64 %rd3, [out];
  {load_operands(a_bytes, b_bytes, load_wait)}
  setp.lt.u32 %p3, %r1, 32;
  @%p3 tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%r4+16], {max(32, columns)};
  bar.sync 0;
  ld.shared.b32 %r11, [%r4+16];
  shr.u32 %r12, %r1, 5; shl.b32 %r12, %r12, 21; add.u32 %r12, %r12, %r11; mov.b32 %r19, 0;
  {clear} {"tcgen05.wait::st.sync.aligned;" if zero == "waited" else ""}
  bar.sync 0;
  {descriptor("%rd4", "%r2", a_constant)} {descriptor("%rd5", "%r3", b_constant)}
  add.u32 %r13, %r11, {column_shift};
  setp.ne.u32 %p2, {1 if zero else 0}, 0; setp.eq.u32 %p4, 0, 0;
  {multiplications}
  @%p1 tcgen05.commit.cta_group::1.mbarrier::arrive::one.shared::cluster.b64 [%r4+8];
  {wait("%r4+8", "0", "DONE") if commit_wait else ""}
  tcgen05.ld.sync.aligned.32x32b.x{columns}.b32 {registers(20, columns)}, [%r12];
  tcgen05.wait::ld.sync.aligned;
  mad.wide.u32 %rd6, %r1, {4 * columns}, %rd3;
  {" ".join(f"st.global.b32 [%rd6+{4 * i}], %r{20 + i};" for i in range(columns))}
  bar.sync 0;
  {f"@%p3 tcgen05.dealloc.cta_group::1.sync.aligned.b32 %r11, {max(32, columns)};" if dealloc else ""}
  ret;""",
        ".param .u64 a, .param .u64 b, .param .u64 out",
        target="sm_100a",
    )
