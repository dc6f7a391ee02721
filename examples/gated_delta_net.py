"""Gated delta net: linear attention whose state forgets, and overwrites what it holds for a key.

    S[t] = exp(g[t]) * S[t - 1],    S[t] += beta[t] * k[t] (v[t] - S[t]^T k[t])^T,    o[t] = S[t]^T q[t]

(Yang, Kautz and Hatamizadeh, "Gated Delta Networks", arXiv:2412.06464.)  The state of one head, or some of its columns,
stays in a program's registers from the first step to the last: the columns of S do not depend on each other.  That is
the form for decoding and for sequences of moderate length.

Run it: python examples/gated_delta_net.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def gated_delta_net(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, g: torch.Tensor, beta: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs [batch, length, heads, dv], of v's dtype, and the last state [batch, heads, dk, dv], float32.

    Args:
        q, k: queries and keys [batch, length, heads, dk]; keys have norm 1.
        v: values [batch, length, heads, dv].
        g, beta: logarithm of the decay, and strength of the update [batch, length, heads].
    """
    batch, length, heads, dk = q.shape
    dk, dv = hl.specialize(dk), v.size(3)
    out = torch.empty_like(v)
    last = torch.empty([batch, heads, dk, dv], dtype=torch.float32, device=v.device)
    for one, head, columns in hl.tile([batch, heads, dv], block_size=[1, 1, None]):
        i, h = one.begin, head.begin
        state = hl.zeros([dk, columns], dtype=torch.float32)
        for t in hl.grid(length):
            key = k[i, t, h, :].to(torch.float32)[:, None]
            query = q[i, t, h, :].to(torch.float32)[:, None]
            state = state * torch.exp(g[i, t, h].to(torch.float32))
            wrong = v[i, t, h, columns].to(torch.float32) - (state * key).sum(dim=0)
            state = state + key * (wrong * beta[i, t, h].to(torch.float32))[None, :]
            out[i, t, h, columns] = (state * query).sum(dim=0)
        last[i, h, :, columns] = state
    return out, last


def reference(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, g: torch.Tensor, beta: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same in PyTorch, one step after another."""
    wide = torch.promote_types(v.dtype, torch.float32)
    state = torch.zeros(v.size(0), v.size(2), q.size(3), v.size(3), dtype=wide, device=v.device)
    q, k, values, g, beta = (t.to(wide) for t in (q, k, v, g, beta))
    out = torch.empty_like(v)
    for t in range(v.size(1)):
        state = state * g[:, t].exp()[:, :, None, None]
        wrong = values[:, t] - torch.einsum("bhkv,bhk->bhv", state, k[:, t])
        state = state + torch.einsum("bhk,bhv,bh->bhkv", k[:, t], wrong, beta[:, t])
        out[:, t] = torch.einsum("bhkv,bhk->bhv", state, q[:, t])
    return out, state


def make_args(
    batch: int, length: int, heads: int, dk: int, dv: int, dtype: torch.dtype = torch.bfloat16, device: str = "cpu"
) -> tuple[torch.Tensor, ...]:
    """q, k, v, g and beta."""
    q, k = (
        torch.nn.functional.normalize(torch.randn(batch, length, heads, dk, device=device), dim=3).to(dtype)
        for _ in range(2)
    )
    v = torch.randn(batch, length, heads, dv, device=device).to(dtype)
    g = torch.nn.functional.logsigmoid(torch.randn(batch, length, heads, device=device) + 3)
    return q, k, v, g, torch.rand(batch, length, heads, device=device)


def main() -> None:
    args = make_args(1, 100, 2, 64, 64, dtype=torch.float32, device="cuda" if torch.cuda.is_available() else "cpu")
    for name, actual, expected in zip(("outputs", "last state"), gated_delta_net(*args), reference(*args)):
        print(
            f"gated_delta_net: {name} {list(actual.shape)}, largest error {(actual - expected).abs().max().item():.1e}"
        )


if __name__ == "__main__":
    main()
