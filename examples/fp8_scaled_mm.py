"""Row-wise scaled fp8 matrix product, with the contract of `torch._scaled_mm`: one scale a row of A, one a column of B.

The scales are read in the epilogue, where a thread has one row: one number for the row, one vector for the columns it
is about to store.

Run it: python examples/fp8_scaled_mm.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel(backend="cute")
def fp8_scaled_mm(x: torch.Tensor, y: torch.Tensor, scale_a: torch.Tensor, scale_b: torch.Tensor) -> torch.Tensor:
    """(x * scale_a) @ (y * scale_b) in bf16.

    x: [m, k] float8_e4m3fn, row-major. y: [k, n] float8_e4m3fn, column-major. scale_a: [m, 1] float32. scale_b: [1, n]
        float32.
    """
    m, k = x.size()
    _, n = y.size()
    out = torch.empty([m, n], dtype=torch.bfloat16, device=x.device)
    for rows, columns in hl.tile([m, n]):
        acc = hl.zeros([rows, columns], dtype=torch.float32)
        for inner in hl.tile(k):
            acc = hl.dot(x[rows, inner], y[inner, columns], acc=acc)
        scaled = acc * scale_a[rows, :] * scale_b[:, columns]
        out[rows, columns] = scaled.to(torch.bfloat16)
    return out


def reference(x: torch.Tensor, y: torch.Tensor, scale_a: torch.Tensor, scale_b: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch, multiplied in float32."""
    return ((x.float() @ y.float()) * scale_a * scale_b).to(torch.bfloat16)


def quantize_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x [rows, k] as float8_e4m3fn and the scale of each row, [rows, 1] float32, so that x is about the product of
    both.
    """
    largest = torch.finfo(torch.float8_e4m3fn).max
    scale = x.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / largest
    return (x / scale).to(torch.float8_e4m3fn), scale


def make_args(
    m: int, n: int, k: int, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Quantized random matrices and their scales."""
    x, scale_a = quantize_rows(torch.randn(m, k, device=device))
    w, scale_b = quantize_rows(torch.randn(n, k, device=device))
    return x, w.t(), scale_a, scale_b.t()


def main() -> None:
    args = make_args(512, 384, 256, device="cuda" if torch.cuda.is_available() else "cpu")
    want = reference(*args).float()
    error = (fp8_scaled_mm(*args).float() - want).abs().max().item() / want.abs().max().item()
    print(
        f"fp8_scaled_mm: {list(args[0].shape)} @ {list(args[1].shape)}: largest error {error:.1e} of the largest value"
    )


if __name__ == "__main__":
    main()
