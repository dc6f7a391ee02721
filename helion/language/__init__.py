"""The language of device code, imported as `hl`: one file per family of constructs."""

from __future__ import annotations

# Eager rules too large for their op's file; importing them declares them.
from . import eager_atomics as _eager_atomics  # noqa: F401
from . import eager_matmul as _eager_matmul  # noqa: F401
from . import eager_stack as _eager_stack  # noqa: F401
from .atomics import atomic_add
from .atomics import atomic_and
from .atomics import atomic_cas
from .atomics import atomic_max
from .atomics import atomic_min
from .atomics import atomic_or
from .atomics import atomic_xchg
from .atomics import atomic_xor
from .creation import arange
from .creation import full
from .creation import iota
from .creation import zeros
from .debug import breakpoint
from .debug import device_print
from .distributed import signal
from .distributed import wait
from .inline import inline_asm_elementwise
from .inline import inline_triton
from .inline import triton_kernel
from .loops import barrier
from .loops import grid
from .loops import jagged_tile
from .loops import static_range
from .loops import tile
from .matmul import dot
from .matmul import dot_scaled
from .memory import load
from .memory import store
from .random import philox_bits
from .random import philox_rand
from .random import philox_rand4x
from .random import rand
from .random import rand4x
from .random import randint
from .reductions import reduce
from .scans import associative_scan
from .scans import cumprod
from .scans import cumsum
from .sizes import constexpr
from .sizes import register_block_size
from .sizes import register_tunable
from .sizes import specialize
from .stack import StackTensor
from .stack import stack_load
from .stack import stack_store
from .stack import stacktensor_like
from .subscripts import subscript
from .tile import Tile
from .tile import tile_begin
from .tile import tile_block_size
from .tile import tile_count
from .tile import tile_end
from .tile import tile_id
from .tile import tile_index
from .views import join
from .views import lanes_of as lanes_of
from .views import split
from .views import take_along_dim

__all__ = [
    "StackTensor",
    "Tile",
    "arange",
    "associative_scan",
    "atomic_add",
    "atomic_and",
    "atomic_cas",
    "atomic_max",
    "atomic_min",
    "atomic_or",
    "atomic_xchg",
    "atomic_xor",
    "barrier",
    "breakpoint",
    "constexpr",
    "cumprod",
    "cumsum",
    "device_print",
    "dot",
    "dot_scaled",
    "full",
    "grid",
    "inline_asm_elementwise",
    "inline_triton",
    "iota",
    "jagged_tile",
    "join",
    "load",
    "philox_bits",
    "philox_rand",
    "philox_rand4x",
    "rand",
    "rand4x",
    "randint",
    "reduce",
    "register_block_size",
    "register_tunable",
    "signal",
    "specialize",
    "split",
    "stack_load",
    "stack_store",
    "stacktensor_like",
    "static_range",
    "store",
    "subscript",
    "take_along_dim",
    "tile",
    "tile_begin",
    "tile_block_size",
    "tile_count",
    "tile_end",
    "tile_id",
    "tile_index",
    "triton_kernel",
    "wait",
    "zeros",
]
