// Every opcode table there is; each is defined at the end of its ops_*.cpp.
#pragma once
#include "machine.h"

namespace softgpu {

#define SOFTGPU_TABLE(name)            \
    extern const OpRow k##name##Ops[]; \
    extern const size_t k##name##OpCount;
SOFTGPU_TABLE(Arithmetic)   // ops_arithmetic.cpp: add, mul, mad, min ... of integers and floats
SOFTGPU_TABLE(Float)        // ops_float.cpp: fma, rcp, sqrt, ex2, sin ...
SOFTGPU_TABLE(Bit)          // ops_bits.cpp: and, shl, prmt, bfe, lop3 ...
SOFTGPU_TABLE(Compare)      // ops_compare.cpp: setp, selp ...
SOFTGPU_TABLE(Convert)      // ops_convert.cpp: cvt
SOFTGPU_TABLE(Move)         // ops_move.cpp: mov, cvta ...
SOFTGPU_TABLE(Memory)       // ops_memory.cpp: ld, st ...
SOFTGPU_TABLE(Atomic)       // ops_atomic.cpp: atom, red
SOFTGPU_TABLE(Warp)         // ops_warp.cpp: shfl, vote ...
SOFTGPU_TABLE(Control)      // ops_control.cpp: bra, bar, trap ...
SOFTGPU_TABLE(CpAsync)      // ops_cp_async.cpp: cp.async (not bulk)
SOFTGPU_TABLE(Matrix)       // ops_matrix.cpp: ldmatrix, stmatrix ...
SOFTGPU_TABLE(Mma)          // ops_mma.cpp: mma.sync
SOFTGPU_TABLE(Mbarrier)     // ops_mbarrier.cpp: mbarrier
SOFTGPU_TABLE(Bulk)         // ops_bulk.cpp: cp.async.bulk, with and without tensor maps
SOFTGPU_TABLE(Proxy)        // ops_proxy.cpp: fence.proxy, tensormap
SOFTGPU_TABLE(Cluster)      // ops_cluster.cpp: barrier.cluster, mapa, st.async ...
SOFTGPU_TABLE(Wgmma)        // ops_wgmma.cpp: wgmma
SOFTGPU_TABLE(Tcgen05)      // ops_tcgen05.cpp: tcgen05 but for the multiply
SOFTGPU_TABLE(Tcgen05Mma)   // ops_tcgen05_mma.cpp: tcgen05.mma
#undef SOFTGPU_TABLE

// Ends a table: its row count.
#define SOFTGPU_DEFINE_COUNT(name) \
    const size_t k##name##OpCount = std::size(k##name##Ops);

}  // namespace softgpu
