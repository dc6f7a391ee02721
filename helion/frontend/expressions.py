"""The expression part of the abstract interpreter.

Walks the syntax tree of the user's function and evaluates expressions on abstract values: FakeTensors,
symbolic numbers, tiles, and ordinary Python objects.  The same evaluator serves host code and device code;
what differs is who records (`Tracer.on_device`).  Names are in `frames`, calls in `calls`, statements in `statements`,
device loops and branches in `control_flow`.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import operator
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import sympy
import torch
from torch.utils import _pytree as pytree

from .. import exc
from .._compat_sympy import PowByNatural
from ..ir.device_ir import TracedTile
from ..ir.signs import is_nonnegative
from ..ir.symbols import as_key
from ..ir.symbols import expr_of
from ..ir.symbols import is_symbolic
from ..ir.symbols import plain
from ..ir.symbols import symbols_of
from ..language import load
from ..language import subscript
from ..language.truth import scalar
from .decisions import ConfigDecision
from .decisions import pick
from .decisions import pick_and
from .decisions import pick_or
from .frames import Frame
from .lengths import lengths_of
from .read_expressions import ReadExpressions
from .translated import as_ours
from .translated import is_data_dependent
from .truths import as_number
from .truths import as_numbers
from .truths import is_among
from .varying import OF_TENSORS

#: What an error calls a number that is not known while host code is traced, and says to do.
CONFIG_NUMBER = "a number that the Config decides on (a block size or a tunable)"
CONFIG_FIX = (
    "compute a number from it, which follows the Config: `a if condition else b`, min(), max(), helion.cdiv(), "
    "helion.next_power_of_2() or a function of your own; or decide with `if` in device code."
)

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.BitAnd: operator.and_,
    ast.MatMult: operator.matmul,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Invert: operator.invert,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}


#: What finds things by their hash.
_HASHING = (dict, set, frozenset)


class LambdaValue:
    """A lambda or a function defined inside interpreted code: runs on the names that its surroundings have when it is
    called.

    Args:
        interpreter: who runs it.
        node: its definition.
        frame: the frame it is defined in.
    """

    def __init__(self, interpreter: Expressions, node: ast.Lambda | ast.FunctionDef, frame: Frame) -> None:
        self.interpreter = interpreter
        self.node = node
        self.frame = frame
        self.source = frame.source.nested(node) if isinstance(node, ast.FunctionDef) else frame.source
        self.__name__ = node.name if isinstance(node, ast.FunctionDef) else "<lambda>"
        self.__signature__ = inspect.Signature(list(self._parameters(node.args)))

    def _parameters(self, arguments: ast.arguments) -> Iterator[inspect.Parameter]:
        positional = [*arguments.posonlyargs, *arguments.args]
        defaults: list[ast.expr | None] = [*[None] * (len(positional) - len(arguments.defaults)), *arguments.defaults]
        kinds: list[Any] = [inspect.Parameter.POSITIONAL_ONLY] * len(arguments.posonlyargs)
        kinds += [inspect.Parameter.POSITIONAL_OR_KEYWORD] * len(arguments.args)
        for argument, kind, default in zip(positional, kinds, defaults, strict=True):
            yield inspect.Parameter(argument.arg, kind, default=self._default(default))
        if arguments.vararg is not None:
            yield inspect.Parameter(arguments.vararg.arg, inspect.Parameter.VAR_POSITIONAL)
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
            yield inspect.Parameter(argument.arg, inspect.Parameter.KEYWORD_ONLY, default=self._default(default))
        if arguments.kwarg is not None:
            yield inspect.Parameter(arguments.kwarg.arg, inspect.Parameter.VAR_KEYWORD)

    def _default(self, node: ast.expr | None) -> Any:
        return inspect.Parameter.empty if node is None else self.interpreter.expr(node)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        bound = self.__signature__.bind(*args, **kwargs)
        bound.apply_defaults()
        around = {**(self.frame.host if self.frame.is_kernel else {}), **self.frame.device}
        source = self.source
        if isinstance(self.node, ast.FunctionDef) and self.interpreter.tracer.on_device:
            source = source.on_device
        inner = dataclasses.replace(self.frame, source=source, device={**around, **bound.arguments}, is_kernel=False)
        with self.interpreter.enter(inner):
            if isinstance(self.node, ast.Lambda):
                return self.interpreter.expr(self.node.body)
            return self.interpreter.run_function(source.node)


#: Errors of PyTorch and Python that are said as ours.
_TRANSLATED = (ValueError, TypeError, AttributeError, RuntimeError, IndexError, KeyError, ZeroDivisionError)


class Expressions(ReadExpressions):
    """Evaluates expressions in the current frame; one method `expr_<node>` each."""

    def expr(self, node: ast.expr) -> Any:
        """Value of an expression; errors leave with the place of the innermost expression they concern."""
        method = getattr(self, f"expr_{type(node).__name__}", None)
        if method is None:
            raise self.error(
                node, exc.StatementNotSupported(statement=f"a {type(node).__name__} expression", where=self.where())
            )
        outer = self.tracer.location
        self.at(node)
        try:
            value = method(node)
            # A size that hl.specialize was asked for, under a name that it had before.
            return int(value) if isinstance(value, torch.SymInt) and value.node.expr.is_Integer else value
        except (exc.BaseError, ConfigDecision, *_TRANSLATED) as error:
            if (number := self.read_expression(node)) is not None:
                return number
            if isinstance(error, exc.BaseError):
                raise self.error(node, error)
            if isinstance(error, ConfigDecision):
                raise self.error(node, self.undecidable(node, *error.args)) from None
            raise self.error(node, self.translate(error, node)) from error
        finally:
            self.tracer.location = outer

    def undecidable(self, node: ast.AST, symbols: Iterable[sympy.Symbol] = ()) -> exc.BaseError:
        """The error for host code that goes one way or another with the Config, or with what a tensor holds."""
        if self.env.is_read(symbols) and not self.env.is_of_config(symbols):
            return exc.HostTensorRead(text=ast.unparse(node))
        return exc.SizeNotConstant(what=f"{ast.unparse(node)!r} in host code", value=CONFIG_NUMBER, fix=CONFIG_FIX)

    def translate(self, error: Exception, node: ast.AST) -> exc.BaseError:
        """An error of PyTorch or Python met while interpreting, as one of ours."""
        return as_ours(error, ast.unparse(node), self.tracer.on_device, self.mentions_read(node))

    # -- simple expressions --------------------------------------------------------------------------------------------

    def expr_Constant(self, node: ast.Constant) -> Any:
        return node.value

    def expr_Name(self, node: ast.Name) -> Any:
        return self.lookup(node.id)

    def expr_Attribute(self, node: ast.Attribute) -> Any:
        base = self.expr(node.value)
        if node.attr == "shape" and isinstance(base, torch.Tensor):
            return lengths_of(self.tracer, base)
        if isinstance(base, torch.Tensor):
            return self.of_call(OF_TENSORS[node.attr], node) if node.attr in OF_TENSORS else getattr(base, node.attr)
        if node.attr == "__class__":
            base = plain(base)
        return self.outside(getattr(base, node.attr), ast.unparse(node))

    def expr_Tuple(self, node: ast.Tuple) -> Any:
        return tuple(self.elements(node.elts))

    def expr_List(self, node: ast.List) -> Any:
        return self.elements(node.elts)

    def expr_Set(self, node: ast.Set) -> Any:
        return set(map(as_key, self.elements(node.elts)))

    def expr_Dict(self, node: ast.Dict) -> Any:
        result: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values):
            if key is None:
                result.update(self.expr(value))
            else:
                result[as_key(self.expr(key))] = self.expr(value)
        return result

    def elements(self, nodes: list[ast.expr]) -> list[Any]:
        """Values of a list of expressions, `*starred` ones spread out."""
        values: list[Any] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                values.extend(self.expr(node.value))
            else:
                values.append(self.expr(node))
        return values

    def expr_Slice(self, node: ast.Slice) -> Any:
        return slice(*(None if part is None else self.expr(part) for part in (node.lower, node.upper, node.step)))

    def expr_JoinedStr(self, node: ast.JoinedStr) -> Any:
        return "".join(str(self.expr(v)) for v in node.values)

    def expr_FormattedValue(self, node: ast.FormattedValue) -> Any:
        spec = self.expr(node.format_spec) if node.format_spec is not None else ""
        value = self.expr(node.value)
        of_kernel = is_symbolic(value) and (self.env.space.depends_on_device(value) or self.env.is_configured(value))
        if self.tracer.on_device and (of_kernel or isinstance(value, (torch.Tensor, TracedTile))):
            name = f"an f-string of {ast.unparse(node.value)!r}, which is known only while the kernel runs,"
            raise exc.NotAllowedOnDevice(name=name, fix="to print it, write hl.device_print(prefix, value).")
        value = as_key(value)
        if node.conversion >= 0:  # !r, !s, !a
            value = f"{{!{chr(node.conversion)}}}".format(value)
        return format(value, spec)

    def expr_NamedExpr(self, node: ast.NamedExpr) -> Any:
        value = self.expr(node.value)
        self.bind(node.target.id, value)
        return value

    def expr_Lambda(self, node: ast.Lambda) -> Any:
        return LambdaValue(self, node, self.frame)

    def expr_ListComp(self, node: ast.ListComp) -> Any:
        return self._comprehension(node.generators, lambda: self.expr(node.elt))

    def expr_DictComp(self, node: ast.DictComp) -> Any:
        return dict(self._comprehension(node.generators, lambda: (self.expr(node.key), self.expr(node.value))))

    def expr_SetComp(self, node: ast.SetComp) -> Any:
        return set(self._comprehension(node.generators, lambda: self.expr(node.elt)))

    def expr_GeneratorExp(self, node: ast.GeneratorExp) -> Any:
        return self._comprehension(node.generators, lambda: self.expr(node.elt))

    def _comprehension(self, generators: list[ast.comprehension], element: Callable[[], Any]) -> list[Any]:
        results: list[Any] = []
        frame = dataclasses.replace(self.frame, device=dict(self.frame.device), is_kernel=False)
        frame.device = {**(self.frame.host if self.frame.is_kernel else {}), **self.frame.device}

        def level(depth: int) -> None:
            if depth == len(generators):
                results.append(element())
                return
            generator = generators[depth]
            for item in self.expr(generator.iter):
                self.assign_pattern(generator.target, item)
                if all(self.truth(condition) for condition in generator.ifs):
                    level(depth + 1)

        with self.enter(frame):
            level(0)
        return results

    def assign_pattern(self, target: ast.expr, value: Any) -> None:
        """Assign to a name or a (nested) tuple of names."""
        if isinstance(target, ast.Name):
            self.bind(target.id, value)
        elif isinstance(target, (ast.Tuple, ast.List)):
            for t, v in self.unpacked(target.elts, list(value)):
                self.assign_pattern(t, v)
        else:
            raise exc.StatementNotSupported(statement=f"assignment to {ast.unparse(target)}", where=self.where())

    def unpacked(self, targets: list[ast.expr], values: list[Any]) -> list[tuple[ast.expr, Any]]:
        """The targets of a tuple assignment, one of which may be starred, with the values they get."""
        starred = next((i for i, target in enumerate(targets) if isinstance(target, ast.Starred)), None)
        if starred is not None and len(values) >= len(targets) - 1:
            rest = len(values) - len(targets) + 1
            values[starred : starred + rest] = [values[starred : starred + rest]]
            targets = [target.value if isinstance(target, ast.Starred) else target for target in targets]
        if len(values) != len(targets):
            raise exc.InvalidAPIUsage(
                f"cannot unpack {len(values)} values into {len(targets)} names", fix="match the number of names."
            )
        return list(zip(targets, values))

    # -- operators ---------------------------------------------------------------------------------------------------

    def expr_BinOp(self, node: ast.BinOp) -> Any:
        result = self.binary(node.op, self.expr(node.left), self.expr(node.right))
        if isinstance(result, torch.Tensor) and result.dim() and not self.tracer.on_device:
            self.env.note_host_operation(exc.TensorOperationInWrapper, ast.unparse(node), self.frame.source.name)
        return result

    def binary(self, op: ast.operator, left: Any, right: Any) -> Any:
        if isinstance(op, ast.MatMult):
            return torch.matmul(left, right)
        if isinstance(op, ast.Add) and isinstance(left, TracedTile) and isinstance(right, torch.Tensor) and right.dim():
            return left.index + right
        if isinstance(op, ast.Pow) and (is_symbolic(left) or is_symbolic(right)):
            # PyTorch's own wants a positive base; Python's does where the result is no real number.
            power = self.env.host_call(operator.pow, (left, right), "(({}) ** ({}))", "power")
            if power is not None:
                return power
            if isinstance(left, float) and left < 0 and isinstance(right, torch.SymInt):
                # A sign that alternates: PyTorch wants a positive base.
                sign = self.binary(ast.Sub(), 1, self.binary(ast.Mult(), 2, self.binary(ast.Mod(), right, 2)))
                return self.binary(ast.Mult(), self.binary(op, -left, right), sign)
            integer = self._power_of_place(left, right)
            if integer is not None:
                return integer
        if isinstance(op, (ast.BitAnd, ast.BitOr, ast.BitXor)) and any(
            isinstance(v, torch.Tensor) for v in (left, right)
        ):
            # A condition on a tile's place: PyTorch would ask for its truth.
            left, right = (self.as_tensor(v) if isinstance(v, torch.SymBool) else v for v in (left, right))
        if not isinstance(op, (ast.BitAnd, ast.BitOr, ast.BitXor)):
            left, right = self._numbers(left, right)
        elif isinstance(op, ast.BitXor) and all(isinstance(v, (bool, torch.SymBool)) for v in (left, right)):
            return self._compare(ast.NotEq(), left, right)
        if isinstance(op, (ast.LShift, ast.RShift)) and isinstance(right, torch.SymInt) and not torch.is_tensor(left):
            return self._shifted(op, left, right)
        result = _BINARY[type(op)](left, right)
        return result if self.tracer.on_device else self.env.sized(result)

    def _numbers(self, left: Any, right: Any) -> tuple[Any, Any]:
        """Operands of which a bool of the Config's or a tile's place is 0 or 1, as Python's are, beside a number."""
        if not all(isinstance(v, (int, float, torch.SymInt, torch.SymFloat, torch.SymBool)) for v in (left, right)):
            return left, right
        both = as_numbers(self.env, left, right)
        if all(isinstance(v, (bool, torch.SymBool)) for v in both):
            return both
        zero_or_one = "({1} if {0} else {2})"
        made = [
            self.env.config_call(pick, (v, 1, 0), zero_or_one, "picked")
            if isinstance(v, torch.SymBool) and self.env.is_configured(v)
            else v
            for v in both
        ]
        return made[0], made[1]

    def _shifted(self, op: ast.operator, number: Any, places: torch.SymInt) -> Any:
        """An integer shifted by a symbolic number of places, which PyTorch 2.11's cannot be."""
        hint = 1 << max(0, min(places.node.hint, 62)) if places.node.has_hint() else None
        power = self.env.size_of(PowByNatural(sympy.Integer(2), expr_of(places)), hint)
        return self.binary(ast.Mult() if isinstance(op, ast.LShift) else ast.FloorDiv(), number, power)

    def _power_of_place(self, base: Any, exponent: Any) -> torch.SymInt | None:
        """An integer to the power of one of a tile's place that is not negative, an integer as Python's is."""
        integers = all(isinstance(number, (int, torch.SymInt)) for number in (base, exponent))
        if not integers or not is_symbolic(exponent) or self.env.space.is_host_value(exponent):
            return None
        space = self.env.space
        if not is_nonnegative(expr_of(exponent), space.origins.get, space.axes.__getitem__):
            raise exc.NotAllowedOnDevice(
                name="an integer to a power that may be negative, an int in Python or a float,",
                fix="take a float (`2.0 ** ...`), or a power that cannot be negative (`2 ** max(..., 0)`).",
            )
        hint = None
        if exponent.node.has_hint() and (not is_symbolic(base) or base.node.has_hint()):
            # A tunable's is larger than any value of it, and too large for a power.
            least = base.node.hint if is_symbolic(base) else base
            hint = least ** min(exponent.node.hint, 62)
        return self.env.size_of(PowByNatural(expr_of(0 + base), expr_of(exponent)), hint)

    def expr_UnaryOp(self, node: ast.UnaryOp) -> Any:
        value = self.expr(node.operand)
        if isinstance(node.op, ast.Not):
            if isinstance(value, torch.Tensor):
                return torch.logical_not(scalar(value, "`not`"))
            if is_symbolic(value) and self.env.space.depends_on_device(value):
                return torch.sym_not(value if isinstance(value, torch.SymBool) else value != 0)
            if is_symbolic(value) and not self.tracer.on_device and self.env.is_read(symbols_of(value)):
                return torch.sym_not(value) if isinstance(value, torch.SymBool) else value == 0
            return not value
        if isinstance(node.op, ast.Invert) and is_symbolic(value):
            return torch.sym_not(value) if isinstance(value, torch.SymBool) else -value - 1
        return _UNARY[type(node.op)](as_number(self.env, value))

    def expr_Compare(self, node: ast.Compare) -> Any:
        left = self.expr(node.left)
        result: Any = True
        for op, right_node in zip(node.ops, node.comparators):
            right = self.expr(right_node) if result is True else self._after(result, right_node, when=True)
            if isinstance(op, (ast.In, ast.NotIn)) and isinstance(right, _HASHING):
                left = as_key(left)
            step = self._compare(op, left, right)
            result = step if result is True else self._and(result, step)
            if result is False:
                return False
            left = right
        return result

    def _compare(self, op: ast.cmpop, left: Any, right: Any) -> Any:
        """A comparison of two values."""
        if isinstance(op, (ast.In, ast.NotIn)) and isinstance(right, (tuple, list)) and self.is_dynamic_number(left):
            found = is_among(left, right, lambda a, b: self._compare(ast.Eq(), a, b))
            return found if isinstance(op, ast.In) else torch.sym_not(found)
        if isinstance(op, (ast.Is, ast.IsNot)) and all(isinstance(v, (bool, torch.SymBool)) for v in (left, right)):
            op = ast.Eq() if isinstance(op, ast.Is) else ast.NotEq()
        return _COMPARE[type(op)](*self._numbers(left, right))

    def expr_BoolOp(self, node: ast.BoolOp) -> Any:
        value = self.expr(node.values[0])
        for other in node.values[1:]:
            if not self.tracer.on_device and isinstance(value, torch.SymInt) and self.env.is_configured(value):
                choice, word = (pick_and, "and") if isinstance(node.op, ast.And) else (pick_or, "or")
                value = self.env.config_call(choice, (value, self.expr(other)), f"({{}} {word} {{}})", "picked")
            elif isinstance(value, torch.Tensor) or (is_symbolic(value) and self.env.space.depends_on_device(value)):
                right = self._after(value, other, when=isinstance(node.op, ast.And))
                value = self._and(value, right) if isinstance(node.op, ast.And) else self._or(value, right)
            elif bool(value) is isinstance(node.op, ast.Or):
                return value
            else:
                value = self.expr(other)
        return value

    def _and(self, a: Any, b: Any) -> Any:
        if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
            return self._picked(a, b, otherwise=a)
        return a & b if is_symbolic(a) or is_symbolic(b) else (a and b)

    def _or(self, a: Any, b: Any) -> Any:
        if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
            return self._picked(a, a, otherwise=b)
        return a | b if is_symbolic(a) or is_symbolic(b) else (a or b)

    def _picked(self, test: Any, value: Any, otherwise: Any) -> Any:
        """What `and` and `or` are: one of their operands, by whether the first is true."""
        test, value, otherwise = (scalar(self.as_tensor(v), "`and` or `or`") for v in (test, value, otherwise))
        return torch.where(test != 0, value, otherwise)

    def as_tensor(self, value: Any) -> torch.Tensor:
        return value if isinstance(value, torch.Tensor) else self.tracer.scalar_tensor(value)

    def as_tensors(self, values: Sequence[Any]) -> list[torch.Tensor]:
        """Values of which a tensor is made; numbers beside one of float64 are not rounded to float32."""
        in_double = any(isinstance(v, torch.Tensor) and v.dtype is torch.float64 for v in values)
        dtype = torch.float64 if in_double else None
        return [v if isinstance(v, torch.Tensor) else self.tracer.scalar_tensor(v, dtype) for v in values]

    def expr_IfExp(self, node: ast.IfExp) -> Any:
        test, error = self._host_test(node.test) if self.decides else (self.expr(node.test), None)
        if error is None and self.is_dynamic(test) and not self.tracer.on_device:
            number = self.read_expression(node)
            if number is not None:
                return number
            values = (test, self.expr(node.body), self.expr(node.orelse))
            if all(isinstance(value, (int, torch.SymInt, torch.SymBool)) for value in values):
                return self.env.config_call(pick, values, "({1} if {0} else {2})", "picked")
            error = self.undecidable(node.test, symbols_of(test))
            if not self.decides:
                raise error
        if self.decides:
            test = self._outcome(node.test, test, error)
        if self.is_dynamic(test):
            test = scalar(self.as_tensor(test), "`if`")
            sides = [self._after(test, side, when) for side, when in ((node.body, True), (node.orelse, False))]
            (left, spec), (right, other) = map(pytree.tree_flatten, sides)
            if spec != other:
                raise exc.CantCombineTypesInControlFlow(
                    name="the value of `a if test else b`", left=type(sides[0]).__name__, right=type(sides[1]).__name__
                )
            # Of tuples each element is chosen.
            chosen = [torch.where(test != 0, *self.as_tensors(pair)) for pair in zip(left, right, strict=True)]
            return pytree.tree_unflatten(chosen, spec)
        return self.expr(node.body if test else node.orelse)

    def host_truth(self, node: ast.expr) -> bool:
        """A condition of host code; one that a tensor decides is as it was in the call that is traced."""
        if not self.decides:
            return self.truth(node)
        test, error = self._host_test(node)
        if error is None and self.is_dynamic(test):
            error = self.undecidable(node, symbols_of(test))
        return self._outcome(node, test, error)

    def _host_test(self, node: ast.expr) -> tuple[Any, exc.BaseError | None]:
        """The value of a condition, or the error for one that only a call can tell."""
        try:
            test = self.expr(node)
            return (bool(test) if isinstance(test, torch.Tensor) else test), None
        except exc.HostTensorRead as error:
            return None, error
        except (RuntimeError, ValueError) as error:
            if not is_data_dependent(error):
                raise
            return None, self.error(node, self.translate(error, node))

    def _outcome(self, node: ast.expr, test: Any, error: exc.BaseError | None) -> bool:
        if error is not None and not isinstance(error, exc.HostTensorRead):
            raise self.error(node, error)
        try:
            return self.decisions.meet(node, None if error is not None else bool(test), error)
        except exc.BaseError as refused:
            raise self.error(node, refused)

    def _after(self, test: Any, node: ast.expr, when: bool) -> Any:
        """The value of an expression that Python works out only if `test` is `when`.

        Numbers are worked out and not taken; what reads memory is not: `a[i] if i < n else 0` must not read past `a`.
        """
        reads = any(isinstance(part, (ast.Subscript, ast.Call)) for part in ast.walk(node))
        branches = reads and self.tracer.on_device and self.is_dynamic(test)
        return self.only_if(test, node, when) if branches else self.expr(node)

    def only_if(self, test: Any, node: ast.expr, when: bool = True) -> Any:
        """The value of an expression, worked out in a branch: 0 where `test` is not `when`."""
        raise NotImplementedError  # in control_flow

    def is_dynamic(self, test: Any) -> bool:
        """Whether a condition is known only while the kernel runs."""
        if isinstance(test, torch.Tensor):
            return self.tracer.on_device
        return is_symbolic(test) and self.env.space.depends_on_device(test)

    def is_dynamic_number(self, value: Any) -> bool:
        """Whether a number is known only while the kernel runs."""
        return not isinstance(value, torch.Tensor) and self.is_dynamic(value)

    def truth(self, node: ast.expr) -> bool:
        """A condition that must be known at compile time."""
        value = self.expr(node)
        if self.is_dynamic(value) and self.env.is_configured(value):
            raise self.error(node, self.undecidable(node, symbols_of(value)))
        if self.is_dynamic(value):
            raise self.error(node, exc.SizeNotConstant(what="this condition", value=ast.unparse(node)))
        try:
            return bool(value)
        except (RuntimeError, ValueError) as error:
            if not is_data_dependent(error) or self.tracer.on_device:
                raise
            between = self.frame.is_kernel and bool(self.env.ir.roots)
            raise self.error(node, self.read_between_loops(node) if between else self.translate(error, node)) from None

    @staticmethod
    def read_between_loops(node: ast.AST) -> exc.BaseError:
        """The error for host code that decides on what a tensor holds between device loops, which are one launch."""
        return exc.HostTensorRead(
            f"host code between device loops reads a tensor's value, {ast.unparse(node)!r}",
            fix="decide before the first device loop, with the loops of each way in the branch (`if ...: for ...`, "
            "`else: for ...`), or make another kernel of the loops behind it.",
        )

    # -- subscripts ----------------------------------------------------------------------------------------------------

    def expr_Subscript(self, node: ast.Subscript) -> Any:
        base = self.expr(node.value)
        value = self.subscript(base, self.expr(node.slice))
        if isinstance(base, torch.Tensor):
            return value if self.tracer.on_device else self.measured(value, node)
        return self.outside(value, ast.unparse(node))

    def measured(self, value: Any, node: ast.expr) -> Any:
        raise NotImplementedError  # in calls

    def subscript(self, base: Any, index: Any) -> Any:
        if self.tracer.on_device and isinstance(base, torch.Tensor):
            if self.tracer.is_device_value(base):
                return subscript(base, index if isinstance(index, tuple) else (index,))
            return load(base, index)
        if isinstance(base, torch.Tensor):
            with self.env.undecided():
                return base[index]
        if isinstance(base, (tuple, list)) and self.is_dynamic(index) and not self.env.is_configured(index):
            raise exc.TypeInferenceError(
                f"a {type(base).__name__} is indexed with a number that is known only while the kernel runs",
                fix=f"unroll the loop: `for i in hl.static_range({len(base)})`, or put the values into a tensor of the "
                "host's.",
            )
        return base[as_key(index) if isinstance(base, dict) else index]

    def run_function(self, node: ast.FunctionDef) -> Any:
        raise NotImplementedError  # in statements
