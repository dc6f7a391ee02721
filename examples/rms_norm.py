"""RMS normalization: each row divided by its root mean square, times a weight per column; with its backward pass.

    y = x * r * weight,    r = 1 / sqrt(mean(x**2) + eps)        (Zhang and Sennrich, arXiv:1910.07467)

Computed in float32 whatever the input's dtype, rounded once at the end.  The backward pass finds r again, from the row
it reads anyway.  The weight's gradient is a sum over all rows: each program adds up the rows of its block in registers,
and when all have done so (`hl.barrier`), programs add the blocks, column by column.

A row and its sums must fit into the registers of a program for that.  `backward` goes over longer rows twice: first for
two numbers of each row, then in tiles of columns, whose sums are few.

Run it: python examples/rms_norm.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    """RMS norm of the rows of a matrix [m, n] with a weight [n]."""
    out = torch.empty_like(x)
    for rows in hl.tile(x.size(0)):
        values = x[rows, :].to(torch.float32)
        scale = torch.rsqrt((values * values).mean(dim=1, keepdim=True) + eps)
        out[rows, :] = (values * scale * weight[None, :].to(torch.float32)).to(x.dtype)
    return out


@helion.kernel
def rms_norm_backward(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, eps: float = 1e-5
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of x [m, n] and weight [n], given that of the result [m, n]."""
    m, n = x.shape
    block = hl.register_block_size(m)
    parts = helion.cdiv(m, block)
    grad_x, grad_weight = torch.empty_like(x), torch.empty_like(weight)
    partial = torch.empty([parts, n], dtype=torch.float32, device=x.device)
    for part in hl.tile(m, block_size=block):
        total = hl.zeros([n], dtype=torch.float32)
        for rows in hl.tile(part.begin, part.end):
            values, dy = x[rows, :].to(torch.float32), grad[rows, :].to(torch.float32)
            r = torch.rsqrt((values * values).mean(dim=1, keepdim=True) + eps)
            # The weight is read again for each row: from a cache, while registers are few.
            normalized, weighted = values * r, dy * weight[:].to(torch.float32)
            total = total + (dy * normalized).sum(dim=0)
            projection = (weighted * normalized).mean(dim=1, keepdim=True)
            grad_x[rows, :] = (weighted - normalized * projection) * r
        partial[part.id, :] = total
    hl.barrier()
    for columns in hl.tile(n):
        total = hl.zeros([columns], dtype=torch.float32)
        for rows in hl.tile(parts):
            total = total + partial[rows, columns].sum(dim=0)
        grad_weight[columns] = total
    return grad_x, grad_weight


@helion.kernel
def rms_norm_row_numbers(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, eps: float = 1e-5
) -> tuple[torch.Tensor, torch.Tensor]:
    """r and the mean of grad * weight * x * r of each row [m], float32."""
    m = x.size(0)
    scale = torch.empty([m], dtype=torch.float32, device=x.device)
    projection = torch.empty([m], dtype=torch.float32, device=x.device)
    for rows in hl.tile(m):
        values, dy = x[rows, :].to(torch.float32), grad[rows, :].to(torch.float32)
        squares = (values * values).mean(dim=1)
        along = (dy * weight[:].to(torch.float32) * values).mean(dim=1)
        r = torch.rsqrt(squares + eps)
        scale[rows] = r
        projection[rows] = along * r
    return scale, projection


@helion.kernel
def rms_norm_backward_by_columns(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, projection: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of x and weight as `rms_norm_backward`'s, given what `rms_norm_row_numbers` found."""
    m, n = x.shape
    block = hl.register_block_size(m)
    grad_x = torch.empty_like(x)
    partial = torch.empty([helion.cdiv(m, block), n], dtype=torch.float32, device=x.device)
    for part, columns in hl.tile([m, n], block_size=[block, None]):
        grad_weight = hl.zeros([columns], dtype=torch.float32)
        for rows in hl.tile(part.begin, part.end):
            r = scale[rows][:, None]
            dy, normalized = grad[rows, columns].to(torch.float32), x[rows, columns].to(torch.float32) * r
            grad_weight = grad_weight + (dy * normalized).sum(dim=0)
            weighted = dy * weight[columns].to(torch.float32)
            grad_x[rows, columns] = (weighted - normalized * projection[rows][:, None]) * r
        partial[part.id, columns] = grad_weight
    return grad_x, partial.sum(dim=0).to(weight.dtype)


#: Rows up to this length fit into registers, with their sums.
LONGEST = 16384


def backward(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, eps: float = 1e-5
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of x [m, n] and weight [n] for rows of any length."""
    if x.size(1) <= LONGEST:
        return rms_norm_backward(grad, x, weight, eps)
    return rms_norm_backward_by_columns(grad, x, weight, *rms_norm_row_numbers(grad, x, weight, eps))


def reference(x: torch.Tensor, weight: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    """The same in PyTorch."""
    return torch.nn.functional.rms_norm(x, [x.size(1)], weight, eps)


def reference_backward(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, eps: float = 1e-5
) -> tuple[torch.Tensor, ...]:
    """`rms_norm_backward` in PyTorch."""
    inputs = x.detach().requires_grad_(), weight.detach().requires_grad_()
    return torch.autograd.grad(reference(*inputs, eps), inputs, grad)


def make_args(
    m: int, n: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """A matrix [m, n], a weight [n] and eps."""
    return torch.randn(m, n, device=device).to(dtype), torch.randn(n, device=device).to(dtype), 1e-5


def make_backward_args(
    m: int, n: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[torch.Tensor | float, ...]:
    """A gradient [m, n], and the forward pass's arguments."""
    return torch.randn(m, n, device=device).to(dtype), *make_args(m, n, dtype, device)


def main() -> None:
    grad, *args = make_backward_args(2048, 1024, device="cuda" if torch.cuda.is_available() else "cpu")
    error = (rms_norm(*args) - reference(*args)).abs().max().item()
    print(f"rms_norm: {list(args[0].shape)}, largest error {error:.1e}")
    for name, actual, expected in zip(("x", "weight"), rms_norm_backward(grad, *args), reference_backward(grad, *args)):
        print(f"rms_norm_backward: gradient of {name}, largest error {(actual - expected).abs().max().item():.1e}")


if __name__ == "__main__":
    main()
