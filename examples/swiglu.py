"""SwiGLU, the gate of a transformer's feed-forward layer, with its backward pass.

    y = silu(gate) * up,    silu(g) = g * sigmoid(g)        (Shazeer, "GLU Variants Improve Transformer",
    arXiv:2002.05202)

The backward pass computes silu again from `gate`: that costs less than reading a stored copy.

Run it: python examples/swiglu.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def swiglu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up for two tensors of one shape."""
    out = torch.empty_like(gate)
    for tile in hl.tile(out.size()):
        g = gate[tile].to(torch.float32)
        out[tile] = g * torch.sigmoid(g) * up[tile].to(torch.float32)
    return out


@helion.kernel
def swiglu_backward(grad: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of gate and up, given that of the result."""
    grad_gate, grad_up = torch.empty_like(gate), torch.empty_like(up)
    for tile in hl.tile(gate.size()):
        g, dy = gate[tile].to(torch.float32), grad[tile].to(torch.float32)
        sigmoid = torch.sigmoid(g)
        silu = g * sigmoid
        grad_up[tile] = dy * silu
        grad_gate[tile] = dy * up[tile].to(torch.float32) * (sigmoid + silu * (1.0 - sigmoid))
    return grad_gate, grad_up


def reference(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch."""
    return torch.nn.functional.silu(gate) * up


def reference_backward(grad: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """`swiglu_backward` in PyTorch."""
    inputs = gate.detach().requires_grad_(), up.detach().requires_grad_()
    return torch.autograd.grad(reference(*inputs), inputs, grad)


def make_args(
    m: int, n: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Two matrices [m, n]."""
    return torch.randn(m, n, device=device).to(dtype), torch.randn(m, n, device=device).to(dtype)


def make_backward_args(
    m: int, n: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[torch.Tensor, ...]:
    """A gradient, and the forward pass's arguments: matrices [m, n]."""
    return torch.randn(m, n, device=device).to(dtype), *make_args(m, n, dtype, device)


def main() -> None:
    args = make_backward_args(1024, 2048, device="cuda" if torch.cuda.is_available() else "cpu")
    error = (swiglu(*args[1:]) - reference(*args[1:])).abs().max().item()
    print(f"swiglu: {list(args[0].shape)}, largest error {error:.1e}")
    for name, actual, expected in zip(("gate", "up"), swiglu_backward(*args), reference_backward(*args)):
        print(f"swiglu_backward: gradient of {name}, largest error {(actual - expected).abs().max().item():.1e}")


if __name__ == "__main__":
    main()
