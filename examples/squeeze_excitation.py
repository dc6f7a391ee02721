"""Squeeze and excitation: channels of an image, weighted by what a small network makes of their averages.

    gate = sigmoid(relu(mean(x over pixels) @ w1) @ w2),    out = x * gate        (Hu et al., arXiv:1709.01507)

One program takes one image: it reads the pixels twice and does everything between in registers, where PyTorch runs six
kernels.

Run it: python examples/squeeze_excitation.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def squeeze_excitation(x: torch.Tensor, w1: torch.Tensor, w2: torch.Tensor) -> torch.Tensor:
    """x [batch, channels, pixels] times the gate of its channel; w1 is [channels, hidden], w2 [hidden, channels]."""
    batch, channels, pixels = x.shape
    channels = hl.specialize(channels)
    out = torch.empty_like(x)
    for image in hl.grid(batch):
        total = hl.zeros([channels], dtype=torch.float32)
        for part in hl.tile(pixels):
            total = total + x[image, :, part].to(torch.float32).sum(dim=1)
        squeezed = total / pixels
        activation = torch.relu((squeezed[:, None] * w1[:, :].to(torch.float32)).sum(dim=0))
        gate = torch.sigmoid((activation[:, None] * w2[:, :].to(torch.float32)).sum(dim=0))
        for part in hl.tile(pixels):
            out[image, :, part] = x[image, :, part].to(torch.float32) * gate[:, None]
    return out


def reference(x: torch.Tensor, w1: torch.Tensor, w2: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch."""
    gate = torch.sigmoid(torch.relu(x.mean(dim=2) @ w1) @ w2)
    return x * gate[:, :, None]


def make_args(
    batch: int, channels: int, pixels: int, hidden: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images [batch, channels, pixels] and the two weights."""
    x = (torch.randn(batch, channels, pixels, device=device) + torch.randn(batch, channels, 1, device=device)).to(dtype)
    w1 = (torch.randn(channels, hidden, device=device) / channels**0.5).to(dtype)
    return x, w1, (torch.randn(hidden, channels, device=device) / hidden**0.5).to(dtype)


def main() -> None:
    args = make_args(8, 96, 400, 24, device="cuda" if torch.cuda.is_available() else "cpu")
    error = (squeeze_excitation(*args) - reference(*args)).abs().max().item()
    print(f"squeeze_excitation: {list(args[0].shape)}, largest error {error:.1e}")


if __name__ == "__main__":
    main()
