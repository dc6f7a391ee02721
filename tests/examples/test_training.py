"""The training example: its gradients are PyTorch's, and so is its loss, step by step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

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


@pytest.mark.slow
def test_losses_follow_those_of_pytorch(tmp_path: Path) -> None:
    plot, numbers = tmp_path / "losses.png", tmp_path / "losses.json"
    example.main(["--steps", "8", "--device", "cpu", "--plot", str(plot), "--json", str(numbers)])
    curves = json.loads(numbers.read_text())
    assert example.largest_gap(curves["kernels"], curves["PyTorch"]) < 1e-3
    assert curves["kernels"][-1] < curves["kernels"][0] - 0.5
    assert plot.read_bytes().startswith(b"\x89PNG")
