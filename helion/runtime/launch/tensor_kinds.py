"""Which tensors a kernel can take: those with strided memory that holds what they show. Of all others, what they are.

PyTorch has many kinds of tensors, and most answer to ``torch.Tensor``. One rule for all of them stands here, asked by
whoever makes a specialization key; the extension has the same rule (``TensorView::plain``) and leaves whatever it does
not know to the Python path, which comes here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import Parameter
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ... import _compat_torch
from ... import exc
from ..._compat_torch import has_no_memory

__all__ = ["refuse_unreadable"]

_WRAP = "or wrap the kernel in a torch.library.custom_op."

#: (whether a tensor is of this kind, what it is, what to do), first match wins.
_KINDS: tuple[tuple[Callable[[torch.Tensor], bool], str, str], ...] = (
    (
        lambda t: t.layout is torch.jagged or t.is_nested,
        "a nested tensor, which has no strided memory of one shape",
        "pass x.values() and x.offsets() (hl.jagged_tile goes over them), or x.to_padded_tensor(0).",
    ),
    (
        lambda t: t.is_mkldnn,
        "a tensor in oneDNN's own layout",
        "pass x.to_dense().",
    ),
    (
        lambda t: t.layout is not torch.strided,
        "a sparse tensor, which has no strided memory",
        "pass x.to_dense(), or its parts (x.values(), x.indices(), x.crow_indices(), ...) as arguments.",
    ),
    (
        lambda t: t.is_quantized,
        "a quantized tensor, whose memory holds other values than it shows",
        "pass x.int_repr() with x.q_scale() and x.q_zero_point(), or x.dequantize().",
    ),
    (
        lambda t: t.is_neg(),
        "a lazily negated tensor (such as `z.conj().imag`), whose memory holds other values than it shows",
        "pass x.resolve_neg(); if the kernel writes to it, keep the resolved tensor and read the result there.",
    ),
    (
        lambda t: t.is_conj(),
        "a lazily conjugated tensor, whose memory holds other values than it shows",
        "pass x.resolve_conj(); if the kernel writes to it, keep the resolved tensor and read the result there.",
    ),
    (
        _compat_torch.is_functorch_wrapped,
        "a tensor that torch.func wrapped, outside of its transform",
        "do not keep tensors of inside a vmap, grad or jvp; return them from it.",
    ),
    (
        lambda t: is_traceable_wrapper_subclass(t) or (type(t) not in (torch.Tensor, Parameter) and has_no_memory(t)),
        "a {type}, which holds other tensors and has no memory of its own",
        f"pass the tensors it holds (`x.to_local()` for a DTensor, `x.get_data()` for a MaskedTensor), {_WRAP}",
    ),
    (
        _compat_torch.is_dual,
        "a dual tensor of forward-mode AD, whose tangent a kernel would lose",
        "wrap the kernel in a torch.autograd.Function with a jvp staticmethod, or pass "
        "torch.autograd.forward_ad.unpack_dual(x).primal.",
    ),
    (
        has_no_memory,
        "a tensor without memory: its storage was freed or never allocated",
        "call the kernel while the memory is there (FSDP frees that of parameters outside of forward and backward), "
        "or pass x.clone().",
    ),
)


def refuse_unreadable(kernel: str, tensor: torch.Tensor) -> None:
    """Raise for a tensor whose memory is not what it shows.

    Args:
        kernel: its name, for the message.
        tensor: an argument.

    Raises:
        exc.InvalidAPIUsage: it is of a kind that no kernel can take.
        ValueError: PyTorch's own, for a parameter that is not initialised yet.
    """
    # A parameter that is not initialised yet says so itself, whatever it is asked.
    # A meta tensor has nothing to read: a kernel gives one back, as PyTorch's own functions do.
    if is_lazy(tensor) or _compat_torch.is_readable(tensor) or _stands_in(tensor) or _is_meta(tensor):
        return
    with _compat_torch.without_torch_functions():
        for of_this_kind, what, fix in _KINDS:
            if of_this_kind(tensor):
                raise exc.InvalidAPIUsage(
                    f"kernel {kernel!r} was called with {what.format(type=type(tensor).__name__)}", fix=fix
                )


def _is_meta(tensor: torch.Tensor) -> bool:
    return type(tensor) is torch.Tensor and tensor.layout is torch.strided and tensor.is_meta


def _stands_in(tensor: torch.Tensor) -> bool:
    """Whether it stands for another tensor while PyTorch records a graph (``tracing.py``): keyed like that one."""
    return isinstance(tensor, (FakeTensor, _compat_torch.FunctionalTensor))
