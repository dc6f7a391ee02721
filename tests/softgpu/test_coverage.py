"""What the software GPU counts of a kernel, and the opcode report made of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import softgpu as gpu
from tests.softgpu import coverage
from tests.softgpu.ptx import PtxKernel

pytestmark = pytest.mark.softgpu(capability=90, software_only=True)

# Warp 0 leaves after three instructions; the others loop. Nobody runs the sqrt, which has a guard that never holds.
KERNEL = """
.visible .entry kernel(.param .u64 out) {
 .reg .b32 t, i; .reg .b64 a; .reg .pred p, never; .reg .f32 f;
 mov.u32 t, %tid.x;
 setp.lt.u32 p, t, 32;
 @p bra END;
 mov.u32 i, 0;
LOOP:
 add.u32 i, i, 1;
 setp.gt.u32 never, i, 100;
 @never sqrt.rn.f32 f, f;
 setp.lt.u32 p, i, 10;
 @p bra LOOP;
END:
 ret;
}"""


@pytest.fixture
def recorder() -> coverage.Recorder:
    fresh = coverage.Recorder()
    fresh.after("earlier tests")
    return coverage.Recorder()


def test_an_opcode_is_covered_when_a_lane_executes_it(softgpu, recorder: coverage.Recorder) -> None:
    PtxKernel(KERNEL)(1, 64, torch.zeros(1))
    recorder.after("this test")
    recorder.after("another test")
    assert recorder.tests["setp.lt.u32"] == coverage.Seen(2, 2, "this test")
    assert recorder.tests["sqrt.rn.f32"] == coverage.Seen(1, 0, "")


def test_what_runs_before_a_fault_is_covered(softgpu, recorder: coverage.Recorder) -> None:
    with pytest.raises(gpu.DriverError):
        PtxKernel(KERNEL.replace("mov.u32 i, 0;", "trap; mov.u32 i, 0;"))(1, 64, torch.zeros(1))
    recorder.after("this test")
    assert recorder.tests["trap"].executed == 1
    assert recorder.tests["add.u32"].executed == 0


def test_instructions_are_counted_by_cta_and_warp(softgpu) -> None:
    kernel = PtxKernel(KERNEL)
    for _ in range(2):
        kernel((4, 1, 1), 96, torch.zeros(1), cluster=(2, 1, 1))
    assert gpu.warp_instructions() == [[2 * 2 * n for n in (4, 3 + 1 + 10 * 5 + 1, 3 + 1 + 10 * 5 + 1)]] * 2
    assert sum(map(sum, gpu.warp_instructions())) == gpu.instructions()
    gpu.reset()
    assert gpu.warp_instructions() == []


def test_opcodes_are_found_in_ptx_text() -> None:
    ptx = b"""//
.version 8.7
.visible .entry kernel(.param .u64 p_0) {
\t.reg .b32 %r<5>;
$L__BB0_1:                              // %loop
\tmov.u32 \t%r1, %tid.x;
\t@%p2 bra \t$L__BB0_1;
\t// begin inline asm
\t{ cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%rd1, {%r2, %r3}], [%r4]; }
\t@!%p1 st.global.v4.b32 [%rd1 + 0], {%r1, %r2,
\t\t%r3, %r4};
\tret;
}"""
    assert coverage.opcodes_of(ptx) == {
        "mov.u32",
        "bra",
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes",
        "st.global.v4.b32",
        "ret",
    }


def test_the_report_lists_what_no_test_executed(tmp_path: Path) -> None:
    first, second = coverage.Recorder(), coverage.Recorder()
    first.tests = {"add.s32": coverage.Seen(3, 0, ""), "sqrt.rn.f32": coverage.Seen(1, 0, "")}
    second.tests = {"add.s32": coverage.Seen(2, 2, "test_b")}
    second.caches = {str(tmp_path)}
    (tmp_path / "kernel.ptx").write_text("add.s32 %r1, %r2, %r3;\nex2.approx.f32 %f1, %f2;\n")
    first.add(second.to_json())
    report = coverage.Report.of(first)
    assert report.seen["add.s32"] == coverage.Seen(5, 2, "test_b")
    assert report.never_executed == ["ex2.approx.f32", "sqrt.rn.f32"]
    assert "sqrt" in report.unused_rows
    assert "add" not in report.unused_rows
    report.write(tmp_path / "report.txt")
    assert "ex2.approx.f32" in (tmp_path / "report.txt").read_text()
