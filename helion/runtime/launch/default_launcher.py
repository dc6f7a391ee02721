"""The launcher of last resort: Triton's own ``kernel[grid](...)``."""

from __future__ import annotations

from typing import Any

__all__ = ["default_launcher"]


def default_launcher(
    triton_kernel: Any, grid: tuple[int, ...], *args: Any, num_warps: int, num_stages: int, **options: Any
) -> Any:
    """Launch ``triton_kernel`` over ``grid`` the way Triton does.

    The ``_launcher`` default of every generated host function. It is complete by itself: every faster launcher gives
    the same results and falls back to this one. Kept to one statement that Dynamo can trace, so that under
    ``torch.compile`` the launch becomes a ``triton_kernel_wrapper_mutation`` node.

    Args:
        triton_kernel: a ``@triton.jit`` function.
        grid: one to three ints.
        *args: the kernel's run-time arguments, in order. Its constexprs have defaults and are not passed.
        num_warps: warps per program.
        num_stages: software pipeline stages.
        **options: further Triton launch options (``num_ctas``, ``maxnreg``, ``launch_cooperative_grid``, ...).

    Returns:
        What Triton returns: the compiled kernel, outside of ``torch.compile``.
    """
    return triton_kernel[grid](*args, num_warps=num_warps, num_stages=num_stages, **options)
