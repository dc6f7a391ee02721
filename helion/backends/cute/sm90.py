"""Device roles of the wgmma kernel (sm_90a), as source text.

The first warpgroup loads A and B through TMA and gives most of its registers away; one or two consumer warpgroups each
take 64 rows of the tile, multiply out of the ring with the accumulator in registers, then run the epilogue on it and
store through TMA. Same loops, ring, tile order and edges as `sm100`; what differs is that MMA and epilogue are one
role.
"""

from __future__ import annotations

from . import auxiliary
from . import frame
from . import loading
from .schedule import MatmulSchedule
from .schedule import promotes
from .spec import MatmulSpec
from .text import block
from .text import call

__all__ = ["IMPORTS", "ONE_ROW", "constants", "host", "kernel", "roles"]

# A thread of a warpgroup holds pairs of columns of two rows (wgmma accumulator layout, PTX ISA "Register fragments").
ONE_ROW = False

IMPORTS = """
import cutlass
import cutlass.cute as cute
import cutlass.pipeline as pipeline
import cutlass.utils.hopper_helpers as sm90
from cutlass.cute.nvgpu import OperandMajorMode, cpasync, warpgroup
from cutlass.cute.runtime import make_fake_stream, make_fake_tensor
from cutlass.memory import SmemAllocator
from cutlass.tensor_utils import LayoutEnum
"""

# setmaxnreg, with two consumer warpgroups: 65536 registers are 168 a thread at launch; the loader needs few. With one
# there are 255.
_LOADER_REGISTERS = 40
_CONSUMER_REGISTERS = 232


def constants(spec: MatmulSpec, s: MatmulSchedule) -> list[tuple[str, str, str]]:
    """(name, value, comment) of the constants only this architecture has."""
    return [
        ("VALUES", "EPILOGUE_N // 2", "elements that a thread holds in one epilogue step: 64 rows, 128 threads"),
        ("WARPGROUPS", str(s.consumer_warpgroups), "consumer warpgroups, 64 rows each"),
        ("THREADS", "128 * (1 + WARPGROUPS)", ""),
    ]


def roles(spec: MatmulSpec, s: MatmulSchedule) -> list[str]:
    """One function a role, and what they share."""
    out = [_tiled_mma(spec)]
    if auxiliary.per_element(spec):
        out += _load_elements(spec, s)
    return [*out, loading.role(spec, s), _consumer_role(spec, s)]


def _tiled_mma(spec: MatmulSpec) -> str:
    return f'''def tiled_mma(columns):
    """The MMA of WARPGROUPS x 64 rows and `columns` columns: operands in shared memory, fp32 sums in registers."""
    return sm90.make_trivial_tiled_mma(
        A_DTYPE,
        B_DTYPE,
        OperandMajorMode.{frame.major(spec.a)},
        OperandMajorMode.{frame.major(spec.b)},
        cutlass.Float32,
        (WARPGROUPS, 1, 1),
        (64, columns),
    )'''


def _load_elements(spec: MatmulSpec, s: MatmulSchedule) -> list[str]:
    row, column, note = "row + held[i][0]", "column + held[i][1]", ""
    place = f"source[({row}, {column})]"
    if spec.m % (s.tile_m * s.cluster_m):
        row, note = f"min({row}, M - 1)", _PAST_THE_END
    if spec.n % (s.tile_n * s.cluster_n):
        column, note = f"min({column}, N - 1)", _PAST_THE_END
    loads = [_load("", note, "", f"values[i] = source[({row}, {column})]")]
    if auxiliary.in_place(spec):
        test = f"""if row + held[i][0] < M and column + held[i][1] < N:
            values[i] = {place}"""
        loads.append(_load("_inside", auxiliary.NOT_PAST, "\n    values.fill(0)", test))
    return loads


def _load(suffix: str, note: str, start: str, load: str) -> str:
    return f'''@cute.jit
def load_elements{suffix}(source, held, row, column):
    """An (M, N) operand, broadcast by zero strides, at this thread's places of one epilogue step.{note}"""
    values = cute.make_rmem_tensor(VALUES, source.element_type){start}
    for i in cutlass.range_constexpr(VALUES):
        {load}
    return values.load()'''


_PAST_THE_END = "\n\n    Past the edge the last element is read again; the store clips what comes of it.\n    "


def _multiply(acc: str, overwrite: bool, indent: int) -> str:
    """Lines that start ``acc`` (+)= A x B of one stage of the ring; ``wait_group`` says when it is done."""
    lines = [
        "warpgroup.fence()",
        "for block in cutlass.range_constexpr(cute.size(a_fragment, mode=[2])):",
        "    at = (None, None, block, state.index)",
        f"    cute.gemm(mma, {acc}, a_fragment[at], b_fragment[at], {acc})",
        *(["    mma.set(warpgroup.Field.ACCUMULATE, True)"] if overwrite else []),
        "warpgroup.commit_group()",
    ]
    return block(lines, indent)


def _multiply_tile(spec: MatmulSpec) -> str:
    """The k loop of one tile, at its place in the consumer role."""
    if promotes(spec):
        return f"""        acc.fill(0.0)
        for k in cutlass.range(K_TILES, unroll=1):
            ab_pipeline.consumer_wait(state)
            mma.set(warpgroup.Field.ACCUMULATE, False)
{_multiply("partial", True, 12)}            warpgroup.wait_group(0)
            ab_pipeline.consumer_release(state)
            state.advance()
            # The tensor core's fp8 accumulator is narrow: sum the k tiles in fp32.
            acc.store(acc.load() + partial.load())
"""
    return f"""\
        # The first k tile overwrites the accumulator; a stage is released once the MMA after it has started.
        mma.set(warpgroup.Field.ACCUMULATE, False)
        ab_pipeline.consumer_wait(state)
{_multiply("acc", True, 8)}        state.advance()
        for k in cutlass.range(1, K_TILES, unroll=1):
            ab_pipeline.consumer_wait(state)
{_multiply("acc", False, 12)}            warpgroup.wait_group(1)
            ab_pipeline.consumer_release(behind)
            state.advance()
            behind.advance()
        warpgroup.wait_group(0)
        ab_pipeline.consumer_release(behind)
        behind.advance()
"""


def _consumer_role(spec: MatmulSpec, s: MatmulSchedule) -> str:
    tma = spec.store_through_tma
    elements = auxiliary.per_element(spec)
    values = ["part.load()", *(a.name for a in spec.epilogue.aux)]
    before, store, after = (frame.TMA_STORE if tma else _DIRECT_STORE).values()
    batch = "batch" if spec.batch > 1 else "0"
    partial = "    partial = cute.make_rmem_tensor(acc.shape, cutlass.Float32)\n" if promotes(spec) else ""
    behind = "" if promotes(spec) else _state("behind")
    row = ["row = m * TILE_M"] if elements or not tma else []
    column = ["column = n * TILE_N + subtile * EPILOGUE_N"] if elements or not tma else []
    registers = _registers("increase", _CONSUMER_REGISTERS, s)
    return f'''@cute.jit
{call("def consumer_role", _consumer_arguments(spec, "global_out"), ":", 0)}
    """The consumer warpgroups: multiply a tile out of the ring, then its epilogue, EPILOGUE_N columns at a time."""
{registers}    mma = tiled_mma(TILE_N)
    a_fragment = mma.make_fragment_A(mma.get_slice(thread).partition_A(shared_a))
    b_fragment = mma.make_fragment_B(mma.get_slice(thread).partition_B(shared_b))
    acc = cute.make_rmem_tensor(mma.partition_shape_C((TILE_M, TILE_N)), cutlass.Float32)
{partial}    subtile_shape = (TILE_M, EPILOGUE_N)
    step_mma = tiled_mma(EPILOGUE_N)
    held = step_mma.get_slice(thread).partition_C(cute.make_identity_tensor(subtile_shape))
    converted = cute.make_rmem_tensor(held.shape, OUT_DTYPE)
    out = cute.make_tensor(converted.iterator, VALUES)
{_TMA_SETUP if tma else ""}{_state("state")}{behind}{block(auxiliary.once(spec), 4)}\
    for tile in cutlass.range(first, TILES, clusters, unroll=1):
        m, n, batch = tile_coordinates(tile, cluster_x, cluster_y)
{block(auxiliary.per_batch(spec), 8)}{block(row, 8)}{_multiply_tile(spec)}\
        for subtile in cutlass.range_constexpr(SUBTILES):
            part = cute.make_tensor(acc.iterator + subtile * VALUES, VALUES)
{block(column, 12)}{block(elements, 12)}            {call("out.store(epilogue", values, ")", 12)}
{before}{store.replace("BATCH_INDEX", batch)}{after}'''.rstrip("\n")


def _state(name: str) -> str:
    return f"    {name} = pipeline.make_pipeline_state(pipeline.PipelineUserType.Consumer, AB_STAGES)\n"


def _registers(how: str, count: int, s: MatmulSchedule, indent: int = 4) -> str:
    return block([f"cute.arch.setmaxregister_{how}({count})"] if s.consumer_warpgroups == 2 else [], indent)


def _consumer_arguments(spec: MatmulSpec, out: str) -> list[str]:
    tma = ["tma_out", "shared_out"] if spec.store_through_tma else []
    names = ["shared_a", "shared_b", *tma, out, *auxiliary.names(spec)]
    return [*names, "ab_pipeline", "cluster_x", "cluster_y", "first", "clusters", "thread", "warp"]


_TMA_SETUP = frame.tma_store_setup(
    store="sm90.get_smem_store_op(LayoutEnum.ROW_MAJOR, OUT_DTYPE, cutlass.Float32)",
    copy="cute.make_tiled_copy_C(store, step_mma)",
    tiles="global_out",
    threads="128 * WARPGROUPS",
)

# No tensor map can describe the output (a row of it is not a multiple of 16 bytes): element by element, predicated.
_DIRECT_STORE = {
    "before": "",
    "store": """            for i in cutlass.range_constexpr(VALUES):
                if row + held[i][0] < M and column + held[i][1] < N:
                    global_out[(row + held[i][0], column + held[i][1], BATCH_INDEX)] = out[i]
""",
    "after": "",
}


def kernel(spec: MatmulSpec, s: MatmulSchedule, name: str) -> str:
    """The kernel: who it is, shared memory, barriers; then each warpgroup into its role."""
    tma = spec.store_through_tma
    tiles_out = "    tiles_out = cute.local_tile(global_out, (TILE_M, TILE_N), (None, None, None))\n" if tma else ""
    consumer = _consumer_arguments(spec, "tiles_out" if tma else "global_out")
    consumer = [{"thread": "thread - 128", "warp": "warp - 4"}.get(a, a) for a in consumer]
    readers = (s.cluster_m + s.cluster_n - 1) * 4 * s.consumer_warpgroups
    return f'''{frame.kernel_head(spec, name)}    cluster = cute.make_layout((1, CLUSTER_M, CLUSTER_N, 1))
    place = cluster.get_flat_coord(cluster_x + cluster_y * CLUSTER_M)
{frame.kernel_memory(spec, "0")}
    stage_bytes = cute.size_in_bytes(A_DTYPE, cute.slice_(a_layout, (None, None, 0)))
    stage_bytes += cute.size_in_bytes(B_DTYPE, cute.slice_(b_layout, (None, None, 0)))
    ab_pipeline = pipeline.PipelineTmaAsync.create(
        barrier_storage=ab_barriers,
        num_stages=AB_STAGES,
        producer_group=pipeline.CooperativeGroup(pipeline.Agent.Thread),
        consumer_group=pipeline.CooperativeGroup(pipeline.Agent.Thread, {readers}),
        tx_count=stage_bytes,
        cta_layout_vmnk=cluster,
        defer_sync=True,
    )
    pipeline.pipeline_init_arrive(cluster_shape_mn=cluster, is_relaxed=True)

    # Every global tile, and the ring's stages, as TMA sees them.
    parts_a = cute.local_tile(global_a, (TILE_M, TILE_K), (None, None, None))
    parts_b = cute.local_tile(global_b, (TILE_N, TILE_K), (None, None, None))
{tiles_out}    stages_a, tiles_a = cpasync.tma_partition(
        tma_a, place[2], cute.make_layout(CLUSTER_N), cute.group_modes(shared_a, 0, 2), cute.group_modes(parts_a, 0, 2)
    )
    stages_b, tiles_b = cpasync.tma_partition(
        tma_b, place[1], cute.make_layout(CLUSTER_M), cute.group_modes(shared_b, 0, 2), cute.group_modes(parts_b, 0, 2)
    )
{block(loading.masks(s), 4)}    pipeline.pipeline_init_wait(cluster_shape_mn=cluster)

    if warp < 4:
{_registers("decrease", _LOADER_REGISTERS, s, 8)}        if warp == 0:
            {call("load_role", loading.arguments(s), "", 12)}
    else:
        {call("consumer_role", consumer, "", 8)}


{name}.set_name_prefix("{name}", remove_cutlass_symbol=True, keep_mangled_name=False)'''


def _load_op(multicast: bool) -> str:
    return f"cpasync.CopyBulkTensorTileG2S{'Multicast' if multicast else ''}Op()"


def host(spec: MatmulSpec, s: MatmulSchedule, entry: str, kernel: str) -> str:
    """The host entry: tensor maps, then the launch."""
    tma = spec.store_through_tma
    a_op, b_op = map(_load_op, loading.multicast(s))
    out_layout = (
        "    out_layout = sm90.make_smem_layout_epi(OUT_DTYPE, LayoutEnum.ROW_MAJOR, (TILE_M, EPILOGUE_N), C_STAGES)\n"
        if tma
        else ""
    )
    out_map = (
        """    tma_out, global_out = cpasync.make_tiled_tma_atom(
        cpasync.CopyBulkTensorTileS2GOp(), out, cute.slice_(out_layout, (None, None, 0)), (TILE_M, EPILOGUE_N)
    )
"""
        if tma
        else ""
    )
    return f"""{frame.host_head(spec, entry)}    tile = (TILE_M, TILE_N, TILE_K)
    a_layout = sm90.make_smem_layout_a(LayoutEnum.from_tensor(a), tile, A_DTYPE, AB_STAGES)
    b_layout = sm90.make_smem_layout_b(LayoutEnum.from_tensor(b), tile, B_DTYPE, AB_STAGES)
{out_layout}    a_stage = cute.slice_(a_layout, (None, None, 0))
    b_stage = cute.slice_(b_layout, (None, None, 0))
    tma_a, global_a = cpasync.make_tiled_tma_atom(
        {a_op}, a, a_stage, (TILE_M, TILE_K), num_multicast=CLUSTER_N
    )
    tma_b, global_b = cpasync.make_tiled_tma_atom(
        {b_op}, b, b_stage, (TILE_N, TILE_K), num_multicast=CLUSTER_M
    )
{out_map}{frame.host_launch(spec, kernel)}"""
