"""Dropout whose mask is a function of a seed: forward and backward draw the same numbers, so no mask is stored.

`hl.rand` is Philox of the seed and the element's position in the loop's range: the same numbers for every schedule, on a GPU
and on the CPU.  The gradient of dropout is dropout of the gradient with the same seed.

Run it: python examples/dropout.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def dropout(x: torch.Tensor, p: float, seed: int) -> torch.Tensor:
    """A matrix with each element zeroed with probability p, the others divided by 1 - p."""
    out = torch.empty_like(x)
    for rows, columns in hl.tile([x.size(0), x.size(1)]):
        keep = hl.rand([rows, columns], seed) >= p
        out[rows, columns] = torch.where(keep, x[rows, columns].to(torch.float32) / (1.0 - p), 0.0)
    return out


def uniform(count: int, seed: int, device: torch.device) -> torch.Tensor:
    """The first numbers of `hl.rand`, float32 [count]: word 0 of Philox 4x32-10 (Salmon et al., SC 2011), counted by position."""
    low = 0xFFFFFFFF
    key_a, key_b = seed & low, (seed >> 32) & low
    words = [torch.arange(count, device=device), *(torch.zeros(count, dtype=torch.int64, device=device) for _ in range(3))]
    for _ in range(10):
        product_a, product_b = words[0] * 0xD2511F53, words[2] * 0xCD9E8D57
        words = [
            ((product_b >> 32) & low) ^ words[1] ^ key_a, product_b & low,
            ((product_a >> 32) & low) ^ words[3] ^ key_b, product_a & low,
        ]  # fmt: skip
        key_a, key_b = (key_a + 0x9E3779B9) & low, (key_b + 0xBB67AE85) & low
    magnitude = torch.where(words[0] < 1 << 31, words[0], (1 << 32) - 1 - words[0])
    return magnitude.to(torch.float32) * 4.6566127342e-10


def reference(x: torch.Tensor, p: float, seed: int) -> torch.Tensor:
    """The same in PyTorch."""
    keep = uniform(x.numel(), seed, x.device).reshape(x.shape) >= p
    return torch.where(keep, x / (1.0 - p), 0.0)


def eager(x: torch.Tensor, p: float, seed: int) -> torch.Tensor:
    """What PyTorch users call; its mask is another one."""
    return torch.nn.functional.dropout(x, p)


def make_args(
    m: int, n: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[torch.Tensor, float, int]:
    """A matrix [m, n], the probability of zero and a seed."""
    return torch.randn(m, n, device=device).to(dtype), 0.25, 1234


def main() -> None:
    x, p, seed = make_args(512, 1000, device="cuda" if torch.cuda.is_available() else "cpu")
    error = (dropout(x, p, seed) - reference(x, p, seed)).abs().max().item()
    print(f"dropout: {list(x.shape)}, {(dropout(x, p, seed) == 0).float().mean().item():.3f} are 0, largest error {error:.1e}")


if __name__ == "__main__":
    main()
