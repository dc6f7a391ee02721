"""A program as text: the kernel, the reference in PyTorch, the arguments, and the script of all three."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

from helion import fragments

from . import inputs
from . import whole
from .calls import other
from .control import Loop
from .inlined import CLOSURES
from .program import Param
from .program import Program
from .program import Scalar
from .statements import Statement
from .table import ROWS
from .table import Expr
from .values import Dim

_INFIX = (
    " + ",
    " - ",
    " * ",
    " / ",
    " // ",
    " % ",
    " < ",
    " <= ",
    " > ",
    " >= ",
    " == ",
    " != ",
    " & ",
    " | ",
    " ^ ",
    " << ",
    " >> ",
    " @ ",
)


class Printer:
    """Lines of one function.

    Args:
        program: it has been inferred, so that every expression knows its value.
        oracle: print the reference instead of the kernel.
    """

    def __init__(self, program: Program, oracle: bool) -> None:
        self.program, self.oracle = program, oracle
        self.lines: list[str] = []
        self.depth = 1
        self.helpers: set[str] = set()
        self.program_values: dict[str, Any] = {}
        self._lengths: dict[str, str] = {}
        self._spans: dict[str, tuple[str, str, str]] = {}

    def line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    def needs(self, helper: str) -> None:
        """The source of a function that the text calls."""
        self.helpers.add(helper)

    def lengths_of(self, axis: str) -> str:
        """The variable with the lengths of the rows that a jagged loop runs over; "" for other loops."""
        return self._lengths.get(axis, "")

    def dtype_of(self, name: str) -> Any:
        return self.program_values[name]

    def span(self, axis: str) -> tuple[str, str, str]:
        """Begin, end and block size of a loop variable, as texts."""
        return self._spans[axis]

    @contextlib.contextmanager
    def indented(self) -> Iterator[None]:
        self.depth += 1
        yield
        self.depth -= 1

    def block(self, statements: Sequence[Statement]) -> None:
        with self.indented():
            if not statements:
                self.line("pass")
            for s in statements:
                s.print(self)
                self._note(s)

    def _note(self, s: Statement) -> None:
        value = getattr(s, "value", None)
        if isinstance(value, Expr) and value.value is not None and hasattr(s, "name") and type(s).__name__ == "Assign":
            self.program_values[s.name] = value.value.dtype

    def expr(self, e: Expr, nested: bool = False) -> str:
        row = ROWS[e.op]
        args = [self.expr(a, nested=True) for a in e.args]
        text = row.oracle(e, args, self) if self.oracle else row.kernel(e, args, self)
        return f"({text})" if nested and _is_infix(text) else text

    def shape(self, dims: Sequence[Dim]) -> str:
        """A shape: tiles by name, in the reference by length."""
        names = {n: name for name, n in self.program.sizes.items()}
        texts = []
        for d in dims:
            if d.axis is None:
                texts.append(names.get(d.size, str(d.size)) if not self.oracle else str(d.size))
            else:
                texts.append(f"{d.axis}.stop - {d.axis}.start" if self.oracle else d.axis)
        return f"[{', '.join(texts)}]"

    def shape_read(self, dims: Sequence[Dim]) -> str:
        """A shape of tiles, and of sizes as they stand at an argument: `[t0, x1.size(0)]`."""
        names = {n: name for name, n in self.program.sizes.items()}
        texts = []
        for d in dims:
            name = names.get(d.size) if d.axis is None else None
            found = [x for x in self.program.params if name in x.shape]
            if not found or name in self.program.specialize:
                texts.append(self.shape([d])[1:-1])
            else:
                at = found[-1].shape.index(name)
                texts.append(f"{found[-1].name}.{f'size({at})' if len(found) % 2 else f'shape[{at}]'}")
        return f"[{', '.join(texts)}]"

    def loop(self, loop: Loop) -> None:
        if self.oracle:
            self._oracle_loop(loop)
            return
        if loop.barrier:
            self.line("hl.barrier()")
        begins, ends = ([getattr(s, w).text(False) for s in loop.axes] for w in ("begin", "end"))
        names = ", ".join(s.name for s in loop.axes)
        several = len(loop.axes) > 1
        listed = [f"[{', '.join(b)}]" if several else b[0] for b in (begins, ends)]
        given = [str(listed[1])] if all(b == "0" for b in begins) else [str(t) for t in listed]
        if loop.kind == "jagged":
            given = [loop.axes[0].end.spec[1]]
        if loop.kind in ("tile", "jagged") and any(s.block is not None for s in loop.axes):
            blocks = [str(s.block) for s in loop.axes]
            given.append(f"block_size={'[' + ', '.join(blocks) + ']' if several else blocks[0]}")
        if any(s.step != 1 for s in loop.axes):
            given.append(f"step={loop.axes[0].step}")
        call = {
            "tile": "hl.tile",
            "grid": "hl.grid",
            "jagged": "hl.jagged_tile",
            "static_range": "hl.static_range",
            "range": "range",
        }
        self.line(f"for {names} in {call[loop.kind]}({', '.join(given)}):")
        self.block(loop.body)

    def _oracle_loop(self, loop: Loop) -> None:
        depth = self.depth
        for spec in loop.axes:
            begin, end = spec.begin.text(True), spec.end.text(True)
            if loop.kind == "jagged":
                self._lengths[spec.name] = end
                begin, end = "0", f"int({end}.max()) if {end}.numel() else 0"
            block = f"BLOCK_{spec.name}"
            self._spans[spec.name] = (begin, end, block)
            if loop.kind in ("tile", "jagged"):
                if loop.chunked:
                    self.line(f"for {spec.name} in chunks({begin}, {end}, {block}):")
                else:
                    self.line(f"for {spec.name} in whole({begin}, {end}):")
            else:
                step = "" if spec.step == 1 else f", {spec.step}"
                self.line(f"for {spec.name} in range({begin}, {end}{step}):")
            self.depth += 1
        self.depth -= 1
        self.block(loop.body)
        self.depth = depth


def _is_infix(text: str) -> bool:
    """Whether an operator stands outside of all brackets."""
    if text.startswith(("-", "~")):
        return True
    depth, bare = 0, []
    for c in text:
        depth += (c in "([{") - (c in ")]}")
        bare.append(c if depth == 0 else "_")
    return any(op in "".join(bare) for op in _INFIX)


def _sizes(program: Program, oracle: bool) -> Iterator[str]:
    used = set()
    for name, n in program.sizes.items():
        source = next(((p.name, p.shape.index(name)) for p in program.params if name in p.shape), None)
        if name in used:
            continue
        if source is None:
            yield f"{name} = {n}"
        elif not oracle and name in program.specialize:
            yield f"{name} = hl.specialize({source[0]}.size({source[1]}))"
        else:
            yield f"{name} = {source[0]}.size({source[1]})"


def _numbers_of_host_code(p: Printer) -> None:
    """Tunables, and numbers that host code computes."""
    program, oracle = p.program, p.oracle
    for s in program.scalars.values():
        if s.origin == "tunable":
            p.line(f"{s.name} = {s.value}" if oracle else f'{s.name} = hl.register_tunable("{s.name}", {s.reference})')
        elif " if " in s.origin:
            then, rest = s.origin.split(" if ")
            test, other = rest.split(" else ")
            for word, value in ((f"if {test}:", then), ("else:", other)):
                p.line(word)
                with p.indented():
                    p.line(f"{s.name} = {value}")
        elif s.origin not in ("argument", "constexpr"):
            p.line(f"{s.name} = {s.origin}")


def _function(program: Program, oracle: bool) -> tuple[str, set[str]]:
    p = Printer(program, oracle)
    head = []
    for param in _unpacked(program):
        head.append(param.name if oracle else f"{param.name}: torch.Tensor")
    head += [pack.name for pack in program.packs]
    for pack in program.packs:
        if pack.remade and not oracle:
            p.line(f"{pack.name} = [{pack.remade} for each in {pack.name}]")
        for name, text in pack.reads.items():
            if oracle or not pack.direct:
                p.line(f"{name} = {text}")
    head += [c.name for c in program.closures]
    constants = _constants(program)
    if constants:
        head.append("constants" if oracle else "constants: hl.constexpr")
        if oracle or program.tuple_of_constants == "names":
            p.line(f"{', '.join(constants)}, = constants")
    for s in program.scalars.values():
        if s.origin in ("argument", "constexpr") and s.name not in constants:
            default = f" = DEFAULT_{s.name}" if s in _left_out(program) else ""
            head.append((f"{s.name}: hl.constexpr" if s.origin == "constexpr" and not oracle else s.name) + default)
    for text in _sizes(program, oracle):
        p.line(text)
    for v in program.views:
        p.line(f"{v.name} = {v.base}{v.text}")
    for block in program.blocks:
        if not oracle:
            p.line(f"{block.name} = hl.register_block_size({block.extent})")
        elif any(block.name in str(size) for o in program.outputs for size in o.shape):
            p.line(f"{block.name} = {program.registered_size(block.name)}")
    _numbers_of_host_code(p)
    if oracle:
        for statement in program.statements():
            for spec in getattr(statement, "axes", ()) if getattr(statement, "chunked", False) else ():
                if getattr(statement, "kind", "") in ("tile", "jagged"):
                    p.line(f"BLOCK_{spec.name} = {program.block_of(spec)}")
        for param in program.params:
            if param.written:
                p.line(f"{param.name} = {param.name}.clone(){'.double()' if param.dtype.is_floating_point else ''}")
    device = "" if oracle else f", device={program.params[0].name}.device"
    for o in program.outputs:
        dtype = "torch.float64" if oracle and o.dtype.is_floating_point else str(o.dtype)
        shape = f"[{', '.join(map(str, o.shape))}]"
        make = f"torch.full({shape}, 7, " if o.fill == "full" else f"torch.{'zeros' if oracle else o.fill}({shape}, "
        p.line(f"{o.name} = {make}dtype={dtype}{device})")
    returned = [o.name for o in program.outputs]
    if oracle:
        returned += [x.name for x in program.params if x.written]
    result = f"({', '.join(returned)},)" if oracle else _results(program, returned)
    if program.early_return:
        p.line(f"if {program.early_return}:")
        with p.indented():
            p.line(f"return {result}".rstrip())
    for loop in program.loops:
        if loop.when:
            p.line(f"if {loop.when}:")
            p.depth += 1
        _top_loop(p, loop)
        p.depth -= bool(loop.when)
    if returned:
        p.line(f"return {result}")
    name = "reference" if oracle else "kernel"
    text = "\n".join(p.lines)
    for pack in () if oracle else program.packs:
        if pack.direct:
            text = re.sub(r"\bx\d+\b", lambda m, reads=pack.reads: reads.get(m[0], m[0]), text)  # type: ignore[misc]
    if constants and not oracle and program.tuple_of_constants == "items":
        items = {name: f"constants[{i}]" for i, name in enumerate(constants)}
        text = re.sub(r"\bs\d+\b", lambda m: items.get(m[0], m[0]), text)
    return f"def {name}({', '.join(head)}):\n{text}", p.helpers


def _top_loop(p: Printer, loop: Loop) -> None:
    """A top-level loop, in a loop of host code where there are tensors to do it for again."""
    if not loop.twins:
        loop.print(p)
        return
    if loop.barrier and not p.oracle:
        p.line("hl.barrier()")
    pairs = ", ".join(f"({name}, {twin})" for name, twin in loop.twins.items())
    several = len(loop.twins) > 1
    names = {name: f"each_{name}" for name in loop.twins}
    p.line(f"for {', '.join(names.values())} in {f'zip({pairs})' if several else pairs}:")
    begin = len(p.lines)
    with p.indented():
        dataclasses.replace(loop, barrier=False).print(p)
    p.lines[begin:] = [re.sub(r"\b(?:x|out)\d+\b", lambda m: names.get(m[0], m[0]), line) for line in p.lines[begin:]]


def _constants(program: Program) -> list[str]:
    """The numbers that are passed in one tuple."""
    return [s.name for s in program.scalars.values() if s.origin == "constexpr"] if program.tuple_of_constants else []


def _unpacked(program: Program) -> list[Param]:
    packed = {t for pack in program.packs for t in pack.tensors}
    return [p for p in program.params if p.name not in packed]


def _results(program: Program, names: list[str]) -> str:
    """What the kernel returns."""
    if program.returns == "list":
        return f"[{', '.join(names)}]"
    if program.returns == "dict":
        return "{" + ", ".join(f'"{n}": {n}' for n in names) + "}"
    return f"Results({', '.join(names)})" if program.returns == "named" else ", ".join(names)


def _argument(program: Program, p: Param) -> str:
    shape = [program.extent(s) for s in p.shape]
    dtype = "" if p.fill == "random" or p.dtype.itemsize == 8 else f", {p.dtype}"
    if p.fill == "permutation":
        return f"permutation({shape[0]}{dtype}, seed={p.seed})"
    if p.fill == "offsets":
        return f"offsets({shape[0] - 1}, {p.high}{dtype}, seed={p.seed})"
    layout = "" if p.layout == "contiguous" else f', layout="{p.layout}"'
    step = "" if p.step == 1 else f", step={p.step}"
    special = ", special=True" if p.fill == "special" else ""
    return f"tensor({shape}, {p.dtype}, {p.low}, {p.high}{step}, seed={p.seed}{layout}{special})"


def _arguments(program: Program) -> list[str]:
    """The arguments of a call, as texts."""
    arguments = [_argument(program, p) for p in _unpacked(program)]
    for pack in program.packs:
        made = [_argument(program, program.param(t)) for t in pack.tensors]
        inside = (
            ", ".join(f'"{t}": {m}' for t, m in zip(pack.tensors, made)) if pack.kind == "dict" else ", ".join(made)
        )
        arguments.append(
            {"list": f"[{inside}]", "dict": f"{{{inside}}}", "named": f"{pack.name.title()}({inside})"}[pack.kind]
        )
    arguments += [f"make_{c.name}({_argument(program, program.param(c.tensor))})" for c in program.closures]
    constants = _constants(program)
    if constants:
        arguments.append(f"({', '.join(repr(program.scalars[name].value) for name in constants)},)")
    left_out = _left_out(program)
    return arguments + [repr(s.value) for s in _numbers(program) if s not in left_out]


def _numbers(program: Program) -> list[Scalar]:
    """The numbers that are parameters of their own."""
    constants = _constants(program)
    return [s for s in program.scalars.values() if s.origin in ("argument", "constexpr") and s.name not in constants]


def _left_out(program: Program) -> list[Scalar]:
    """Those of them that calls leave out."""
    numbers = _numbers(program)
    return numbers[len(numbers) // 2 :] if program.defaults else []


def _errors(program: Program) -> dict[str, float]:
    results = program.infer()
    names = [o.name for o in program.outputs] + [p.name for p in program.params if p.written]
    return {n: float(f"{results[n].error:.3g}") for n in names}


def _call(program: Program, suffix: str) -> str:
    """What belongs to one call: reference, arguments and errors."""
    reference, _ = _function(program, True)
    given = "".join(f"        {a},\n" for a in _arguments(program))
    return (
        f"\n\n{reference.replace('def reference(', f'def reference{suffix}(')}\n\n"
        f"\ndef arguments{suffix}():\n    return (\n{given}    )\n\n"
        f"\nERRORS{suffix} = {_errors(program)!r}  # the largest error of each result; 0: equal"
    )


def script(program: Program, title: str = "") -> str:
    """The program as a module: `kernel`, `reference`, `arguments`, how to run and compare them, and further calls."""
    program.infer()
    kernel, helpers = _function(program, False)
    _, more = _function(program, True)
    closures = {
        f"def make_{c.name}(captured):\n    def {c.name}(value, tile):\n"
        f"        return {CLOSURES[c.form]}\n\n    return {c.name}"
        for c in program.closures
    }
    classes = {pack.name.title(): pack.tensors for pack in program.packs if pack.kind == "named"}
    if program.returns == "named":
        classes["Results"] = [o.name for o in program.outputs]
    closures |= {
        f"class {name}(NamedTuple):\n" + "\n".join(f"    {n}: torch.Tensor" for n in fields)
        for name, fields in classes.items()
    }
    defaults = "".join(f"DEFAULT_{s.name} = {s.value!r}\n" for s in _left_out(program))
    calls = [_call(program, "")]
    for call in program.calls:
        changed = other(program, call)
        if changed is not None and _function(changed, False)[0] == kernel:
            calls.append(_call(changed, f"_{len(calls)}"))
    listed = ", ".join(f"(arguments_{i}, reference_{i}, ERRORS_{i})" for i in range(1, len(calls)))
    text = "\n".join(
        (
            "".join(f"\n{h}\n\n" for h in sorted(helpers | more | closures)),
            f"{defaults}\n{kernel}",
            *calls,
            f"WRITTEN = {[p.name for p in program.params if p.written]!r}",
            f"CALLS = [{listed}]",
        )
    )
    # The keys of a Config are no variables, and whether there is one yet must not change the names.
    text = f"{_renamed(text, program.names)}\nSETTINGS = {program.settings!r}\nCONFIG = {dict(program.config)!r}"
    head = f'"""{title or "A generated program."}"""\n\nfrom __future__ import annotations\n\nimport torch\n'
    return f"{head}\n{_imports(text)}\n{text}\n"


def _renamed(text: str, names: dict[str, str]) -> str:
    """The text with other names of variables, where those mean nothing in it yet."""
    used = set(re.findall(r"\w+", text))
    free = {old: new for old, new in names.items() if new not in used}
    return re.sub(r"\b(" + "|".join(free) + r")\b", lambda m: free[m[0]], text) if free else text


def _imports(text: str) -> str:
    """Imports of what a text uses."""
    used = set(re.findall(r"\w+", text))
    lines = ["from typing import NamedTuple"] if "NamedTuple" in used else []
    lines += ["import helion"] if "helion" in used else []
    lines.append("import helion.language as hl")
    for module in (fragments, inputs, whole):
        names = [n for n in sorted(used) if getattr(getattr(module, n, None), "__module__", "") == module.__name__]
        lines += [f"from {module.__name__} import {n}" for n in names]
    return "\n".join(lines)
