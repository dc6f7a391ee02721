"""What the kernels of both architectures have around and in common beside the load role: parameters, shared memory,
launch, TMA store.

Not here: the roles that multiply and run the epilogue (`sm100`, `sm90`), the load role (`loading`).
"""

from __future__ import annotations

from . import auxiliary
from .spec import MatmulSpec
from .spec import Operand
from .text import call

__all__ = ["TMA_STORE", "host_head", "host_launch", "kernel_head", "kernel_memory", "major", "tma_store_setup"]


def major(operand: Operand) -> str:
    """``OperandMajorMode`` of A or B."""
    return "K" if operand.inner_major else "MN"


# -- the kernel
# ----------------------------------------------------------------------------------------------------------


def kernel_head(spec: MatmulSpec, name: str) -> str:
    """Signature, and who this thread is."""
    tma = spec.store_through_tma
    parameters = ["tma_a: cute.CopyAtom", "global_a: cute.Tensor", "tma_b: cute.CopyAtom", "global_b: cute.Tensor"]
    parameters += ["tma_out: cute.CopyAtom"] if tma else []
    parameters += ["global_out: cute.Tensor", *auxiliary.annotated(spec)]
    parameters += [f"{n}: cute.ComposedLayout" for n in _layouts(spec)]
    return f"""@cute.kernel
{call(f"def {name}", parameters, ":", 0)}
    warp = cute.arch.make_warp_uniform(cute.arch.warp_idx())
    thread, _, _ = cute.arch.thread_idx()
    # The grid is (CLUSTER_M, CLUSTER_N, clusters): x and y are the place in the cluster, z is the cluster's first tile.
    cluster_x, cluster_y, first = cute.arch.block_idx()
    _, _, clusters = cute.arch.grid_dim()
"""


def kernel_memory(spec: MatmulSpec, loader: str) -> str:
    """Descriptors fetched by the warp ``loader``, and the tensors and barriers in shared memory."""
    out = "    shared_out = smem.allocate_tensor(OUT_DTYPE, out_layout.outer, 1024, out_layout.inner)\n"
    prefetch = "        cpasync.prefetch_descriptor(tma_out)\n"
    tma = spec.store_through_tma
    return f"""    if warp == {loader}:
        cpasync.prefetch_descriptor(tma_a)
        cpasync.prefetch_descriptor(tma_b)
{prefetch if tma else ""}
    smem = SmemAllocator()
    shared_a = smem.allocate_tensor(A_DTYPE, a_layout.outer, 1024, a_layout.inner)
    shared_b = smem.allocate_tensor(B_DTYPE, b_layout.outer, 1024, b_layout.inner)
{out if tma else ""}    ab_barriers = smem.allocate_array(cutlass.Int64, 2 * AB_STAGES)
"""


def _layouts(spec: MatmulSpec) -> list[str]:
    return ["a_layout", "b_layout", *(["out_layout"] if spec.store_through_tma else [])]


# -- the host entry
# ------------------------------------------------------------------------------------------------------


def host_head(spec: MatmulSpec, entry: str) -> str:
    """Signature and docstring."""
    parameters = [
        "a: cute.Tensor",
        "b: cute.Tensor",
        "out: cute.Tensor",
        *auxiliary.annotated(spec),
        "clusters",
        "stream",
    ]
    return f'''@cute.jit
{call(f"def {entry}", parameters, ":", 0)}
    """a: (M, K, BATCH), b: (N, K, BATCH), out: (M, N, BATCH); clusters: of the grid, at most TILES."""
'''


def host_launch(spec: MatmulSpec, kernel: str) -> str:
    """The launch."""
    out = ["tma_out", "global_out"] if spec.store_through_tma else ["out"]
    arguments = ["tma_a", "global_a", "tma_b", "global_b", *out, *auxiliary.names(spec), *_layouts(spec)]
    return f"""    {call(kernel, arguments, ".launch(", 4)}
        grid=(CLUSTER_M, CLUSTER_N, clusters),
        block=(THREADS, 1, 1),
        cluster=(CLUSTER_M, CLUSTER_N, 1),
        smem=SHARED_BYTES,
        stream=stream,
    )"""


# -- the TMA store of the epilogue
# -----------------------------------------------------------------------------------------


def tma_store_setup(store: str, copy: str, tiles: str, threads: str) -> str:
    """What an epilogue role makes once, before its loop over tiles.

    Args:
        store: the copy from registers to shared memory.
        copy: the tiled copy made of ``store``, by threads as they hold the accumulator.
        tiles: the global output as this CTA's tiles.
        threads: threads of the role.
    """
    return f"""    store = {store}
    smem_store = {copy}
    thread_converted = smem_store.retile(converted)
    thread_shared = smem_store.get_slice(thread).partition_D(shared_out)
    tiles_out = cute.flat_divide({tiles}, subtile_shape)
    buffers, subtiles = cpasync.tma_partition(
        tma_out, 0, cute.make_layout(1), cute.group_modes(shared_out, 0, 2), cute.group_modes(tiles_out, 0, 2)
    )
    threads = {threads}
    c_pipeline = pipeline.PipelineTmaStore.create(
        num_stages=C_STAGES, producer_group=pipeline.CooperativeGroup(pipeline.Agent.Thread, threads)
    )
    epilogue_barrier = pipeline.NamedBarrier(barrier_id=1, num_threads=threads)
    buffer = cutlass.Int32(0)
"""


#: One epilogue step: before its values are made, once they are, and after all tiles. BATCH_INDEX is for the caller to
#: replace.
TMA_STORE = {
    "before": """            if warp == 0:
                c_pipeline.producer_acquire()  # the store that used this buffer has read it
""",
    "store": """            epilogue_barrier.arrive_and_wait()
            cute.copy(smem_store, thread_converted, thread_shared[(None, None, None, buffer)])
            cute.arch.fence_proxy("async.shared", space="cta")
            epilogue_barrier.arrive_and_wait()
            if warp == 0:
                cute.copy(tma_out, buffers[(None, buffer)], subtiles[(None, 0, subtile, m, n, BATCH_INDEX)])
                c_pipeline.producer_commit()
            buffer = (buffer + 1) % C_STAGES
""",
    "after": """    if warp == 0:
        c_pipeline.producer_tail()
""",
}
