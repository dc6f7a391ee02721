"""What Triton has on each GPU, and what it cannot do on some: found in the IR, so that the user gets an error of ours
rather than a compiler's.

The one place of the Triton backend that knows GPUs by their names; a further vendor is a row of `FEATURES`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
import torch.fx

from ... import exc
from ...ir.device_ir import DeviceIR
from ...target import Target

#: First compute capability with conversions of e4m3 (triton.backends.nvidia.compiler: supported_fp8_dtypes).
_FIRST_WITH_E4M3 = 89
# From this compute capability on: bytes of shared memory that one block may use (CUDA C++ Programming Guide, table of
# technical specifications).
# Multiprocessors of A100, RTX A6000, L40S, H100 and H200, B200: what a default Config fills.
_MULTIPROCESSORS = ((100, 148), (90, 132), (89, 142), (86, 84), (80, 108), (0, 64))
# Bytes of their L2 caches.
_L2_BYTES = ((100, 126 << 20), (90, 50 << 20), (89, 96 << 20), (86, 6 << 20), (80, 40 << 20), (0, 4 << 20))
_SHARED_BYTES = ((90, 227 << 10), (86, 99 << 10), (80, 163 << 10), (0, 64 << 10))


@dataclasses.dataclass(frozen=True)
class Features:
    """What code for a target may use.

    Attributes:
        shared_bytes: of shared memory that one block may use.
        multiprocessors: of the largest GPU of the architecture.
        l2_bytes: of its L2 cache.
        descriptors: tensor descriptors are hardware's (TMA).
        warp_groups: matrices are multiplied out of shared memory by warp groups (wgmma).
        pending_products: products may go on over the end of an iteration (wgmma, which `pipelining` is about).
        warp_specialize: loops may be shared out between warps.
        asynchronous_products: tensor cores read operands from shared memory (wgmma, tcgen05).
        tensor_memory: results of products lie in a memory of their own (tcgen05).
        e4m3: there are conversions of float8_e4m3fn.
        scaled_products: tensor cores multiply block-scaled operands (tcgen05.mma.block_scale).
        platform: what Triton calls the target, (backend, arch, threads of a warp); None where it compiles for none.
    """

    shared_bytes: int
    multiprocessors: int
    l2_bytes: int
    descriptors: bool
    warp_groups: bool
    pending_products: bool
    warp_specialize: bool
    asynchronous_products: bool
    e4m3: bool
    scaled_products: bool
    tensor_memory: bool
    platform: tuple[str, int | str, int] | None


def _nvidia(arch: int | str) -> Features:
    assert isinstance(arch, int)
    return Features(
        shared_bytes=next(size for first, size in _SHARED_BYTES if arch >= first),
        multiprocessors=next(count for first, count in _MULTIPROCESSORS if arch >= first),
        l2_bytes=next(size for first, size in _L2_BYTES if arch >= first),
        descriptors=arch >= 90,
        warp_groups=arch == 90,
        pending_products=arch == 90,
        warp_specialize=arch >= 100,
        asynchronous_products=90 <= arch < 120,
        e4m3=arch >= _FIRST_WITH_E4M3,
        scaled_products=100 <= arch < 120,
        tensor_memory=100 <= arch < 120,
        platform=("cuda", arch, 32),
    )


def _readable(arch: int | str) -> Features:
    """Source that is for reading: nothing that some GPU has not and all that one needs, and every dtype, as a later GPU
    may have it."""
    return Features(
        _SHARED_BYTES[-1][1],
        _MULTIPROCESSORS[1][1],
        _L2_BYTES[1][1],
        descriptors=False,
        warp_groups=False,
        pending_products=True,
        warp_specialize=False,
        asynchronous_products=False,
        e4m3=True,
        scaled_products=False,
        tensor_memory=False,
        platform=None,
    )


#: Vendor -> what its architectures have. Host code (device.py's provider of the vendor) makes the `Target`.
FEATURES: dict[str, Callable[[int | str], Features]] = {"nvidia": _nvidia, "cpu": _readable}


def features_of(target: Target) -> Features:
    """What code for a target may use.

    Raises:
        exc.BackendUnsupported: no row of the table is about it.
    """
    if target.vendor not in FEATURES:
        raise exc.BackendUnsupported(
            backend="triton",
            reason=f"it has no code for {target}, a device of {target.vendor}",
            fix="pass tensors on an NVIDIA GPU or on the CPU.",
        )
    return FEATURES[target.vendor](target.arch)


def check_target(ir: DeviceIR, target: Target) -> None:
    """Refuse what the target cannot do.

    Args:
        ir: the device IR.
        target: what the code is for.

    Raises:
        exc.BackendUnsupported: names the op or dtype, the GPU and the first one that can do it.
    """
    if features_of(target).e4m3:
        return
    for _, node in ir.nodes():
        reason = _needs_e4m3(node)
        if reason is not None:
            raise exc.BackendUnsupported(
                backend="triton",
                reason=f"{reason} needs compute capability {_dotted(_FIRST_WITH_E4M3)} or later, this GPU has "
                f"{_dotted(target.arch)}",
                fix="use float8_e5m2, bfloat16 or int8 here.",
                location=node.meta.get("location"),
            )


def _dotted(arch: int | str) -> str:
    return f"{arch // 10}.{arch % 10}" if isinstance(arch, int) else arch


def _needs_e4m3(node: torch.fx.Node) -> str | None:
    """What of a node needs conversions of float8_e4m3fn."""
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor) and value.dtype is torch.float8_e4m3fn:
        return str(value.dtype)
    return None
