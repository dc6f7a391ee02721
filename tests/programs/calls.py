"""Further calls of a program's kernel: other sizes, strides, offsets, dtypes and values, so that what the first call
has compiled, guarded and planned is asked whether it serves them too.

The kernel's text stays; the reference and the error bounds are those of the program with these arguments.
"""

from __future__ import annotations

import copy
import dataclasses
import random

import torch

from .inputs import LAYOUTS
from .inputs import READ_ONLY
from .program import Call
from .program import Program
from .program import Scalar
from .values import Dim
from .values import Invalid

_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_INTS = (torch.int64, torch.int32)
_SIZES = (0, 1, 1, 2, 3, 5, 8, 15, 16, 17, 32, 40, 64)


def draw(program: Program, rng: random.Random) -> list[Call]:
    """Up to three calls, none of which the program is sure to allow (`other`)."""
    found = []
    twins = {name for loop in program.loops for pair in loop.twins.items() for name in pair}
    for _ in range(rng.randint(1, 3)):
        call = Call(seed=rng.choice((0, 1, 2)))
        if rng.random() < 0.7:
            for name in rng.sample(sorted(program.sizes), min(rng.choice((1, 1, 2)), len(program.sizes))):
                call.sizes[name] = rng.choice(_SIZES)
        for p in program.params:
            if p.fill == "random" and rng.random() < 0.3:
                layouts = [n for n in LAYOUTS if not (p.written and n in READ_ONLY)]
                call.layouts[p.name] = rng.choice(layouts)
            if p.fill == "random" and not p.written and p.name not in twins and rng.random() < 0.15:
                kinds = _FLOATS if p.dtype.is_floating_point else _INTS if p.dtype in _INTS else (p.dtype,)
                call.dtypes[p.name] = rng.choice(kinds)
        found.append(call)
    return found


def other(program: Program, call: Call) -> Program | None:
    """The program with the arguments of a call, None where it is none."""
    changed = copy.deepcopy(program)
    changed.calls = []
    changed.sizes.update({name: n for name, n in call.sizes.items() if name in changed.sizes})
    for p in changed.params:
        p.layout = call.layouts.get(p.name, p.layout)
        p.dtype = call.dtypes.get(p.name, p.dtype)
        if p.fill == "random":
            p.seed += call.seed
    _resize(changed, program.sizes)
    try:
        for name, s in changed.scalars.items():  # in order: later ones are computed from earlier ones
            changed.scalars[name] = _renewed(s, changed)
        changed.infer()
    except (Invalid, IndexError, KeyError, ZeroDivisionError):
        return None
    return changed


def _resize(changed: Program, before: dict[str, int]) -> None:
    """Bring what holds a size as a number up to the new one, where only one size was that."""
    names: dict[int, list[str]] = {}
    for name, n in before.items():
        names.setdefault(n, []).append(name)
    new = {n: changed.sizes[known[0]] for n, known in names.items() if len(known) == 1}
    for p in changed.params:
        if p.fill == "offsets":
            p.high = new.get(p.high, p.high)
    for e in changed.expressions():
        if "dims" in e.attrs:
            dims: tuple[Dim, ...] = e.attrs["dims"]
            e.attrs["dims"] = tuple(dataclasses.replace(d, size=new.get(d.size, d.size)) for d in dims)


def _renewed(s: Scalar, program: Program) -> Scalar:
    """A number that host code computes, with the new sizes."""
    if s.origin in ("argument", "constexpr", "tunable"):
        return s
    return dataclasses.replace(s, value=program.evaluate(s.origin))
