"""A random program: its top-level loops with their bodies, barriers where they are needed."""

from __future__ import annotations

import dataclasses
import re

from . import calls
from . import carried
from . import chains
from . import loops
from . import patterns
from . import stores
from . import synchronised
from .control import EachTensor
from .control import Loop
from .generate import Generator
from .loops import loop_axis
from .printing import script
from .program import Pack
from .program import Program
from .scope import STATEMENTS
from .scope import body
from .scope import enter
from .scope import output
from .statements import Statement
from .synchronised import Parts
from .table import walk
from .values import INTS
from .values import Invalid

#: Modules whose import fills the table of statements.
TABLES = (carried, chains, loops, patterns, stores, synchronised)


def _top_loop(g: Generator) -> Loop:
    kind = "grid" if g.chance(0.25) else "tile"
    count = g.rng.choices((1, 2, 3), (5, 4, 1))[0]
    chunked = kind == "tile" and g.chance(0.2)
    specs = []
    room = 8_000 if kind == "tile" else 128
    for _ in range(count):
        spec = loop_axis(
            g, "i" if kind == "grid" else "t", 0, min(room, 12 if kind == "grid" else 100), tile=kind == "tile"
        )
        if chunked and g.chance(0.4):
            spec.block = 1
        room //= max(g.program.sizes[g.axis_size[spec.name]], 1)
        specs.append(spec)
        if room < 1:
            break
    loop = Loop(kind, specs, [], chunked=chunked, top=True)
    inside = enter(g, loop, lambda: body(g, 2, 2))
    if not any(_stores(s) for s in inside.body):
        inside = enter(g, loop, lambda: [*inside.body, *body(g, 0, 1, ("store",))])
    if not any(_stores(s) for s in inside.body):
        raise Invalid("a loop without effect")
    return inside


def _stores(s: Statement) -> bool:
    return bool(s.written) or any(_stores(i) for b in s.blocks() for i in b)


def build(seed: str | int) -> Program:
    """The program of a seed, without a Config."""
    for attempt in range(50):
        g = Generator(f"{seed}.{attempt}" if attempt else seed)
        g.statement_weights = {n: g.choice((0, 0.3, 1, 1, 4)) for n in STATEMENTS if n != "store"}
        try:
            phases = g.rng.choices((1, 2, 3), (6, 2, 1))[0]
            for phase in range(phases):
                known = {o.name for o in g.program.outputs} | {p.name for p in g.program.params if p.written}
                loop = _top_loop(g)
                loop.barrier = phase > 0 and bool(g.readable or g.chance(0.6))
                if g.chance(0.12) and not loop.barrier:
                    _repeat(g, loop, known)
                trial = g.env.copy()
                loop.infer_all(trial)
                g.env.memory = trial.memory
                g.remember()
                g.program.loops.append(loop)
                # What this phase wrote is for later ones to read, if there is a barrier.
                g.readable = {o.name for o in g.program.outputs} if g.chance(0.7) else set()
                g.hidden = {p.name for p in g.program.params if p.written}
            g.program.infer()
            _settle_barriers(g.program)
            _decide(g)
            prune(g.program)
            if not (g.program.params and g.program.sizes and g.program.outputs) or len(g.program.params) > 14:
                continue
            if g.dynamic and g.chance(0.7):
                dims = {d.size for e in g.program.expressions() if e.value for d in e.value.dims if d.axis is None}
                g.program.specialize = [s for s, n in g.program.sizes.items() if n in dims or g.chance(0.2)]
            if g.chance(0.06):
                g.program.early_return = f"{g.program.params[0].name}.numel() == 0"
                for output in g.program.outputs:  # what nothing was stored to is returned too
                    output.fill = "zeros" if output.fill == "empty" else output.fill
            if g.chance(0.2):
                _pack(g)
            if g.chance(0.5):
                g.program.tuple_of_constants = g.choice(("names", "items"))
            g.program.defaults = g.chance(0.4)
            if g.chance(0.25):
                g.program.names = _names(g)
            if g.chance(0.35):
                g.program.calls = calls.draw(g.program, g.rng)
            return g.program
        except Invalid:
            continue
    raise Invalid(f"no program for seed {seed}")


def touched(loop: Loop) -> tuple[set[str], set[str]]:
    """Tensors that a loop reads, and those that it writes."""
    reads, writes = set(), set()

    def visit(s: Statement) -> None:
        writes.update(s.written)
        if isinstance(s, Parts):
            reads.add(s.source)
        for e in s.expressions():
            reads.update(x.attrs["tensor"] for x in walk(e) if "tensor" in x.attrs)
        for block in s.blocks():
            for inner in block:
                visit(inner)
        if isinstance(s, EachTensor):
            reads.update(s.tensors)
        if isinstance(s, Loop):
            reads.update(b.spec[1] for spec in s.axes for b in (spec.begin, spec.end) if b.spec[0] == "load")

    visit(loop)
    reads |= {twin for name, twin in loop.twins.items() if name in reads}
    writes |= {twin for name, twin in loop.twins.items() if name in writes}
    return reads, writes


def _repeat(g: Generator, loop: Loop, known: set[str]) -> None:
    """Let a host loop do a top-level loop for other tensors too."""
    statements = list(g.program.statements([loop]))
    reads, writes = touched(loop)
    if loop.chunked or writes & known or any(type(s).__module__ == Parts.__module__ for s in statements):
        return  # what it means depends on blocks or other programs
    inputs = [p for p in g.program.params if p.name in writes or (p.name in reads and g.chance(0.7))]
    for p in inputs:
        twin = dataclasses.replace(p, name=f"x{len(g.program.params)}", shape=list(p.shape), seed=p.seed + 1)
        g.add_param(twin)
        loop.twins[p.name] = twin.name
    for o in [o for o in g.program.outputs if o.name in writes]:
        loop.twins[o.name] = output(g, list(o.shape), o.dtype, o.fill)


def _settle_barriers(program: Program) -> None:
    """A barrier wherever loops touch what another one of the phase writes."""
    phase: list[Loop] = []
    for loop in program.loops:
        reads, writes = touched(loop)
        for earlier in phase:
            earlier_reads, earlier_writes = touched(earlier)
            if writes & (earlier_reads | earlier_writes) or reads & earlier_writes:
                loop.barrier = True
        phase = [loop] if loop.barrier else [*phase, loop]


def _decide(g: Generator) -> None:
    """Let host code decide on sizes, or on what a tensor holds, whether it comes by a loop; outputs that it may leave
    out have a value before."""
    loops = g.program.loops
    for loop, after in zip(loops, [*loops[1:], None]):
        if loop.barrier or (after is not None and after.barrier):
            continue
        if len(loops) > 1 and g.program.sizes and g.chance(0.4):
            loop.when = f"{g.choice(list(g.program.sizes))} > {g.choice((0, 1, 4, 16))}"
        elif loop is loops[0] and g.chance(0.15):  # between loops nobody can decide
            read = [p for p in g.program.params if p.fill == "random" and p.dtype in INTS and not p.written]
            if not read:
                continue
            loop.when = f"{g.choice(read).name}.sum().item() > {g.choice((-9, 0, 9))}"
        if loop.when:
            for o in g.program.outputs:
                o.fill = "zeros" if o.fill == "empty" and o.name in touched(loop)[1] else o.fill
    g.program.infer()


def _pack(g: Generator) -> None:
    """Put some arguments into containers, and maybe the results."""
    free = [p.name for p in g.program.params if not p.written]
    g.rng.shuffle(free)
    while len(free) >= 2 and len(g.program.packs) < 2:
        taken = [free.pop() for _ in range(min(len(free), g.rng.randint(1, 3)))]
        kind = g.choice(("list", "dict", "named"))
        pack = Pack(f"pack{len(g.program.packs)}", kind, taken, g.chance(0.5))
        if kind == "list" and g.chance(0.6):
            pack.remade = g.choice(("each.contiguous()", "each.clone()", "each[:]", "each.to(each.dtype)"))
        g.program.packs.append(pack)
    g.program.returns = g.choice(("", "list", "dict", "named")) if g.program.outputs else ""


#: Names that a compiler, or the code that it prints, may have a use of its own for.
_NAMES = (
    "tl", "triton", "num_warps", "num_stages", "BLOCK_0", "offset_0", "pid", "load", "mask_0", "indices_0",
    "load_1", "grid", "min", "max", "len", "int", "float", "abs", "math", "sub", "mul", "stride_0", "device", "size",
    "id", "type", "input", "lane", "config", "args", "self", "kwargs", "launch", "cdiv", "dtype", "stream", "print",
    "warp_size", "x_size_0", "x_stride_0", "constexpr", "sum", "libdevice", "BLOCK_T", "i_0",
)  # fmt: skip


def _names(g: Generator) -> dict[str, str]:
    """Other names for some variables of a program."""
    text = script(g.program)
    variables = sorted(set(re.findall(r"\b(?:x|out|y|v|t|i|k|c|acc)\d+\b", text)))
    found = g.rng.sample(variables, min(len(variables), g.rng.randint(1, 4)))
    return dict(zip(found, g.rng.sample(_NAMES, len(found))))


def prune(program: Program) -> None:
    """Take away arguments and sizes that nothing uses."""
    used: set[str] = set()
    for loop in program.loops:
        used |= set().union(*touched(loop))
        loop.twins = {name: twin for name, twin in loop.twins.items() if {name, twin} <= used}
    called = {e.attrs["closure"] for e in program.expressions() if e.op == "epilogue"}
    program.closures = [c for c in program.closures if c.name in called]
    program.views = [v for v in program.views if v.name in used]
    used |= {c.tensor for c in program.closures} | {v.base for v in program.views}
    used |= {loop.when.split(".")[0] for loop in program.loops if loop.when}
    used |= {word for s in program.scalars.values() for word in re.findall(r"x\d+", s.origin)}
    program.params = [p for p in program.params if p.name in used]
    for pack in program.packs:
        pack.tensors = [t for t in pack.tensors if t in used]
    program.packs = [pack for pack in program.packs if pack.tensors]
    program.outputs = [o for o in program.outputs if o.name in used]
    names = {e.attrs["name"] for e in program.expressions() if e.op == "number" and "name" in e.attrs}
    indices = [element for e in program.expressions() for element in e.attrs.get("index", ())]
    names |= {w for element in indices if element[0] == "slice" for w in re.findall(r"s\d+", str(element[3:]))}
    names |= {s.origin.split(" ")[0] for s in program.scalars.values()}
    specs = [
        spec
        for s in program.statements()
        for spec in (*getattr(s, "axes", ()), *filter(None, [getattr(s, "spec", None)]))
    ]
    bounds = [b for spec in specs for b in (spec.begin, spec.end)]
    mixed = {name for b in bounds for name in b.names}
    names |= mixed | {w for spec in specs for w in re.findall(r"s\d+", str(spec.block))}
    program.scalars = {n: s for n, s in program.scalars.items() if n in names}
    blocks = {spec.block for spec in specs} | {s.block for s in program.statements() if isinstance(s, Parts)}
    program.blocks = [b for b in program.blocks if b.name in blocks]
    names = {s for t in (*program.params, *program.outputs, *program.views) for s in t.shape}
    names |= {loop.when.split(" ")[0] for loop in program.loops if loop.when}
    names |= {b.extent for b in program.blocks} | {s.size for s in program.statements() if isinstance(s, Parts)}
    names |= mixed | {b.spec[1] for b in bounds}
    texts = [s.origin for s in program.scalars.values()] + [b for b in blocks if isinstance(b, str)]
    texts += [v.text for v in program.views]
    names |= {word for text in texts for word in re.findall(r"n\d+", text)}
    program.sizes = {n: size for n, size in program.sizes.items() if n in names}
