"""The walk over a kernel function's body: host statements, top-level device loops, host loops around these."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from typing import Any

import torch

from .. import exc
from .. import language as hl
from ..ir.effects import storage_of
from ..language import barrier
from ..language.containers import tensors_in
from .host_decisions import Decisions
from .jumps import Take
from .jumps import taking
from .source import assigned_names
from .source import read_names
from .statements import Break
from .statements import Continue
from .statements import Return
from .statements import Statements
from .tracer import TracedLoop
from .unrolled import LIMIT
from .unrolled import before_launch
from .unrolled import check_names_only
from .unrolled import check_rounds
from .unrolled import constant_text
from .unrolled import named_by
from .unrolled import refused
from .unrolled import renaming


class KernelBody(Statements):
    """Interprets a kernel function; `run_kernel` is the entry."""

    def __init__(self, env: Any, tracer: Any, decisions: Decisions) -> None:
        super().__init__(env, tracer)
        self.decisions = decisions
        self.epilogue: list[ast.stmt] = []
        self.device_names: set[str] = set()
        self._unrolled_names: set[str] = set()
        self._renamed: dict[str, str] = {}  # by unrolled loops: what the names are, in the words of before the launch
        self._failed: set[ast.expr] = set()  # of expressions that are tried again as ones of each call: not those
        self._read_a_tensor = False  # host code has, after the kernel: what follows is not known while tracing

    def run_kernel(self, body: list[ast.stmt]) -> None:
        """Interpret the top level of a kernel function: host statements, device loops, host statements."""
        with self.env.undecided():
            for stmt in body:
                self.at(stmt)
                try:
                    if self._read_a_tensor:
                        self._unknown(stmt)
                    elif not self._top_level(stmt):
                        break
                except exc.BaseError as error:
                    raise self.error(stmt, error)
        read = set().union(*map(read_names, self.epilogue))
        self.epilogue[:0] = renaming({name: text for name, text in self._renamed.items() if name in read}, body[-1])

    def _top_level(self, stmt: ast.stmt) -> bool:
        """One top-level statement; False once the function returns."""
        if isinstance(stmt, ast.Expr) and isinstance(stmt.value, ast.Constant):
            return True  # docstring
        if isinstance(stmt, ast.For):
            loop = self.expr(stmt.iter)
            if isinstance(loop, TracedLoop):
                self._root(stmt, loop)
                return True
            if self._has_device_loop(stmt):
                self._unroll(stmt, loop)
                return True
        if isinstance(stmt, ast.While) and self._has_device_loop(stmt):
            self._unroll(stmt)
            return True
        if isinstance(stmt, ast.If) and self._has_device_loop(stmt):
            body = stmt.body if self.host_truth(stmt.test) else stmt.orelse
            if stmt.test in self.decisions.tests:
                self.prelude.append(ast.copy_location(ast.Expr(stmt.test), stmt))
            return all(self._top_level(inner) for inner in body)
        if self._is_barrier(stmt):
            self._check_nothing_between()
            self.env.ir.end_phase()
            return True
        if self._gives_names(stmt):
            return True
        (self.epilogue if self.env.ir.roots else self.prelude).append(stmt)
        try:
            self.statement(stmt)
        except Return:
            return False
        except exc.HostTensorRead:
            if not self.env.ir.roots:
                raise
            self._read_a_tensor = True
        return True

    def _gives_names(self, stmt: ast.stmt) -> bool:
        """A statement between device loops that only gives names, as one beside those of an unrolled loop does; False
        if it is another."""
        if not self.env.ir.roots or self.epilogue or not isinstance(stmt, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            return False
        loops = (n for n in ast.walk(self.frame.source.node) if isinstance(n, ast.For) and n.lineno > stmt.lineno)
        if not any(map(self._has_device_loop, loops)):
            return False
        before, views, renamed = dict(self.frame.host), len(self.prelude), dict(self._renamed)
        given = len(self.rewrites), self.decisions.tests
        if self.env.host_variables is None:
            self.env.host_variables = dict(before)
        try:
            check_names_only(stmt, self._try_callee)
            self._give_names(stmt)
            self._rename(assigned_names([stmt]), stmt)
            if given == (len(self.rewrites), self.decisions.tests) and not self._unrolled_names & assigned_names(
                [stmt]
            ):
                return True
        except exc.NestedGridLoop:
            pass
        self.frame.host.clear()
        self.frame.host.update(before)
        del self.prelude[views:]
        self._renamed = renamed
        self._unrolled_names -= assigned_names([stmt])
        return False

    def _root(self, stmt: ast.For, loop: TracedLoop) -> None:
        self._check_nothing_between()
        frame = self.frame
        frame.device.clear()
        self.root_loop(self._structured_root(stmt), loop)
        self.device_names |= set(frame.device) | assigned_names([stmt])
        frame.device.clear()

    def _unroll(self, loop: ast.For | ast.While, items: Any = None) -> None:
        """A host loop around device loops, of which nothing is left in the host function; `items` are a `for`'s."""
        self._check_iterable(items)
        over = loop.iter if isinstance(loop, ast.For) else None
        made = self.frame.source.structured.get(loop, [loop])
        given = len(self.rewrites), self.decisions.tests
        outer = self.env.host_variables
        self.env.host_variables = host = dict(self.frame.host) if outer is None else outer
        if outer is None and not self.env.ir.roots and isinstance(over, (ast.List, ast.ListComp, ast.Tuple)):
            name = f"_items_{len(self.prelude)}"  # host code like any other before the loops
            self.prelude.append(ast.copy_location(ast.Assign([ast.Name(name, ast.Store())], over), loop))
            host[name] = items
        elif over is not None:
            check_names_only(over, self._try_callee)
        self._unrolled(made[:-1])
        stmt = made[-1]
        assert isinstance(stmt, (ast.For, ast.While))
        with self._within("python loop"):
            for _ in self._rounds(stmt, items):
                if len(self.env.ir.roots) >= LIMIT:
                    raise exc.NestedGridLoop(
                        f"a host loop around device loops makes more than {LIMIT} of them, all in one kernel",
                        fix="let the kernel do one round, and call it in the loop.",
                    )
                try:
                    self._unrolled(stmt.body)
                except Continue:
                    continue
                except Break:
                    break
            else:
                self._unrolled(stmt.orelse)
        if given != (len(self.rewrites), self.decisions.tests):
            raise refused(stmt)  # the host function would have to work something out, or to check a condition
        if not self.is_repeated():
            self._rename(assigned_names(made), stmt)

    def _rounds(self, loop: ast.For | ast.While, items: Any) -> Iterator[None]:
        if isinstance(loop, ast.For):
            for item in items:
                self.begin_round(loop, item)
                yield
            return
        for count in itertools.count():
            check_rounds(count)
            if not self._known(loop.test):
                return
            yield

    def _known(self, node: ast.expr) -> bool:
        """A condition that stands in an unrolled loop."""
        check_names_only(node, self._try_callee)
        test, unknown = self._host_test(node)
        if unknown is not None or self.is_dynamic(test):
            raise refused(node)
        return bool(test)

    def _rename(self, names: set[str], loop: ast.stmt) -> None:
        """Behind an unrolled loop its variables are what they were at its end: tensors that have a name before the
        launch, and numbers."""
        host, text_of = self.env.host_variables, self.tracer.name_of_host_tensor
        assert host is not None
        for name in sorted(names & self.frame.host.keys()):
            value = self.frame.host[name]
            text = text_of(value) if isinstance(value, torch.Tensor) else constant_text(value)
            self._renamed.pop(name, None)
            self._unrolled_names.discard(name)
            if name not in host or host[name] is not value:
                if text is not None:
                    self._renamed[name] = text
                else:
                    del self.frame.host[name]
                    self._unrolled_names.add(name)
        if not self.env.ir.roots:  # no round had a device loop: what follows stands before those there may be
            self.prelude += renaming(self._renamed, loop)
            self._renamed = {}
            self.env.host_variables = None

    def _unrolled(self, body: list[ast.stmt]) -> None:
        for stmt in body:
            self.at(stmt)
            try:
                if isinstance(stmt, ast.While) and self._has_device_loop(stmt):
                    self._unroll(stmt)
                elif isinstance(stmt, ast.For) and self._has_device_loop(stmt):
                    loop = self.expr(stmt.iter)
                    if not isinstance(loop, TracedLoop):
                        self._unroll(stmt, loop)
                        continue
                    with self._within("block"):
                        if taking(stmt) is not None:
                            self._no_jump("break")
                        self._root(stmt, loop)
                elif isinstance(stmt, ast.If):
                    self._unrolled(stmt.body if self._known(stmt.test) else stmt.orelse)
                elif self._is_barrier(stmt):
                    self.env.ir.end_phase()
                elif isinstance(stmt, Take):
                    self.stmt_Take(stmt)
                elif not (isinstance(stmt, ast.Expr) and isinstance(stmt.value, ast.Constant)):
                    check_names_only(stmt, self._try_callee)
                    self._give_names(stmt)
            except exc.BaseError as error:
                raise self.error(stmt, error)

    def _give_names(self, stmt: ast.stmt) -> None:
        """A statement of an unrolled loop's body.  The host function makes the views in it before the launch."""
        host = self.env.host_variables
        assert host is not None
        held = {name: self.frame.host.get(name) for name in read_names(stmt)}
        known = {storage_of(tensor) for tensor in tensors_in(list(host.values()))}
        self.statement(stmt)
        text_of = self.tracer.name_of_host_tensor
        for target, value in named_by(stmt):
            made = self.frame.host.get(target.id)
            if isinstance(made, torch.Tensor) and text_of(made) is None and storage_of(made) in known:
                view = before_launch(value, lambda name: held.get(name), host, text_of)
                name = f"_{target.id}_{len(self.prelude)}"
                self.prelude.append(ast.copy_location(ast.Assign([ast.Name(name, ast.Store())], view), stmt))
                host[name] = made
        values = [self.frame.host.get(name) for name in assigned_names([stmt])]
        if any(text_of(tensor) is None for tensor in tensors_in(values)):
            raise refused(stmt)  # generated code cannot read it

    def _structured_root(self, loop: ast.For) -> ast.For:
        """A top-level loop without jumps.  Its tiles run at the same time, so that a `break` of its own stays one: an
        error."""
        made = self.frame.source.structured.get(loop, [loop])
        return made[0] if len(made) == 1 and isinstance(made[0], ast.For) else loop

    def _unknown(self, stmt: ast.stmt) -> None:
        """A statement after one that has read a result of the kernel: it runs as it stands, but device variables are
        not there.
        """
        if self._has_device_loop(stmt) or self._is_barrier(stmt):
            raise self.error(stmt, self.read_between_loops(self.epilogue[-1]))
        for name in sorted(read_names(stmt) & (self.device_names | self._unrolled_names)):
            self.lookup(name)
        self.frame.host.update(dict.fromkeys(assigned_names([stmt])))
        self.epilogue.append(stmt)

    def _check_nothing_between(self) -> None:
        if self.epilogue:
            error = exc.TopLevelStatementBetweenLoops()
            raise self.error(self.epilogue[0], error)

    def _is_barrier(self, stmt: ast.stmt) -> bool:
        if not (isinstance(stmt, ast.Expr) and isinstance(stmt.value, ast.Call)):
            return False
        return self._try_callee(stmt.value.func) is barrier

    @property
    def leaves_out_a_store(self) -> bool:
        """Whether a decision while tracing, of an `if` or of a loop without rounds, has left out what may store."""
        parts = [part for stmt in self.left_out for part in ast.walk(stmt)]
        stored = any(isinstance(part, ast.Subscript) and isinstance(part.ctx, ast.Store) for part in parts)
        return stored or any(isinstance(part, ast.Expr) and isinstance(part.value, ast.Call) for part in parts)

    def has_device_loop(self, body: list[ast.stmt]) -> bool:
        """Whether there is one, be it behind a `return`."""
        return any(map(self._has_device_loop, body))

    def _has_device_loop(self, stmt: ast.stmt) -> bool:
        loops = (hl.tile, hl.grid, hl.jagged_tile)
        return any(
            isinstance(n, ast.For) and isinstance(n.iter, ast.Call) and self._try_callee(n.iter.func) in loops
            for n in ast.walk(stmt)
        )

    def _try_callee(self, node: ast.expr) -> Any:
        """The object a call's function expression names, None when it is anything but a (dotted) name."""
        if isinstance(node, ast.Name):
            try:
                return self.lookup(node.id)
            except exc.UndefinedVariable:
                return None
        if isinstance(node, ast.Attribute):
            return getattr(self._try_callee(node.value), node.attr, None)
        return None

    def lookup(self, name: str) -> Any:
        if not self.tracer.on_device and name not in self.frame.host:
            if name in self._unrolled_names:
                raise exc.CannotReadDeviceVariableOnHost(
                    f"variable {name!r} of a host loop around device loops is read behind it",
                    fix="that loop is unrolled while compiling: name what you need before it.",
                )
            if name in self.device_names:
                raise exc.CannotReadDeviceVariableOnHost(name=name)
        return super().lookup(name)
