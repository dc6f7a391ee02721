"""PTX syntax that compilers and inline assembly produce: scopes, vectors, sinks, branches, calls, memory spaces."""

from __future__ import annotations

import pytest
import torch

from tests import softgpu as gpu
from tests.softgpu.ptx import PtxKernel

pytestmark = pytest.mark.softgpu(capability=90, software_only=True)


def run(body: str, *args: object, threads: int = 32, before: str = "", shared: int = 0) -> torch.Tensor:
    """Run a body that leaves its result in ``d``; ``tid`` is the thread."""
    out = torch.zeros(threads, dtype=torch.int32)
    params = "".join(f", .param .u64 p{i}" for i in range(len(args)))
    text = f"""{before}
.visible .entry kernel(.param .u64 result{params}) {{
 .reg .b32 tid, d, x, y; .reg .b64 addr, q; .reg .pred p;
 mov.u32 tid, %tid.x;
 mov.u32 d, 0;
 {body}
 ld.param.u64 addr, [result]; mad.wide.u32 addr, tid, 4, addr; st.global.b32 [addr], d;
 ret;
}}"""
    PtxKernel(text)(1, threads, out, *args, shared=shared)
    return out


LANES = torch.arange(32, dtype=torch.int32)


def test_nested_scopes_reuse_register_and_label_names(softgpu):
    body = """
 { .reg .b32 t; .reg .pred p; mov.u32 t, 5;
   setp.lt.u32 p, tid, 16; @p bra SKIP; add.u32 d, d, 100; SKIP: add.u32 d, d, t; }
 { .reg .b32 t; .reg .pred p; mov.u32 t, 7;
   setp.lt.u32 p, tid, 8; @p bra SKIP; add.u32 d, d, 1000; SKIP:
   { .reg .b32 t; mov.u32 t, 30000; add.u32 d, d, t; } add.u32 d, d, t; }"""
    expected = 12 + 30000 + torch.where(LANES < 16, 0, 100) + torch.where(LANES < 8, 0, 1000)
    assert torch.equal(run(body), expected.int())


def test_comments_directives_and_literals(softgpu):
    body = """ // a comment
 /* another,
    of two lines */ .loc 1 2 3
 .pragma "nounroll";
 mov.u32 x, 0x10; add.s32 d, d, x; add.s32 d, d, -3; add.s32 d, d, 0b101; add.s32 d, d, 10U; ;
 { .reg .f32 f; mov.f32 f, 0f40400000; add.f32 f, f, 1.5; add.rn.f32 f, f, 0F3F000000; cvt.rzi.s32.f32 x, f;
 add.s32 d, d, x; }"""
    assert torch.equal(run(body), torch.full((32,), 16 - 3 + 5 + 10 + 5, dtype=torch.int32))


def test_sinks_and_packed_operands(softgpu):
    body = """
 mov.b64 q, {tid, 9};
 mov.b64 {_, x}, q;
 mov.b64 {y, _}, q;
 mad.lo.u32 d, x, 100, y;"""
    assert torch.equal(run(body), 900 + LANES)


def test_a_parameter_by_generic_address(softgpu):
    body = " mov.b64 q, p1; cvta.param.u64 q, q; ld.u32 x, [q+4]; ld.param.u32 y, [p1]; sub.u32 d, x, y;"
    assert torch.equal(run(body, 0, 5 + (12 << 32)), torch.full((32,), 7, dtype=torch.int32))


def test_words_in_local_and_read_only_global_memory(softgpu):
    body = """
 { .local .align 4 .b8 stack[8]; .reg .b64 g;
   st.local.b32 [stack+4], tid; ld.local.b32 x, [stack+4];
   ld.param.u64 g, [p0]; mad.wide.u32 g, tid, 4, g; ld.global.nc.b32 y, [g]; mad.lo.u32 d, x, 10, y; }"""
    assert torch.equal(run(body, LANES * 1000), LANES * 1010)


def test_a_breakpoint_is_a_trap(softgpu):
    with pytest.raises(gpu.DriverError):
        run("brkpt;")
    fault = gpu.last_fault()
    assert fault is not None and fault.kind == "trap"


def test_local_memory_is_per_lane(softgpu):
    body = """
 { .local .align 8 .b8 stack[16]; .reg .b64 s, g;
   mov.b64 s, stack; cvta.local.u64 g, s;
   st.local.u32 [s], tid; st.u32 [g+4], 3; bar.warp.sync -1;
   ld.u32 x, [g]; ld.local.v2.u32 {y, d}, [stack]; mad.lo.u32 d, x, 10, d; }"""
    assert torch.equal(run(body), LANES * 10 + 3)


def test_generic_and_shared_addresses_name_the_same_bytes(softgpu):
    body = """
 { .shared .align 4 .b8 box[128]; .reg .b64 g; .reg .b32 s;
   mov.u32 s, box; mad.lo.u32 s, tid, 4, s; cvt.u64.u32 g, s; cvta.shared.u64 g, g;
   st.shared.u32 [s], tid; ld.u32 x, [g]; isspacep.shared p, g; selp.u32 y, 100, 0, p;
   cvta.to.shared.u64 g, g; cvt.u32.u64 s, g; ld.shared.u32 d, [s]; add.u32 d, d, x; add.u32 d, d, y; }"""
    assert torch.equal(run(body), LANES * 2 + 100)


def test_static_shared_memory_lies_before_dynamic(softgpu):
    before = ".shared .align 4 .b8 fixed[64];\n.extern .shared .align 16 .b8 rest[];"
    body = " mov.u32 x, fixed; mov.u32 y, rest; sub.u32 d, y, x; st.shared.u32 [rest+60], d;"
    assert torch.equal(run(body, before=before, shared=64), torch.full((32,), 64, dtype=torch.int32))


def test_indexed_branches(softgpu):
    body = """
 and.b32 x, tid, 3;
TABLE: .branchtargets A, B, C, A;
 brx.idx x, TABLE;
A: mov.u32 d, 1; bra.uni END;
B: mov.u32 d, 2; bra.uni END;
C: mov.u32 d, 3;
END: """
    expected = torch.tensor([1, 2, 3, 1], dtype=torch.int32).repeat(8)
    assert torch.equal(run(body), expected)


def test_loops_of_different_length_reconverge(softgpu):
    body = """
 mov.u32 x, tid;
AGAIN:
 setp.eq.u32 p, x, 0;
 @p bra OUT;
 add.u32 d, d, x; sub.u32 x, x, 1;
 bra AGAIN;
OUT:
 redux.sync.add.u32 y, 1, -1;
 mad.lo.u32 d, y, 1000, d;"""
    assert torch.equal(run(body), (LANES * (LANES + 1) // 2 + 32000).int())


FUNCTION = """
.func (.param .b32 result) twice_plus(.param .b32 value, .param .b64 extra) {
 .reg .b32 %r<4>; .reg .b64 %rd<2>; .reg .pred %p<2>;
 ld.param.b32 %r1, [value]; ld.param.b64 %rd1, [extra];
 cvt.u32.u64 %r2, %rd1;
 setp.gt.u32 %p1, %r1, 20;
 @%p1 bra BIG;
 mad.lo.u32 %r3, %r1, 2, %r2; st.param.b32 [result], %r3; ret;
BIG:
 st.param.b32 [result], %r2;
 ret;
}"""
CALL = """
 {{ .param .b32 v; .param .b64 e; .param .b32 r;
   st.param.b32 [v], {value}; st.param.b64 [e], 5;
   {guard} call.uni (r), twice_plus, (v, e);
   ld.param.b32 {into}, [r]; }}"""


def test_device_functions_with_divergent_returns(softgpu):
    body = CALL.format(value="tid", into="x", guard="") + CALL.format(value="x", into="d", guard="")
    once = torch.where(LANES > 20, 5, LANES * 2 + 5)
    assert torch.equal(run(body, before=FUNCTION), torch.where(once > 20, 5, once * 2 + 5).int())


def test_a_predicated_call(softgpu):
    body = (
        " setp.lt.u32 p, tid, 4; mov.u32 x, 9; "
        + CALL.format(value="tid", into="y", guard="@p")
        + " selp.u32 d, y, x, p;"
    )
    assert torch.equal(run(body, before=FUNCTION), torch.where(LANES < 4, LANES * 2 + 5, 9).int())


def test_printf_formats(softgpu, capfd):
    before = """
.extern .func (.param .b32 status) vprintf(.param .b64 format, .param .b64 args);
.global .align 1 .b8 format[30] = {37, 100, 32, 37, 53, 46, 50, 102, 32, 37, 115, 32, 37, 120, 32, 37, 108, 108, 117,
37, 37, 10, 0};
.global .align 1 .b8 text[4] = {97, 98, 99, 0};"""
    body = """
 { .local .align 8 .b8 args[40]; .reg .b64 l, g, f, t; .param .b64 a0, a1; .param .b32 r;
   setp.ne.u32 p, tid, 3; @p bra NONE;
   mov.b64 l, args; cvta.local.u64 g, l;
   st.local.u32 [l], -7; st.local.f64 [l+8], 0d400921FB54442D18;
   mov.b64 t, text; cvta.global.u64 t, t; st.local.u64 [l+16], t; st.local.u32 [l+24], 255; st.local.u64 [l+32], -1;
   mov.b64 f, format; cvta.global.u64 f, f;
   st.param.b64 [a0], f; st.param.b64 [a1], g;
   call.uni (r), vprintf, (a0, a1);
   NONE: }"""
    run(body, before=before)
    assert gpu.printed() == "-7  3.14 abc ff 18446744073709551615%\n" == capfd.readouterr().out


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("add.u32 d, d, nothing;", "unknown symbol nothing"),
        ("add.u64 q, tid, q;", "too narrow"),
        ("add.u32 d, q, d;", "too wide"),
        ("bra NOWHERE;", "unknown label NOWHERE"),
        ("@d bra END; END:", "d is not a predicate"),
        ("ld.global.v4.u32 {d, x}, [addr];", "operand count differs"),
        ("shfl.down.b32 d, x, 1, 31;", "shfl.sync"),
        ("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.xor.popc {d}, {d}, {d}, {d};", "mma"),
        (".weird 3;", "unknown directive"),
    ],
)
def test_errors_name_the_line(softgpu, body, message):
    with pytest.raises(gpu.DriverError, match="PTX line 9: ") as error:
        run(body)
    assert message in str(error.value) and gpu.last_fault().line == 9
