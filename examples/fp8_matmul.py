"""fp8 matrix product on tensor cores, through the CuTe backend: e4m3 operands, fp32 accumulator, bf16 result.

B is column-major (its columns are contiguous), which is what tensor cores read fastest. On a GPU with neither tcgen05
(10.0, 10.3) nor wgmma (9.0), `backend="triton"` runs the same function.

Run it: python examples/fp8_matmul.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel(backend="cute")
def fp8_matmul(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """x @ y in bf16, for float8_e4m3fn x [m, k] and y [k, n]."""
    m, k = x.size()
    _, n = y.size()
    out = torch.empty([m, n], dtype=torch.bfloat16, device=x.device)
    for rows, columns in hl.tile([m, n]):
        acc = hl.zeros([rows, columns], dtype=torch.float32)
        for inner in hl.tile(k):
            acc = hl.dot(x[rows, inner], y[inner, columns], acc=acc)
        out[rows, columns] = acc.to(torch.bfloat16)
    return out


def reference(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch, multiplied in float32."""
    return (x.float() @ y.float()).to(torch.bfloat16)


def make_args(m: int, n: int, k: int, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Row-major x [m, k] and column-major y [k, n]."""
    x = torch.randn(m, k, device=device).to(torch.float8_e4m3fn)
    y = torch.randn(n, k, device=device).to(torch.float8_e4m3fn).t()
    return x, y


def main() -> None:
    args = make_args(512, 384, 256, device="cuda" if torch.cuda.is_available() else "cpu")
    want = reference(*args).float()
    error = (fp8_matmul(*args).float() - want).abs().max().item() / want.abs().max().item()
    print(f"fp8_matmul: {list(args[0].shape)} @ {list(args[1].shape)}: largest error {error:.1e} of the largest value")


if __name__ == "__main__":
    main()
