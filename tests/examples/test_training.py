"""Examples that train: their gradients are PyTorch's, and so is the loss of a language model, step by step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from examples import attention_backward
from examples import train_language_model as example

FUNCTIONS = {
    "norm": lambda: (torch.randn(10, 24, dtype=torch.float32), torch.randn(24)),
    "activation": lambda: (torch.randn(10, 24), torch.randn(10, 24)),
    "loss": lambda: (torch.randn(10, 24), torch.randint(0, 24, [10])),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_has_pytorchs_gradients(name: str, seed: int) -> None:
    args = FUNCTIONS[name]()
    results = []
    for operations in (example.KERNELS, example.PYTORCH):
        inputs = [a.detach().clone().requires_grad_(a.is_floating_point()) for a in args]
        out = getattr(operations, name)(*inputs)
        torch.manual_seed(seed)
        out.backward(torch.randn(out.shape))
        results.append([out.detach(), *(i.grad for i in inputs if i.requires_grad)])
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


def test_attention_has_pytorchs_gradients(seed: int) -> None:
    inputs = [t.requires_grad_() for t in attention_backward.make_args(2, 4, 2, 33, 16, torch.float32)]
    results = []
    for function in (attention_backward.CausalAttention.apply, attention_backward.reference):
        out = function(*inputs)
        torch.manual_seed(seed)
        grad = torch.randn(2, 33, 4, 16).transpose(1, 2)  # as a view after the heads leaves it
        results.append([out.detach(), *torch.autograd.grad(out, inputs, grad)])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_losses_follow_those_of_pytorch(tmp_path: Path) -> None:
    plot, numbers = tmp_path / "losses.png", tmp_path / "losses.json"
    example.main(["--steps", "8", "--device", "cpu", "--plot", str(plot), "--json", str(numbers)])
    curves = json.loads(numbers.read_text())
    assert example.largest_gap(curves["kernels"], curves["PyTorch"]) < 1e-3
    assert curves["kernels"][-1] < curves["kernels"][0] - 0.5
    assert plot.read_bytes().startswith(b"\x89PNG")
