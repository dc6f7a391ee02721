"""Printing the host function: the user's host statements around the launch.

Shared by all backends; they differ only in the launch statements they pass in. What the launch writes decides two
things: tensors that the caller has had before get their version counters advanced, and outputs may come from the output
    pool.
"""

from __future__ import annotations

import ast
import math
import re
import types
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import TypeVar

import sympy
import torch

from .. import exc
from .._locks import cached_property
from .._parsing import parse_expression
from ..ir.device_ir import KernelIR
from ..ir.nodes import HostTensorNode
from ..ir.symbols import OriginKind
from ..language.op import Op
from .expressions import ExpressionPrinter
from .expressions import names_in
from .expressions import print_number

_Node = TypeVar("_Node", bound=ast.AST)
#: Functions of Python's that printed expressions call, which the user's function may call something else.
_BUILTINS = frozenset({"min", "max", "int", "float", "round", "abs"})


class HostPrinter:
    """Prints host expressions and the host function of one specialization.

    Args:
        ir: the specialization.
        constants: value of each block-size and tunable symbol under the Config being printed.
        pool: outputs come from the output pool: their allocations are printed as those of helion.runtime.
    """

    def __init__(self, ir: KernelIR, constants: dict[sympy.Symbol, int], *, pool: bool = False) -> None:
        self.ir = ir
        self.constants = constants
        self._hoisted: dict[str, str] = {}
        self._parameters = {name for name, _ in ir.host.parameters}
        self._fresh = _allocated_names(ir)
        self._pooled = self._fresh & _returned_names(ir) & set(self.written) if pool else set()
        self._printer = ExpressionPrinter(self.symbol)
        self._runtime: set[str] = set()
        self._functions: dict[str, Any] = {}
        self._math = False
        own = ir.host.assigned | self._parameters
        self.taken = own | set(ir.host.globals)
        shadowed = [*(_BUILTINS & self.taken), *({"math"} & own)]
        self._spelled = {name: "_math" if name == "math" else f"_builtins.{name}" for name in shadowed}
        self._decided = next(name for i in range(99) if (name := "decided" + "_" * i) not in self.taken)
        self._checks = dict.fromkeys(ir.host.tests, self._decided)

    # -- expressions ------------------------------------------------------------------------------------------------

    def symbol(self, symbol: sympy.Symbol) -> str:
        """The host expression a symbol stands for."""
        if symbol in self.constants:
            return str(self.constants[symbol])
        origin = self.ir.device.space.origins.get(symbol)
        if origin is None or origin.kind is not OriginKind.HOST:
            raise exc.InternalError(reason=f"symbol {symbol} has no value on the host")
        if origin.function is not None:
            name = f"_computed_{origin.name}"
            self._functions[name] = origin.function
            return f"{name}({', '.join(map(self._printer.doprint, origin.args))})"
        if origin.args:
            return origin.host_text(self._printer.doprint)
        root = origin.text.split(".")[0].split("[")[0]
        if origin.once or root in self.ir.host.assigned:
            # The function rebinds the parameter: its size at entry is saved first, or its value, under another name.
            name = origin.name
            while name in self.ir.host.assigned or name in self._parameters:
                name += "_given"
            self._hoisted.setdefault(name, origin.text)
            return name
        return origin.text

    def number(self, value: Any) -> str:
        """A number known on the host, as a host expression."""
        return self._noted(print_number(value, self._printer))

    def expression(self, expr: sympy.Expr) -> str:
        """As `number`, for a sympy expression."""
        return self._noted(str(self._printer.doprint(expr)))

    def runtime(self, name: str) -> str:
        """What generated code calls a function of ``helion.runtime``, which is imported from here on."""
        self._runtime.add(name)
        return f"_{name}"

    def multiprocessors(self, tensor: str, reserved: int) -> str:
        """How many multiprocessors the device of a tensor has for a kernel, `reserved` of them left alone."""
        options = f", reserved_sms={reserved}" if reserved else ""
        return f"{self.runtime('get_num_sm')}({tensor}.device{options})"

    def runtime_imports(self) -> list[str]:
        """Import lines for what the printed text uses of ``helion.runtime``, and of ``math`` in numbers."""
        imports = [f"from helion.runtime import {name} as _{name}" for name in sorted(self._runtime)]
        builtins = ["import builtins as _builtins"] if self._spelled.keys() - {"math"} else []
        return [*builtins, *([f"import math{' as _math' * ('math' in self._spelled)}"] if self._math else []), *imports]

    def builtin(self, name: str) -> str:
        """What printed text calls a function of Python's."""
        return self._spelled.get(name, name)

    def _noted(self, number: str) -> str:
        self._math = self._math or ("math" in number and "math" in names_in(number))
        if self._spelled:
            return ast.unparse(_Respelled(self._spelled).visit(parse_expression(number)))
        return number

    # -- the function
    # ---------------------------------------------------------------------------------------------------

    def function(self, launch: Sequence[str], launcher: str) -> list[str]:
        """Lines of the host function.

        Args:
            launch: statements that launch the kernel, in place of the device loops.
            launcher: default of the `_launcher` keyword, as text.
        """
        body: list[str] = []
        prelude = [line for s in self.ir.host.prelude for line in self.statement(s)]
        epilogue = [line for s in self.ir.host.epilogue for line in self.statement(s)]
        body.extend(f"{name} = {text}" for name, text in self._hoisted.items())
        body.extend(f"{name} = 0" for name in self._maybe_read())
        if self.ir.host.decisions:
            outcomes = ", ".join(str(outcome) for _, outcome in self.ir.host.decisions)
            body.append(f"{self._decided} = {self.runtime('decisions')}({outcomes})")
        body.extend(prelude)
        for check in self.ir.host.checks:
            condition = self.expression(check)
            body.append(f"{self.runtime('check_read')}({condition}, {self._in_users_terms(condition)!r})")
        if (seeds := self.ir.host.seeds) is not None:
            body.append(f"{seeds.name} = {self.runtime('torch_seeds')}({seeds.count}, {seeds.beside}.device)")
        body.extend(launch)
        body.extend(epilogue)
        self._check_names(launcher)
        parameters = [name if default is None else f"{name}={default}" for name, default in self.ir.host.parameters]
        head = f"def {self.ir.name}({', '.join([*parameters, '*', f'_launcher={launcher}'])}):"
        return [head, *(f"    {line}" for line in body)]

    def _maybe_read(self) -> list[str]:
        """Names of numbers that host code does not read in every call, `b.item()` in `a.item() and b.item()`: what is
        computed from them does not depend on them then."""
        found: list[str] = []
        if not any(kind == "read" for kind, _ in self.ir.host.rewrites.values()):
            return found
        for part in (part for statement in self.ir.host.prelude for part in self.ir.host.nodes[statement]):
            maybe = part.values[1:] if isinstance(part, ast.BoolOp) else []
            maybe = [part.body, part.orelse] if isinstance(part, ast.IfExp) else maybe
            maybe = part.comparators[1:] if isinstance(part, ast.Compare) else maybe
            rewrites = (self.ir.host.rewrites.get(node) for operand in maybe for node in ast.walk(operand))
            found += [rewrite[1][0] for rewrite in rewrites if rewrite is not None and rewrite[0] == "read"]
        return list(dict.fromkeys(found))

    def _check_names(self, launcher: str) -> None:
        """Refuse names of the user's that the printed function needs for itself."""
        ours = {
            "_launcher",
            launcher,
            f"_{self.ir.name}_kernel",
            "_math",
            "_builtins",
            *(f"_{n}" for n in self._runtime),
        }
        for name in sorted(ours & (self.ir.host.assigned | self._parameters)):
            raise exc.InvalidAPIUsage(
                f"generated code has a name of its own {name!r}", fix="give the variable or parameter another name."
            )

    @cached_property
    def written(self) -> list[str]:
        """Host expressions of the tensors that device code writes, in order of first use."""
        effects = self.ir.device.calling(lambda target: isinstance(target, Op) and target.has_side_effect)
        hosts = [HostTensorNode.match(node) for effect in effects for node in effect.all_input_nodes]
        names = dict.fromkeys(host.name for host in hosts if host is not None)
        return [self.ir.device.host_tensors[name].text for name in names]

    def _in_users_terms(self, condition: str) -> str:
        """A printed condition with what the user wrote in place of names that were made for it."""
        texts = {value[0]: ast.unparse(node) for node, (kind, value) in self.ir.host.rewrites.items() if kind == "read"}
        shown = re.sub(r"\b_read_\d+\b", lambda found: texts.get(found[0], found[0]), condition)
        return re.sub(r"\b_computed_([a-z_]+?)(_\d+)?\(", r"\1(", shown)

    def after_launch(self) -> list[str]:
        """Statements that follow the launches: autograd is told of the tensors written that existed before the call."""
        changed = [text for text in self.written if text not in self._fresh]
        return [f"{self.runtime('increment_version')}({', '.join(changed)})"] if changed else []

    def statement(self, node: ast.stmt) -> list[str]:
        """One of the user's statements, with the language's host calls replaced by what they stand for."""
        if self._is_rewritten(node):
            rewriter = _Rewriter(self.ir.host.rewrites, self._replacement, self._pooled_allocation, self._checks)
            node = ast.fix_missing_locations(rewriter.visit(_copy_with_marks(node)))
        return ast.unparse(node).splitlines()

    def _is_rewritten(self, statement: ast.stmt) -> bool:
        """Whether anything of a statement is printed as something else."""
        if not (self.ir.host.tests or self.ir.host.rewrites or hasattr(statement, "body")):
            return isinstance(statement, (ast.AnnAssign, *([ast.Assign] if self._pooled else [])))
        return any(
            node in self.ir.host.tests or node in self.ir.host.rewrites
            if isinstance(node, ast.expr)
            else isinstance(node, ast.AnnAssign) or (bool(self._pooled) and isinstance(node, ast.Assign))
            for node in self.ir.host.nodes[statement]
        )

    def _replacement(self, node: ast.Call, kind: str, value: Any) -> ast.expr:
        if kind == "number":
            return parse_expression(self.number(value))
        if kind == "read":
            name, number = value
            text: Any = ast.Constant(ast.unparse(getattr(node, "_original", node)))
            checked = ast.Call(
                ast.Name(self.runtime("checked_number"), ast.Load()), [node, ast.Constant(number), text], []
            )
            return ast.NamedExpr(ast.Name(name, ast.Store()), checked)
        if kind == "made":
            contiguous = ast.Call(ast.Name(self.runtime("contiguous"), ast.Load()), [node], [])
            return ast.NamedExpr(ast.Name(value, ast.Store()), contiguous)
        if kind == "specialize":
            return node.args[0]
        if kind == "broadcast" and len({tuple(map(str, shape)) for shape in value}) == 1:
            return ast.Tuple(elts=list(node.args), ctx=ast.Load())  # equal shapes: nothing to broadcast
        return node

    def _pooled_allocation(self, target: str, call: ast.expr) -> ast.expr:
        """``torch.empty_like(x)`` and its like with the function of ``helion.runtime`` that asks the pool, where the
        result may come from there; others as they are.
        """
        if target not in self._pooled or not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            return call
        name, given = call.func.attr, call.args
        if name == "new_empty":
            given = [call.func.value, *given]
        elif ast.unparse(call.func) not in ("torch.empty", "torch.empty_like"):
            return call
        return ast.Call(ast.Name(self.runtime(name), ast.Load()), given, call.keywords)

    # -- names from outside
    # ------------------------------------------------------------------------------------------------

    def imports_and_globals(self) -> tuple[list[str], dict[str, Any]]:
        """Import lines for the modules the statements use, and the other objects to put into the module."""
        lines: list[str] = []
        injected: dict[str, Any] = dict(self._functions)
        for name, value in self.ir.host.globals.items():
            if value is torch and name == "torch":
                continue
            if isinstance(value, types.ModuleType):
                plain = value.__name__ == name
                lines.append(f"import {value.__name__}" if plain else f"import {value.__name__} as {name}")
            elif isinstance(value, torch.dtype):
                lines.append(f"{name} = {value}")
            elif type(value) in (bool, int, str, type(None)) or (type(value) is float and math.isfinite(value)):
                lines.append(f"{name} = {value!r}")
            else:
                injected[name] = value
        if injected:
            lines.append(f"# from the kernel function's module: {', '.join(injected)}")
        return lines, injected


def _copy_with_marks(node: _Node) -> _Node:
    """A copy of a tree whose nodes remember the node they are copies of, in a third of the time of copy.deepcopy."""
    duplicate = type(node).__new__(type(node))  # from Python 3.15 on calling the type needs all fields
    for name, value in vars(node).items():
        if isinstance(value, ast.AST):
            value = _copy_with_marks(value)
        elif isinstance(value, list):
            value = [_copy_with_marks(item) if isinstance(item, ast.AST) else item for item in value]
        setattr(duplicate, name, value)
    duplicate._original = node  # type: ignore[attr-defined]
    return duplicate


class _Respelled(ast.NodeTransformer):
    """Calls of functions by other names, where a variable has theirs.

    Args:
        spelled: what the functions, or the modules that they are of, are called.
    """

    def __init__(self, spelled: Mapping[str, str]) -> None:
        self.spelled = spelled

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id != "math" and node.func.id in self.spelled:
            node.func = parse_expression(self.spelled[node.func.id])
        elif isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
            if node.func.value.id == "math" and hasattr(math, node.func.attr):  # not the size of a tensor of that name
                node.func.value.id = self.spelled.get("math", "math")
        return node


class _Rewriter(ast.NodeTransformer):
    def __init__(
        self,
        rewrites: dict[ast.AST, tuple[str, Any]],
        replacement: Callable[[Any, str, Any], ast.expr],
        allocation: Callable[[str, ast.expr], ast.expr],
        checks: Mapping[ast.expr, str],
    ) -> None:
        self.rewrites = rewrites
        self.replacement = replacement
        self.allocation = allocation
        self.checks = checks

    def visit(self, node: ast.AST) -> Any:
        original: Any = getattr(node, "_original", node)
        check = self.checks.get(original)
        new = super().visit(node)
        # A condition that only this call can answer: compared with what was taken for granted.
        return new if check is None else ast.Call(ast.Name(check, ast.Load()), [new], [])

    def _rewritten(self, node: ast.expr) -> ast.expr:
        self.generic_visit(node)
        original: Any = getattr(node, "_original", None)
        rewrite = self.rewrites.get(original)
        return node if rewrite is None else self.replacement(node, *rewrite)

    visit_Call = visit_Subscript = visit_Attribute = _rewritten
    visit_BinOp = visit_UnaryOp = visit_BoolOp = visit_Compare = visit_IfExp = _rewritten

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt:
        if node.value is None:
            return ast.Pass()
        return self.visit_Assign(ast.Assign(targets=[node.target], value=node.value))

    def visit_Assign(self, node: ast.Assign) -> ast.stmt:
        self.generic_visit(node)
        (target, *others) = node.targets
        if not others and isinstance(target, ast.Name):
            node.value = self.allocation(target.id, node.value)
        return node


# -- outputs
# -----------------------------------------------------------------------------------------------------------------

#: Functions of torch, and methods, that make a tensor nobody else has.
_ALLOCATING = re.compile(r"(torch\.|new_)(empty|zeros|ones|full)(_like|_strided)?")


def _allocates(function: ast.expr) -> bool:
    if not isinstance(function, ast.Attribute):
        return False
    of_torch = isinstance(function.value, ast.Name) and function.value.id == "torch"
    return _ALLOCATING.fullmatch(f"torch.{function.attr}" if of_torch else function.attr) is not None


def _allocated_names(ir: KernelIR) -> set[str]:
    """Local variables that only ever hold tensors which the host statements allocate themselves."""
    if ir.host.globals.get("torch") is not torch:
        return set()
    found: set[str] = set()
    others = {name for name, _ in ir.host.parameters}
    for statement in ir.host.prelude:
        for node in ir.host.nodes[statement]:
            if not isinstance(node, (ast.Assign, ast.AnnAssign, ast.For, ast.AugAssign, ast.NamedExpr)):
                continue
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            target = targets[0] if len(targets) == 1 and isinstance(node, (ast.Assign, ast.AnnAssign)) else None
            value = getattr(node, "value", None)
            if isinstance(target, ast.Name) and isinstance(value, ast.Call) and _allocates(value.func):
                found.add(target.id)
            else:
                others.update(name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))
    return found - others


def _returned_names(ir: KernelIR) -> set[str]:
    """Names that occur in what the host statements return."""
    inside = (node for s in ir.host.epilogue for node in ir.host.nodes[s])
    returns = [node for node in inside if isinstance(node, ast.Return) and node.value]
    return {name.id for node in returns for name in ast.walk(node) if isinstance(name, ast.Name)}
