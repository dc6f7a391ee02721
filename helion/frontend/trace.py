"""Entry of the front end: a kernel function and its arguments -> `KernelIR`."""

from __future__ import annotations

import ast
import builtins
import re
import types
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import torch

from .. import exc
from ..ir.axes import check_axes
from ..ir.dependencies import check_dependencies
from ..ir.device_ir import AxisKind
from ..ir.device_ir import HostCode
from ..ir.device_ir import KernelIR
from ..ir.device_ir import RollableReduction
from ..ir.device_ir import Seeds
from ..ir.device_ir import eliminate_dead_code
from ..ir.effects import assumed_apart
from ..ir.effects import storage_of
from ..ir.nests import merge_nests
from ..ir.reductions import rollable_sizes
from ..ir.verify import verify
from ..language.containers import walk_values
from ..language.op import handler
from ..settings import Settings
from .environment import Environment
from .expressions import LambdaValue
from .frames import Frame
from .frames import unread_tensor
from .host_decisions import Decisions
from .host_decisions import Outcomes
from .index_width import IndexWidth
from .kernel_body import KernelBody
from .source import FunctionSource
from .source import assigned_names
from .source import function_globals
from .source import read_names
from .source import source_of
from .tracer import Tracer
from .unrolled import constant_text


def trace_kernel(
    fn: types.FunctionType,
    arguments: dict[str, Any],
    settings: Settings,
    device: torch.device,
    constants: frozenset[str] = frozenset(),
    overlapping: Sequence[Sequence[tuple[torch.Tensor, int]]] = (),
    varying: dict[str, tuple[frozenset[int], frozenset[int]]] | None = None,
    filled: Mapping[str, Any] | None = None,
    outcomes: Outcomes | None = None,
    warned: set[type[exc.BaseWarning]] | None = None,
) -> KernelIR:
    """Trace one specialization of a kernel function.

    Args:
        fn: the kernel function.
        arguments: parameter name -> the call's argument, all of them, defaults filled in.
        settings: the kernel's settings.
        device: where the tensor arguments live.
        constants: parameters annotated hl.constexpr.
        overlapping: tensors of the arguments that lie in one memory, in groups, each with its address; all others are
            apart.
        varying: parameter -> the dimensions of its tensor of which the size, the stride is no constant.
        filled: those of the arguments that the function reads from outside itself, and that callers do not give, with
            the objects that it finds: the arguments may be others, as under torch.compile.
        outcomes: what the conditions of host code are in this call; None if nobody has asked yet.
        warned: what the kernel's traces have warned of.

    Returns:
        The device IR, the host statements around it, and the guards under which they hold.

    Raises:
        exc.BaseError: the function is not a kernel we accept; with the place in its source.
        Undecided: the outcomes are needed.
    """
    source = source_of(fn)
    env = Environment(settings, device, overlapping, varying, warned)
    tracer = Tracer(env)
    interpreter = KernelBody(env, tracer, Decisions(source.node, outcomes))
    with env.active():
        host = {name: env.fake_argument(value, name, name, name in constants) for name, value in arguments.items()}
        try:
            tracer.set_index_dtype(IndexWidth(settings).of_arguments(arguments))
        except exc.IndexOffsetOutOfRangeForInt32 as error:
            error.location = source.location(source.node)
            raise
        env.filled = {id(value): (value, host[name]) for name, value in (filled or {}).items()}
        given = list(host.values())
        frame = Frame(source, function_globals(fn), host, {}, is_kernel=True)
        names = HostNames(env, host, fn)
        tracer.name_of_host_tensor = names.text_of
        with handler(tracer), interpreter.enter(frame):
            interpreter.run_kernel(source.node.body)
            returns_early = not env.ir.roots and interpreter.has_device_loop(source.node.body)
    if not env.ir.roots and not returns_early:
        raise exc.NoDeviceLoopsInKernel(kernel=fn.__name__, location=source.location(source.node))
    env.check_blocks_are_free()
    eliminate_dead_code(env.ir)
    _check_effects(env, source, interpreter)
    _check_devices(env, source, filled or {})
    check_dependencies(env.ir)
    check_axes(env.ir)
    merge_nests(env.ir)
    reductions = _reductions(env)
    env.space.close()
    if settings.verify_ir:
        verify(env.ir)
    ir = KernelIR(
        name=fn.__name__,
        device=env.ir,
        host=host_code(fn, source.node, interpreter, names.seeds(), list(filled or ())),
        guards=env.guards(),
        tunables=env.tunables,
        specialized=env.specialized,
        location=source.location(source.node),
        reductions=reductions,
        assumed_apart=assumed_apart(env.ir, _owners(env, dict(zip(arguments, given)))),
    )
    env.forget_tensors()
    return ir


def _reductions(env: Environment) -> list[RollableReduction]:
    return [
        RollableReduction(info.id, size, env.new_axis(env.new_block("r"), AxisKind.REDUCTION, 0, size, "r"))
        for info in env.ir.graphs
        for size in rollable_sizes(env.ir, info)
    ]


def _check_effects(env: Environment, source: FunctionSource, interpreter: KernelBody) -> None:
    roots = [env.ir.graphs[root.graph_id].graph for root in env.ir.roots]
    if not roots or any(n.op == "call_function" for graph in roots for n in graph.nodes):
        return
    if not interpreter.leaves_out_a_store:
        raise exc.EmptyDeviceLoopAfterDCE(kernel=source.node.name, location=source.location(source.node))
    env.ir.drop_loops()


def _check_devices(env: Environment, source: FunctionSource, filled: Mapping[str, Any]) -> None:
    """Host code may use a tensor of another device from outside the function, device code may not."""
    for tensor in env.ir.host_tensors.values():
        if re.split(r"[.\[]", tensor.text)[0] in filled and tensor.fake.device != env.device:
            devices = ", ".join(sorted({str(tensor.fake.device), str(env.device)}))
            raise exc.DeviceMismatch(kernel=source.node.name, devices=devices, location=source.location(source.node))
        if tensor.fake.device.type != env.device.type:  # of arguments it is known before: host code has made it
            made = f"a tensor that host code makes on {tensor.fake.device} is used in device code, on {env.device}"
            fix = "make it with `device=x.device` of an argument x, or leave `device=` out."
            raise exc.DeviceMismatch(
                f"kernel {source.node.name!r}: {made}: {tensor.text}", fix=fix, location=source.location(source.node)
            )


def _captured_by(argument: str, text: str) -> bool:
    return text.startswith((f"{argument}.", f"{argument}[")) and ".__closure__[" in text


def _owners(env: Environment, arguments: dict[str, Any]) -> dict[int, set[int]]:
    """Which arguments, by position, hold each memory."""
    owners: dict[int, set[int]] = {}
    for position, (name, value) in enumerate(arguments.items()):
        held = [part for _, part in walk_values(value, name) if isinstance(part, torch.Tensor)]
        # What a function among the arguments captures is reached through it.
        held += [host.fake for host in env.ir.host_tensors.values() if _captured_by(name, host.text)]
        for tensor in held:
            owners.setdefault(storage_of(tensor), set()).add(position)
    return owners


class HostNames:
    """Finds the host expression that gives a tensor the device code uses."""

    def __init__(self, env: Environment, host: dict[str, Any], fn: types.FunctionType) -> None:
        self.env = env
        self.host = host
        self.fn = fn
        taken = {*fn.__code__.co_varnames, *fn.__code__.co_names, *fn.__code__.co_freevars}
        self.seeds_name = next(name for name in ("seeds", *map("seeds_{}".format, range(1000))) if name not in taken)

    def seeds(self) -> Seeds | None:
        """What draws this launch's seeds, if device code draws random numbers of torch's."""
        if self.env.seeds is None or not self.env.ir.roots:
            return None
        # Device code stores something, so there is another tensor.
        beside = next(h.text for h in self.env.ir.host_tensors.values() if h.fake is not self.env.seeds)
        return Seeds(self.seeds_name, self.env.seeds.numel(), beside)

    def text_of(self, fake: torch.Tensor) -> str | None:
        """A host expression for `fake`, or None when no host value holds it.

        Raises:
            exc.InvalidAPIUsage: a tensor captured from the enclosing scope, which a call could not check.
        """
        if fake is self.env.seeds:
            return self.seeds_name
        host = self.host if self.env.host_variables is None else self.env.host_variables
        for name, value in host.items():
            if value is fake:
                return name
        for name, value in host.items():
            for path, part in walk_values(value, name):
                if part is fake:
                    return path
                found = self._in_closure(part, path, fake)
                if found is not None:
                    return found
        if any(known is fake for _, known in self.env._fakes.values()):
            raise unread_tensor()
        return None

    def _in_closure(self, value: Any, path: str, fake: torch.Tensor, inside: tuple[Any, ...] = ()) -> str | None:
        """The expression that reads `fake` out of a function argument's closure; `inside`: the functions that hold
        it.
        """
        if isinstance(value, LambdaValue) or any(value is other for other in inside):
            return None
        if not isinstance(value, types.FunctionType):
            return None
        for i, cell in enumerate(value.__closure__ or ()):
            try:
                content = cell.cell_contents
            except ValueError:  # not assigned yet
                continue
            text = f"{path}.__closure__[{i}].cell_contents"
            for part_path, part in walk_values(content, text):
                known = self.env._fakes.get(id(part))
                if known is not None and known[1] is fake:
                    # Generated code calls it as the function does: `bias`, not `epilogue___closure__...`.
                    self.env.capture_names[part_path] = value.__code__.co_freevars[i] + part_path[len(text) :]
                    return part_path
                found = self._in_closure(part, part_path, fake, (*inside, value))
                if found is not None:
                    return found
        return None


def _default_text(value: Any, expression: ast.expr | None, outside: Mapping[str, Any]) -> str:
    """A parameter's default as generated code has it; a call fills in all of them before it comes to that code.

    It was computed when the function was defined: the expression's names may mean something else by now, and a function
    that comes to a tuning process by value does not bring them along.
    """
    text = constant_text(value)
    if text is not None:
        return text
    known = expression is not None and all(n in outside or hasattr(builtins, n) for n in read_names(expression))
    return ast.unparse(expression) if expression is not None and known else "None"


def host_code(
    fn: types.FunctionType,
    node: ast.FunctionDef,
    interpreter: KernelBody,
    seeds: Seeds | None = None,
    filled: Sequence[str] = (),
) -> HostCode:
    """What the generated host function is printed from."""
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    outside = function_globals(fn)
    given = list(zip(reversed(fn.__defaults__ or ()), [*reversed(arguments.defaults), *[None] * len(positional)]))
    kept = [_default_text(value, expression, outside) for value, expression in reversed(given)]
    parameters = list(zip([a.arg for a in positional], [*[None] * (len(positional) - len(kept)), *kept]))
    parameters += [(name, "None" if kept else None) for name in filled]
    statements = [*interpreter.prelude, *interpreter.epilogue]
    assigned = assigned_names(statements)
    read = set().union(*(read_names(s) for s in statements)) if statements else set()
    for text in kept:
        read |= read_names(ast.parse(text, mode="eval"))
    local = assigned | {name for name, _ in parameters}
    used = {name: outside[name] for name in sorted(read - local) if name in outside}
    rewrites = dict(interpreter.rewrites)
    checks = interpreter.env.read_guards()
    return HostCode(
        parameters,
        interpreter.prelude,
        interpreter.epilogue,
        rewrites,
        used,
        assigned,
        seeds,
        checks,
        interpreter.decisions.tests,
        interpreter.decisions.taken,
    )
