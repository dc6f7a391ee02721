"""Dropout whose mask is a function of a seed: forward and backward draw the same numbers, so no mask is stored.

`hl.rand4x` is Philox of the seed and the position in the loop's range: the same numbers for every schedule, on a GPU
and on the CPU. A call of the generator makes four numbers, and drawing them is most of the work here; so the loop runs
over a quarter of the columns, and each position decides about four elements, one in each quarter.  The gradient of
dropout is dropout of the gradient with the same seed.

Run it: python examples/dropout.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def dropout(x: torch.Tensor, p: float, seed: int) -> torch.Tensor:
    """A matrix with each element zeroed with probability p, the others divided by 1 - p."""
    m, n = x.shape
    quarter = helion.cdiv(n, 4)
    out = torch.empty_like(x)
    for rows, columns in hl.tile([m, quarter]):
        numbers = hl.rand4x([rows, columns], seed)
        for i in range(4):
            kept = x[rows, columns + i * quarter].to(torch.float32) * (1.0 / (1.0 - p))
            out[rows, columns + i * quarter] = torch.where(numbers[i] >= p, kept, 0.0)
    return out


def uniform(count: int, seed: int, device: torch.device) -> torch.Tensor:
    """The first numbers of `hl.rand4x`, float32 [4, count]: Philox 4x32-10 (Salmon et al., SC 2011), counted by
    position.
    """
    low = 0xFFFFFFFF
    key_a, key_b = seed & low, (seed >> 32) & low
    words = [
        torch.arange(count, device=device),
        *(torch.zeros(count, dtype=torch.int64, device=device) for _ in range(3)),
    ]
    for _ in range(10):
        product_a, product_b = words[0] * 0xD2511F53, words[2] * 0xCD9E8D57
        words = [
            ((product_b >> 32) & low) ^ words[1] ^ key_a, product_b & low,
            ((product_a >> 32) & low) ^ words[3] ^ key_b, product_a & low,
        ]  # fmt: skip
        key_a, key_b = (key_a + 0x9E3779B9) & low, (key_b + 0xBB67AE85) & low
    word = torch.stack(words)
    magnitude = torch.where(word < 1 << 31, word, (1 << 32) - 1 - word)
    return magnitude.to(torch.float32) * 4.6566127342e-10


def reference(x: torch.Tensor, p: float, seed: int) -> torch.Tensor:
    """The same in PyTorch."""
    m, n = x.shape
    quarter = helion.cdiv(n, 4)
    numbers = uniform(m * quarter, seed, x.device).reshape(4, m, quarter).movedim(0, 1).reshape(m, 4 * quarter)
    return torch.where(numbers[:, :n] >= p, x / (1.0 - p), 0.0)


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
    print(
        f"dropout: {list(x.shape)}, {(dropout(x, p, seed) == 0).float().mean().item():.3f} are 0, "
        f"largest error {error:.1e}"
    )


if __name__ == "__main__":
    main()
