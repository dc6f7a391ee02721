"""Rows in which a tile's dimension is merged with others: `flatten`, `reshape`, and products of more than two
dimensions with a matrix, or of vectors.

A merged dimension is no dimension of a loop, so each row takes it apart again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .table import Dims
from .table import Env
from .table import Expr
from .table import Row
from .table import add_row
from .values import Dim
from .values import Invalid
from .values import Value
from .values import elements
from .values import settle
from .views import product

#: An operation element by element, of what is merged; {0} the operand.
_OPS = {"abs": "{0}.abs()", "neg": "-{0}", "relu": "torch.relu({0})", "same": "{0}"}


class Merged(Row):
    """`op(v.flatten(i, i + 1)).reshape(v's shape)`, of two dimensions of which one is a tile's."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        places = [i for i in range(len(dims) - 1) if any(d.axis is not None for d in dims[i : i + 2])]
        if not places or kind == "bool":
            return None
        attrs = {
            "place": g.choice(places),
            "op": g.choice(tuple(_OPS)),
            "form": g.choice(("flatten", "reshape", "view")),
        }
        return Expr(self.name, [g.expr(dims, kind, exact, depth - 1)], attrs)

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        (a,), place = args, e.attrs["place"]
        if a.weak or a.kind == "bool" or place + 1 >= len(a.dims):
            raise Invalid("nothing to merge")
        low, high = {
            "abs": (0 if a.low <= 0 <= a.high else min(abs(a.low), abs(a.high)), a.magnitude),
            "neg": (-a.high, -a.low),
            "relu": (max(a.low, 0), max(a.high, 0)),
            "same": (a.low, a.high),
        }[e.attrs["op"]]
        if a.kind == "int":
            return settle(a.dtype, a.dims, low, high, a.step)
        return Value(a.dtype, a.dims, low, high, a.step, a.error)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        place, form = e.attrs["place"], e.attrs["form"]
        dims = e.value.dims  # type: ignore[union-attr]
        merged = f"{args[0]}.flatten({place}, {place + 1})"
        if form != "flatten":
            rest = [p.shape([d])[1:-1] for d in (*dims[:place], *dims[place + 2 :])]
            merged = f"{args[0]}.reshape([{', '.join([*rest[:place], '-1', *rest[place:]])}])"
        return f"({_OPS[e.attrs['op']].format(merged)}).reshape({p.shape(dims)})"

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return _OPS[e.attrs["op"]].format(args[0])


class ReshapedReduction(Row):
    """`v.reshape([*tiles, a, b]).sum(-1)`, of other dimensions before: each sum is of a part of several."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        if not dims or dims[-1].axis is not None or kind == "bool" or not 0 < dims[-1].size <= 24:
            return None
        kept, inner = dims[-1].size, g.choice((2, 3, 4, 8))
        total = kept * inner
        if elements(dims) * inner > 20_000:
            return None
        first = g.choice([n for n in range(1, total + 1) if total % n == 0])
        split = (Dim(first), Dim(total // first)) if g.chance(0.7) else (Dim(total),)
        at = g.choice((-1, -2))
        attrs = {"inner": inner, "at": at, "form": g.choice(("sum", "amax", "amin"))}
        return Expr(self.name, [g.expr((*dims[:-1], *split), kind, exact, depth - 1)], {**attrs, "rank": len(dims)})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        (a,), rank, inner = args, e.attrs["rank"], e.attrs["inner"]
        taken = a.dims[rank - 1 :]
        total = elements(taken)
        if a.weak or a.kind == "bool" or not taken or any(d.axis for d in taken) or not total or total % inner:
            raise Invalid("nothing to reshape")
        dims = (*a.dims[: rank - 1], Dim(total // inner))
        if e.attrs["form"] != "sum":
            return Value(a.dtype, dims, a.low, a.high, a.step, a.error)
        dtype = torch.int64 if a.kind == "int" else a.dtype
        return settle(dtype, dims, inner * a.low, inner * a.high, a.step, inner * a.error, inner)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        dims = e.value.dims  # type: ignore[union-attr]
        ends = [str(dims[-1].size), str(e.attrs["inner"])][:: 1 if e.attrs["at"] == -1 else -1]
        shape = [*(p.shape([d])[1:-1] for d in dims[:-1]), *ends]
        return f"{args[0]}.reshape([{', '.join(shape)}]).{e.attrs['form']}({e.attrs['at']})"


_LINEAR: dict[str, str] = {
    "linear": "torch.nn.functional.linear({0}, {1})",
    "einsum": 'torch.einsum("abk,ck->abc", {0}, {1})',
    "tensordot": "torch.tensordot({0}, {1}.t(), dims=1)",
}


class Linear(Row):
    """A value of three dimensions times a matrix: `F.linear`, `einsum`, `tensordot`."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        if len(dims) != 3 or kind != "float" or any(d.size > 64 for d in dims):
            return None
        inner = g.constant_dim(dims, smallest=1)
        if inner is None or inner.axis is not None or inner.size > 64:
            return None
        shapes = ((*dims[:2], inner), (dims[2], inner))
        args = [g.cast(g.small(g.expr(shape, kind, True, depth - 1)), torch.float32) for shape in shapes]
        return Expr(self.name, args, {"form": g.choice(tuple(_LINEAR))})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        a, b = args
        if len(a.dims) != 3 or len(b.dims) != 2 or a.dims[2] != b.dims[1] or a.dims[2].axis is not None:
            raise Invalid("shapes of a product")
        if not a.dtype is b.dtype is torch.float32:
            raise Invalid("dtypes of a product")
        return product(a, b, a.dims[2].size, (*a.dims[:2], b.dims[0]), torch.float32)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return _LINEAR[e.attrs["form"]].format(*args)

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return f"({args[0]} @ {args[1]}.transpose(0, 1))"


_VECTOR: dict[str, tuple[int, str]] = {
    "dot": (0, "torch.dot({0}, {1})"),
    "scalar": (0, "({0} @ {1})"),
    "sum": (0, 'torch.einsum("k,k->", {0}, {1})'),
    "one": (0, "({0}[None, :] @ {1}[:, None])[0, 0]"),
    "mv": (1, "torch.mv({0}, {1})"),
    "matmul": (1, "({0} @ {1})"),
    "einsum": (1, 'torch.einsum("ik,k->i", {0}, {1})'),
    "column": (1, "({0} @ {1}[:, None])[:, 0]"),
    "batch": (2, 'torch.einsum("bij,bj->bi", {0}, {1})'),
    "bmm": (2, "torch.bmm({0}, {1}[:, :, None])[:, :, 0]"),
    "row": (2, "({1}[:, None, :] @ {0}.transpose(1, 2))[:, 0, :]"),
}


_SCALAR = [form for form, (rank, _) in _VECTOR.items() if rank == 0]


class VectorProduct(Row):
    """A matrix times a vector, a batch of such products, or two vectors."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        if len(dims) > 2 or kind != "float" or any(d.size > 64 for d in dims):
            return None
        inner = g.constant_dim(dims, smallest=1)
        if inner is None or inner.axis is not None or inner.size > 64:
            return None
        form = g.choice([f for f, (rank, _) in _VECTOR.items() if rank == len(dims)])
        shapes = ((*dims, inner), (*dims[:-1], inner))  # of two vectors, both of `inner`
        args = [g.cast(g.small(g.expr(shape, kind, True, depth - 1)), torch.float32) for shape in shapes]
        return Expr(self.name, args, {"form": form})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        a, b = args
        rank = _VECTOR[e.attrs["form"]][0]
        if len(a.dims) != rank + 1 or b.dims != (*a.dims[:-2], a.dims[-1]) or a.dims[-1].axis is not None:
            raise Invalid("shapes of a product")
        if not a.dtype is b.dtype is torch.float32:
            raise Invalid("dtypes of a product")
        return product(a, b, a.dims[-1].size, a.dims[:-1], torch.float32)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return _VECTOR[e.attrs["form"]][1].format(*args)

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        right = args[1] if e.attrs["form"] in _SCALAR else f"{args[1]}.unsqueeze(-2)"
        return f"({args[0]} * {right}).sum(-1)"


_JOINED = {
    "join": "hl.join({0} & 15, {0} >> 4)",
    "stack": "torch.stack([{0} & 15, {0} >> 4], dim=-1)",
}


class PackedProduct(Row):
    """The two halves of each byte side by side, times a matrix."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        if len(dims) != 2 or kind != "float" or any(d.size > 64 for d in dims):
            return None
        half, dtype = g.choice((2, 4, 8, 8, 16)), g.choice((torch.float16, torch.bfloat16, torch.float32))
        packed = g.cast(g.small(g.expr((dims[0], Dim(half)), "int", True, 0)), torch.int8)
        right = g.cast(g.small(g.expr((Dim(2 * half), dims[1]), kind, True, depth - 1)), dtype)
        return Expr(self.name, [packed, right], {"form": g.choice(tuple(_JOINED)), "dtype": dtype, "half": half})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        packed, right = args
        half, dtype = e.attrs["half"], e.attrs["dtype"]
        if packed.weak or packed.dtype is not torch.int8 or right.dtype is not dtype:
            raise Invalid("dtypes of a product")
        if (
            len(packed.dims) != 2
            or packed.dims[1] != Dim(half)
            or len(right.dims) != 2
            or right.dims[0] != Dim(2 * half)
        ):
            raise Invalid("shapes of a product")
        dims = (packed.dims[0], Dim(2 * half))
        return product(Value(dtype, dims, -8, 15, 1, 0), right, 2 * half, (dims[0], right.dims[1]), torch.float32)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        dims = (e.value.dims[0], Dim(2 * e.attrs["half"]))  # type: ignore[union-attr]
        joined = _JOINED[e.attrs["form"]].format(f"({args[0]})")
        return f"hl.dot({joined}.reshape({p.shape(dims)}).to({e.attrs['dtype']}), {args[1]})"

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return f"({_JOINED['stack'].format(f'({args[0]})')}.flatten(-2).double() @ {args[1]})"


for _row in [
    PackedProduct("packed_product", "products", 3),
    Merged("merged", "reshapes", 1.5),
    Linear("linear", "products", 1),
    VectorProduct("vector_product", "products", 2),
    ReshapedReduction("reshaped_reduction", "reductions", 2),
]:
    add_row(_row)
