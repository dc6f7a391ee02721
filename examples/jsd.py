"""Generalized Jensen-Shannon divergence, the loss of knowledge distillation, with the gradient found in the same pass.

    m = beta * p + (1 - beta) * q,    loss = beta * KL(p || m) + (1 - beta) * KL(q || m)        (Lin, 1991)
    gradient of log q = (1 - beta) * q * (log q - log m)

The terms of the derivative through m cancel.  A loss is the end of a model, so its gradient is wanted whenever the loss
is; computing both reads the two matrices once.

Run it: python examples/jsd.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def jsd(log_q: torch.Tensor, log_p: torch.Tensor, beta: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    """The divergence of each row, [m] float32, and its gradient with respect to log_q [m, n]; beta is in (0, 1)."""
    m, n = log_q.shape
    loss = torch.empty([m], dtype=torch.float32, device=log_q.device)
    grad = torch.empty_like(log_q)
    for rows in hl.tile(m):
        total = hl.zeros([rows], dtype=torch.float32)
        for columns in hl.tile(n):
            student, teacher = log_q[rows, columns].to(torch.float32), log_p[rows, columns].to(torch.float32)
            q, p = torch.exp(student), torch.exp(teacher)
            log_m = torch.log(beta * p + (1.0 - beta) * q)
            pull = (1.0 - beta) * q * (student - log_m)
            total = total + (beta * p * (teacher - log_m) + pull).sum(dim=1)
            grad[rows, columns] = pull
        loss[rows] = total
    return loss, grad


def reference(log_q: torch.Tensor, log_p: torch.Tensor, beta: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    """The same in PyTorch, its gradient from autograd."""
    wide = torch.promote_types(log_q.dtype, torch.float32)
    with torch.enable_grad():
        student, teacher = log_q.detach().to(wide).requires_grad_(), log_p.to(wide)
        log_m = torch.log(beta * teacher.exp() + (1 - beta) * student.exp())
        loss = (beta * teacher.exp() * (teacher - log_m) + (1 - beta) * student.exp() * (student - log_m)).sum(dim=1)
        (grad,) = torch.autograd.grad(loss.sum(), student)
    return loss.detach(), grad.to(log_q.dtype)


def make_args(
    m: int, n: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Log-probabilities log q and log p, [m, n], and beta."""
    log_q, log_p = (torch.log_softmax(torch.randn(m, n, device=device), dim=1).to(dtype) for _ in range(2))
    return log_q, log_p, 0.3


def main() -> None:
    args = make_args(512, 5000, device="cuda" if torch.cuda.is_available() else "cpu")
    for name, actual, expected in zip(("loss", "gradient"), jsd(*args), reference(*args)):
        print(f"jsd: {name} {list(actual.shape)}, largest error {(actual - expected).abs().max().item():.1e}")


if __name__ == "__main__":
    main()
