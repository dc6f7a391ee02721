"""Cross entropy of logits against class labels, one loss per row; with its backward pass.

    loss[i] = log(sum_j exp(logits[i, j])) - logits[i, labels[i]]
    gradient of logits[i, j] = (softmax(logits[i])[j] - (j == labels[i])) * gradient of loss[i]

The row maximum is subtracted before exponentiation, so large logits do not overflow.

Run it: python examples/cross_entropy.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Losses [m], float32, of logits [m, classes] and labels [m] (integers in range)."""
    loss = torch.empty([logits.size(0)], dtype=torch.float32, device=logits.device)
    for rows in hl.tile(logits.size(0)):
        values = logits[rows, :].to(torch.float32)
        picked = logits[rows.index, labels[rows]]  # two loads one after the other, while the row is on its way
        largest = values.amax(dim=1)
        log_sum = torch.log(torch.exp(values - largest[:, None]).sum(dim=1)) + largest
        loss[rows] = log_sum - picked
    return loss


@helion.kernel
def cross_entropy_backward(grad: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The gradient of the logits [m, classes], given that of the losses [m]."""
    m, classes = logits.shape
    out = torch.empty_like(logits)
    for rows in hl.tile(m):
        values = logits[rows, :].to(torch.float32)
        weights = torch.exp(values - values.amax(dim=1, keepdim=True))
        scale = grad[rows].to(torch.float32)
        is_label = hl.arange(classes)[None, :] == labels[rows][:, None]
        # One division a row.
        softmax = weights * (scale / weights.sum(dim=1))[:, None]
        out[rows, :] = softmax - torch.where(is_label, scale[:, None], 0.0)
    return out


def reference(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.nn.functional.cross_entropy(wide, labels, reduction="none")


def reference_backward(grad: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """`cross_entropy_backward` in PyTorch."""
    logits = logits.detach().requires_grad_()
    loss = reference(logits, labels)
    return torch.autograd.grad(loss, logits, grad.to(loss.dtype))[0]


def make_args(
    m: int, classes: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [m, classes] and labels [m] (int64)."""
    logits = (torch.randn(m, classes, device=device) * 3).to(dtype)
    return logits, torch.randint(0, classes, [m], device=device)


def make_backward_args(
    m: int, classes: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A gradient of the losses [m] (float32), logits and labels."""
    return torch.randn(m, device=device), *make_args(m, classes, dtype, device)


def main() -> None:
    logits, labels = make_args(1024, 5000, device="cuda" if torch.cuda.is_available() else "cpu")
    error = (cross_entropy(logits, labels) - reference(logits, labels)).abs().max().item()
    print(f"cross_entropy: {list(logits.shape)}, largest error {error:.1e}")
    grad = torch.randn(1024, device=logits.device)
    error = (cross_entropy_backward(grad, logits, labels) - reference_backward(grad, logits, labels)).abs().max().item()
    print(f"cross_entropy_backward: largest error {error:.1e}")


if __name__ == "__main__":
    main()
