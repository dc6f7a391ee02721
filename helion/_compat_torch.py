"""The private parts of PyTorch that helion uses, and nothing else (torch >= 2.11).

Each name says what it stands for and what happens where a torch build does not have it, so that supporting a new torch
means reading one file.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Callable

import torch

_C = torch._C


def _missing(name: str) -> Callable[..., int]:
    def missing(*_: object) -> int:
        raise RuntimeError(f"this build of torch ({torch.__version__}) has no {name}: it was built without CUDA")

    return missing


#: ``() -> int``. Valid once ``torch.cuda.init()`` has run; ``torch.cuda.current_device`` checks that on every call.
cuda_current_device: Callable[[], int] = getattr(_C, "_cuda_getDevice", _missing("_cuda_getDevice"))
#: ``(index) -> int``, the raw ``CUstream``.
cuda_current_raw_stream: Callable[[int], int] = getattr(
    _C, "_cuda_getCurrentRawStream", _missing("_cuda_getCurrentRawStream")
)

#: ``() -> int``, how many ``TorchDispatchMode`` are active in this thread.
dispatch_mode_depth: Callable[[], int] = _C._len_torch_dispatch_stack
#: ``() -> int``, how many ``TorchFunctionMode`` are active in this thread.
function_mode_depth: Callable[[], int] = _C._len_torch_function_stack
#: ``() -> object | None``, the innermost ``torch.func`` transform (vmap, grad, jvp, ...), None outside of any.
innermost_transform: Callable[[], object | None] = _C._functorch.peek_interpreter_stack
#: ``(tensor) -> bool``, whether a ``torch.func`` transform has wrapped this tensor.
is_functorch_wrapped: Callable[[torch.Tensor], bool] = _C._functorch.is_functorch_wrapped_tensor

#: ``() -> context manager``: runs PyTorch without any ``TorchFunctionMode`` or ``__torch_function__``.
without_torch_functions: Callable[[], AbstractContextManager[None]] = _C.DisableTorchFunction
