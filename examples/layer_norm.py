"""Layer normalization: rows with their mean taken out, divided by their standard deviation.

    y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias        (Ba, Kiros and Hinton, arXiv:1607.06450)

The forward pass also returns mean and 1 / standard deviation of each row, which the backward pass reads.  Gradients of
weight and bias are sums over all rows: each program adds up the rows of its block in registers, and when all have done
so (`hl.barrier`), programs add the blocks, column by column.

A row and its sums must fit into the registers of a program for that; or, if it is loaded twice, the sums alone.
`backward` goes over longer rows twice: first for two numbers of each row, then in tiles of columns, whose sums are few.

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


def sums_of_parts(
    partial_weight: torch.Tensor, partial_bias: torch.Tensor, columns: hl.Tile
) -> tuple[torch.Tensor, torch.Tensor]:
    """Some columns of two tensors [parts, n], each added up over the parts."""
    total_weight = hl.zeros([columns], dtype=torch.float32)
    total_bias = hl.zeros([columns], dtype=torch.float32)
    for rows in hl.tile(partial_weight.size(0)):
        total_weight = total_weight + partial_weight[rows, columns].sum(dim=0)
        total_bias = total_bias + partial_bias[rows, columns].sum(dim=0)
    return total_weight, total_bias


@helion.kernel
def layer_norm_backward(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, mean: torch.Tensor, rstd: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x [m, n], weight [n] and bias [n], given that of the result and what the forward pass returned."""
    m, n = x.shape
    block = hl.register_block_size(m)
    parts = helion.cdiv(m, block)
    grad_x, grad_weight, grad_bias = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)
    partial_weight = torch.empty([parts, n], dtype=torch.float32, device=x.device)
    partial_bias = torch.empty([parts, n], dtype=torch.float32, device=x.device)
    for part in hl.tile(m, block_size=block):
        total_weight = hl.zeros([n], dtype=torch.float32)
        total_bias = hl.zeros([n], dtype=torch.float32)
        for rows in hl.tile(part.begin, part.end):
            dy = grad[rows, :].to(torch.float32)
            normalized = (x[rows, :].to(torch.float32) - mean[rows][:, None]) * rstd[rows][:, None]
            total_weight = total_weight + (dy * normalized).sum(dim=0)
            total_bias = total_bias + dy.sum(dim=0)
            # The weight is read again for each row: from a cache, while registers are few.
            weighted = dy * weight[:].to(torch.float32)
            projection = (weighted * normalized).mean(dim=1, keepdim=True)
            centered = weighted - weighted.mean(dim=1, keepdim=True) - normalized * projection
            grad_x[rows, :] = centered * rstd[rows][:, None]
        partial_weight[part.id, :] = total_weight
        partial_bias[part.id, :] = total_bias
    hl.barrier()
    for columns in hl.tile(n):
        grad_weight[columns], grad_bias[columns] = sums_of_parts(partial_weight, partial_bias, columns)
    return grad_x, grad_weight, grad_bias


@helion.kernel
def layer_norm_backward_of_long_rows(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, mean: torch.Tensor, rstd: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `layer_norm_backward`, for rows that with both sums are too much for registers: each is loaded twice."""
    m, n = x.shape
    block = hl.register_block_size(m)
    parts = helion.cdiv(m, block)
    grad_x, grad_weight, grad_bias = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)
    partial_weight = torch.empty([parts, n], dtype=torch.float32, device=x.device)
    partial_bias = torch.empty([parts, n], dtype=torch.float32, device=x.device)
    for part in hl.tile(m, block_size=block):
        total_weight = hl.zeros([n], dtype=torch.float32)
        total_bias = hl.zeros([n], dtype=torch.float32)
        for rows in hl.tile(part.begin, part.end):
            center, scale = mean[rows][:, None], rstd[rows][:, None]
            dy = hl.load(grad, [rows, slice(None)], eviction_policy="evict_last").to(torch.float32)
            values = hl.load(x, [rows, slice(None)], eviction_policy="evict_last").to(torch.float32)
            weighted, normalized = dy * weight[:].to(torch.float32), (values - center) * scale
            middle = weighted.mean(dim=1, keepdim=True)
            projection = (weighted * normalized).mean(dim=1, keepdim=True)
            # The row again, from a cache, which need not keep it any longer.
            dy = hl.load(grad, [rows, slice(None)], eviction_policy="evict_first").to(torch.float32)
            values = hl.load(x, [rows, slice(None)], eviction_policy="evict_first").to(torch.float32)
            normalized = (values - center) * scale
            total_weight = total_weight + (dy * normalized).sum(dim=0)
            total_bias = total_bias + dy.sum(dim=0)
            grad_x[rows, :] = (dy * weight[:].to(torch.float32) - middle - normalized * projection) * scale
        partial_weight[part.id, :] = total_weight
        partial_bias[part.id, :] = total_bias
    hl.barrier()
    for columns in hl.tile(n):
        grad_weight[columns], grad_bias[columns] = sums_of_parts(partial_weight, partial_bias, columns)
    return grad_x, grad_weight, grad_bias


@helion.kernel
def layer_norm_row_numbers(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, mean: torch.Tensor, rstd: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Means of grad * weight and of grad * weight * normalized x of each row [m], float32."""
    m = x.size(0)
    center = torch.empty([m], dtype=torch.float32, device=x.device)
    projection = torch.empty([m], dtype=torch.float32, device=x.device)
    for rows in hl.tile(m):
        weighted = grad[rows, :].to(torch.float32) * weight[:].to(torch.float32)
        normalized = (x[rows, :].to(torch.float32) - mean[rows][:, None]) * rstd[rows][:, None]
        center[rows] = weighted.mean(dim=1)
        projection[rows] = (weighted * normalized).mean(dim=1)
    return center, projection


@helion.kernel
def layer_norm_backward_by_columns(
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    mean: torch.Tensor,
    rstd: torch.Tensor,
    center: torch.Tensor,
    projection: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x, weight and bias as `layer_norm_backward`'s, given what `layer_norm_row_numbers` found."""
    m, n = x.shape
    block = hl.register_block_size(m)
    grad_x = torch.empty_like(x)
    blocks = helion.cdiv(m, block)
    partial_weight = torch.empty([blocks, n], dtype=torch.float32, device=x.device)
    partial_bias = torch.empty([blocks, n], dtype=torch.float32, device=x.device)
    for part, columns in hl.tile([m, n], block_size=[block, None]):
        grad_weight = hl.zeros([columns], dtype=torch.float32)
        grad_bias = hl.zeros([columns], dtype=torch.float32)
        for rows in hl.tile(part.begin, part.end):
            scale = rstd[rows][:, None]
            dy = grad[rows, columns].to(torch.float32)
            normalized = (x[rows, columns].to(torch.float32) - mean[rows][:, None]) * scale
            grad_weight = grad_weight + (dy * normalized).sum(dim=0)
            grad_bias = grad_bias + dy.sum(dim=0)
            weighted = dy * weight[columns].to(torch.float32)
            centered = weighted - center[rows][:, None] - normalized * projection[rows][:, None]
            grad_x[rows, columns] = centered * scale
        partial_weight[part.id, columns] = grad_weight
        partial_bias[part.id, columns] = grad_bias
    return grad_x, partial_weight.sum(dim=0).to(weight.dtype), partial_bias.sum(dim=0).to(weight.dtype)


#: Rows up to this length fit into registers, with their two sums; and the two sums of rows twice as long, if no part of
#: them is padding.
LONGEST = 8192


def backward(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, mean: torch.Tensor, rstd: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x [m, n], weight [n] and bias [n] for rows of any length."""
    if x.size(1) <= LONGEST:
        return layer_norm_backward(grad, x, weight, mean, rstd)
    if x.size(1) == 2 * LONGEST:
        return layer_norm_backward_of_long_rows(grad, x, weight, mean, rstd)
    numbers = layer_norm_row_numbers(grad, x, weight, mean, rstd)
    return layer_norm_backward_by_columns(grad, x, weight, mean, rstd, *numbers)


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
    # On a GPU statistics of 16-bit inputs are float32, on the CPU they have the inputs' dtype.
    dtype = torch.float32 if x.is_cuda and x.dtype.itemsize == 2 else x.dtype
    columns = mean[:, None].to(dtype), rstd[:, None].to(dtype)
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
