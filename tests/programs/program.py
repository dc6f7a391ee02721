"""A whole program: arguments, host code, top-level loops; and what is known of its results."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from typing import Any

import torch

import helion

from .inputs import tensor
from .table import Env
from .table import Expr
from .table import Memory
from .table import walk
from .values import Dim
from .values import Invalid

if TYPE_CHECKING:
    from .control import Loop
    from .statements import Statement


@dataclasses.dataclass
class Param:
    """A tensor argument.

    Attributes:
        name: of the argument.
        dtype, shape: of the tensor; `shape` holds names of sizes or numbers.
        low, high, step: its elements are `low * step` to `high * step`.
        layout: how it lies in memory (`inputs.LAYOUTS`).
        fill: "random", "special" (numbers, with nan, infinities and -0.0), "permutation" or "offsets".
        written: the kernel stores into it, and it is compared afterwards.
    """

    name: str
    dtype: torch.dtype
    shape: list[str | int]
    low: int
    high: int
    step: float = 1.0
    layout: str = "contiguous"
    fill: str = "random"
    seed: int = 0
    written: bool = False


@dataclasses.dataclass
class Scalar:
    """A number argument, host number or tunable.

    Attributes:
        value: what it is in this run; of a tunable, what the Config says.
        origin: "argument", "constexpr", "tunable", or the source of host arithmetic, maybe on what tensors hold.
    """

    name: str
    value: float
    origin: str = "argument"
    reference: str = ""


@dataclasses.dataclass
class Output:
    """A tensor that the kernel allocates and returns.

    Attributes:
        fill: "empty", "zeros" or "full", which fills it with 7.
    """

    name: str
    dtype: torch.dtype
    shape: list[str | int]
    fill: str = "zeros"


@dataclasses.dataclass
class Closure:
    """A function argument that closes over a tensor argument; `form` is a key of `inlined.CLOSURES`."""

    name: str
    tensor: str
    form: str


@dataclasses.dataclass
class Pack:
    """Arguments that are passed in one container.

    Attributes:
        kind: "list", "dict" or "named", a NamedTuple.
        tensors: the arguments.
        direct: device code reads it where it is, `pack0[1][t]`, not by names of host code.
        remade: host code makes another one of it first, by a comprehension over its tensors.
    """

    name: str
    kind: str
    tensors: list[str]
    direct: bool
    remade: str = ""

    @property
    def reads(self) -> dict[str, str]:
        """How each is reached."""
        forms = {"list": "{0}[{1}]", "dict": '{0}["{2}"]', "named": "{0}.{2}"}
        return {t: forms[self.kind].format(self.name, i, t) for i, t in enumerate(self.tensors)}


@dataclasses.dataclass
class View:
    """A view of an argument that host code makes, or the elements or places of some: `text` is how.

    Attributes:
        counted: how many there are follows from what the argument holds; `shape` is found out by inference.
    """

    name: str
    base: str
    text: str
    shape: list[str | int]
    counted: bool = False


@dataclasses.dataclass
class Block:
    """A block size registered in host code."""

    name: str
    extent: str


@dataclasses.dataclass
class Call:
    """Another call of the kernel: what is other than in the first one (see `calls`).

    Attributes:
        sizes, layouts, dtypes: by the name of a size or an argument.
        seed: added to those of random arguments.
    """

    sizes: dict[str, int] = dataclasses.field(default_factory=dict)
    layouts: dict[str, str] = dataclasses.field(default_factory=dict)
    dtypes: dict[str, torch.dtype] = dataclasses.field(default_factory=dict)
    seed: int = 0


@dataclasses.dataclass
class Program:
    """Everything that a script is printed from."""

    sizes: dict[str, int] = dataclasses.field(default_factory=dict)
    params: list[Param] = dataclasses.field(default_factory=list)
    scalars: dict[str, Scalar] = dataclasses.field(default_factory=dict)
    blocks: list[Block] = dataclasses.field(default_factory=list)
    closures: list[Closure] = dataclasses.field(default_factory=list)
    views: list[View] = dataclasses.field(default_factory=list)
    outputs: list[Output] = dataclasses.field(default_factory=list)
    loops: list[Loop] = dataclasses.field(default_factory=list)
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    calls: list[Call] = dataclasses.field(default_factory=list)
    packs: list[Pack] = dataclasses.field(default_factory=list)
    returns: str = ""
    early_return: str = ""
    defaults: bool = False  # the last numbers are left out in calls: their defaults are names of the module
    tuple_of_constants: str = ""  # how device code reaches `constexpr` numbers in one tuple: "names", "items"
    special: bool = False  # floats may be nan, infinite or -0.0
    specialize: list[str] = dataclasses.field(default_factory=list)
    names: dict[str, str] = dataclasses.field(default_factory=dict)
    seed: str = ""

    def extent(self, size: str | int) -> int:
        """The number of elements; of a number of blocks, what it is at most."""
        if isinstance(size, int):
            return size
        return self.sizes[size] if size in self.sizes else self.sizes[size.split("(")[1].split(",")[0]]

    def param(self, name: str) -> Param:
        return next(p for p in self.params if p.name == name)

    def evaluate(self, text: str) -> Any:
        """What host arithmetic comes to, on sizes, numbers and what arguments hold."""
        names: dict[str, Any] = {**self.sizes, **{n: s.value for n, s in self.scalars.items()}}
        for name in set(re.findall(r"\bx\d+\b", text)):
            p = self.param(name)
            names[name] = tensor([self.extent(s) for s in p.shape], p.dtype, p.low, p.high, p.step, p.seed, p.layout)
        return eval(text, names)

    def statements(self, loops: list[Loop] | None = None) -> Iterator[Statement]:
        """All statements, of some top-level loops or of all, in order of the text."""

        def below(block: list[Any]) -> Iterator[Statement]:
            for s in block:
                yield s
                for inner in s.blocks():
                    yield from below(inner)

        yield from below(self.loops if loops is None else loops)

    def expressions(self) -> Iterator[Expr]:
        for s in self.statements():
            for e in s.expressions():
                yield from walk(e)

    def slots(self) -> list[str]:
        """What the entries of `block_sizes` stand for: registered sizes, then loop variables without a size."""
        names = [b.name for b in self.blocks]
        for s in self.statements([loop for loop in self.loops if self.runs(loop) for _ in range(1 + bool(loop.twins))]):
            for spec in getattr(s, "axes", ()):
                if spec.block is None and getattr(s, "kind", "") in ("tile", "jagged"):
                    names.append(spec.name)
        return names

    def registered_size(self, name: str) -> int | None:
        """What a registered block size is, once there is a Config."""
        sizes, names = self.config.get("block_sizes"), self.slots()
        return None if sizes is None or names.index(name) >= len(sizes) else int(sizes[names.index(name)])

    def block_of(self, spec: Any) -> int | None:
        """The block size of a loop variable, once there is a Config."""
        if isinstance(spec.block, int):
            return spec.block
        if isinstance(spec.block, str) and "(" in spec.block:
            names = {"n": None} | self.sizes | {s.name: int(s.value) for s in self.scalars.values()}
            return int(eval(spec.block, {"helion": helion}, names))
        sizes = self.config.get("block_sizes")
        name = spec.block or spec.name
        slots = self.slots()
        if sizes is None or name not in slots or slots.index(name) >= len(sizes):
            return None
        return int(sizes[slots.index(name)])

    def steps(self) -> int:
        """Statements that ref mode runs, about: it takes one tile after the other."""

        def of(statement: Statement) -> int:
            times = 1
            for spec in getattr(statement, "axes", ()):
                tiles = getattr(statement, "kind", "tile") in ("tile", "jagged")
                block = self.block_of(spec) or spec.length if tiles else 1
                times *= -(-spec.length // max(block, 1))
            return times * (1 + sum(of(s) for block in statement.blocks() for s in block))

        return sum(of(loop) for loop in self.loops)

    def viewed(self, v: View, base: Memory) -> Memory:
        """What is known of a view of a tensor."""
        if not v.counted:
            return dataclasses.replace(base, shape=tuple(self.extent(s) for s in v.shape))
        found = self.evaluate(f"{v.base}{v.text}")
        v.shape = list(found.shape)
        if found.dtype is base.dtype:
            return dataclasses.replace(base, shape=tuple(found.shape))
        most = max(base.shape[0] - 1, 0) if v.text.startswith(".nonzero") else 1 << 31
        return Memory(found.dtype, tuple(found.shape), 0, most, 1)

    def work(self) -> float:
        """Elements that a thread of a GPU computes in one go, about, which is what a compiler's time follows."""
        threads = 32 * self.config.get("num_warps", 4)
        blocks: dict[str, int] = {}

        def length(dim: Dim) -> int:
            return 1 << (max(dim.size if dim.axis is None else blocks.get(dim.axis, dim.size), 1) - 1).bit_length()

        def of(statement: Statement) -> float:
            times = 1
            for spec in getattr(statement, "axes", ()):
                if getattr(statement, "kind", "") in ("tile", "jagged"):
                    blocks[spec.name] = self.block_of(spec) or spec.length
                elif getattr(statement, "kind", "") == "static_range":
                    times *= max(spec.length, 1)
            found = [e.value for outer in statement.expressions() for e in walk(outer) if e.value is not None]
            own = sum(max(1.0, math.prod(map(length, value.dims)) / threads) for value in found)
            return times * (own + sum(of(s) for block in statement.blocks() for s in block))

        return sum(of(loop) for loop in self.loops)

    def infer(self) -> dict[str, Memory]:
        """What is known of every tensor in the end.

        Raises:
            Invalid: this is no program.
        """
        env = Env(self)
        for p in self.params:
            shape = tuple(self.extent(s) for s in p.shape)
            low, high, step = p.low * p.step, p.high * p.step, p.step
            if p.fill == "permutation":
                low, high = 0, max(shape[0] - 1, 0)
            if (
                p.dtype.is_floating_point
                and (torch.tensor([low, high], dtype=p.dtype).double() != torch.tensor([low, high]).double()).any()
            ):
                raise Invalid("inputs that the dtype does not hold")
            env.memory[p.name] = Memory(p.dtype, shape, low, high, step, written=p.written)
        for v in self.views:
            if self.param(v.base).written:
                raise Invalid("a view of what is written")
            env.memory[v.name] = self.viewed(v, env.memory[v.base])
        for o in self.outputs:
            fill = 7 if o.fill == "full" else 0
            env.memory[o.name] = Memory(o.dtype, tuple(self.extent(s) for s in o.shape), fill, fill, 1, written=True)
            env.memory[o.name].defined = o.fill != "empty"
        if not self.loops:
            raise Invalid("no loop")
        for i, loop in enumerate(self.loops):
            if i == 0 and loop.barrier:
                raise Invalid("a barrier before the first loop")
            loop.infer_all(env if self.runs(loop) else env.copy())
        if not all(m.defined for m in env.memory.values()):
            raise Invalid("a result that nothing wrote")
        return {name: m for name, m in env.memory.items() if m.written}

    def runs(self, loop: Loop) -> bool:
        """Whether host code comes by a top-level loop."""
        if not loop.when:
            return True
        return bool(self.evaluate(loop.when))

    def weight(self) -> int:
        """How much of a program it is: what shrinking makes smaller."""
        total = sum(10 for _ in self.statements()) + sum(3 for _ in self.expressions())
        total += sum(5 + 2 * len(p.shape) for p in self.params) + 4 * len(self.scalars) + 6 * len(self.outputs)
        total += sum(5 * bool(loop.when) + 5 * len(loop.twins) for loop in self.loops)
        total += sum(4 + 2 * (len(c.sizes) + len(c.layouts) + len(c.dtypes)) for c in self.calls)
        total += bool(self.returns) + bool(self.tuple_of_constants) + sum(2 + len(p.tensors) for p in self.packs)
        total += 2 * len(self.names) + 4 * len(self.closures) + 3 * len(self.views)
        total += 3 * len(self.config) + 2 * len(self.settings) + 4 * len(self.blocks)
        total += sum(math.ceil(math.log2(1 + n)) for n in self.sizes.values())
        return total
