"""Layer normalization: rows with their mean taken out, divided by their standard deviation.

    y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias        (Ba, Kiros and Hinton, arXiv:1607.06450)

The forward pass also returns mean and 1 / standard deviation of each row, which the backward pass reads.  Gradients of
weight and bias are sums over all rows: each program adds up the rows of its block, and PyTorch adds the blocks.

Run it: python examples/layer_norm.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def layer_norm(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float = 1e-5
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Layer norm of the rows of a matrix [m, n] with weight and bias [n].

    Returns:
        y [m, n] of x's dtype; mean [m] and reciprocal standard deviation [m], float32.
    """
    m = x.size(0)
    out = torch.empty_like(x)
    mean = torch.empty([m], dtype=torch.float32, device=x.device)
    rstd = torch.empty([m], dtype=torch.float32, device=x.device)
    for rows in hl.tile(m):
        values = x[rows, :].to(torch.float32)
        center = values.mean(dim=1)
        centered = values - center[:, None]
        scale = torch.rsqrt((centered * centered).mean(dim=1) + eps)
        mean[rows] = center
        rstd[rows] = scale
        out[rows, :] = centered * scale[:, None] * weight[:] + bias[:]
    return out, mean, rstd


@helion.kernel
def layer_norm_backward(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, mean: torch.Tensor, rstd: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x [m, n], weight [n] and bias [n], given that of the result and what the forward pass returned."""
    m, n = x.shape
    block = hl.register_block_size(m)
    grad_x = torch.empty_like(x)
    blocks = helion.cdiv(m, block)
    partial_weight = torch.empty([blocks, n], dtype=torch.float32, device=x.device)
    partial_bias = torch.empty([blocks, n], dtype=torch.float32, device=x.device)
    for part in hl.tile(m, block_size=block):
        grad_weight = hl.zeros([n], dtype=torch.float32)
        grad_bias = hl.zeros([n], dtype=torch.float32)
        scale = weight[:].to(torch.float32)
        for rows in hl.tile(part.begin, part.end):
            dy = grad[rows, :].to(torch.float32)
            normalized = (x[rows, :].to(torch.float32) - mean[rows][:, None]) * rstd[rows][:, None]
            grad_weight = grad_weight + (dy * normalized).sum(dim=0)
            grad_bias = grad_bias + dy.sum(dim=0)
            weighted = dy * scale
            projection = (weighted * normalized).mean(dim=1, keepdim=True)
            centered = weighted - weighted.mean(dim=1, keepdim=True) - normalized * projection
            grad_x[rows, :] = centered * rstd[rows][:, None]
        partial_weight[part.id, :] = grad_weight
        partial_bias[part.id, :] = grad_bias
    return grad_x, partial_weight.sum(dim=0).to(weight.dtype), partial_bias.sum(dim=0).to(weight.dtype)


def reference(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float = 1e-5
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same in PyTorch."""
    out, mean, rstd = torch.native_layer_norm(x, [x.size(1)], weight, bias, eps)
    return out, mean.flatten(), rstd.flatten()


def reference_backward(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, mean: torch.Tensor, rstd: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """`layer_norm_backward` in PyTorch."""
    columns = mean[:, None].to(x.dtype), rstd[:, None].to(x.dtype)
    bias = torch.zeros_like(weight)
    return torch.ops.aten.native_layer_norm_backward(grad, x, [x.size(1)], *columns, weight, bias, [True, True, True])


def make_args(
    m: int, n: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    """A matrix [m, n] (its mean is not 0), weight [n], bias [n] and eps."""
    x = (torch.randn(m, n, device=device) * 2 + 1).to(dtype)
    return x, torch.randn(n, device=device).to(dtype), torch.randn(n, device=device).to(dtype), 1e-5


def make_backward_args(
    m: int, n: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[torch.Tensor, ...]:
    """A gradient [m, n], x, weight, and the mean and reciprocal standard deviation of x's rows (float32)."""
    x, weight, _, eps = make_args(m, n, dtype, device)
    variance, mean = torch.var_mean(x.double(), dim=1, correction=0)
    return torch.randn(m, n, device=device).to(dtype), x, weight, mean.float(), torch.rsqrt(variance + eps).float()


def main() -> None:
    args = make_args(2048, 1024, device="cuda" if torch.cuda.is_available() else "cpu")
    for name, actual, expected in zip(("y", "mean", "rstd"), layer_norm(*args), reference(*args)):
        print(f"layer_norm: {name} {list(actual.shape)}, largest error {(actual - expected).abs().max().item():.1e}")
    backward = make_backward_args(2048, 1024, device=str(args[0].device))
    names = "x", "weight", "bias"
    for name, actual, expected in zip(names, layer_norm_backward(*backward), reference_backward(*backward)):
        print(f"layer_norm_backward: gradient of {name}, largest error {(actual - expected).abs().max().item():.1e}")


if __name__ == "__main__":
    main()
