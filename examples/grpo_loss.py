"""The token loss of group-relative policy optimization, from logits, with its backward pass.

    ratio = exp(logp - logp_old),   logp = log_softmax(logits)[token]
    loss  = -min(ratio * advantage, clamp(ratio, 1 - low, 1 + high) * advantage) + beta * (exp(d) - d - 1),   d =
    logp_ref - logp

(Shao et al., "DeepSeekMath", arXiv:2402.03300, equations 3 and 4.)  The forward pass keeps logp and the logarithm of
the softmax's denominator, two numbers per token; no matrix of probabilities is stored.

Run it: python examples/grpo_loss.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def grpo_loss(
    logits: torch.Tensor,
    tokens: torch.Tensor,
    old: torch.Tensor,
    ref: torch.Tensor,
    advantage: torch.Tensor,
    beta: float,
    low: float,
    high: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss per token of logits [m, vocabulary]; the other tensors are [m].

    Args:
        tokens: the tokens that were drawn; old, ref: their log-probabilities under the old and the reference policy.
        advantage: of the token's sequence.
        beta: weight of the divergence from the reference policy; low, high: how far the ratio may go from 1.

    Returns:
        loss, logp of the token, log of the sum of exponentials: [m] float32 each.
    """
    m, vocabulary = logits.shape
    loss, logp, norm = (torch.empty([m], dtype=torch.float32, device=logits.device) for _ in range(3))
    for rows in hl.tile(m):
        largest = hl.full([rows], float("-inf"), dtype=torch.float32)
        total = hl.zeros([rows], dtype=torch.float32)
        for columns in hl.tile(vocabulary):
            values = logits[rows, columns].to(torch.float32)
            grown = torch.maximum(largest, values.amax(dim=1))
            total = total * torch.exp(largest - grown) + torch.exp(values - grown[:, None]).sum(dim=1)
            largest = grown
        log_sum = largest + torch.log(total)
        chosen = logits[rows.index, tokens[rows]].to(torch.float32) - log_sum
        ratio, a = torch.exp(chosen - old[rows]), advantage[rows]
        d = ref[rows] - chosen
        policy = torch.minimum(ratio * a, torch.clamp(ratio, 1.0 - low, 1.0 + high) * a)
        loss[rows] = beta * (torch.exp(d) - d - 1.0) - policy
        logp[rows] = chosen
        norm[rows] = log_sum
    return loss, logp, norm


@helion.kernel
def grpo_loss_backward(
    grad: torch.Tensor, logits: torch.Tensor, tokens: torch.Tensor, old: torch.Tensor, ref: torch.Tensor,
    advantage: torch.Tensor, logp: torch.Tensor, norm: torch.Tensor, beta: float, low: float, high: float,
) -> torch.Tensor:  # fmt: skip
    """The gradient of the logits, given that of the losses [m] and what the forward pass returned."""
    out = torch.empty_like(logits)
    for rows, columns in hl.tile([logits.size(0), logits.size(1)]):
        ratio, a = torch.exp(logp[rows] - old[rows]), advantage[rows]
        clipped = torch.where(a > 0.0, ratio > 1.0 + high, ratio < 1.0 - low)
        slope = torch.where(clipped, 0.0, -ratio * a) + beta * (1.0 - torch.exp(ref[rows] - logp[rows]))
        softmax = torch.exp(logits[rows, columns].to(torch.float32) - norm[rows][:, None])
        chosen = (columns.index[None, :] == tokens[rows][:, None]).to(torch.float32)
        out[rows, columns] = (chosen - softmax) * (slope * grad[rows])[:, None]
    return out


def reference(
    logits: torch.Tensor,
    tokens: torch.Tensor,
    old: torch.Tensor,
    ref: torch.Tensor,
    advantage: torch.Tensor,
    beta: float,
    low: float,
    high: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same in PyTorch."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    norm = torch.logsumexp(wide, dim=1)
    logp = wide.gather(1, tokens[:, None])[:, 0] - norm
    ratio, d = torch.exp(logp - old), ref - logp
    policy = torch.minimum(ratio * advantage, torch.clamp(ratio, 1 - low, 1 + high) * advantage)
    return beta * (torch.exp(d) - d - 1) - policy, logp, norm


def reference_backward(
    grad: torch.Tensor, logits: torch.Tensor, tokens: torch.Tensor, old: torch.Tensor, ref: torch.Tensor,
    advantage: torch.Tensor, logp: torch.Tensor, norm: torch.Tensor, beta: float, low: float, high: float,
) -> torch.Tensor:  # fmt: skip
    """`grpo_loss_backward` in PyTorch."""
    logits = logits.detach().requires_grad_()
    loss = reference(logits, tokens, old, ref, advantage, beta, low, high)[0]
    return torch.autograd.grad(loss, logits, grad.to(loss.dtype))[0]


def make_args(
    m: int, vocabulary: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[torch.Tensor | float, ...]:
    """Logits [m, vocabulary], tokens, log-probabilities near those of the logits, advantages, and the three
    constants.
    """
    logits = torch.randn(m, vocabulary, device=device).to(dtype)
    tokens = torch.randint(0, vocabulary, [m], device=device)
    logp = torch.log_softmax(logits.float(), dim=1).gather(1, tokens[:, None])[:, 0]
    old, ref = (logp + 0.3 * torch.randn(m, device=device) for _ in range(2))
    return logits, tokens, old, ref, torch.randn(m, device=device), 0.04, 0.2, 0.28


def make_backward_args(
    m: int, vocabulary: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[torch.Tensor | float, ...]:
    """A gradient of the losses, and the arguments and results of the forward pass."""
    args = make_args(m, vocabulary, dtype, device)
    logits = args[0].double()
    _, logp, norm = reference(logits, *args[1:])
    return torch.randn(m, device=device), *args[:5], logp.float(), norm.float(), *args[5:]


def main() -> None:
    args = make_args(512, 5000, device="cuda" if torch.cuda.is_available() else "cpu")
    for name, actual, expected in zip(("loss", "logp", "norm"), grpo_loss(*args), reference(*args)):
        print(f"grpo_loss: {name}, largest error {(actual - expected).abs().max().item():.1e}")
    backward = make_backward_args(512, 5000, device=str(args[0].device))
    error = (grpo_loss_backward(*backward) - reference_backward(*backward)).abs().max().item()
    print(f"grpo_loss_backward: largest error {error:.1e}")


if __name__ == "__main__":
    main()
