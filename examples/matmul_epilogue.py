"""Matrix product followed by a function of the caller's choice, in one kernel.

The epilogue is an ordinary Python function or lambda that gets the accumulator and the two tiles it covers.  Tensors it
closes over (here a bias) become arguments of the kernel.

Run it: python examples/matmul_epilogue.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import helion
import helion.language as hl

Epilogue = Callable[[torch.Tensor, tuple[Any, Any]], torch.Tensor]


@helion.kernel
def matmul_epilogue(a: torch.Tensor, b: torch.Tensor, epilogue: Epilogue) -> torch.Tensor:
    """epilogue(a @ b) for a [m, k] and b [k, n]; the epilogue works on float32 tiles."""
    m, k = a.shape
    _, n = b.shape
    out = torch.empty([m, n], dtype=a.dtype, device=a.device)
    for rows, columns in hl.tile([m, n]):
        acc = hl.zeros([rows, columns], dtype=torch.float32)
        for inner in hl.tile(k):
            acc = torch.addmm(acc, a[rows, inner], b[inner, columns])
        out[rows, columns] = epilogue(acc, (rows, columns))
    return out


def bias_relu(bias: torch.Tensor) -> Epilogue:
    """An epilogue: relu(acc + bias) with a bias per column."""
    return lambda acc, tile: torch.relu(acc + bias[tile[1]])


def reference(a: torch.Tensor, b: torch.Tensor, epilogue: Epilogue) -> torch.Tensor:
    """The same in PyTorch: the epilogue gets the whole product."""
    return epilogue(a @ b, (slice(None), slice(None)))


def make_args(
    m: int, k: int, n: int, dtype: torch.dtype = torch.float16, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, Epilogue]:
    """Matrices [m, k] and [k, n], and an epilogue with a bias [n]."""
    a = (torch.randn(m, k, device=device) / k**0.5).to(dtype)
    return a, torch.randn(k, n, device=device).to(dtype), bias_relu(torch.randn(n, device=device).to(dtype))


def main() -> None:
    args = make_args(512, 768, 384, device="cuda" if torch.cuda.is_available() else "cpu")
    error = (matmul_epilogue(*args) - reference(*args)).abs().max().item()
    print(f"matmul_epilogue: {list(args[0].shape)} @ {list(args[1].shape)} + bias, relu: largest error {error:.1e}")


if __name__ == "__main__":
    main()
