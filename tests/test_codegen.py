"""The table of machine code (`benchmarks/codegen.txt`) is of the code that there is, shown on a small part of it."""

from __future__ import annotations

import pytest

from benchmarks.codegen import CAPABILITIES
from benchmarks.codegen import KERNELS
from benchmarks.codegen import TABLE
from benchmarks.codegen import accesses
from benchmarks.codegen import example_rows
from benchmarks.codegen import heading


@pytest.mark.compiles
@pytest.mark.parametrize("name", ["softmax", "rms_norm", "norm_of_views"])
def test_row_is_what_is_generated(name: str) -> None:
    known = [line for line in TABLE.read_text().splitlines() if line.split()[:2] == [name, "sm_90"]]
    assert example_rows((name, 90)) == known, "if the change is meant: python benchmarks/codegen.py --write"


def test_table_has_a_row_of_every_kernel_and_gpu() -> None:
    lines = TABLE.read_text().splitlines()
    assert lines[:2] == heading()
    found = {tuple(line.split()[:2]) for line in lines[2:]}
    assert found == {(name, f"sm_{capability}") for name in KERNELS for capability in CAPABILITIES}


def test_accesses_are_counted_by_their_width() -> None:
    listing = """
        /*0010*/ LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0020*/ @P0 LDG.E.128.CONSTANT R4, [R2.64] ;
        /*0030*/ LDG.E.U16 R4, [R2.64] ;
        /*0040*/ LDGSTS.E.BYPASS.128 [R4], [R2.64] ;
        /*0050*/ UTMALDG.2D [UR8], [UR4] ;
        /*0060*/ STG.E desc[UR4][R2.64], R4 ;
    """
    assert accesses(listing) == ("128x2 16x1 a128x1 tmax1", "32x1")
