"""Smaller programs that fail in the same way.

A shrinker of its own rather than Hypothesis's: a program is a tree with types, so every reduction (a statement less, an
operand for its operation, a smaller size, a Config without a key) is again a program, or inference says that it is none
before anything is run.  Hypothesis shrinks the sequence of random draws and learns only by running what comes out,
which takes thousands of runs; one run here is a trace and a compilation, up to seconds, in a process that may crash.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import torch

from .building import prune
from .control import Bound
from .control import If
from .control import Loop
from .printing import script
from .program import Program
from .statements import Statement
from .table import Expr
from .values import Invalid

Edit = Callable[[Program], None]


def _blocks(program: Program) -> Iterator[list[Any]]:
    yield program.loops
    for s in program.statements():
        yield from s.blocks()


def _slots_of(statement: Statement) -> list[tuple[list[Expr] | Any, int | str]]:
    """Where the expressions of a statement are held."""
    if hasattr(statement, "args"):
        return [(statement.args, i) for i in range(len(statement.args))]
    name = "test" if isinstance(statement, If) else "value" if hasattr(statement, "value") else ""
    return [(statement, name)] if name else []


def _get(holder: Any, key: Any) -> Expr:
    return holder[key] if isinstance(holder, list) else getattr(holder, key)


def _set(holder: Any, key: Any, e: Expr) -> None:
    if isinstance(holder, list):
        holder[key] = e
    else:
        setattr(holder, key, e)


def _places(e: Expr, holder: Any, key: Any) -> Iterator[tuple[Any, Any]]:
    """Where an expression and all in it are held, outermost first."""
    yield holder, key
    for i, a in enumerate(e.args):
        yield from _places(a, e.args, i)


def _expression_places(program: Program) -> Iterator[tuple[Any, Any]]:
    for s in program.statements():
        for holder, key in _slots_of(s):
            yield from _places(_get(holder, key), holder, key)


def _nth(items: Iterator[Any], n: int) -> Any:
    for i, item in enumerate(items):
        if i == n:
            return item
    raise Invalid("gone")


def _edits(program: Program) -> Iterator[Edit]:
    """Every reduction by one step, the large ones first. Each finds its place anew, in a copy."""
    blocks = list(_blocks(program))
    for b, block in enumerate(blocks):
        for i in range(len(block)):
            yield lambda p, b=b, i=i: _nth(_blocks(p), b).__delitem__(i)
    for b, block in enumerate(blocks):
        for i, s in enumerate(block):
            if isinstance(s, If) or (isinstance(s, Loop) and not s.top):
                for which in range(len(s.blocks())):
                    yield lambda p, b=b, i=i, w=which: _unwrap(_nth(_blocks(p), b), i, w)
    for key in list(program.config):
        if key != "block_sizes":
            yield lambda p, key=key: p.config.pop(key)
    for i, call in enumerate(program.calls):
        yield lambda p, i=i: p.calls.__delitem__(i)
        for what in ("sizes", "layouts", "dtypes"):
            for key in getattr(call, what):
                yield lambda p, i=i, what=what, key=key: getattr(p.calls[i], what).pop(key)
    for key in list(program.names):
        yield lambda p, key=key: p.names.pop(key)
    for key in list(program.settings):
        yield lambda p, key=key: p.settings.pop(key)
    for place, (holder, key) in enumerate(_expression_places(program)):
        e = _get(holder, key)
        for i in range(len(e.args)):
            yield lambda p, place=place, i=i: _hoist(p, place, i)
        if e.value is not None and e.op not in ("full", "load", "variable", "number") and not e.value.weak:
            yield lambda p, place=place, e=e: _leaf(p, place, e)
    for i, s in enumerate(program.statements()):
        for a in range(len(getattr(s, "axes", ()))):
            for edit in _axis_edits(s.axes[a], s):
                yield lambda p, i=i, a=a, edit=edit: edit(_nth(p.statements(), i), a)
        if getattr(s, "masked", False):
            yield lambda p, i=i: _unmask(_nth(p.statements(), i))
    for i, x in enumerate(program.params):
        if x.fill == "special":
            yield lambda p, i=i: setattr(p.params[i], "fill", "random")
        if x.layout != "contiguous":
            yield lambda p, i=i: setattr(p.params[i], "layout", "contiguous")
        plain = torch.float32 if x.dtype.is_floating_point else torch.int64 if x.fill != "random" else torch.int32
        if x.dtype not in (plain, torch.bool):
            yield lambda p, i=i, plain=plain: setattr(p.params[i], "dtype", plain)
        if x.step != 1:
            yield lambda p, i=i: setattr(p.params[i], "step", 1.0)
        for dim in range(len(x.shape)):
            yield lambda p, i=i, dim=dim: _drop_dim(p, i, dim)
    for name, n in program.sizes.items():
        for smaller in (s for s in sorted({1, 2, 4, 16, n // 2, n - 1}) if s > 0):
            if smaller < n:
                yield lambda p, name=name, smaller=smaller: p.sizes.__setitem__(name, smaller)
    for i, size in enumerate(program.config.get("block_sizes", ())):
        for other in (1, 16, 64):
            if size not in (1, 16, other) or other < size:
                yield lambda p, i=i, other=other: p.config["block_sizes"].__setitem__(i, other)
    for i, o in enumerate(program.outputs):
        if o.fill != "zeros":
            yield lambda p, i=i: setattr(p.outputs[i], "fill", "zeros")
    for i in range(len(program.packs)):
        yield lambda p, i=i: p.packs.__delitem__(i)
        if program.packs[i].remade:
            yield lambda p, i=i: setattr(p.packs[i], "remade", "")
    for i, loop in enumerate(program.loops):
        if loop.twins:
            yield lambda p, i=i: p.loops[i].twins.clear()
    if program.defaults:
        yield lambda p: setattr(p, "defaults", False)
    if program.tuple_of_constants:
        yield lambda p: setattr(p, "tuple_of_constants", "")
    if program.returns:
        yield lambda p: setattr(p, "returns", "")
    if program.specialize:
        yield lambda p: p.specialize.clear()


def _unwrap(block: list[Any], i: int, which: int) -> None:
    block[i : i + 1] = block[i].blocks()[which]


def _hoist(program: Program, place: int, operand: int) -> None:
    holder, key = _nth(_expression_places(program), place)
    _set(holder, key, _get(holder, key).args[operand])


def _leaf(program: Program, place: int, old: Expr) -> None:
    holder, key = _nth(_expression_places(program), place)
    assert old.value is not None
    if old.value.kind == "bool":
        raise Invalid("no constant")
    value = 1.0 if old.value.kind == "float" else 1
    _set(
        holder, key, Expr("full", [], {"dims": old.value.dims, "value": value, "dtype": old.value.dtype, "form": "hl"})
    )


def _axis_edits(spec: Any, loop: Statement) -> Iterator[Callable[[Any, int], None]]:
    if spec.block is not None:
        yield lambda s, a: setattr(s.axes[a], "block", None)
    if spec.begin.spec not in (("number", 0),) and spec.begin.spec[0] != "load":
        yield lambda s, a: setattr(s.axes[a], "begin", Bound(("number", 0)))
    if spec.end.spec[0] in ("half", "less"):
        yield lambda s, a: setattr(s.axes[a], "end", Bound(("size", s.axes[a].end.spec[1])))
    if getattr(loop, "chunked", False):
        yield lambda s, a: setattr(s, "chunked", False)
    if len(getattr(loop, "axes", ())) > 1:
        yield lambda s, a: s.axes.__delitem__(a)


def _unmask(s: Any) -> None:
    s.args.pop()
    s.masked = False


def _drop_dim(program: Program, i: int, dim: int) -> None:
    """A dimension that every access indexes by a number or an index of a grid."""
    p = program.params[i]
    holders = [e for e in program.expressions() if e.attrs.get("tensor") == p.name] + [
        s for s in program.statements() if getattr(s, "tensor", "") == p.name
    ]
    if len(p.shape) < 2:
        raise Invalid("the last dimension")
    for h in holders:
        index = h.attrs["index"] if isinstance(h, Expr) else h.index
        places = [k for k, element in enumerate(index) if element[0] != "none"]
        if index[places[dim]][0] not in ("int", "grid"):
            raise Invalid("in use")
        del index[places[dim]]
    del p.shape[dim]


def _apply(program: Program, edit: Edit) -> Program | None:
    """A smaller program, or None if the edit leads to none."""
    sizes = dict(zip(program.slots(), program.config.get("block_sizes", ())))
    smaller = copy.deepcopy(program)
    before = smaller.config.get("block_sizes")
    try:
        edit(smaller)
        if "block_sizes" in smaller.config and smaller.config["block_sizes"] == before:
            smaller.config["block_sizes"] = [sizes.get(name, 16) for name in smaller.slots()]
        if smaller.loops:
            smaller.loops[0].barrier = False
        prune(smaller)
        smaller.infer()
    except (Invalid, IndexError, KeyError, AttributeError, StopIteration):
        return None
    if not smaller.params or not (smaller.outputs or any(p.written for p in smaller.params)):
        return None
    return smaller


def shrink(program: Program, fails: Callable[[Program], bool], seconds: float = 120) -> Program:
    """The smallest program that is found in a time, by single steps, and that still fails."""
    until = time.monotonic() + seconds
    seen = {script(program)}
    found = True
    while found and time.monotonic() < until:
        found = False
        program.infer()
        position = 0
        while time.monotonic() < until:
            edits = list(_edits(program))
            if position >= len(edits):
                break
            smaller = _apply(program, edits[position])
            text = "" if smaller is None else script(smaller)
            if smaller is None or text in seen or smaller.weight() > program.weight():
                position += 1
                continue
            seen.add(text)
            if fails(smaller):
                program, found = smaller, True
                program.infer()
            else:
                position += 1
    program.infer()
    return program
