"""Scans along rows that are longer than a tile: cumulative sums, and a linear recurrence.

A tile is scanned in registers, and the total so far is carried into the next.

* `cumulative_sum`: y[t] = y[t - 1] + x[t]
* `linear_recurrence`: y[t] = decay[t] * y[t - 1] + x[t], the core of gated linear RNNs.  Two steps combine to one of
  the same form, (d1, y1) then (d2, y2) is (d1 * d2, y1 * d2 + y2), so the steps of a tile can be scanned in parallel
  (Blelloch, "Prefix sums and their applications", 1990).

Run it: python examples/cumulative.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def cumulative_sum(x: torch.Tensor) -> torch.Tensor:
    """x.cumsum(dim=1) of a matrix [m, n] in float32, rounded once."""
    m, n = x.shape
    out = torch.empty_like(x)
    for rows in hl.tile(m):
        carried = hl.zeros([rows], dtype=torch.float32)
        for columns in hl.tile(n):
            values = x[rows, columns].to(torch.float32)
            out[rows, columns] = hl.cumsum(values, dim=1) + carried[:, None]
            carried = carried + values.sum(dim=1)
    return out


def after(
    decay_a: torch.Tensor, state_a: torch.Tensor, decay_b: torch.Tensor, state_b: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Step a followed by step b, as one step."""
    return decay_a * decay_b, state_a * decay_b + state_b


@helion.kernel
def linear_recurrence(decay: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """y[:, t] = decay[:, t] * y[:, t - 1] + x[:, t] from y[:, -1] = 0, for matrices [m, n]."""
    m, n = x.shape
    out = torch.empty_like(x)
    for rows in hl.tile(m):
        carried = hl.zeros([rows], dtype=torch.float32)
        for columns in hl.tile(n):
            steps = decay[rows, columns].to(torch.float32), x[rows, columns].to(torch.float32)
            product, state = hl.associative_scan(after, steps, dim=1)
            state = state + product * carried[:, None]
            out[rows, columns] = state
            last = columns.index == columns.end - 1
            carried = torch.where(last[None, :], state, 0.0).sum(dim=1)
    return out


def reference_sum(x: torch.Tensor) -> torch.Tensor:
    """`cumulative_sum` in PyTorch."""
    return x.cumsum(dim=1)


def reference_recurrence(decay: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """`linear_recurrence` in PyTorch, one step after another."""
    state, out = torch.zeros_like(x[:, 0]), torch.empty_like(x)
    for t in range(x.size(1)):
        state = decay[:, t] * state + x[:, t]
        out[:, t] = state
    return out


def make_args(m: int, n: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[torch.Tensor]:
    """A matrix [m, n]."""
    return (torch.randn(m, n, device=device).to(dtype),)


def make_recurrence_args(
    m: int, n: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Decays in (0, 1) and inputs, [m, n]."""
    return torch.rand(m, n, device=device).to(dtype), torch.randn(m, n, device=device).to(dtype)


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    (x,) = make_args(16, 3000, device=device)
    print(
        f"cumulative_sum: {list(x.shape)}, largest error "
        f"{(cumulative_sum(x) - reference_sum(x)).abs().max().item():.1e}"
    )
    args = make_recurrence_args(16, 500, device=device)
    error = (linear_recurrence(*args) - reference_recurrence(*args)).abs().max().item()
    print(f"linear_recurrence: {list(args[1].shape)}, largest error {error:.1e}")


if __name__ == "__main__":
    main()
