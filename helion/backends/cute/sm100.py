"""Device roles of the tcgen05 kernel (sm_100a, sm_103a), as source text.

Six warps a CTA, each role with its whole tile loop: warp 5 loads A and B through TMA, warp 4 of the leading CTA issues
the MMAs, warps 0-3 run the epilogue. They meet only at mbarriers: a ring of ``AB_STAGES`` A/B buffers between load and
MMA, ``ACC_STAGES`` accumulators in tensor memory between MMA and epilogue. The pipelining comes from that handshake, so
every loop is rolled and has no prologue and no predicate on how much is left: what TMA reads past an edge is zero, what
it stores past one is dropped.
"""

from __future__ import annotations

from . import auxiliary
from . import frame
from . import loading
from .schedule import MatmulSchedule
from .spec import MatmulSpec
from .text import block
from .text import call

__all__ = ["IMPORTS", "ONE_ROW", "constants", "host", "kernel", "roles"]

# Thread t of the epilogue reads row t of the accumulator (tcgen05.ld 32x32b: lane = row).
ONE_ROW = True

IMPORTS = """
import cutlass
import cutlass.cute as cute
import cutlass.pipeline as pipeline
import cutlass.utils.blackwell_helpers as sm100
from cutlass.cute.nvgpu import OperandMajorMode, cpasync, tcgen05
from cutlass.cute.runtime import make_fake_stream, make_fake_tensor
from cutlass.memory import SmemAllocator, TmemAllocator
from cutlass.tensor_utils import LayoutEnum
"""


def constants(spec: MatmulSpec, s: MatmulSchedule) -> list[tuple[str, str, str]]:
    """(name, value, comment) of the constants only this architecture has."""
    return [
        ("VALUES", "EPILOGUE_N", "elements of one row that a thread holds in one epilogue step"),
        ("CTAS_PER_MMA", str(s.ctas_per_mma), "CTAs that share one MMA tile"),
        ("ACC_STAGES", str(s.acc_stages), "accumulators in tensor memory"),
        ("ACC_COLUMNS", str(s.acc_columns), "columns of tensor memory allocated for them"),
        ("EPILOGUE_WARPS", "4", ""),
        ("MMA_WARP", "4", ""),
        ("LOAD_WARP", "5", ""),
        ("THREADS", "192", ""),
    ]


def roles(spec: MatmulSpec, s: MatmulSchedule) -> list[str]:
    """One function a role, and what they share."""
    out = [_tiled_mma(spec)]
    if auxiliary.per_step(spec):
        out += auxiliary.load_columns(spec, s)
    out += [loading.role(spec, s), _mma_role(), _epilogue_role(spec, s)]
    return out


def _tiled_mma(spec: MatmulSpec) -> str:
    return f'''def tiled_mma():
    """The MMA of one tile: TILE_M x TILE_N in tensor memory, operands in shared memory, fp32 accumulator."""
    group = tcgen05.CtaGroup.TWO if CTAS_PER_MMA == 2 else tcgen05.CtaGroup.ONE
    return sm100.make_trivial_tiled_mma(
        A_DTYPE,
        B_DTYPE,
        OperandMajorMode.{frame.major(spec.a)},
        OperandMajorMode.{frame.major(spec.b)},
        cutlass.Float32,
        group,
        (TILE_M, TILE_N),
    )'''


def _mma_role() -> str:
    return '''@cute.jit
def mma_role(tmem, acc_layout, shared_a, shared_b, ab_pipeline, acc_pipeline, first, clusters):
    """One warp of the leading CTA: one accumulator a tile, one stage of the ring a step."""
    mma = tiled_mma()
    a_fragment = mma.make_fragment_A(shared_a)
    b_fragment = mma.make_fragment_B(shared_b)
    accumulators = cute.make_tensor(tmem.retrieve_ptr(cutlass.Float32), acc_layout)
    ab_state = pipeline.make_pipeline_state(pipeline.PipelineUserType.Consumer, AB_STAGES)
    acc_state = pipeline.make_pipeline_state(pipeline.PipelineUserType.Producer, ACC_STAGES)
    for tile in cutlass.range(first, TILES, clusters, unroll=1):
        acc_pipeline.producer_acquire(acc_state)
        acc = accumulators[(None, None, None, acc_state.index)]
        mma.set(tcgen05.Field.ACCUMULATE, False)
        for k in cutlass.range(K_TILES, unroll=1):
            ab_pipeline.consumer_wait(ab_state)
            for block in cutlass.range_constexpr(cute.size(a_fragment, mode=[2])):
                at = (None, None, block, ab_state.index)
                cute.gemm(mma, acc, a_fragment[at], b_fragment[at], acc)
                mma.set(tcgen05.Field.ACCUMULATE, True)
            ab_pipeline.consumer_release(ab_state)
            ab_state.advance()
        acc_pipeline.producer_commit(acc_state)
        acc_state.advance()
    # Stay until the epilogue has read every accumulator: its last arrivals land on this CTA's barriers.
    for _ in cutlass.range(ACC_STAGES, unroll=1):
        acc_pipeline.producer_acquire(acc_state)
        acc_state.advance()'''


def _epilogue_role(spec: MatmulSpec, s: MatmulSchedule) -> str:
    tma = spec.store_through_tma
    aux = auxiliary.names(spec)
    parameters = ["tmem", "acc_layout", *(["tma_out", "shared_out"] if tma else []), "global_out", *aux]
    parameters += ["acc_pipeline", "cluster_x", "cluster_y", "first", "clusters", "thread", "warp"]
    per_tile = auxiliary.per_batch(spec) + auxiliary.per_row(spec)
    per_step = auxiliary.per_step(spec)
    row = []
    needs_row = not tma or any(a.kind in ("column", "matrix") for a in spec.epilogue.aux)
    pair = " + cluster_x % CTAS_PER_MMA * CTA_M" if s.ctas_per_mma == 2 else ""
    if needs_row:
        row.append(f"row = m * TILE_M{pair} + thread")
        if not tma or auxiliary.in_place(spec):
            row.append("inside = row < M")
        if spec.m % (s.cta_m * s.cluster_m):
            row.append("row = min(row, M - 1)  # rows past the end read the last one's operands, and are not stored")
    column = ["column = n * TILE_N + subtile * EPILOGUE_N"] if per_step or not tma else []
    values = ["acc.load()", *(a.name for a in spec.epilogue.aux)]
    store_setup = _TMA_SETUP if tma else ""
    batch = "batch" if spec.out.batch or spec.batch > 1 else "0"
    before, store, after = (frame.TMA_STORE if tma else _DIRECT_STORE).values()
    return f'''@cute.jit
{call("def epilogue_role", parameters, ":", 0)}
    """Four warps: a thread takes one row of the accumulator, EPILOGUE_N columns at a time."""
    tmem.allocate(ACC_COLUMNS)
    tmem.wait_for_alloc()
    tmem_address = tmem.retrieve_ptr(cutlass.Float32)
    subtile_shape = (CTA_M, EPILOGUE_N)
    all_acc = cute.make_tensor(tmem_address, acc_layout)
    accumulators = cute.flat_divide(all_acc[((None, None), 0, 0, None)], subtile_shape)
    load = cute.make_copy_atom(tcgen05.copy.Ld32x32bOp(tcgen05.copy.Repetition(EPILOGUE_N)), cutlass.Float32)
    tmem_load = tcgen05.make_tmem_copy(load, accumulators[(None, None, 0, 0, 0)])
    thread_acc = tmem_load.get_slice(thread).partition_S(accumulators)
    held = tmem_load.get_slice(thread).partition_D(cute.make_identity_tensor(subtile_shape))
    loaded = cute.make_rmem_tensor(held.shape, cutlass.Float32)
    converted = cute.make_rmem_tensor(held.shape, OUT_DTYPE)
    acc = cute.make_tensor(loaded.iterator, VALUES)
    out = cute.make_tensor(converted.iterator, VALUES)
{store_setup}    acc_state = pipeline.make_pipeline_state(pipeline.PipelineUserType.Consumer, ACC_STAGES)
{block(auxiliary.once(spec), 4)}    for tile in cutlass.range(first, TILES, clusters, unroll=1):
        m, n, batch = tile_coordinates(tile, cluster_x, cluster_y)
{block(row, 8)}{block(per_tile, 8)}        acc_pipeline.consumer_wait(acc_state)
        for subtile in cutlass.range(SUBTILES, unroll=1):
{before}            cute.copy(tmem_load, thread_acc[(None, None, None, 0, subtile, acc_state.index)], loaded)
            cute.arch.fence_view_async_tmem_load()
            if subtile == SUBTILES - 1:
                # The accumulator is in registers: the MMA warp may overwrite it.
                with cute.arch.elect_one():
                    acc_pipeline.consumer_release(acc_state)
{block(column, 12)}{block(per_step, 12)}            {call("out.store(epilogue", values, ")", 12)}
{store.replace("BATCH_INDEX", batch)}        acc_state.advance()
{after}    tmem.relinquish_alloc_permit()
    tmem.free(tmem_address)'''


_TMA_SETUP = frame.tma_store_setup(
    store="sm100.get_smem_store_op(LayoutEnum.ROW_MAJOR, OUT_DTYPE, cutlass.Float32, tmem_load)",
    copy="cute.make_tiled_copy_D(store, tmem_load)",
    tiles="global_out[((None, None), 0, 0, None, None, None)]",
    threads="32 * EPILOGUE_WARPS",
)

# No tensor map can describe the output (a row of it is not a multiple of 16 bytes): element by element, predicated.
# Lanes that took different ways must meet before the next instruction on tensor memory, which is the whole warp's.
_DIRECT_STORE = {
    "before": """            cute.arch.sync_warp()
""",
    "store": """            if inside:
                for i in cutlass.range_constexpr(VALUES):
                    if column + i < N:
                        global_out[(row, column + i, BATCH_INDEX)] = out[i]
""",
    "after": """    # No warp may still read tensor memory when the first one frees it.
    pipeline.NamedBarrier(barrier_id=1, num_threads=32 * EPILOGUE_WARPS).arrive_and_wait()
    cute.arch.sync_warp()
""",
}


def _pipelines(s: MatmulSchedule) -> str:
    """The ring of operand stages, the accumulators, and the allocator of tensor memory."""
    readers = s.cluster_m // s.ctas_per_mma + s.cluster_n - 1
    return f"""\
    one_thread = pipeline.CooperativeGroup(pipeline.Agent.Thread)
    stage_bytes = CTAS_PER_MMA * (
        cute.size_in_bytes(A_DTYPE, cute.slice_(a_layout, (None, None, None, 0)))
        + cute.size_in_bytes(B_DTYPE, cute.slice_(b_layout, (None, None, None, 0)))
    )
    ab_pipeline = pipeline.PipelineTmaUmma.create(
        barrier_storage=ab_barriers,
        num_stages=AB_STAGES,
        producer_group=one_thread,
        consumer_group=pipeline.CooperativeGroup(pipeline.Agent.Thread, {readers}),
        tx_count=stage_bytes,
        cta_layout_vmnk=cluster,
        defer_sync=True,
    )
    acc_pipeline = pipeline.PipelineUmmaAsync.create(
        barrier_storage=acc_barriers,
        num_stages=ACC_STAGES,
        producer_group=one_thread,
        consumer_group=pipeline.CooperativeGroup(pipeline.Agent.Thread, EPILOGUE_WARPS * CTAS_PER_MMA),
        cta_layout_vmnk=cluster,
        defer_sync=True,
    )
    tmem = TmemAllocator(
        tmem_address,
        barrier_for_retrieve=pipeline.NamedBarrier(barrier_id=2, num_threads=32 * (EPILOGUE_WARPS + 1)),
        allocator_warp_id=0,
        is_two_cta=CTAS_PER_MMA == 2,
        two_cta_tmem_dealloc_mbar_ptr=tmem_freed,
    )
"""


def kernel(spec: MatmulSpec, s: MatmulSchedule, name: str) -> str:
    """The kernel: who it is, shared memory, barriers; then each warp into its role."""
    tma = spec.store_through_tma
    aux = auxiliary.names(spec)
    epilogue_arguments = ["tmem", "acc_layout", *(["tma_out", "shared_out", "tiles_out"] if tma else ["global_out"])]
    epilogue_arguments += [*aux, "acc_pipeline", "cluster_x", "cluster_y", "first", "clusters", "thread", "warp"]
    tiles_out = (
        "    tiles_out = thread_mma.partition_C(cute.local_tile(global_out, (TILE_M, TILE_N), (None, None, None)))\n"
        if tma
        else ""
    )
    mma_call = "mma_role(tmem, acc_layout, shared_a, shared_b, ab_pipeline, acc_pipeline, first, clusters)"
    if s.ctas_per_mma == 2:
        mma_branch = f"        if cluster_x % CTAS_PER_MMA == 0:\n            {mma_call}"
    else:
        mma_branch = f"        {mma_call}"
    return f'''{frame.kernel_head(spec, name)}    mma = tiled_mma()
    cluster = cute.tiled_divide(cute.make_layout((CLUSTER_M, CLUSTER_N, 1)), (mma.thr_id.shape,))
    place = cluster.get_flat_coord(cluster_x + cluster_y * CLUSTER_M)
{frame.kernel_memory(spec, "LOAD_WARP")}    acc_barriers = smem.allocate_array(cutlass.Int64, 2 * ACC_STAGES)
    tmem_freed = smem.allocate_array(cutlass.Int64, 1)
    tmem_address = smem.allocate_array(cutlass.Int32, 1)

{_pipelines(s)}    pipeline.pipeline_init_arrive(cluster_shape_mn=cluster, is_relaxed=True)

    # This CTA's part of every global tile, and the ring's stages, as TMA sees them.
    thread_mma = mma.get_slice(place[0])
    parts_a = thread_mma.partition_A(cute.local_tile(global_a, (TILE_M, TILE_K), (None, None, None)))
    parts_b = thread_mma.partition_B(cute.local_tile(global_b, (TILE_N, TILE_K), (None, None, None)))
{tiles_out}    stages_a, tiles_a = cpasync.tma_partition(
        tma_a, place[2], cute.make_layout(CLUSTER_N), cute.group_modes(shared_a, 0, 3), cute.group_modes(parts_a, 0, 3)
    )
    stages_b, tiles_b = cpasync.tma_partition(
        tma_b,
        place[1],
        cute.make_layout(CLUSTER_M // CTAS_PER_MMA),
        cute.group_modes(shared_b, 0, 3),
        cute.group_modes(parts_b, 0, 3),
    )
    acc_shape = mma.partition_shape_C((TILE_M, TILE_N))
    acc_layout = mma.make_fragment_C(cute.append(acc_shape, ACC_STAGES)).layout
{block(loading.masks(s), 4)}    pipeline.pipeline_init_wait(cluster_shape_mn=cluster)

    if warp == LOAD_WARP:
        {call("load_role", loading.arguments(s), "", 8)}
    if warp == MMA_WARP:
        tmem.wait_for_alloc()
{mma_branch}
    if warp < EPILOGUE_WARPS:
        {call("epilogue_role", epilogue_arguments, "", 8)}


{name}.set_name_prefix("{name}", remove_cutlass_symbol=True, keep_mangled_name=False)'''


def host(spec: MatmulSpec, s: MatmulSchedule, entry: str, kernel: str) -> str:
    """The host entry: tensor maps, then the launch."""
    tma = spec.store_through_tma
    out_layout = (
        "    out_layout = sm100.make_smem_layout_epi(OUT_DTYPE, LayoutEnum.ROW_MAJOR, (CTA_M, EPILOGUE_N), C_STAGES)\n"
        if tma
        else ""
    )
    out_map = (
        """    tma_out, global_out = cpasync.make_tiled_tma_atom(
        cpasync.CopyBulkTensorTileS2GOp(), out, cute.select(out_layout, mode=[0, 1]), (CTA_M, EPILOGUE_N)
    )
"""
        if tma
        else ""
    )
    return f"""{frame.host_head(spec, entry)}    mma = tiled_mma()
    tile = (TILE_M, TILE_N, TILE_K)
    cluster = cute.tiled_divide(cute.make_layout((CLUSTER_M, CLUSTER_N, 1)), (mma.thr_id.shape,))
    a_layout = sm100.make_smem_layout_a(mma, tile, A_DTYPE, AB_STAGES)
    b_layout = sm100.make_smem_layout_b(mma, tile, B_DTYPE, AB_STAGES)
{out_layout}    tma_a, global_a = cute.nvgpu.make_tiled_tma_atom_A(
        sm100.cluster_shape_to_tma_atom_A((CLUSTER_M, CLUSTER_N), mma.thr_id),
        a,
        cute.slice_(a_layout, (None, None, None, 0)),
        tile,
        mma,
        cluster.shape,
    )
    tma_b, global_b = cute.nvgpu.make_tiled_tma_atom_B(
        sm100.cluster_shape_to_tma_atom_B((CLUSTER_M, CLUSTER_N), mma.thr_id),
        b,
        cute.slice_(b_layout, (None, None, None, 0)),
        tile,
        mma,
        cluster.shape,
    )
{out_map}{frame.host_launch(spec, kernel)}"""
