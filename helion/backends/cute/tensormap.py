"""TMA tensor maps of a matrix kernel: what each operand's 128-byte descriptor describes.

The printed kernel computes box coordinates and shared memory offsets for exactly these boxes; they follow from tile,
cluster and stride order alone. Encoding them for an address is the launcher's work.
"""

from __future__ import annotations

import torch

from ...runtime.native.facts import TensorMap
from .schedule import MatmulSchedule
from .spec import MatmulSpec
from .spec import Operand
from .spec import element_bytes

__all__ = ["tensor_maps"]

# CUtensorMapDataType; fp8 travels as bytes.
_DATA_TYPES = {1: 0, torch.float16: 6, torch.float32: 7, torch.bfloat16: 9}


def tensor_maps(spec: MatmulSpec, s: MatmulSchedule) -> tuple[TensorMap, ...]:
    """The maps the kernel takes as its first parameters: A, B and, where it stores through TMA, the output."""
    columns = s.tile_n // s.ctas_per_mma
    a = _map(spec, spec.a, (spec.m, spec.k), (s.cta_m, s.tile_k), s.cluster_n)
    b = _map(spec, spec.b, (spec.n, spec.k), (columns, s.tile_k), s.cluster_m // s.ctas_per_mma)
    if not spec.store_through_tma:
        return a, b
    return a, b, _map(spec, spec.out, (spec.m, spec.n), (s.cta_m, s.epilogue_n), 1)


def _map(
    spec: MatmulSpec, operand: Operand, sizes: tuple[int, int], tile: tuple[int, int], receivers: int
) -> TensorMap:
    """A matrix of ``sizes`` (outer, inner) axes, copied in ``tile``s that ``receivers`` CTAs share out between them."""
    size = element_bytes(operand.dtype)
    order = (1, 0) if operand.inner_major else (0, 1)
    dims = [sizes[axis] for axis in order]
    box = [tile[axis] for axis in order]
    strides = [operand.leading * size]
    # One box is at most one swizzle atom wide; a wider tile takes several.
    swizzle = next((w for w in (128, 64, 32) if box[0] * size % w == 0), 0)
    box[0] = min(box[0], swizzle // size) if swizzle else box[0]
    # Each receiver of a multicast tile loads its share of the outer axis and sends it to all.
    box[1] //= receivers
    if spec.batch > 1 and operand.batch:
        dims.append(spec.batch)
        strides.append(operand.batch * size)
        box.append(1)
    data_type = _DATA_TYPES[1] if size == 1 else _DATA_TYPES[operand.dtype]
    return TensorMap(data_type, tuple(dims), tuple(strides), tuple(box), swizzle)
