"""Sizes that must be constants under static_shapes=False: `hl.specialize` makes them so, under whatever name, and what
an error says to do works.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from helion import exc


def viewed(x, w, op):
    width = hl.specialize(w.size(0))
    heads = x.view(x.size(0), -1, width)
    out = torch.empty_like(heads)
    for t, h in hl.tile([heads.size(0), heads.size(1)]):
        out[t, h, :] = op(heads[t, h, :])
    return out.view(x.size(0), -1)


@pytest.mark.parametrize(
    "op",
    [
        lambda v: torch.cat([*v.chunk(2, dim=-1)][::-1], dim=-1),
        lambda v: v.flip(-1),
        lambda v: torch.sort(v, dim=2)[0],
    ],
)
@pytest.mark.parametrize("width", [6, 8])
def test_a_view_with_a_specialized_size_has_it(width: int, op: Any) -> None:
    kernel = helion.kernel(viewed, static_shapes=False)
    for rows, heads in ((5, 3), (4, 7)):
        x = torch.randn(rows, heads * width)
        expected = op(x.view(rows, heads, width)).reshape(rows, -1)
        assert torch.equal(kernel(x, torch.ones(width), op), expected)


UNROLLED = """
import torch, helion.language as hl

def kernel(x, n):
    width = x.size(1)
    PASTED
    out = torch.zeros_like(x)
    for t in hl.tile(x.size(0)):
        BODY
    return out
"""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("for j in range(width // 2): out[t, j] = x[t, j]", lambda x: torch.cat([x[:, :3], 0 * x[:, 3:]], 1)),
        ("for j in hl.static_range(n): out[t, j] = x[t, j]", lambda x: torch.cat([x[:, :2], 0 * x[:, 2:]], 1)),
        ("out[t, :] = x[t, :].flip(1)", lambda x: x.flip(1)),
        ("out[t, :] = x[t, :].sort(dim=1).values", lambda x: x.sort(dim=1).values),
    ],
)
def test_the_advice_of_an_error_works_when_pasted(tmp_path: Any, body: str, expected: Any) -> None:
    x = torch.randn(5, 6)

    def call(pasted: str) -> torch.Tensor:
        path = tmp_path / f"pasted_{len(pasted)}.py"
        path.write_text(UNROLLED.replace("PASTED", pasted).replace("BODY", body))
        names: dict[str, Any] = {}
        exec(compile(path.read_text(), str(path), "exec"), names)
        return helion.kernel(names["kernel"], static_shapes=False)(x, 2)

    with pytest.raises(exc.BaseError) as error:
        call("pass")
    advice = re.search(r"put `(hl\.specialize\(.*\))` before the loops", str(error.value))
    assert advice is not None
    assert torch.equal(call(advice[1]), expected(x))
