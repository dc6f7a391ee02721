"""Kernels of training: losses that make their gradients, backward passes, optimizers."""

from __future__ import annotations

import math

import torch

import helion.language as hl

from .table import Published
from .table import integers
from .table import randn


def cross_entropy_in_place(logits: torch.Tensor, targets: torch.Tensor, ignore: int) -> torch.Tensor:
    rows, vocabulary = logits.size()
    losses = torch.empty([rows], dtype=torch.float32, device=logits.device)
    for row in hl.tile(rows, block_size=1):
        i = row.begin
        target = targets[i]
        m = hl.full([], float("-inf"))
        d = hl.full([], 0.0)
        for v in hl.tile(vocabulary):
            x = logits[i, v]
            high = torch.maximum(m, x.amax())
            d = d * torch.exp(m - high) + torch.exp(x - high).sum()
            m = high
        keep = target != ignore
        picked = hl.load(logits, [i, target], extra_mask=keep)
        losses[i] = torch.where(keep, m + torch.log(d) - picked, 0.0)
        for v in hl.tile(vocabulary):
            p = torch.exp(logits[i, v] - m) / d
            grad = torch.where(v.index == target, p - 1.0, p)
            logits[i, v] = torch.where(keep, grad, 0.0)
    return losses


def cross_entropy_in_place_reference(logits, targets, ignore):
    losses = torch.nn.functional.cross_entropy(logits, targets, ignore_index=ignore, reduction="none")
    onehot = torch.nn.functional.one_hot(targets.clamp(0), logits.size(1))
    logits.copy_((logits.softmax(-1) - onehot) * (targets != ignore)[:, None])
    return losses


def rms_norm_backward(
    dy: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, rstd: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    rows, n = x.size()
    dx = torch.empty_like(x)
    dw = torch.zeros([n], dtype=torch.float32, device=x.device)
    block = hl.register_block_size(rows)
    for group in hl.tile(rows, block_size=block):
        part = hl.zeros([n])
        for t in hl.tile(group.begin, group.end):
            normalized = x[t, :] * rstd[t][:, None]
            wdy = weight[:] * dy[t, :]
            mean = (wdy * normalized).sum(-1, keepdim=True) / n
            dx[t, :] = (wdy - normalized * mean) * rstd[t][:, None]
            part += (dy[t, :] * normalized).sum(0)
        hl.atomic_add(dw, [slice(None)], part)
    return dx, dw


def rms_norm_backward_reference(dy, x, weight, rstd):
    normalized = x * rstd[:, None]
    wdy = weight * dy
    dx = (wdy - normalized * (wdy * normalized).mean(-1, keepdim=True)) * rstd[:, None]
    return dx, (dy * normalized).sum(0)


def layer_norm_forward(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows, n = x.shape
    out = torch.empty_like(x)
    mean, rstd = torch.empty([rows], device=x.device), torch.empty([rows], device=x.device)
    for t in hl.tile(rows):
        total = hl.zeros([t])
        for c in hl.tile(n):
            total += x[t, c].sum(-1)
        mu = total / n
        squares = hl.zeros([t])
        for c in hl.tile(n):
            centred = torch.where(c.index < n, x[t, c] - mu[:, None], 0.0)
            squares += (centred * centred).sum(-1)
        r = torch.rsqrt(squares / n + eps)
        mean[t], rstd[t] = mu, r
        for c in hl.tile(n):
            out[t, c] = (x[t, c] - mu[:, None]) * r[:, None] * weight[c] + bias[c]
    return out, mean, rstd


def layer_norm_forward_reference(x, weight, bias, eps):
    var, mean = torch.var_mean(x, -1, correction=0)
    return torch.nn.functional.layer_norm(x, [x.size(1)], weight, bias, eps), mean, torch.rsqrt(var + eps)


def swiglu_backward(dc: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    for t, c in hl.tile(a.size()):
        gate, up, grad = a[t, c], b[t, c], dc[t, c]
        sig = torch.sigmoid(gate)
        silu = gate * sig
        a[t, c] = grad * (silu * (1 - sig) + sig) * up
        b[t, c] = grad * silu
    return a, b


def swiglu_backward_reference(dc, a, b):
    sig = torch.sigmoid(a)
    da, db = dc * b * (sig + a * sig * (1 - sig)), dc * a * sig
    a.copy_(da)
    b.copy_(db)
    return a, b


def kl_divergence(log_q: torch.Tensor, p: torch.Tensor, eps: float) -> torch.Tensor:
    rows, n = p.size()
    loss = torch.zeros([rows], device=p.device)
    for t in hl.tile(rows):
        total = hl.zeros([t])
        for c in hl.tile(n):
            target = p[t, c]
            total += (target * (torch.log(torch.clamp(target, min=eps)) - log_q[t, c])).sum(-1)
        loss[t] = total
    return loss


def adamw_step(
    p: torch.Tensor,
    g: torch.Tensor,
    m: torch.Tensor,
    v: torch.Tensor,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    decay: float,
    step: int,
) -> None:
    correction1, correction2 = 1 - beta1**step, math.sqrt(1 - beta2**step)
    for t in hl.tile(p.numel()):
        grad = g[t]
        first = beta1 * m[t] + (1 - beta1) * grad
        second = beta2 * v[t] + (1 - beta2) * grad * grad
        denominator = torch.sqrt(second) / correction2 + eps
        p[t] = p[t] * (1 - lr * decay) - lr / correction1 * first / denominator
        m[t] = first
        v[t] = second


def adamw_step_reference(p, g, m, v, lr, beta1, beta2, eps, decay, step):
    m.mul_(beta1).add_(g, alpha=1 - beta1)
    v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
    denominator = (v / (1 - beta2**step)).sqrt() + eps
    p.mul_(1 - lr * decay).addcdiv_(m, denominator, value=-lr / (1 - beta1**step))


def lion_step(p: torch.Tensor, g: torch.Tensor, m: torch.Tensor, lr: float, beta1: float, beta2: float) -> None:
    for t in hl.tile(p.size(0)):
        update = torch.sign(m[t] * beta1 + g[t] * (1 - beta1))
        p[t] = p[t] - lr * update
        m[t] = m[t] * beta2 + g[t] * (1 - beta2)


def lion_step_reference(p, g, m, lr, beta1, beta2):
    p.sub_(lr * torch.sign(m * beta1 + g * (1 - beta1)))
    m.copy_(m * beta2 + g * (1 - beta2))


def embedding_backward(dy: torch.Tensor, tokens: torch.Tensor, vocabulary: int) -> torch.Tensor:
    grad = torch.zeros([vocabulary, dy.size(1)], dtype=torch.float32, device=dy.device)
    for t, c in hl.tile(dy.size()):
        hl.atomic_add(grad, [tokens[t], c], dy[t, c])
    return grad


def embedding_backward_reference(dy, tokens, vocabulary):
    return dy.new_zeros(vocabulary, dy.size(1)).index_add_(0, tokens, dy)


def group_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, groups: int, eps: float) -> torch.Tensor:
    n, channels, pixels = x.size()
    per = channels // groups
    out = torch.empty_like(x)
    grouped = x.reshape(n, groups, per, pixels)
    result = out.view(n, groups, per, pixels)
    w, b = weight.view(groups, per), bias.view(groups, per)
    for i, g in hl.grid([n, groups]):
        values = grouped[i, g, :, :]
        mean = values.mean()
        var = ((values - mean) ** 2).mean()
        scaled = (values - mean) * torch.rsqrt(var + eps)
        result[i, g, :, :] = scaled * w[g, :][:, None] + b[g, :][:, None]
    return out


def policy_log_probs(logits: torch.Tensor, tokens: torch.Tensor, temperature: float) -> torch.Tensor:
    batch, length, vocabulary = logits.size()
    out = torch.empty([batch, length], dtype=torch.float32, device=logits.device)
    for b, t in hl.tile([batch, length]):
        x = logits[b, t, :] / temperature
        chosen = tokens[b, t]
        here = hl.arange(vocabulary)[None, None, :] == chosen[:, :, None]
        out[b, t] = torch.where(here, x, 0.0).sum(-1) - torch.logsumexp(x, dim=-1)
    return out


def policy_log_probs_reference(logits, tokens, temperature):
    return (logits / temperature).log_softmax(-1).gather(2, tokens[..., None]).squeeze(2)


def scaled_masked_softmax(x: torch.Tensor, scale: float) -> torch.Tensor:
    heads, n, m = x.size()
    out = torch.empty_like(x)
    for h, row in hl.tile([heads, n]):
        values = x[h, row, :] * scale
        causal = hl.arange(m)[None, None, :] <= row.index[None, :, None] + (m - n)
        values = torch.where(causal, values, float("-inf"))
        e = torch.exp(values - values.amax(-1, keepdim=True))
        out[h, row, :] = e / e.sum(-1, keepdim=True)
    return out


def scaled_masked_softmax_reference(x, scale):
    n, m = x.shape[1:]
    causal = torch.arange(m) <= torch.arange(n)[:, None] + (m - n)
    return (x * scale).masked_fill(~causal, float("-inf")).softmax(-1)


def make_rms_backward(rng):
    x = randn(rng, 30, 20)
    return randn(rng, 30, 20), x, randn(rng, 20), torch.rsqrt((x * x).mean(-1) + 1e-6)


def geglu_backward(dc: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    da, db = torch.empty_like(a), torch.empty_like(b)
    for row in hl.tile(dc.size(0)):
        x = a[row, :].float()
        inner = 0.7978845608028654 * (x + 0.044715 * x * x * x)
        th = torch.tanh(inner)
        half = 0.5 * (1 + th)
        db[row, :] = dc[row, :] * (x * half)
        slope = half + 0.5 * x * (1 - th * th) * 0.7978845608028654 * (1 + 3 * 0.044715 * x * x)
        da[row, :] = dc[row, :] * b[row, :] * slope
    return da, db


def geglu_backward_reference(dc, a, b):
    a, b = a.detach().requires_grad_(), b.detach().requires_grad_()
    with torch.enable_grad():
        y = torch.nn.functional.gelu(a, approximate="tanh") * b
        return torch.autograd.grad(y, (a, b), dc)


def jensen_shannon(
    log_q: torch.Tensor, log_p: torch.Tensor, labels: torch.Tensor, beta: float, ignore: int
) -> tuple[torch.Tensor, torch.Tensor]:
    rows, vocabulary = log_q.size()
    loss = torch.zeros([rows], dtype=torch.float32, device=log_q.device)
    dx = torch.zeros_like(log_q)
    for row in hl.grid(rows):
        if labels[row] == ignore:
            continue
        total = hl.zeros([])
        for v in hl.tile(vocabulary):
            x, y = log_q[row, v].float(), log_p[row, v].float()
            q, p = torch.exp(x), torch.exp(y)
            log_m = torch.log(beta * p + (1 - beta) * q)
            part = beta * p * y + (1 - beta) * q * x - (beta * p + (1 - beta) * q) * log_m
            total += part.sum()
            dx[row, v] = (1 - beta) * q * (x - log_m)
        loss[row] = total
    return loss, dx


def jensen_shannon_reference(log_q, log_p, labels, beta, ignore):
    x = log_q.detach().requires_grad_()
    with torch.enable_grad():
        q, p = x.exp(), log_p.exp()
        m = beta * p + (1 - beta) * q
        loss = (beta * p * (log_p - m.log()) + (1 - beta) * q * (x - m.log())).sum(1) * (labels != ignore)
        (dx,) = torch.autograd.grad(loss.sum(), x)
    return loss.detach(), dx


def multi_tensor_l2norm(tensors: list[torch.Tensor], per_tensor: bool) -> tuple[torch.Tensor, torch.Tensor]:
    squares = torch.zeros([len(tensors)], dtype=torch.float32, device=tensors[0].device)
    longest = max(t.numel() for t in tensors)
    for tile in hl.tile(longest):
        for i, t in enumerate(tensors):
            flat = hl.load(t, [tile.index], extra_mask=tile.index < t.size(0)).float()
            hl.atomic_add(squares, [i], (flat * flat).sum())
    norms = squares.sqrt() if per_tensor else squares
    return squares.sum().sqrt(), norms


def multi_tensor_l2norm_reference(tensors, per_tensor):
    squares = torch.stack([(t * t).sum() for t in tensors])
    return squares.sum().sqrt(), squares.sqrt() if per_tensor else squares


ROWS = {
    "cross_entropy_in_place": Published(
        cross_entropy_in_place,
        lambda rng: (randn(rng, 6, 50), torch.tensor([3, -100, 0, 49, 7, 7]), -100),
        cross_entropy_in_place_reference,
        "Liger-Kernel",
        64,
        written=(0,),
    ),
    "rms_norm_backward": Published(
        rms_norm_backward, make_rms_backward, rms_norm_backward_reference, "Liger-Kernel", 128
    ),
    "layer_norm_forward": Published(
        layer_norm_forward,
        lambda rng: (randn(rng, 9, 50), randn(rng, 50), randn(rng, 50), 1e-5),
        layer_norm_forward_reference,
        "Apex",
        64,
    ),
    "swiglu_backward": Published(
        swiglu_backward,
        lambda rng: (randn(rng, 5, 40), randn(rng, 5, 40), randn(rng, 5, 40)),
        swiglu_backward_reference,
        "Unsloth",
        32,
        written=(1, 2),
    ),
    "kl_divergence": Published(
        kl_divergence,
        lambda rng: (randn(rng, 5, 40).log_softmax(-1), randn(rng, 5, 40).softmax(-1), 1e-10),
        lambda log_q, p, eps: (p * (p.clamp(min=eps).log() - log_q)).sum(-1),
        "Liger-Kernel",
        64,
    ),
    "adamw_step": Published(
        adamw_step,
        lambda rng: (*(randn(rng, 50) for _ in range(3)), randn(rng, 50).abs(), 1e-2, 0.9, 0.99, 1e-8, 0.1, 3),
        adamw_step_reference,
        "Apex",
        64,
        written=(0, 2, 3),
    ),
    "lion_step": Published(
        lion_step,
        lambda rng: (randn(rng, 50), randn(rng, 50), randn(rng, 50), 1e-2, 0.9, 0.99),
        lion_step_reference,
        "lion-pytorch",
        written=(0, 2),
    ),
    "embedding_backward": Published(
        embedding_backward,
        lambda rng: (randn(rng, 20, 12), integers(rng, 0, 6, 20), 6),
        embedding_backward_reference,
        "Liger-Kernel",
        32,
    ),
    "group_norm": Published(
        group_norm,
        lambda rng: (randn(rng, 2, 12, 10), randn(rng, 12), randn(rng, 12), 3, 1e-5),
        lambda x, weight, bias, groups, eps: torch.nn.functional.group_norm(x, groups, weight, bias, eps),
        "Liger-Kernel",
        64,
    ),
    "policy_log_probs": Published(
        policy_log_probs,
        lambda rng: (randn(rng, 3, 5, 30), integers(rng, 0, 30, 3, 5), 0.7),
        policy_log_probs_reference,
        "verl",
        64,
    ),
    "scaled_masked_softmax": Published(
        scaled_masked_softmax,
        lambda rng: (randn(rng, 3, 10, 14), 0.5),
        scaled_masked_softmax_reference,
        "Megatron-LM",
    ),
    "geglu_backward": Published(
        geglu_backward,
        lambda rng: (randn(rng, 7, 30), randn(rng, 7, 30), randn(rng, 7, 30)),
        geglu_backward_reference,
        "Liger",
        64,
    ),
    "jensen_shannon": Published(
        jensen_shannon,
        lambda rng: (
            torch.log_softmax(randn(rng, 5, 40), 1),
            torch.log_softmax(randn(rng, 5, 40), 1),
            torch.tensor([3, -100, 0, 7, -100]),
            0.3,
            -100,
        ),
        jensen_shannon_reference,
        "Liger",
        64,
    ),
    "multi_tensor_l2norm": Published(
        multi_tensor_l2norm,
        lambda rng: ([randn(rng, 50), randn(rng, 7), randn(rng, 64)], True),
        multi_tensor_l2norm_reference,
        "apex",
        64,
    ),
}
