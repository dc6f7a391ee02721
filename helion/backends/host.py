"""Printing the host function: the user's host statements around the launch.

Shared by all backends; they differ only in the launch statements they pass in.
"""

from __future__ import annotations

import ast
import copy
import math
import types
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import sympy
import torch

from .. import exc
from ..ir.device_ir import KernelIR
from ..ir.symbols import OriginKind
from .expressions import ExpressionPrinter
from .expressions import print_number


class HostPrinter:
    """Prints host expressions and the host function of one specialization.

    Args:
        ir: the specialization.
        constants: value of each block-size and tunable symbol under the Config being printed.
        origin_lines: comment statements with the user's file and line.
    """

    def __init__(self, ir: KernelIR, constants: dict[sympy.Symbol, int], origin_lines: bool) -> None:
        self.ir = ir
        self.constants = constants
        self.origin_lines = origin_lines
        self._hoisted: dict[str, str] = {}
        self._printer = ExpressionPrinter(self.symbol)

    # -- expressions ------------------------------------------------------------------------------------------------

    def symbol(self, symbol: sympy.Symbol) -> str:
        """The host expression a symbol stands for."""
        if symbol in self.constants:
            return str(self.constants[symbol])
        origin = self.ir.device.origins.get(symbol)
        if origin is None or origin.kind is not OriginKind.HOST:
            raise exc.InternalError(reason=f"symbol {symbol} has no value on the host")
        root = origin.text.split(".")[0].split("[")[0]
        if origin.once or root in self.ir.host.assigned:
            # The function rebinds the parameter: its size at entry is saved first.
            self._hoisted.setdefault(origin.name, origin.text)
            return origin.name
        return origin.text

    def number(self, value: Any) -> str:
        """A number known on the host, as a host expression."""
        return print_number(value, self._printer)

    # -- the function ---------------------------------------------------------------------------------------------------

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
        body.extend(prelude)
        body.extend(launch)
        body.extend(epilogue)
        parameters = [name if default is None else f"{name}={default}" for name, default in self.ir.host.parameters]
        head = f"def {self.ir.name}({', '.join([*parameters, '*', f'_launcher={launcher}'])}):"
        return [head, *(f"    {line}" for line in body)]

    def statement(self, node: ast.stmt) -> list[str]:
        """One of the user's statements, with the language's host calls replaced by what they stand for."""
        rewritten = _Rewriter(self.ir.host.rewrites, self._replacement).visit(_copy_with_marks(node))
        text = ast.unparse(ast.fix_missing_locations(rewritten))
        return text.splitlines()

    def _replacement(self, node: ast.Call, kind: str, value: Any) -> ast.expr:
        if kind == "number":
            return ast.parse(self.number(value), mode="eval").body
        if kind == "specialize":
            return node.args[0]
        if kind == "broadcast" and len({tuple(map(str, shape)) for shape in value}) == 1:
            return ast.Tuple(elts=list(node.args), ctx=ast.Load())  # equal shapes: nothing to broadcast
        return node

    # -- names from outside ------------------------------------------------------------------------------------------------

    def imports_and_globals(self) -> tuple[list[str], dict[str, Any]]:
        """Import lines for the modules the statements use, and the other objects to put into the module."""
        lines: list[str] = []
        injected: dict[str, Any] = {}
        for name, value in self.ir.host.globals.items():
            if value is torch and name == "torch":
                continue
            if isinstance(value, types.ModuleType):
                plain = value.__name__ == name
                lines.append(f"import {value.__name__}" if plain else f"import {value.__name__} as {name}")
            elif isinstance(value, torch.dtype):
                lines.append(f"{name} = {value}")
            elif isinstance(value, (bool, int, str, type(None))) or (isinstance(value, float) and math.isfinite(value)):
                lines.append(f"{name} = {value!r}")
            else:
                injected[name] = value
        if injected:
            lines.append(f"# from the kernel function's module: {', '.join(injected)}")
        return lines, injected


def _copy_with_marks(node: ast.stmt) -> ast.stmt:
    """A deep copy whose nodes remember the node they are copies of."""
    duplicate = copy.deepcopy(node)
    for original, copied in zip(ast.walk(node), ast.walk(duplicate)):
        copied._original = original  # type: ignore[attr-defined]
    return duplicate


class _Rewriter(ast.NodeTransformer):
    def __init__(
        self, rewrites: dict[ast.AST, tuple[str, Any]], replacement: Callable[[ast.Call, str, Any], ast.expr]
    ) -> None:
        self.rewrites = rewrites
        self.replacement = replacement

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        rewrite = self.rewrites.get(node._original)  # type: ignore[attr-defined]
        return node if rewrite is None else self.replacement(node, *rewrite)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt:
        self.generic_visit(node)
        if node.value is None:
            return ast.Pass()
        return ast.Assign(targets=[node.target], value=node.value)


