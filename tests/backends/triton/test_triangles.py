"""Choices by which of two positions comes first: only tiles that the diagonal goes through make them."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from examples.attention_causal import reference
from tests.support import compile_for
from tests.support import run_everywhere


def causal(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention of [length, head] that masks every tile."""
    out, head = torch.empty_like(q), hl.specialize(q.size(1))
    for rows in hl.tile(q.size(0)):
        largest = hl.full([rows], float("-inf"))
        total = hl.zeros([rows])
        acc = hl.zeros([rows, head])
        for columns in hl.tile(rows.end):
            scores = hl.dot(q[rows, :], k[columns, :].t(), out_dtype=torch.float32) * head**-0.5
            scores = torch.where(rows.index[:, None] >= columns.index[None, :], scores, float("-inf"))
            grown = torch.maximum(largest, scores.amax(1))
            weights = torch.exp(scores - grown[:, None])
            shrink = torch.exp(largest - grown)
            total = total * shrink + weights.sum(1)
            acc = hl.dot(weights.to(v.dtype), v[columns, :], acc=acc * shrink[:, None])
            largest = grown
        out[rows, :] = acc / total[:, None]
    return out


@pytest.mark.parametrize("blocks", [[32, 16], [16, 32], [16, 16]])
def test_causal_attention_that_masks_every_tile(blocks: list[int], seed: int) -> None:
    args = tuple(torch.randn(45, 16).half() for _ in range(3))
    text = helion.kernel(causal).bind(args).to_triton_code({"block_sizes": blocks})
    assert "if offset_columns + BLOCK_COLUMNS > offset_rows + 1:\n            scores_1 = tl.where(" in text
    expected = lambda q, k, v: reference(q[None, None], k[None, None], v[None, None])[0, 0]  # noqa: E731
    run_everywhere(causal, args, expected, configs=[{"block_sizes": blocks}], error_scale=4, capabilities=[90])


COMPARISONS = {
    "lt": lambda rows, columns, x: torch.where(rows < columns, x, 0.0),
    "le": lambda rows, columns, x: torch.where(rows <= columns, x, 7.0),
    "gt": lambda rows, columns, x: torch.where(columns > rows, x, 0.0),
    "ge": lambda rows, columns, x: torch.where(columns >= rows, x, 7.0),
    "lower": lambda rows, columns, x: torch.where(rows >= columns, x, 0.0),
    "masked_fill": lambda rows, columns, x: x.masked_fill(columns > rows, 0.0),
    "masked_fill of the diagonal": lambda rows, columns, x: x.masked_fill(columns >= rows, 7.0),
    "other way around": lambda rows, columns, x: x.masked_fill(rows < columns, 0.0),
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_every_comparison_is_tested_at_the_edge_of_a_tile(name: str, seed: int) -> None:
    # Each tile beside the diagonal touches it with no element, or with a corner.
    choose = COMPARISONS[name]

    def triangle(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out = torch.empty([x.size(0), y.size(1)], dtype=torch.float32, device=x.device)
        for rows in hl.tile(x.size(0)):
            acc = hl.zeros([rows, y.size(1)])
            for columns in hl.tile(x.size(1)):
                chosen = choose(rows.index[:, None], columns.index[None, :], x[rows, columns])
                acc = hl.dot(chosen, y[columns, :], acc=acc)
            out[rows, :] = acc
        return out

    def expected(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        rows, columns = torch.arange(x.size(0))[:, None], torch.arange(x.size(1))[None, :]
        return choose(rows, columns, x) @ y

    args = torch.randint(-8, 9, [37, 41]).half(), torch.randint(-8, 9, [41, 16]).half()
    config = {"block_sizes": [8, 16]}
    assert "        if offset_" in helion.kernel(triangle).bind(args).to_triton_code(config)
    run_everywhere(triangle, args, expected, configs=[config], error_scale=0, capabilities=[90])


def test_choices_that_are_no_triangles_are_made_everywhere() -> None:
    def band(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out = torch.empty([x.size(0), y.size(1)], dtype=torch.float32, device=x.device)
        for rows in hl.tile(x.size(0)):
            acc = hl.zeros([rows, y.size(1)])
            for columns in hl.tile(x.size(1)):
                near = rows.index[:, None] - columns.index[None, :] < 8
                acc = hl.dot(torch.where(near, x[rows, columns], 0.0), y[columns, :], acc=acc)
            out[rows, :] = acc
        return out

    args = torch.randn(37, 41).half(), torch.randn(41, 16).half()
    assert "if offset_" not in helion.kernel(band).bind(args).to_triton_code({"block_sizes": [8, 16]})


@pytest.mark.compiles
def test_the_default_of_a_masked_attention_has_no_spills(tmp_path) -> None:
    from benchmarks import sass

    for head in (64, 128):
        args = tuple(torch.empty(4096, head, dtype=torch.bfloat16, device="meta") for _ in range(3))
        for stages in compile_for(helion.kernel(causal), args, capabilities=[80, 90, 100]):
            assert all(sass.statistics(launch["cubin"]).stack_bytes == 0 for launch in stages)
