"""Escape hatches into the backend's own language: inline PTX, inline Triton, Triton functions.

They run on the Triton backend only; eager modes raise `exc.BackendUnsupported`.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import torch

from .. import exc
from .op import current_handler
from .op import device_op
from .shapes import broadcast_shapes


@device_op(has_side_effect=False)
def inline_asm_elementwise(
    asm: str,
    constraints: str,
    args: Sequence[torch.Tensor],
    dtype: torch.dtype | Sequence[torch.dtype],
    is_pure: bool,
    pack: int,
) -> Any:
    """Run inline PTX on each element, as Triton's `tl.inline_asm_elementwise`.

    Args:
        asm: PTX text; operands are `$0`, `$1`, ... results first.
        constraints: LLVM constraints, results first: `"=r,r,r"`.
        args: tensors that broadcast with each other; without any the result has no dimensions.
        dtype: dtype of the result, or a tuple of them for several results.
        is_pure: the text has no side effect, so it may be removed or moved.
        pack: elements handled by one instance of the text.

    Returns:
        A tensor of the broadcast shape, or a tuple of them when `dtype` is a tuple.
    """
    raise NotImplementedError


@inline_asm_elementwise.set_shape_rule
def _(asm: str, constraints: str, args: Any, dtype: Any, is_pure: bool, pack: int) -> Any:
    what = "hl.inline_asm_elementwise"
    for value, kind, name in ((asm, str, "asm"), (constraints, str, "constraints"), (pack, int, "pack")):
        if not isinstance(value, kind):
            raise exc.InvalidAPIUsage(f"{what}: {name} must be a constant {kind.__name__}")
    if not isinstance(args, (list, tuple)) or not all(isinstance(a, torch.Tensor) for a in args):
        raise exc.InvalidAPIUsage(f"{what}: args must be a list of tensors")
    dtypes = tuple(dtype) if isinstance(dtype, (list, tuple)) else (dtype,)
    if not dtypes or not all(isinstance(d, torch.dtype) for d in dtypes):
        raise exc.InvalidAPIUsage(f"{what}: dtype must be a torch dtype or a tuple of them")
    shape = broadcast_shapes(*(a.shape for a in args), what=what)
    results = tuple(torch.empty(shape, dtype=d, device=current_handler(what).device) for d in dtypes)
    return results if isinstance(dtype, (list, tuple)) else results[0]


def _like(output_like: Any, what: str) -> Any:
    if output_like is None:
        return None
    if isinstance(output_like, torch.Tensor):
        return torch.empty(output_like.shape, dtype=output_like.dtype, device=output_like.device)
    if isinstance(output_like, (list, tuple)):
        return tuple(_like(item, what) for item in output_like)
    raise exc.InvalidAPIUsage(f"{what}: output_like must be a tensor, a tuple of tensors or None")


def _check_args(args: Any, what: str) -> None:
    if not isinstance(args, (list, tuple, dict)):
        raise exc.InvalidAPIUsage(f"{what}: args must be a list, tuple or dict")


@device_op(has_side_effect=True, takes_pointers=True)
def inline_triton(source: str, args: Sequence[Any] | dict[str, Any], output_like: Any) -> Any:
    """Insert Triton source into the kernel.

    Args:
        source: Triton statements, the last one an expression with the result(s); `{0}`, `{1}`, ... (or
            `{name}` for dict `args`) stand for the arguments.
        args: tensors and scalars to substitute; a host tensor stands for the pointer to its first element.
        output_like: tensor (or tuple of them) with the result's shape and dtype; None for no result.

    Returns:
        The value(s) of the last expression.
    """
    raise NotImplementedError


@inline_triton.set_shape_rule
def _(source: str, args: Any, output_like: Any) -> Any:
    if not isinstance(source, str) or not source.strip():
        raise exc.InvalidAPIUsage("hl.inline_triton: the source must be a constant, non-empty string")
    _check_args(args, "hl.inline_triton")
    _check_places(source, args)
    return _like(output_like, "hl.inline_triton")


def _check_places(source: str, args: Any) -> None:
    """Every `{...}` of the source stands for an argument."""
    known = set(args) if isinstance(args, dict) else set(map(str, range(len(args))))
    try:
        places = {re.split(r"[.\[]", name)[0] for _, name, _, _ in string.Formatter().parse(source) if name is not None}
    except ValueError as error:
        raise exc.InvalidAPIUsage(
            f"hl.inline_triton: {error}", fix="write braces that stand for themselves twice, `{{` and `}}`."
        ) from None
    unnumbered = {str(i) for i in range(source.count("{}"))}
    if unknown := sorted((places - {""} | unnumbered) - known):
        raise exc.InvalidAPIUsage(
            f"hl.inline_triton: the source has {{{unknown[0]}}}, and there is no such argument",
            fix=f"give it in args, which has {', '.join(sorted(known)) or 'nothing'}.",
        )


@device_op(has_side_effect=True, takes_pointers=True)
def triton_kernel(
    fn_or_source: Callable[..., Any] | str, args: Sequence[Any] | dict[str, Any], output_like: Any
) -> Any:
    """Call a Triton device function from the kernel.

    Args:
        fn_or_source: a `@triton.jit` function, its name in the kernel's module, or the source of one.
        args: its arguments, positional (list) or by name (dict); a host tensor is the pointer to its first element.
        output_like: tensor (or tuple of them) with the result's shape and dtype; None for no result.

    Returns:
        What the function returns.
    """
    raise NotImplementedError


@triton_kernel.set_shape_rule
def _(fn_or_source: Any, args: Any, output_like: Any) -> Any:
    if not isinstance(fn_or_source, str) and not callable(fn_or_source):
        raise exc.InvalidAPIUsage("hl.triton_kernel needs a @triton.jit function or its source")
    _check_args(args, "hl.triton_kernel")
    return _like(output_like, "hl.triton_kernel")


def _no_backend(name: str) -> Callable[..., Any]:
    def rule(*args: Any) -> Any:
        raise exc.BackendUnsupported(
            backend="eager",
            reason=f"hl.{name} needs the Triton backend",
            fix="run on a GPU without HELION_INTERPRET, or write this part with torch ops.",
        )

    return rule


for _op in (inline_asm_elementwise, inline_triton, triton_kernel):
    _op.set_eager_rule(_no_backend(_op.name))
