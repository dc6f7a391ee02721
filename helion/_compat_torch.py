"""The private parts of PyTorch that helion uses, and nothing else (torch >= 2.11).

Each name says what it stands for and what happens where a torch build does not have it, so that supporting a new torch
means reading one file.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch._subclasses.functional_tensor import FunctionalTensor as FunctionalTensor
from torch._subclasses.functional_tensor import FunctionalTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from ._version import warn_if_untested

_C = torch._C
warn_if_untested("torch", torch.__version__)


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

#: ``() -> bool``, whether this process was forked from one that had used CUDA, so that it cannot; never without CUDA.
cuda_in_bad_fork: Callable[[], bool] = getattr(_C, "_cuda_isInBadFork", lambda: False)

#: ``() -> int``, how many ``TorchDispatchMode`` are active in this thread.
dispatch_mode_depth: Callable[[], int] = _C._len_torch_dispatch_stack
#: ``() -> object | None``, the innermost ``torch.func`` transform (vmap, grad, jvp, ...), None outside of any.
innermost_transform: Callable[[], object | None] = _C._functorch.peek_interpreter_stack
#: ``(tensor) -> bool``, whether a ``torch.func`` transform has wrapped this tensor.
is_functorch_wrapped: Callable[[torch.Tensor], bool] = _C._functorch.is_functorch_wrapped_tensor

_PLAIN_KEYS: int = (
    0xFFFF  # the bits of backends
    | _C.DispatchKeySet(_C.DispatchKey.Dense).raw_repr()
    | _C.DispatchKeySet(_C.DispatchKey.AutogradFunctionality).raw_repr()
    | _C.DispatchKeySet(_C.DispatchKey.AutogradOther).raw_repr()
    | _C.DispatchKeySet(_C.DispatchKey.ADInplaceOrView).raw_repr()
)
for _name in dir(_C.DispatchKey):
    if _name.startswith("Autocast"):
        _PLAIN_KEYS |= _C.DispatchKeySet(getattr(_C.DispatchKey, _name)).raw_repr()


def is_readable(tensor: torch.Tensor) -> bool:
    """Whether a kernel can be given a tensor's address, and finds there what the tensor shows.

    Asked is whether it has no dispatch key but those of a strided tensor: others have sparse, nested, quantized, lazily
    negated or conjugated ones, those with a ``__torch_dispatch__`` and what ``torch.func`` wrapped (csrc/tensor_view.h
    has the same rule). Then, whether its memory is there: not that of a meta tensor, or where the storage was freed.
    """
    return (
        not _C._dispatch_keys(tensor).raw_repr() & ~_PLAIN_KEYS
        and (tensor.data_ptr() != 0 or tensor.numel() == 0)
        and (forward_ad._current_level < 0 or not is_dual(tensor))
    )


def in_dual_level() -> bool:
    """Whether forward-mode AD is on, so that tensors may have tangents."""
    return forward_ad._current_level >= 0


def is_dual(tensor: torch.Tensor) -> bool:
    """Whether a tensor carries a tangent of forward-mode AD.  No tensor does in the forward of an autograd.Function."""
    return in_dual_level() and forward_ad.unpack_dual(tensor).tangent is not None


def has_no_memory(tensor: torch.Tensor) -> bool:
    """Whether elements of a tensor cannot be read, since its storage is not there or was freed."""
    try:
        return tensor.numel() > 0 and tensor.data_ptr() == 0
    except RuntimeError:
        return True


#: ``(tensors) -> None``: advances their version counters; inference tensors are left alone. What
#: ``torch.autograd.graph.increment_version`` calls.
increment_version: Callable[[Sequence[torch.Tensor]], None] = _C._increment_version

#: ``() -> bool``: whether ``torch.jit.trace`` records this thread.
is_jit_tracing: Callable[[], bool] = _C._is_tracing

#: Whether a number beyond the range of float8_e4m3fn becomes nan (torch < 2.13) and not the largest number of it.
e4m3fn_overflows_to_nan: bool = bool(
    torch.full([], 1000.0, dtype=torch.float32, device="cpu").to(torch.float8_e4m3fn).float().isnan()
)

#: The tag of an operator whose arguments the compiler gives the strides that they have in eager mode.
exact_strides_tag: torch.Tag = getattr(torch.Tag, "needs_exact_strides", torch.Tag.needs_fixed_stride_order)

#: ``() -> context manager``: runs PyTorch without any ``TorchFunctionMode`` or ``__torch_function__``.
without_torch_functions: Callable[[], AbstractContextManager[None]] = _C.DisableTorchFunction

try:
    from torch._C._dynamo.guards import TensorGuards as _TensorGuards
except ImportError:  # a build of torch without Dynamo's C++ guards
    _TensorGuards = None  # type: ignore[assignment, misc]


def tensor_check(tensors: Sequence[torch.Tensor], also: str = "True") -> Callable[..., bool] | None:
    """A function of as many arguments that is true for tensors like ``tensors``, in one C call for all of them.

    "Like" is Dynamo's notion: same Python type, dtype, device, sizes, strides, ``requires_grad`` and dispatch keys, the
    thread's own included. So it is false for subclasses, lazily negated tensors, under a ``TorchDispatchMode``, inside
    ``torch.func`` transforms, and when inference mode, autocast or the default dtype differ from when it was made; also
    while forward-mode AD is on, whose tangents nobody compares. False is always allowed. It raises TypeError or
    AttributeError for something that is not a tensor, TypeError for another number of arguments.

    Args:
        tensors: what to compare with.
        also: a further condition on the tensors ``t0``, ``t1`` and so on, once they are known to be alike.

    Returns:
        The function; None where this torch does not have what it takes.
    """
    if _TensorGuards is None or not tensors:
        return None
    sizes: Any = [list(tensor.shape) for tensor in tensors]
    strides: Any = [list(tensor.stride()) for tensor in tensors]
    compare = _TensorGuards(*tensors, dynamic_dims_sizes=sizes, dynamic_dims_strides=strides).check
    names = [f"t{i}" for i in range(len(tensors))]
    # The comparison asks for strides first of all, and ends the process where a tensor of the same type has none.
    # Written out, as a loop or `*args` would cost more than the comparison.
    nested = " or ".join(f"{name}.is_nested" for name in names)
    listed = ", ".join(names)
    text = (
        f"lambda {listed}: forward_ad._current_level < 0 and not ({nested}) and compare({listed}) "
        f"and default_dtype() is dtype and {also}"
    )
    names_there = {"forward_ad": forward_ad, "compare": compare, "default_dtype": torch.get_default_dtype}
    check: Callable[..., bool] = eval(text, {**names_there, "dtype": torch.get_default_dtype()})
    return check


def active_dispatch_modes() -> list[object]:
    """The active ``TorchDispatchMode`` objects, outermost first."""
    return list(_get_current_dispatch_mode_stack())


def without_dispatch_modes() -> AbstractContextManager[object]:
    """Take all ``TorchDispatchMode`` of this thread away inside the block: what runs there is nobody's business."""
    context: AbstractContextManager[object] = _disable_current_modes()
    return context


def is_tracing_mode(mode: object) -> bool:
    """Whether a dispatch mode records a graph (make_fx, export, AOTAutograd) instead of just watching."""
    return isinstance(mode, (ProxyTorchDispatchMode, FunctionalTensorMode))


def transform_name(tensor: torch.Tensor) -> str:
    """The ``torch.func`` transform that wrapped ``tensor``, for messages."""
    if _C._functorch.is_batchedtensor(tensor):
        return "vmap"
    if _C._functorch.is_gradtrackingtensor(tensor):
        return "grad, vjp or jvp"
    return "functionalize"


def inductor_seeds(count: int, device: torch.device) -> torch.Tensor:
    """Seeds from torch's generator, int64 [count], as code that torch.compile makes draws them; numbers of the same
    distribution where this torch has no such op.
    """
    try:
        from torch._inductor import inductor_prims  # costs a second, and few kernels draw random numbers
    except ImportError:
        return torch.randint(2**63 - 1, [count], device=device)
    seeds: torch.Tensor = inductor_prims.seeds(count, device)
    return seeds


def storage_identity(tensor: torch.Tensor) -> int:
    """The same number for tensors that share their storage, fake ones included."""
    identity: int = tensor.untyped_storage()._cdata
    return identity


def forget_storages(mode: FakeTensorMode) -> None:
    """Give tensors that are made fake from here on storages of their own, whether or not the real ones share some."""
    mode.fake_tensor_converter.meta_converter.storage_memo.clear()


def keep_from_dynamo(function: Callable[..., Any]) -> None:
    """Let a function, and all that it calls, run as they are where Dynamo meets a call of it outside of a graph."""
    frames: Any = _C._dynamo.eval_frame
    skip = frames._FrameAction.SKIP
    frames.set_code_exec_strategy(function.__code__, frames._FrameExecStrategy(skip, skip))


def check_in_graph(holds: bool) -> None:
    """What Dynamo traces as a check of a condition on numbers that only the call knows."""
    torch._check(holds)
