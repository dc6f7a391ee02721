"""CuTe DSL source for matrix kernels on tensor cores: tcgen05 (sm_100a) and wgmma (sm_90a).

Rooms: `spec` (what one kernel computes), `schedule` (how, and what fits the chip), `epilogue` (pointwise statements to
CuTe expressions), `printer` (puts a module together from what both architectures share), `sm100` and `sm90` (the device
roles), `compile` and `cache` (source to cubin), `kernel` (what host functions launch; `runtime.native` launches it).
Only `_compat` imports the toolkit; printing, validating, loading from the cache and launching work without it.
"""
