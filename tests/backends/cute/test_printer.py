"""Printed modules: stable text, and a compiler that accepts them on both architectures for every kind of problem."""

from __future__ import annotations

import ast
import dataclasses
import itertools
import re

import pytest
import torch

from helion import exc
from helion.backends.cute.compile import CompiledMatmul
from helion.backends.cute.compile import compile_matmul
from helion.backends.cute.epilogue import RESERVED
from helion.backends.cute.printer import entry_name
from helion.backends.cute.printer import kernel_name
from helion.backends.cute.printer import print_module
from helion.backends.cute.schedule import MatmulSchedule
from helion.backends.cute.schedule import default_schedule
from helion.backends.cute.spec import MatmulSpec
from helion.backends.cute.spec import Operand
from tests.caches import cute_cache

from .problems import BF16
from .problems import F32
from .problems import FP8
from .problems import every_kind
from .problems import hopper
from .problems import matmul
from .problems import pair
from .problems import rowwise
from .problems import small

E5M2 = torch.float8_e5m2

#: Of tests that only compile what `test_softgpu.py` compiles and runs, at other sizes: `make sweep` has them.
also_run = pytest.mark.sweep


def compiled(spec: MatmulSpec, schedule: MatmulSchedule) -> CompiledMatmul:
    result = compile_matmul(spec, schedule, cute_cache())
    assert result.assembly.cubin[:4] == b"\x7fELF"
    return result


def test_same_input_same_text() -> None:
    spec = dataclasses.replace(matmul(512, 512, 512, FP8), epilogue=rowwise())
    assert print_module(spec, pair()) == print_module(spec, pair())


def test_the_load_loop_is_rolled_and_has_no_predicate() -> None:
    source = print_module(matmul(512, 512, 1024, FP8), pair())
    role = source[source.index("def load_role") : source.index("def mma_role")]
    assert role.count("cute.copy(") == 2
    assert " if " not in role
    assert "try_acquire" not in role


def test_no_line_of_a_printed_module_is_wider_than_120_columns() -> None:
    spec = dataclasses.replace(matmul(300, 264, 72), epilogue=every_kind(264))
    for schedule in (small(cluster_n=2), hopper(cluster_n=2)):
        text = print_module(spec, schedule)
        assert max(map(len, text.splitlines())) <= 120


def names_of(text: str) -> set[str]:
    """The names that a module's code binds or reads."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Name(id=name) | ast.arg(arg=name) | ast.FunctionDef(name=name):
                found.add(name)
            case ast.alias(name=name, asname=other):
                found.add(other or name.partition(".")[0])
    return found


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("size", [512, 504, 500], ids=["whole", "cut", "stored by elements"])
@pytest.mark.parametrize(
    "schedule",
    [small(), small(l2_swizzle=4, cluster_m=2, cluster_n=2), pair(tile_k=64, ab_stages=3)]
    + [hopper(), hopper(l2_swizzle=4, cluster_m=2, cluster_n=2)],
    ids=lambda s: f"{s.arch}-{s.cluster_m}-{s.cluster_n}",
)
def test_no_operand_can_be_called_like_something_of_the_printed_code(schedule, size, batch) -> None:
    """A number called `a`, or a kernel called `epilogue`, hid what the code had of that name."""
    epilogue = every_kind(size)
    in_place = tuple(dataclasses.replace(aux, in_place=aux.kind == "matrix") for aux in epilogue.aux)
    for chosen in (epilogue, dataclasses.replace(epilogue, aux=in_place)):
        spec = matmul(size, size, 512, batch=batch, epilogue=chosen)
        own = {s.name for s in epilogue.statements} | {entry_name(spec), kernel_name(spec)}
        own |= {name for aux in epilogue.aux for name in (aux.name, f"m_{aux.name}")}
        free = {name for name in names_of(print_module(spec, schedule)) - own if name == name.lower()}
        assert free <= RESERVED | {"_"}


def test_an_invalid_schedule_is_not_printed() -> None:
    with pytest.raises(exc.InvalidConfig):
        print_module(matmul(512, 512, 512, FP8), pair(ab_stages=12))


SHAPES = [(128, 128, 64), (1, 16, 16), (17, 264, 72), (255, 8, 8), (257, 1000, 520)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("b_major", ["k", "n"])
@pytest.mark.parametrize("schedule", [small(), hopper()], ids=["sm_100a", "sm_90a"])
@pytest.mark.compiles
@also_run
def test_bf16_shapes_compile(shape, b_major, schedule) -> None:
    compiled(matmul(*shape, b_major=b_major), schedule)


@pytest.mark.parametrize("out", [BF16, torch.float16, F32, FP8, E5M2], ids=str)
@pytest.mark.parametrize("operand", [BF16, torch.float16, FP8, E5M2], ids=str)
@pytest.mark.parametrize("arch", ["sm_100a", "sm_90a"])
@pytest.mark.compiles
@also_run
def test_dtypes_compile(operand, out, arch) -> None:
    spec = matmul(272, 272, 272, operand, out)
    compiled(spec, default_schedule(spec, arch))


@pytest.mark.parametrize("arch", ["sm_100a", "sm_90a"])
@pytest.mark.compiles
def test_two_fp8_types_can_be_mixed(arch) -> None:
    spec = dataclasses.replace(matmul(256, 256, 256, FP8), b=Operand(E5M2, 256, 1))
    compiled(spec, default_schedule(spec, arch))


@pytest.mark.parametrize("arch", ["sm_100a", "sm_103a"])
@pytest.mark.parametrize(("cluster_m", "cluster_n"), [(2, 1), (4, 1), (2, 2), (2, 4), (4, 2)])
@pytest.mark.compiles
def test_pairs_and_their_clusters_compile(arch, cluster_m, cluster_n) -> None:
    schedule = pair(cluster_m=cluster_m, cluster_n=cluster_n, arch=arch)
    compiled(matmul(1000, 1008, 1040, FP8), schedule)


@pytest.mark.parametrize("schedule", [small(), hopper()], ids=["sm_100a", "sm_90a"])
@pytest.mark.parametrize(("cluster_m", "cluster_n"), [(2, 1), (1, 2), (2, 2)])
@pytest.mark.compiles
@also_run
def test_clusters_of_single_ctas_compile(schedule, cluster_m, cluster_n) -> None:
    spec = dataclasses.replace(matmul(300, 264, 72), epilogue=rowwise())
    compiled(spec, dataclasses.replace(schedule, cluster_m=cluster_m, cluster_n=cluster_n))


@pytest.mark.parametrize("stages", range(2, 9))
@pytest.mark.compiles
@also_run
def test_every_depth_of_the_ring_compiles(stages) -> None:
    compiled(matmul(512, 512, 512, FP8), pair(ab_stages=stages))


@pytest.mark.parametrize(
    "schedule",
    [
        pair(tile_n=32),
        pair(tile_n=256, ab_stages=5),
        pair(tile_k=64),
        pair(tile_k=256, ab_stages=4),
        pair(epilogue_n=64, c_stages=2),
        pair(acc_stages=1),
        pair(acc_stages=4),
        pair(l2_swizzle=4),
        pair(l2_swizzle=16),
        pair(c_stages=1),
    ],
    ids=str,
)
@pytest.mark.compiles
def test_schedules_compile(schedule) -> None:
    compiled(matmul(1024, 1152, 1024, FP8), schedule)


@pytest.mark.parametrize(
    "schedule", [hopper(tile_m=64), hopper(tile_n=256, ab_stages=3), hopper(tile_k=32), hopper(epilogue_n=64)], ids=str
)
@pytest.mark.compiles
def test_hopper_schedules_compile(schedule) -> None:
    compiled(matmul(1024, 1152, 1024), schedule)


@pytest.mark.parametrize("schedule", [small(), hopper()], ids=["sm_100a", "sm_90a"])
@pytest.mark.parametrize(("m", "n"), [(256, 256), (255, 264), (17, 257), (1, 8)])
@pytest.mark.compiles
@also_run
def test_every_kind_of_epilogue_operand_compiles(schedule, m, n) -> None:
    spec = dataclasses.replace(matmul(m, n, 72), epilogue=every_kind(n))
    compiled(spec, schedule)


@pytest.mark.parametrize("schedule", [small(), hopper()], ids=["sm_100a", "sm_90a"])
@pytest.mark.parametrize("out", [BF16, F32, FP8], ids=str)
@pytest.mark.compiles
def test_an_output_no_tensor_map_describes_is_stored_by_its_threads(schedule, out) -> None:
    spec = matmul(255, 257, 72, BF16, out)
    assert not spec.store_through_tma
    facts = compiled(spec, schedule).facts
    assert [p.kind for p in facts.parameters] == ["map", "map", "pointer"]


@pytest.mark.parametrize("schedule", [small(), hopper()], ids=["sm_100a", "sm_90a"])
@pytest.mark.compiles
def test_a_batch_compiles_also_with_a_shared_operand(schedule) -> None:
    spec = dataclasses.replace(matmul(200, 136, 72, batch=3), epilogue=every_kind(136))
    compiled(spec, schedule)
    compiled(dataclasses.replace(spec, b=dataclasses.replace(spec.b, batch=0)), schedule)


@pytest.mark.parametrize(
    ("spec", "schedule"),
    [
        (matmul(300, 264, 72), small(cluster_n=2)),
        (matmul(512, 512, 512, FP8), pair()),
        (matmul(255, 257, 72), small()),
        (matmul(300, 264, 72), hopper()),
        (matmul(300, 264, 72, out=F32), hopper(tile_m=64)),
    ],
)
@pytest.mark.compiles
def test_shared_memory_of_the_code_stays_within_what_the_launch_gives(spec, schedule) -> None:
    """The highest fixed offset the code initialises a barrier at, plus the words behind it, lie inside."""
    result = compiled(spec, schedule)
    offsets = [
        int(x) for x in re.findall(r"mbarrier\.init\.shared\.b64 \[%r\d+\+(\d+)\]", _one_space(result.assembly.ptx))
    ]
    assert offsets
    tensors = schedule.ab_stages * schedule.ab_stage_bytes(spec) + schedule.c_stages * schedule.c_stage_bytes(spec)
    assert min(offsets) >= tensors
    assert max(offsets) + 16 + 8 <= result.facts.shared_bytes


def _one_space(text: str) -> str:
    return re.sub(r"[ \t]+", " ", text)


@pytest.mark.compiles
def test_kernel_parameters_are_what_the_launch_passes() -> None:
    """Sizes of the parameters in the PTX, in order: 128 for a tensor map, 8 for a pointer, 4 for a number."""
    spec = dataclasses.replace(matmul(256, 256, 256), epilogue=every_kind(256))
    for schedule in (small(), hopper()):
        result = compiled(spec, schedule)
        head = result.assembly.ptx.split("{", 1)[0]
        sizes = [
            int(array) if array else int(width) // 8
            for width, array in re.findall(r"\.param (?:\.align \d+ )?\.[a-z](\d+) \w+(?:\[(\d+)\])?", head)
        ]
        want = {"map": 128, "pointer": 8, "value": 4}
        assert sizes == [want[p.kind] for p in result.facts.parameters]


def test_all_pairs_of_tails_print_clamped_loads_only_where_needed() -> None:
    for m, n in itertools.product((256, 255), (256, 264)):
        text = print_module(dataclasses.replace(matmul(m, n, 64), epilogue=every_kind(n)), small())
        assert ("row = min(row, M - 1)" in text) == (m == 255)
        assert ("cute.size(source, mode=[1]) - 1" in text) == (n == 264)
