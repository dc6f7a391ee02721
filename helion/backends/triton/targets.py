"""What Triton cannot do on some GPUs: found in the IR, so that the user gets an error of ours rather than a
compiler's.
"""

from __future__ import annotations

import torch
import torch.fx

from ... import exc
from ...ir.device_ir import DeviceIR
from ...ir.device_ir import host_tensor
from ...language.op import Op

#: dtype -> first compute capability with conversions of it (triton.backends.nvidia.compiler: supported_fp8_dtypes).
FIRST_CAPABILITY = {torch.float8_e4m3fn: 89}
#: Formats of hl.dot_scaled that meet in float16 rather than bfloat16 need conversions of sm_89 too.
_FP16_PAIRS = frozenset(
    {("e2m1", "fp16"), ("fp16", "e2m1"), ("e4m3", "fp16"), ("fp16", "e4m3"), ("e5m2", "fp16"), ("fp16", "e5m2")}
)


def check_target(ir: DeviceIR, target: int | None) -> None:
    """Refuse what the target cannot do.

    Args:
        ir: the device IR.
        target: compute capability as major * 10 + minor; None where there is no GPU to ask.

    Raises:
        exc.BackendUnsupported: names the op or dtype, the GPU and the first one that can do it.
    """
    if target is None or target >= max(FIRST_CAPABILITY.values()):
        return
    for _, node in ir.nodes():
        reason = _beyond(node, target)
        if reason is not None:
            raise exc.BackendUnsupported(
                backend="triton",
                reason=f"{reason} needs compute capability 8.9 or later, this GPU has {target // 10}.{target % 10}",
                fix="use float8_e5m2, bfloat16 or int8 here.",
                location=node.meta.get("location"),
            )


def _beyond(node: torch.fx.Node, target: int) -> str | None:
    """What of a node the target cannot do."""
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor) and target < FIRST_CAPABILITY.get(value.dtype, 0):
        return str(value.dtype)
    if node.target is not host_tensor and isinstance(node.target, Op) and node.target.name == "dot_scaled":
        formats = (node.args[2], node.args[5])
        if formats in _FP16_PAIRS:
            return f"hl.dot_scaled of {formats[0]!r} with {formats[1]!r}"
    return None
