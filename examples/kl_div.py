"""Kullback-Leibler divergence of two distributions given as log-probabilities, with its backward pass.

    loss[i] = sum_j p[i, j] * (log p[i, j] - log q[i, j])        gradient of log q = -p * gradient of loss

p is the target, log q what a model says: `torch.nn.functional.kl_div(log_q, log_p, log_target=True)`.  Rows are read in
tiles, so a vocabulary may be of any size.

Run it: python examples/kl_div.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def kl_div(log_q: torch.Tensor, log_p: torch.Tensor) -> torch.Tensor:
    """The divergence of each row, [m] float32, of log-probabilities [m, n]."""
    m, n = log_q.shape
    loss = torch.empty([m], dtype=torch.float32, device=log_q.device)
    for rows in hl.tile(m):
        total = hl.zeros([rows], dtype=torch.float32)
        for columns in hl.tile(n):
            target = log_p[rows, columns].to(torch.float32)
            total = total + (torch.exp(target) * (target - log_q[rows, columns].to(torch.float32))).sum(dim=1)
        loss[rows] = total
    return loss


@helion.kernel
def kl_div_backward(grad: torch.Tensor, log_p: torch.Tensor) -> torch.Tensor:
    """The gradient of log_q [m, n], given that of the losses [m]."""
    out = torch.empty_like(log_p)
    for rows, columns in hl.tile([log_p.size(0), log_p.size(1)]):
        out[rows, columns] = -torch.exp(log_p[rows, columns].to(torch.float32)) * grad[rows][:, None].to(torch.float32)
    return out


def reference(log_q: torch.Tensor, log_p: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch."""
    wide = torch.promote_types(log_q.dtype, torch.float32)
    return torch.nn.functional.kl_div(log_q.to(wide), log_p.to(wide), reduction="none", log_target=True).sum(dim=1)


def reference_backward(grad: torch.Tensor, log_p: torch.Tensor) -> torch.Tensor:
    """`kl_div_backward` in PyTorch."""
    log_q = torch.zeros_like(log_p).requires_grad_()
    loss = reference(log_q, log_p)
    return torch.autograd.grad(loss, log_q, grad.to(loss.dtype))[0]


def make_args(
    m: int, n: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities log q and log p, [m, n]."""
    log_q, log_p = (torch.log_softmax(torch.randn(m, n, device=device), dim=1).to(dtype) for _ in range(2))
    return log_q, log_p


def make_backward_args(
    m: int, n: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """A gradient of the losses [m] (float32) and log p [m, n]."""
    return torch.randn(m, device=device), make_args(m, n, dtype, device)[1]


def main() -> None:
    args = make_args(512, 5000, device="cuda" if torch.cuda.is_available() else "cpu")
    print(f"kl_div: {list(args[0].shape)}, largest error {(kl_div(*args) - reference(*args)).abs().max().item():.1e}")
    backward = make_backward_args(512, 5000, device=str(args[0].device))
    error = (kl_div_backward(*backward) - reference_backward(*backward)).abs().max().item()
    print(f"kl_div_backward: largest error {error:.1e}")


if __name__ == "__main__":
    main()
