"""Kernels that say where tokens go: pages of caches, index tables, trees of drafts, gates of experts."""

from __future__ import annotations

import torch

import helion.language as hl

from .table import Published
from .table import integers
from .table import randn


def gather_cache(
    pages: torch.Tensor,
    table: torch.Tensor,
    bounds: torch.Tensor,
    skipped: torch.Tensor,
    scale: float,
    out: torch.Tensor,
) -> None:
    """Rows of a quantized cache in pages, one sequence behind the other; each sequence may begin in its middle."""
    page_size, width = pages.size(1), pages.size(2)
    for s, columns in hl.tile([table.size(0), width], block_size=[1, None]):
        begin, end = bounds[s.id], bounds[s.id + 1]
        for rows in hl.tile(begin, end):
            position = rows.index - begin + skipped[s.id]
            page = table[s.id, position // page_size]
            values = pages[page, position % page_size, columns]
            out[rows, columns] = (values.to(torch.float32) * scale).to(out.dtype)


def gather_cache_reference(pages, table, bounds, skipped, scale, out):
    for s in range(table.size(0)):
        begin, end = int(bounds[s]), int(bounds[s + 1])
        flat = pages[table[s]].reshape(-1, pages.size(-1))[int(skipped[s]) :]
        out[begin:end] = flat[: end - begin] * scale


def make_gather(rng):
    pages = integers(rng, -100, 100, 9, 4, 20).to(torch.int8)
    table = torch.randperm(9, generator=rng).view(3, 3)
    return pages, table, torch.tensor([0, 5, 5, 14]), torch.tensor([3, 0, 1]), 0.25, torch.zeros(14, 20)


def index_table(req_to_token: torch.Tensor, slots: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The places of all tokens of the running requests, in a row, and where each request begins there."""
    requests = slots.size(0)
    starts = torch.zeros([requests + 1], dtype=torch.int32, device=slots.device)
    starts[1:] = torch.cumsum(lengths, 0)
    indices = torch.full([requests * req_to_token.size(1)], -1, dtype=torch.int32, device=slots.device)
    for i in hl.grid(requests):
        slot, start = slots[i], starts[i]
        for t in hl.tile(lengths[i]):
            indices[start + t.index] = req_to_token[slot, t]
    return starts, indices


def index_table_reference(req_to_token, slots, lengths):
    starts = torch.zeros(slots.numel() + 1, dtype=torch.int32)
    starts[1:] = lengths.cumsum(0)
    rows = [req_to_token[slot, :length] for slot, length in zip(slots.tolist(), lengths.tolist())]
    indices = torch.full([slots.numel() * req_to_token.size(1)], -1, dtype=torch.int32)
    indices[: int(starts[-1])] = torch.cat(rows)
    return starts, indices


def make_index_table(rng):
    return integers(rng, 0, 1000, 6, 20).to(torch.int32), torch.tensor([4, 0, 3]), torch.tensor([7, 20, 1])


def verify_tree(
    drafts: torch.Tensor, first_child: torch.Tensor, sibling: torch.Tensor, predicted: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The longest path of a tree of drafts that the model would have sampled: from a node to the child that is its
    prediction, until there is none.
    """
    batch, nodes = drafts.size()
    path = torch.full([batch, nodes], -1, dtype=torch.int64, device=drafts.device)
    accepted = torch.zeros([batch], dtype=torch.int64, device=drafts.device)
    for b in hl.grid(batch):
        path[b, 0] = 0
        token = predicted[b, 0]
        child = first_child[b, 0]
        count = 1
        while child >= 0:
            if drafts[b, child] == token:
                path[b, count] = child
                count = count + 1
                token = predicted[b, child]
                child = first_child[b, child]
            else:
                child = sibling[b, child]
        accepted[b] = count
    return path, accepted


def verify_tree_reference(drafts, first_child, sibling, predicted):
    path = torch.full(drafts.shape, -1)
    accepted = torch.zeros(drafts.size(0), dtype=torch.int64)
    for b in range(drafts.size(0)):
        taken, child = [0], int(first_child[b, 0])
        while child >= 0:
            if drafts[b, child] == predicted[b, taken[-1]]:
                taken.append(child)
                child = int(first_child[b, child])
            else:
                child = int(sibling[b, child])
        path[b, : len(taken)] = torch.tensor(taken)
        accepted[b] = len(taken)
    return path, accepted


def make_tree(rng):
    #     0 -> 1, 2, 3;  1 -> 4;  2 -> 5, 6;  6 -> 7
    first_child = torch.tensor([[1, 4, 5, -1, -1, -1, 7, -1]]).repeat(3, 1)
    sibling = torch.tensor([[-1, 2, 3, -1, -1, 6, -1, -1]]).repeat(3, 1)
    drafts = torch.tensor([[9, 1, 2, 3, 4, 5, 6, 7]]).repeat(3, 1)
    predicted = torch.tensor([[2, 0, 6, 0, 0, 0, 7, 8], [1, 5, 0, 0, 0, 0, 0, 0], [4, 0, 0, 0, 0, 0, 0, 0]])
    return drafts, first_child, sibling, predicted


def grouped_gate(
    logits: torch.Tensor, bias: torch.Tensor, groups: int, kept: int, experts: int, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sigmoid gates: the groups with the best pair of biased scores stay, the best experts of those are taken, and
    weighed by their scores without the bias.
    """
    tokens, count = logits.size(0), hl.specialize(logits.size(1))
    groups, kept, experts = hl.specialize((groups, kept, experts))
    weights = torch.empty([tokens, experts], dtype=torch.float32, device=logits.device)
    chosen = torch.empty([tokens, experts], dtype=torch.int64, device=logits.device)
    for t in hl.tile(tokens):
        scores = torch.sigmoid(logits[t, :].to(torch.float32))
        biased = (scores + bias[:]).view(t, groups, count // groups)
        best_two, _ = torch.topk(biased, 2, dim=-1)
        by_group = best_two.sum(-1)
        # A group stays if fewer than `kept` are better.
        better = (by_group[:, None, :] > by_group[:, :, None]).sum(-1)
        masked = torch.where((better < kept)[:, :, None], biased, float("-inf")).view(t, count)
        _, places = torch.topk(masked, experts, dim=-1)
        gates = torch.gather(scores, 1, places)
        weights[t, :] = gates / gates.sum(-1, keepdim=True) * scale
        chosen[t, :] = places
    return weights, chosen


def grouped_gate_reference(logits, bias, groups, kept, experts, scale):
    scores = logits.sigmoid()
    biased = (scores + bias).view(logits.size(0), groups, -1)
    by_group = biased.topk(2, dim=-1).values.sum(-1)
    stays = torch.zeros_like(by_group, dtype=torch.bool).scatter_(1, by_group.topk(kept, dim=-1).indices, True)
    places = biased.masked_fill(~stays[..., None], float("-inf")).flatten(1).topk(experts, dim=-1).indices
    gates = scores.gather(1, places)
    return gates / gates.sum(-1, keepdim=True) * scale, places


ROWS = {
    "gather_cache": Published(gather_cache, make_gather, gather_cache_reference, "vLLM", written=(5,)),
    "index_table": Published(index_table, make_index_table, index_table_reference, "SGLang"),
    "verify_tree": Published(verify_tree, make_tree, verify_tree_reference, "EAGLE, SGLang"),
    "grouped_gate": Published(
        grouped_gate,
        lambda rng: (randn(rng, 10, 32), randn(rng, 32) * 0.1, 8, 4, 6, 2.5),
        grouped_gate_reference,
        "DeepSeek-V3, SGLang",
        64,
    ),
}
