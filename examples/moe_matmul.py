"""The matrix product of a mixture of experts: every token is multiplied with the matrix of the expert it was sent to.

Tokens are not moved in memory.  `order` lists them by expert, and the kernel gathers rows of x and scatters rows of the
result through it.

Run it: python examples/moe_matmul.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl
from examples.matmul_grouped import group_of


@helion.kernel
def moe_matmul(x: torch.Tensor, weight: torch.Tensor, order: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Row i of x [tokens, k] times weight[expert of i], of weight [experts, k, n].

    order [tokens] (int32 or int64) holds the tokens sorted by expert; those of expert e are order[offsets[e] :
    offsets[e + 1]].
    """
    experts, k, n = weight.shape
    experts = hl.specialize(experts)
    block = hl.register_block_size(16, 128)
    out = torch.empty([x.size(0), n], dtype=x.dtype, device=x.device)
    # The last tile of each expert may be partial.
    for slot, columns in hl.tile([helion.cdiv(x.size(0), block) + experts, n], block_size=[1, None]):
        expert, first = group_of(offsets, experts, slot.begin, block)
        if expert < experts:
            places = first + hl.arange(block)
            inside = places < offsets[expert + 1]
            tokens = hl.load(order, [places], extra_mask=inside)
            acc = hl.zeros([block, columns], dtype=torch.float32)
            for inner in hl.tile(k):
                rows = hl.load(x, [tokens, inner], extra_mask=inside[:, None])
                acc = torch.addmm(acc, rows, weight[expert, inner, columns])
            hl.store(out, [tokens, columns], acc.to(out.dtype), extra_mask=inside[:, None])
    return out


def route(expert: torch.Tensor, experts: int) -> tuple[torch.Tensor, torch.Tensor]:
    """From the expert of each token to `order` and `offsets`."""
    counts = torch.bincount(expert, minlength=experts)
    offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    return torch.argsort(expert, stable=True), offsets


def reference(x: torch.Tensor, weight: torch.Tensor, order: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch, one expert after another."""
    out = torch.empty(x.size(0), weight.size(2), dtype=x.dtype, device=x.device)
    bounds = offsets.tolist()
    for begin, end, matrix in zip(bounds, bounds[1:], weight):
        out[order[begin:end]] = x[order[begin:end]] @ matrix
    return out


def make_args(
    tokens: int, experts: int, k: int, n: int, dtype: torch.dtype = torch.bfloat16, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """x [tokens, k], weight [experts, k, n] and a random routing in which the last expert gets nothing."""
    x = (torch.randn(tokens, k, device=device) / k**0.5).to(dtype)
    routing = route(torch.randint(0, experts - 1, [tokens], device=device), experts)
    return x, torch.randn(experts, k, n, device=device).to(dtype), *routing


def main() -> None:
    args = make_args(500, 6, 256, 192, dtype=torch.float16, device="cuda" if torch.cuda.is_available() else "cpu")
    error = (moe_matmul(*args) - reference(*args)).abs().max().item()
    print(f"moe_matmul: {list(args[0].shape)}, experts get {args[3].diff().tolist()} tokens, largest error {error:.1e}")


if __name__ == "__main__":
    main()
