"""What the programs of a run were made of: each construct, op and Config key, and each pair of construct and key."""

from __future__ import annotations

import re
from collections import Counter

from helion.config_keys import KEYS

from .inputs import LAYOUTS
from .program import Program
from .table import ROWS
from .values import FLOATS
from .values import INTS
from .values import UNSIGNED

#: Config keys that say something to the Triton backend.
CONFIG_KEYS = KEYS[: KEYS.index("advanced_controls_file")]
CONSTRUCTS = (
    "top-level tile", "top-level grid", "inner tile", "inner data-dependent tile", "inner grid", "inner static_range",
    "inner range", "accumulation", "assignment", "augmented assignment", "store", "masked store", "scatter",
    "branch on a value", "branch on an argument", "branch on a tile's place", "atomic_add", "atomic_max", "atomic_min",
    "atomic_and", "atomic_or", "atomic_xor", "barrier", "several loops in a phase", "a tensor written and read",
    "meaning depends on block sizes", "dynamic shapes", "specialize", "argument", "constexpr", "tunable",
    "host arithmetic", "register_block_size", "begin", "atomic_xchg", "atomic_cas", "inner jagged",
    "inner nested in a tile's range tile", "loop over tensors", "one lane per element", "view made by host code",
    "the old value of an atomic", "size 0", "size 1", "early return",
    "call with other sizes", "call with other layouts", "call with other dtypes", "block size from a tunable",
    "half of a dimension", "reduction of nothing", "host if on a size", "host if around a loop",
    "signal and wait", "lock", "registered size of a buffer", "a second name of a value",
    "accumulation over several dimensions", "sums over tiles by atomics", "a tuple that a value chooses",
    "a number that a loop carries", "neighbour of a grid index",
    "host if on what a tensor holds", "attention", "tensors in a list", "tensors in a dict", "tensors in a named",
    "results in a list", "results in a dict", "results in a named", "tunable float", "tunable bool", "begin below 0",
    "bounds of several numbers", "products that share a tile", "slice by arguments",
    "names of the compiler's", "constants in a tuple", "dynamic shapes after some", "number read from a tensor",
    "call with other numbers read", "host loop over tensors", "slice from a loaded number on",
    "store to a slice from a loaded number on", "two results of a function", "elements that host code selects",
    "inner carried-range tile", "inner carried-range grid", "steps of a grid", "special floats",
    "names assigned together", "defaults that are names", "comprehension over tensors",
    "store through an index of two dimensions",
)  # fmt: skip


#: Constructs, rows of expressions and Config keys of a program.
Features = tuple[set[str], set[str], set[str]]


def _of_host_code(program: Program) -> set[str]:
    """Constructs of loops, views and arguments in host code."""
    constructs = set()
    if any(loop.when for loop in program.loops):
        constructs.add("host if around a loop")
    if any(loop.twins for loop in program.loops):
        constructs.add("host loop over tensors")
    if any(".item()" in loop.when for loop in program.loops):
        constructs.add("host if on what a tensor holds")
    if program.views:
        constructs.add("view made by host code")
    if any(v.counted for v in program.views):
        constructs.add("elements that host code selects")
    if program.defaults and any(s.origin in ("argument", "constexpr") for s in program.scalars.values()):
        constructs.add("defaults that are names")
    if any(pack.remade for pack in program.packs):
        constructs.add("comprehension over tensors")
    return constructs


def features(program: Program) -> Features:
    """Constructs, rows of expressions, and Config keys of a program."""
    constructs = {s.feature for s in program.statements()}
    for s in program.statements():
        if getattr(s, "chunked", False):
            constructs.add("meaning depends on block sizes")
        for spec in getattr(s, "axes", ()):
            if isinstance(spec.block, str) and "(" in spec.block:
                constructs.add("block size from a tunable")
            if spec.begin.spec[0] == "mixed" or spec.begin.spec < ("number", 0):
                constructs.add("begin below 0")
            if spec.begin.names or spec.end.names:
                constructs.add("bounds of several numbers")
            if spec.step != 1:
                constructs.add("steps of a grid")
            if spec.begin.spec not in (("number", 0),):
                constructs.add("begin")
    if any(sum(getattr(s, "form", "") == "dot" for s in b) > 1 for loop in program.statements() for b in loop.blocks()):
        constructs.add("products that share a tile")
    if any(loop.barrier for loop in program.loops):
        constructs.add("barrier")
    if any(not loop.barrier for loop in program.loops[1:]):
        constructs.add("several loops in a phase")
    for scalar in program.scalars.values():
        known = ("argument", "constexpr", "tunable")
        if " if " in scalar.origin:
            constructs.add("host if on a size")
        constructs.add(scalar.origin if scalar.origin in known else "host arithmetic")
    for s in program.scalars.values():
        if s.origin == "tunable" and type(s.value) is not int:
            constructs.add(f"tunable {type(s.value).__name__}")
    constructs |= _of_host_code(program) | {f"tensors in a {pack.kind}" for pack in program.packs}
    if program.returns:
        constructs.add(f"results in a {program.returns}")
    if "static_shapes" in program.settings:
        constructs.add("dynamic shapes after some" if program.settings["static_shapes"] else "dynamic shapes")
    if program.tuple_of_constants and "constexpr" in constructs:
        constructs.add("constants in a tuple")
    if any(re.search(r"x\d", s.origin) for s in program.scalars.values()):
        constructs.add("number read from a tensor")
        if program.calls:
            constructs.add("call with other numbers read")
    if program.names:
        constructs.add("names of the compiler's")
    if program.specialize:
        constructs.add("specialize")
    for call in program.calls:
        constructs |= {f"call with other {what}" for what in ("sizes", "layouts", "dtypes") if getattr(call, what)}
    if program.early_return:
        constructs.add("early return")
    if any(a.op == "flat_place" for s in program.statements() for a in getattr(s, "args", ())[1:]):
        constructs.add("store through an index of two dimensions")
    if any(getattr(s, "result", "") for s in program.statements()):
        constructs.add("the old value of an atomic")
    if program.blocks:
        constructs.add("register_block_size")
    constructs |= {f"size {n}" for n in program.sizes.values() if n < 2}
    stored = {getattr(s, "tensor", "") for s in program.statements()}
    if any(e.attrs.get("tensor") in stored for e in program.expressions()):
        constructs.add("a tensor written and read")
    for e in program.expressions():
        index = e.attrs.get("index", ())
        if any(element[0] == "slice" and "s" in str(element[3:]) for element in index):
            constructs.add("slice by arguments")
        if any(element[0] == "from" for element in index):
            constructs.add("slice from a loaded number on")
        if any(element[0] == "half" for element in index):
            constructs.add("half of a dimension")
        if any(element[0] == "grid" and len(element) > 2 for element in index):
            constructs.add("neighbour of a grid index")
        dims = [d for a in e.args if a.value is not None for d in a.value.dims if d.axis is None and d.size == 0]
        if dims and ROWS[e.op].family == "reductions":
            constructs.add("reduction of nothing")
    for p in program.params:
        constructs |= {"special floats"} if p.fill == "special" else set()
        constructs |= {f"layout {p.layout}", str(p.dtype)}
    return constructs, {e.op for e in program.expressions()}, set(program.config)


class Coverage:
    """Counts over the programs of a run."""

    def __init__(self) -> None:
        self.programs = 0
        self.constructs: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()
        self.keys: Counter[str] = Counter()
        self.pairs: Counter[tuple[str, str]] = Counter()

    def add(self, found: Features) -> None:
        constructs, rows, keys = found
        self.programs += 1
        self.constructs.update(constructs)
        self.rows.update(rows)
        self.keys.update(keys)
        classes = constructs | {ROWS[r].family for r in rows}
        self.pairs.update((c, k) for c in classes for k in keys)

    def missing(self) -> list[str]:
        """Single features that no program had."""
        rows = [*ROWS]
        wanted = [*CONSTRUCTS, *(f"layout {name}" for name in LAYOUTS), *(str(d) for d in (*FLOATS, *INTS, *UNSIGNED))]
        return (
            [c for c in wanted if not self.constructs[c]]
            + [r for r in rows if not self.rows[r]]
            + [k for k in CONFIG_KEYS if not self.keys[k]]
        )

    def missing_pairs(self) -> list[tuple[str, str]]:
        """Pairs of a construct or class of ops and a Config key that no program had."""
        classes = [*CONSTRUCTS, *sorted({r.family for r in ROWS.values()})]
        return [(c, k) for c in classes for k in CONFIG_KEYS if not self.pairs[c, k]]

    def report(self) -> str:
        """Everything with its count, the seldom last."""
        lines = [f"{self.programs} programs"]
        for title, counts in (("constructs", self.constructs), ("rows", self.rows), ("Config keys", self.keys)):
            lines.append(f"{title}: " + ", ".join(f"{n} {c}" for n, c in counts.most_common()))
        absent = self.missing_pairs()
        lines.append(f"at 0: {', '.join(self.missing()) or 'nothing'}")
        total = len(absent) + sum(1 for pair in self.pairs if pair[1] in CONFIG_KEYS)
        lines.append(f"pairs with a Config key at 0: {len(absent)} of {total}")
        lines += [f"  {c} with {k}" for c, k in absent[:40]]
        return "\n".join(lines)
