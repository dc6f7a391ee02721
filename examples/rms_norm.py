"""RMS normalization: each row divided by its root mean square, times a weight per column; with its backward pass.

    y = x * r * weight,    r = 1 / sqrt(mean(x**2) + eps)        (Zhang and Sennrich, arXiv:1910.07467)

Computed in float32 whatever the input's dtype, rounded once at the end.  The backward pass finds r again, from the row
it reads anyway.  The weight's gradient is a sum over all rows: each program adds up the rows of its block, and PyTorch
adds the blocks.

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
    grad_x = torch.empty_like(x)
    partial = torch.empty([helion.cdiv(m, block), n], dtype=torch.float32, device=x.device)
    for part in hl.tile(m, block_size=block):
        grad_weight = hl.zeros([n], dtype=torch.float32)
        scale = weight[:].to(torch.float32)
        for rows in hl.tile(part.begin, part.end):
            values, dy = x[rows, :].to(torch.float32), grad[rows, :].to(torch.float32)
            r = torch.rsqrt((values * values).mean(dim=1, keepdim=True) + eps)
            normalized, weighted = values * r, dy * scale
            grad_weight = grad_weight + (dy * normalized).sum(dim=0)
            projection = (weighted * normalized).mean(dim=1, keepdim=True)
            grad_x[rows, :] = (weighted - normalized * projection) * r
        partial[part.id, :] = grad_weight
    return grad_x, partial.sum(dim=0).to(weight.dtype)


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
