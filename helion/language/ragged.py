"""Which operands of language ops a jagged dimension must be neutral in, past the end of each row.

The front end and ref mode ask it with a function of their own that knows where rows end.  Reductions of torch's are
theirs to find.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import torch

from .. import exc
from .op import Op
from .reductions import identities
from .reductions import reduce
from .scans import associative_scan
from .scans import cumprod
from .scans import cumsum

#: (value, dimensions that are combined, neutral element) -> the value, neutral where a row has no element.
RowsOnly = Callable[[torch.Tensor, Sequence[int], Any], torch.Tensor]

_SCANS = {cumsum: 0, cumprod: 1}


def with_rows_only(op: Op, args: tuple[Any, ...], rows_only: RowsOnly) -> tuple[Any, ...]:
    """The arguments of a language op that combines elements along dimensions, past the ends of rows neutral.

    Raises:
        exc.InvalidJaggedTileUsage: the op begins where rows end, and has no neutral element.
    """
    given = list(args)
    if op.product is not None:
        for at in (op.product.a_at, op.product.b_at):
            if isinstance(args[at], torch.Tensor):
                given[at] = rows_only(args[at], range(args[at].dim()), 0)
    elif op is reduce:
        x, dim, at = args[1], args[2], 1
        tensors = list(x) if isinstance(x, (list, tuple)) else [x]
        others = identities(args[3], len(tensors))
        only = tuple(rows_only(t, [dim % t.dim()], other) for t, other in zip(tensors, others))
        given[at] = only if isinstance(x, (list, tuple)) else only[0]
    elif op in _SCANS and args[2]:
        given[0] = rows_only(args[0], [args[1] % args[0].dim()], _SCANS[op])
    elif op is associative_scan and args[3]:
        for t in args[1] if isinstance(args[1], (list, tuple)) else [args[1]]:
            if rows_only(t, [args[2] % t.dim()], 1) is not t:
                raise exc.InvalidJaggedTileUsage(
                    "hl.associative_scan(reverse=True) along a jagged dimension begins past the ends of rows",
                    fix="use hl.cumsum or hl.cumprod with reverse=True, or scan forwards.",
                )
    return tuple(given)
