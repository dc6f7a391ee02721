"""Mean and variance of rows in one pass, stable for data whose mean is large.

Summing x and x**2 loses the variance to cancellation; subtracting the mean first reads the data twice.  Here each tile
of columns gives its own count, mean and sum of squared deviations, which are merged into those so far:

    delta = mean_b - mean_a,   mean = mean_a + delta * n_b / n,   m2 = m2_a + m2_b + delta**2 * n_a * n_b / n

(Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.)

Run it: python examples/welford.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def welford(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Variance (divided by n) and mean of each row of a matrix, [m] float32 each."""
    m, n = x.shape
    variance, average = (torch.empty([m], dtype=torch.float32, device=x.device) for _ in range(2))
    for rows in hl.tile(m):
        mean = hl.zeros([rows], dtype=torch.float32)
        m2 = hl.zeros([rows], dtype=torch.float32)
        for columns in hl.tile(n):
            values = x[rows, columns].to(torch.float32)
            count = columns.end - columns.begin
            tile_mean = values.sum(dim=1) / count
            deviation = values - tile_mean[:, None]
            delta = tile_mean - mean
            mean = mean + delta * (count / columns.end)
            m2 = m2 + (deviation * deviation).sum(dim=1) + delta * delta * (columns.begin * count / columns.end)
        variance[rows] = m2 / n
        average[rows] = mean
    return variance, average


def reference(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same in PyTorch."""
    return torch.var_mean(x.to(torch.promote_types(x.dtype, torch.float32)), dim=1, correction=0)


def make_args(m: int, n: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[torch.Tensor]:
    """A matrix [m, n] with means near 100 and standard deviations near 1."""
    return ((torch.randn(m, n, device=device) + 100).to(dtype),)


def main() -> None:
    (x,) = make_args(256, 5000, device="cuda" if torch.cuda.is_available() else "cpu")
    for name, actual, expected in zip(("variance", "mean"), welford(x), reference(x.double())):
        print(f"welford: {name} of {list(x.shape)}, largest error {(actual - expected).abs().max().item():.1e}")


if __name__ == "__main__":
    main()
