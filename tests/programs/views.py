"""Rows of views, joins of tensors, and matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .table import Dims
from .table import Env
from .table import Expr
from .table import Row
from .table import add_row
from .values import ONE
from .values import Dim
from .values import Invalid
from .values import Value
from .values import join
from .values import settle


def _moved(a: Value, dims: Dims) -> Value:
    return Value(a.dtype, tuple(dims), a.low, a.high, a.step, a.error)


def _constant(dims: Dims, *places: int) -> None:
    for place in places:
        if not 0 <= place < len(dims) or dims[place].axis is not None:
            raise Invalid("no constant dimension")


class NewDim(Row):
    """A dimension of size 1: `value[:, None]`, `unsqueeze`, `hl.subscript`."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        ones = [i for i, d in enumerate(dims) if d == ONE]
        if not ones:
            return None
        place = g.choice(ones)
        arg = g.expr(dims[:place] + dims[place + 1 :], kind, exact, depth - 1)
        return Expr(self.name, [arg], {"place": place, "form": g.choice(("none", "none", "unsqueeze", "subscript"))})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        (a,), place = args, e.attrs["place"]
        if a.weak or place > len(a.dims):
            raise Invalid("no tensor")
        if not a.dims and e.attrs["form"] != "unsqueeze":
            raise Invalid("a scalar takes no index")
        return _moved(a, a.dims[:place] + (ONE,) + a.dims[place:])

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        place, form = e.attrs["place"], e.attrs["form"]
        if form == "unsqueeze":
            return f"{args[0]}.unsqueeze({place})"
        rank = len(e.args[0].value.dims)  # type: ignore[union-attr]
        index = ", ".join([":"] * place + ["None"] + [":"] * (rank - place))
        if form == "subscript":
            index = index.replace(":", "slice(None)")
            return f"hl.subscript({args[0]}, [{index}])"
        return f"{args[0]}[{index}]"

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return f"{args[0]}.unsqueeze({e.attrs['place']})"


class OfOne(Row):
    """A value without the dimension of a tile of one element: `value.squeeze(0)`, `value.reshape([t1, 4])`."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        ones = [a for a in g.env.axes.values() if a.one and Dim(a.size, a.name) not in dims]
        if not ones or kind == "bool":
            return None
        axis, place = g.choice(ones), g.rng.randint(0, len(dims))
        arg = g.expr((*dims[:place], Dim(axis.size, axis.name), *dims[place:]), kind, exact, depth - 1)
        forms = ["squeeze", "squeeze from the end", "reshape"] + ["squeeze all"] * (ONE not in dims)
        forms += ["flatten"] * (place < len(dims))
        return Expr(self.name, [arg], {"place": place, "form": g.choice(forms)})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        (a,), place = args, e.attrs["place"]
        axis = env.axes.get(a.dims[place].axis or "") if place < len(a.dims) else None
        rest = a.dims[:place] + a.dims[place + 1 :]
        if axis is None or not axis.one or (e.attrs["form"] == "flatten" and place >= len(rest)):
            raise Invalid("no tile of one element")
        if e.attrs["form"] == "squeeze all" and any(
            d.size == 1 or (d.axis is not None and env.axes[d.axis].one) for d in rest
        ):
            raise Invalid("another dimension of one element")
        return _moved(a, rest)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        place, rank = e.attrs["place"], len(e.args[0].value.dims)  # type: ignore[union-attr]
        how = {
            "squeeze": f"squeeze({place})",
            "squeeze from the end": f"squeeze({place - rank})",
            "squeeze all": "squeeze()",
            "flatten": f"flatten({place}, {place + 1})",
            "reshape": f"reshape({p.shape(e.value.dims)})",  # type: ignore[union-attr]
        }
        return f"({args[0]}).{how[e.attrs['form']]}"

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return f"({args[0]}).squeeze({e.attrs['place']})"


class Expand(Row):
    """`expand` of dimensions of size 1."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        places = [i for i, d in enumerate(dims) if d != ONE]
        if not places:
            return None
        places = [i for i in places if g.chance(0.6)] or places[:1]
        arg = g.expr(tuple(ONE if i in places else d for i, d in enumerate(dims)), kind, exact, depth - 1)
        return Expr(self.name, [arg], {"dims": dims})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        (a,), dims = args, e.attrs["dims"]
        dims = tuple(Dim(env.axes[d.axis].size, d.axis) if d.axis in env.axes else d for d in dims)
        if any(d.axis is not None and d.axis not in env.axes for d in dims):
            raise Invalid("a tile that is gone")
        if len(a.dims) != len(dims) or any(x not in (ONE, d) for x, d in zip(a.dims, dims)):
            raise Invalid("does not expand")
        e.attrs["dims"] = dims
        return _moved(a, dims)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return f"{args[0]}.expand({p.shape(e.attrs['dims'])})"


class Permute(Row):
    """Dimensions in another order."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        if len(dims) < 2:
            return None
        order = list(range(len(dims)))
        g.rng.shuffle(order)
        before: list[Dim] = [ONE] * len(dims)
        for i, o in enumerate(order):
            before[o] = dims[i]
        return Expr(self.name, [g.expr(tuple(before), kind, exact, depth - 1)], {"order": order})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        (a,), order = args, e.attrs["order"]
        if len(order) != len(a.dims):
            raise Invalid("order")
        return _moved(a, tuple(a.dims[o] for o in order))

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        order = e.attrs["order"]
        if order == [1, 0]:
            return f"{args[0]}.T"
        swapped = [i for i, o in enumerate(order) if o != i]
        if len(swapped) == 2:
            return f"{args[0]}.transpose({swapped[0]}, {swapped[1]})"
        return f"{args[0]}.permute({', '.join(map(str, order))})"


class Merge(Row):
    """Two constant dimensions become one."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        places = [
            (i, f) for i, d in enumerate(dims) if d.axis is None for f in (2, 4, 3) if d.size % f == 0 and d.size > f
        ]
        if not places or len(dims) > 2:
            return None
        place, factor = g.choice(places)
        parts = (Dim(factor), Dim(dims[place].size // factor))
        arg = g.expr(dims[:place] + g.shuffled(parts) + dims[place + 1 :], kind, exact, depth - 1)
        return Expr(self.name, [arg], {"place": place, "form": g.choice(("reshape", "view", "flatten"))})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        (a,), place = args, e.attrs["place"]
        _constant(a.dims, place, place + 1)
        return _moved(a, a.dims[:place] + (Dim(a.dims[place].size * a.dims[place + 1].size),) + a.dims[place + 2 :])

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        place, form = e.attrs["place"], e.attrs["form"]
        if form == "view" and e.args[0].op != "full":  # as in PyTorch, what is permuted has no such view
            form = "reshape"
        if form == "flatten":
            return f"{args[0]}.flatten({place}, {place + 1})"
        return f"{args[0]}.{form}({p.shape(e.value.dims)})"  # type: ignore[union-attr]

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return f"{args[0]}.reshape({p.shape(e.value.dims)})"  # type: ignore[union-attr]


class Unmerge(Row):
    """A constant dimension becomes two."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        places = [i for i in range(len(dims) - 1) if dims[i].axis is None and dims[i + 1].axis is None]
        if not places:
            return None
        place = g.choice(places)
        whole = Dim(dims[place].size * dims[place + 1].size)
        if whole.size > 256:
            return None
        arg = g.expr(dims[:place] + (whole,) + dims[place + 2 :], kind, exact, depth - 1)
        return Expr(self.name, [arg], {"place": place, "sizes": (dims[place].size, dims[place + 1].size)})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        (a,), place, (first, second) = args, e.attrs["place"], e.attrs["sizes"]
        _constant(a.dims, place)
        if first * second != a.dims[place].size:
            raise Invalid("sizes")
        return _moved(a, a.dims[:place] + (Dim(first), Dim(second)) + a.dims[place + 1 :])

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return f"{args[0]}.reshape({p.shape(e.value.dims)})"  # type: ignore[union-attr]


class Together(Row):
    """`cat`, `stack` and `hl.join` along a constant dimension."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        form = g.choice(("cat", "stack", "join"))
        places = [i for i, d in enumerate(dims) if d.axis is None and (d.size > 1 if form == "cat" else d.size == 2)]
        if form == "join":
            places = [i for i in places if i == len(dims) - 1]
        if not places:
            return None
        place = g.choice(places)
        parts: list[Dims] = [dims[:place] + dims[place + 1 :]] * 2
        if form == "cat":
            first = g.rng.randint(1, dims[place].size - 1)
            parts = [dims[:place] + (Dim(n),) + dims[place + 1 :] for n in (first, dims[place].size - first)]
        args = [g.expr(part, kind, exact, depth - 1) for part in parts]
        dtype = g.value(args[0]).dtype
        return Expr(self.name, [args[0], g.cast(args[1], dtype)], {"place": place, "form": form})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        (a, b), place, form = args, e.attrs["place"], e.attrs["form"]
        if form != "cat":
            if place > len(a.dims) or (form == "join" and place != len(a.dims)):
                raise Invalid("place")
            both = join(a, b)
            return _moved(both, a.dims[:place] + (Dim(2),) + a.dims[place:])
        _constant(a.dims, place)
        _constant(b.dims, place)
        whole = a.dims[:place] + (Dim(a.dims[place].size + b.dims[place].size),) + a.dims[place + 1 :]
        if b.dims[:place] + b.dims[place + 1 :] != a.dims[:place] + a.dims[place + 1 :]:
            raise Invalid("sizes")
        return join(_moved(a, whole), _moved(b, whole))

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        if e.attrs["form"] == "join":
            return f"hl.join({args[0]}, {args[1]})"
        return f"torch.{e.attrs['form']}([{args[0]}, {args[1]}], dim={e.attrs['place']})"

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        form = "cat" if e.attrs["form"] == "cat" else "stack"
        return f"torch.{form}([{args[0]}, {args[1]}], dim={e.attrs['place']})"


class Apart(Row):
    """A half of a constant dimension: `chunk`, `split`, `hl.split`."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        which = g.rng.randrange(2)
        if g.chance(0.3):
            return Expr(
                self.name, [g.expr((*dims, Dim(2)), kind, exact, depth - 1)], {"form": "hl.split", "which": which}
            )
        places = [i for i, d in enumerate(dims) if d.axis is None and 1 <= d.size <= 32]
        if not places:
            return None
        place = g.choice(places)
        arg = g.expr(dims[:place] + (Dim(2 * dims[place].size),) + dims[place + 1 :], kind, exact, depth - 1)
        return Expr(
            self.name, [arg], {"form": g.choice(("chunk", "split", "unflatten")), "which": which, "place": place}
        )

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        (a,) = args
        if e.attrs["form"] == "hl.split":
            if not a.dims or a.dims[-1] != Dim(2):
                raise Invalid("size")
            return _moved(a, a.dims[:-1])
        place = e.attrs["place"]
        _constant(a.dims, place)
        if a.dims[place].size % 2 or not a.dims[place].size:
            raise Invalid("size")
        return _moved(a, a.dims[:place] + (Dim(a.dims[place].size // 2),) + a.dims[place + 1 :])

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        form, which = e.attrs["form"], e.attrs["which"]
        if form == "hl.split":
            return f"hl.split({args[0]})[{which}]"
        place = e.attrs["place"]
        n = e.value.dims[place].size  # type: ignore[union-attr]
        if form == "unflatten":
            return f"{args[0]}.unflatten({place}, [2, {n}]).unbind({place})[{which}]"
        if form == "chunk":
            return f"{args[0]}.chunk(2, dim={place})[{which}]"
        return f"torch.split({args[0]}, {n}, dim={place})[{which}]"

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        if e.attrs["form"] == "hl.split":
            return f"{args[0]}[..., {e.attrs['which']}]"
        return f"{args[0]}.chunk(2, dim={e.attrs['place']})[{e.attrs['which']}]"


class Part(Row):
    """A part of a constant dimension by an index: `value[:, 2]`, `value[..., 1:7:2]`."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        places = [i for i, d in enumerate(dims) if d.axis is None and 1 <= d.size <= 16]
        if g.chance(0.5) or not places:
            place, n = g.rng.randint(0, len(dims)), g.rng.randint(1, 9)
            shape = (*dims[:place], Dim(n), *dims[place:])
            index: tuple[int, ...] = (g.rng.randint(-n, n - 1),)
        else:
            place = g.choice(places)
            step, start, more = g.choice((1, 1, 2)), g.rng.randint(0, 3), g.rng.randint(0, 2)
            n = start + (dims[place].size - 1) * step + 1 + more
            shape = (*dims[:place], Dim(n), *dims[place + 1 :])
            index = (start - n if g.chance(0.2) else start, n - more, step)
        return Expr(self.name, [g.expr(shape, kind, exact, depth - 1)], {"place": place, "part": index})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        (a,), place, index = args, e.attrs["place"], e.attrs["part"]
        _constant(a.dims, place)
        n = a.dims[place].size
        if len(index) == 1:
            if not -n <= index[0] < n:
                raise Invalid("outside")
            return _moved(a, a.dims[:place] + a.dims[place + 1 :])
        length = len(range(n)[slice(*index)])
        if not length:
            raise Invalid("nothing")
        return _moved(a, a.dims[:place] + (Dim(length),) + a.dims[place + 1 :])

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        place, index = e.attrs["place"], e.attrs["part"]
        text = str(index[0]) if len(index) == 1 else ":".join(map(str, index[: 3 if index[2] > 1 else 2]))
        rank = len(e.args[0].value.dims)  # type: ignore[union-attr]
        front = ["..."] if place == rank - 1 and place else [":"] * place
        return f"{args[0]}[{', '.join([*front, text])}]"


class Pad(Row):
    """`pad` of the last dimension, a constant one."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        if kind == "bool" or not dims or dims[-1].axis is not None or dims[-1].size < 3:
            return None
        left = g.rng.randint(0, 2)
        right = g.rng.randint(0, 2 - left) if left < 2 else 0
        inner = dims[:-1] + (Dim(dims[-1].size - left - right),)
        return Expr(self.name, [g.expr(inner, kind, exact, depth - 1)], {"left": left, "right": right})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        (a,) = args
        _constant(a.dims, len(a.dims) - 1)
        n = a.dims[-1].size + e.attrs["left"] + e.attrs["right"]
        padded = _moved(a, a.dims[:-1] + (Dim(n),))
        return Value(a.dtype, padded.dims, min(a.low, 0), max(a.high, 0), a.step, a.error)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return f"torch.nn.functional.pad({args[0]}, ({e.attrs['left']}, {e.attrs['right']}))"


class Gather(Row):
    """`torch.gather` along a constant dimension."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        places = [i for i, d in enumerate(dims) if d.axis is None and 1 < d.size <= 64]
        if not places:
            return None
        place = g.choice(places)
        index = Expr("remainder_const", [g.cast(g.expr(dims, "int", True, depth - 1), torch.int64)])
        n = dims[place].size
        arg = g.expr(dims, kind, exact, depth - 1)
        return Expr(self.name, [arg, g.within(index, 0, min(n - 1, 4))], {"place": place})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        (a, index), place = args, e.attrs["place"]
        _constant(a.dims, place)
        if index.dims != a.dims or index.dtype is not torch.int64 or index.low < 0 or index.high >= a.dims[place].size:
            raise Invalid("index")
        return a

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return f"torch.gather({args[0]}, {e.attrs['place']}, {args[1]})"


# -- products ------------------------------------------------------------------------------------------------------


def product(a: Value, b: Value, n: int, dims: Dims, dtype: torch.dtype, acc: Value | None = None) -> Value:
    """What is known of a sum of `n` products; float32 operands may be rounded to the 11 bits of tf32."""
    error = n * (a.error * (b.magnitude + b.error) + b.error * a.magnitude)
    for x, other in ((a, b), (b, a)):
        fits = x.step is not None and x.error == 0 and x.magnitude <= x.step * 2**11
        if x.dtype is torch.float32 and not fits:
            error += n * x.magnitude * other.magnitude * 2.0**-11 * 1.1
    corners = [x * y * n for x in (a.low, a.high) for y in (b.low, b.high)]
    low, high = (min(corners), max(corners)) if n else (0.0, 0.0)
    step = None if a.step is None or b.step is None else a.step * b.step
    if acc is not None:
        low, high, error = low + acc.low, high + acc.high, error + acc.error
        step = None if step is None or acc.step is None else min(step, acc.step)
    wide = torch.float64 if a.dtype is torch.float64 else torch.float32
    if dtype.is_floating_point:
        summed = settle(wide, dims, low, high, step, error, n + 1)
        return settle(dtype, dims, summed.low, summed.high, summed.step, summed.error)
    return settle(dtype, dims, low, high)


#: form -> dtypes of operands, whether there is an accumulator, source, whether the result is float32.
FORMS: dict[str, tuple[tuple[torch.dtype, ...], bool, str, bool]] = {
    "matmul": ((torch.float32, torch.bfloat16, torch.float16), False, "{0} @ {1}", False),
    "torch.matmul": ((torch.float32, torch.float16), False, "torch.matmul({0}, {1})", False),
    "torch.mm": ((torch.float32, torch.bfloat16), False, "torch.mm({0}, {1})", False),
    "hl.dot": ((torch.float32, torch.bfloat16, torch.float16, torch.float64), False, "hl.dot({0}, {1})", True),
    "int8": ((torch.int8,), False, "hl.dot({0}, {1})", True),
    "addmm": ((torch.float32,), True, "torch.addmm({2}, {0}, {1})", True),
    "dot_acc": ((torch.float32, torch.bfloat16, torch.float16), True, "hl.dot({0}, {1}, acc={2})", True),
    "baddbmm": ((torch.float32,), True, "torch.baddbmm({2}, {0}, {1})", True),
    "bmm": ((torch.float32, torch.bfloat16), False, "torch.bmm({0}, {1})", False),
}


def product_dtype(form: str, operands: torch.dtype) -> torch.dtype:
    if operands is torch.int8:
        return torch.int32
    return torch.float32 if FORMS[form][3] and operands is not torch.float64 else operands


class Product(Row):
    """A matrix product over a constant dimension, or a batch of them."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        if len(dims) not in (2, 3) or kind == "bool" or any(d.size > 64 for d in dims):
            return None
        forms = [f for f, (dtypes, *_) in FORMS.items() if (kind == "int") == (dtypes == (torch.int8,))]
        forms = [f for f in forms if f in ("matmul", "torch.matmul", "hl.dot", "int8", "dot_acc")
                 or (len(dims) == 3) == (f in ("bmm", "baddbmm"))]  # fmt: skip
        inner = g.constant_dim(dims, smallest=1)
        if inner is None or inner.size > 64:
            return None
        form = g.choice(forms)
        dtypes, has_acc, _, _ = FORMS[form]
        dtype = g.choice(dtypes)
        batch, m, n = dims[:-2], dims[-2], dims[-1]
        args = [
            g.cast(g.small(g.expr(shape, kind, True, depth - 1)), dtype)
            for shape in ((*batch, m, inner), (*batch, inner, n))
        ]
        if has_acc:
            args.append(g.cast(g.expr(dims, kind, exact, depth - 1), torch.float32))
        return Expr(self.name, args, {"form": form})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        a, b, *acc = args
        form = e.attrs["form"]
        dtypes, has_acc, _, _ = FORMS[form]
        if (
            len(a.dims) != len(b.dims)
            or not 2 <= len(a.dims) <= 3
            or a.dims[-1] != b.dims[-2]
            or a.dims[:-2] != b.dims[:-2]
        ):
            raise Invalid("shapes of a product")
        if a.dtype is not b.dtype or a.dtype not in dtypes or bool(acc) != has_acc:
            raise Invalid("dtypes of a product")
        if form in ("torch.mm", "addmm", "bmm", "baddbmm") and (len(a.dims) == 3) != (form in ("bmm", "baddbmm")):
            raise Invalid("rank of a product")
        inner = a.dims[-1]
        if inner.axis is not None and not env.axes[inner.axis].chunked:
            raise Invalid("a product over a tile")
        dims = (*a.dims[:-1], b.dims[-1])
        if acc and (acc[0].dims != dims or acc[0].dtype is not torch.float32):
            raise Invalid("accumulator")
        return product(a, b, inner.size, dims, product_dtype(form, a.dtype), acc[0] if acc else None)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return FORMS[e.attrs["form"]][2].format(*args)

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        if e.attrs["form"] == "int8":
            return f"({args[0]}.int() @ {args[1]}.int())"
        text = f"({args[0]} @ {args[1]})"
        return f"({args[2]} + {text})" if len(args) > 2 else text


for _row in [
    NewDim("new_dim", "views", 3),
    OfOne("of_one", "tiles of one element", 14),
    Expand("expand", "views"),
    Permute("permute", "views", 2),
    Merge("merge", "reshapes", 2),
    Unmerge("unmerge", "reshapes", 2),
    Together("together", "joins", 2),
    Apart("apart", "joins", 2),
    Part("part", "parts by index", 2),
    Pad("pad", "joins"),
    Gather("gather", "gathers of values"),
    Product("product", "products", 3),
]:
    add_row(_row)
