"""Training a small language model whose norms, activations and loss are kernels of these examples, forward and
backward.

A transformer with two layers learns Python's own documentation (the text behind `help()`, part of every Python), one
character after another.  RMS norm, SwiGLU and cross entropy are `torch.autograd.Function`s around two kernels each.
The same model made of PyTorch's operations starts from the same weights and sees the same batches, so the two losses
must follow each other: they differ by rounding.

Run it: python examples/train_language_model.py --plot losses.png        (on the GPU if there is one; --steps, --device)
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
import time
import warnings
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import helion
from examples.cross_entropy import cross_entropy
from examples.cross_entropy import cross_entropy_backward
from examples.rms_norm import rms_norm
from examples.rms_norm import rms_norm_backward
from examples.swiglu import swiglu
from examples.swiglu import swiglu_backward

# -- kernels as differentiable functions
# ----------------------------------------------------------------------------------


class RMSNorm(torch.autograd.Function):
    """`rms_norm(x, weight)` for x [m, n] and weight [n]."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return rms_norm(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return rms_norm_backward(grad.contiguous(), *ctx.saved_tensors)


class SwiGLU(torch.autograd.Function):
    """`swiglu(gate, up)` for matrices of one shape."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        return swiglu(gate, up)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return swiglu_backward(grad.contiguous(), *ctx.saved_tensors)


class CrossEntropy(torch.autograd.Function):
    """`cross_entropy(logits, labels)`, a loss per row."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(logits, labels)
        return cross_entropy(logits, labels)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return cross_entropy_backward(grad.contiguous(), *ctx.saved_tensors), None


@dataclasses.dataclass(frozen=True)
class Operations:
    """What the model is made of: `norm(x, weight)`, `activation(gate, up)`, `loss(logits, labels)` on matrices."""

    norm: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    activation: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


KERNELS = Operations(RMSNorm.apply, SwiGLU.apply, CrossEntropy.apply)
PYTORCH = Operations(
    norm=lambda x, weight: functional.rms_norm(x, [x.size(1)], weight, 1e-5),
    activation=lambda gate, up: functional.silu(gate) * up,
    loss=lambda logits, labels: functional.cross_entropy(logits, labels, reduction="none"),
)


# -- model and data
# ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Size:
    """Sizes of the model and of a batch."""

    vocabulary: int
    width: int = 64
    heads: int = 4
    layers: int = 2
    length: int = 64
    batch: int = 16


class Layer(nn.Module):
    """Causal attention, then a gated feed-forward layer, each added to its input."""

    def __init__(self, size: Size, operations: Operations) -> None:
        super().__init__()
        self.size, self.operations = size, operations
        self.norms = nn.ParameterList(nn.Parameter(torch.ones(size.width)) for _ in range(2))
        self.qkv = nn.Linear(size.width, 3 * size.width, bias=False)
        self.mix = nn.Linear(size.width, size.width, bias=False)
        self.gate = nn.Linear(size.width, 2 * size.width, bias=False)
        self.up = nn.Linear(size.width, 2 * size.width, bias=False)
        self.down = nn.Linear(2 * size.width, size.width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [batch * length, width]."""
        size = self.size
        heads = self.qkv(self.operations.norm(x, self.norms[0])).view(
            -1, size.length, 3, size.heads, size.width // size.heads
        )
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(x.shape)
        x = x + self.mix(mixed)
        normed = self.operations.norm(x, self.norms[1])
        return x + self.down(self.operations.activation(self.gate(normed), self.up(normed)))


class Model(nn.Module):
    """Characters [batch, length] and the characters that follow them -> mean loss."""

    def __init__(self, size: Size, operations: Operations) -> None:
        super().__init__()
        self.operations = operations
        self.characters = nn.Embedding(size.vocabulary, size.width)
        self.positions = nn.Parameter(torch.randn(size.length, size.width) * 0.1)
        self.layers = nn.Sequential(*(Layer(size, operations) for _ in range(size.layers)))
        self.norm = nn.Parameter(torch.ones(size.width))
        self.logits = nn.Linear(size.width, size.vocabulary, bias=False)

    def forward(self, text: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        """The mean loss, a scalar."""
        x = (self.characters(text) + self.positions).flatten(0, 1)
        x = self.operations.norm(self.layers(x), self.norm)
        return self.operations.loss(self.logits(x), following.flatten()).mean()


def documentation() -> tuple[torch.Tensor, str]:
    """Python's documentation as numbers of characters, and the alphabet they are numbers in."""
    text = "\n".join(topics.values())
    alphabet = "".join(sorted(set(text)))
    numbers = {character: i for i, character in enumerate(alphabet)}
    return torch.tensor([numbers[character] for character in text]), alphabet


def batches(text: torch.Tensor, size: Size, device: str, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Random pieces of the text and the same pieces one character later, [batch, length] each, without end."""
    random = torch.Generator().manual_seed(seed)
    while True:
        starts = torch.randint(0, text.numel() - size.length - 1, [size.batch, 1], generator=random)
        pieces = text[starts + torch.arange(size.length + 1)].to(device)
        yield pieces[:, :-1].contiguous(), pieces[:, 1:].contiguous()


# -- training
# ------------------------------------------------------------------------------------------------------------


def train(operations: Operations, steps: int, device: str = "cpu", seed: int = 0) -> list[float]:
    """The loss before each step of training from a seed."""
    text, alphabet = documentation()
    size = Size(len(alphabet))
    torch.manual_seed(seed)
    model = Model(size, operations).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for piece, following in itertools.islice(batches(text, size, device, seed), steps):
        loss = model(piece, following)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses).tolist()


def largest_gap(losses: list[float], expected: list[float]) -> float:
    """Largest difference of two loss curves at one step."""
    return max(abs(a - b) for a, b in zip(losses, expected, strict=True))


def plot(losses: list[float], expected: list[float], path: str) -> None:
    """Draw both curves into a PNG file; needs matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(expected, label="PyTorch", linewidth=4, alpha=0.4)
    axes.plot(losses, label="helion kernels", linewidth=1)
    axes.set(xlabel="step", ylabel="loss, nats per character", title="The same model, twice")
    axes.legend()
    figure.savefig(path, format="png", dpi=120)


def main(arguments: list[str] | None = None) -> None:
    """Train both models and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--tune", action="store_true", help="let a GPU search for each kernel's schedule first: minutes"
    )
    parser.add_argument("--plot", metavar="FILE.png", help="draw the losses")
    parser.add_argument("--json", metavar="FILE", help="write the losses")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore", helion.exc.NoConfigGiven)
    if not options.tune:
        for kernel in (rms_norm, rms_norm_backward, swiglu, swiglu_backward, cross_entropy, cross_entropy_backward):
            kernel.settings.autotune_effort = "none"
    curves = {}
    for name, operations in (("PyTorch", PYTORCH), ("kernels", KERNELS)):
        start = time.perf_counter()
        curves[name] = train(operations, options.steps, options.device)
        first, last = curves[name][0], sum(curves[name][-10:]) / len(curves[name][-10:])
        print(f"{name}: loss {first:.3f} -> {last:.3f} in {options.steps} steps, {time.perf_counter() - start:.1f} s")
    print(f"largest difference of the losses at one step: {largest_gap(curves['kernels'], curves['PyTorch']):.1e}")
    if options.json:
        Path(options.json).write_text(json.dumps(curves))
    if options.plot:
        plot(curves["kernels"], curves["PyTorch"], options.plot)
        print(f"plot: {options.plot}")


if __name__ == "__main__":
    main()
