import torch, helion, helion.language as hl

@helion.kernel
def g_a(x: torch.Tensor, coef: torch.Tensor) -> torch.Tensor:
    N = x.size(1)
    out = torch.empty([x.size(0), coef.size(0)], dtype=torch.float32, device=x.device)
    for c, f in hl.tile([x.size(0), coef.size(0)]):
        s1 = s2 = hl.zeros([c, f])
        for n in hl.grid(N):
            s0 = x[c, n] + coef[f] * s1 - s2
            s2 = s1; s1 = s0
        out[c, f] = s1
    return out
