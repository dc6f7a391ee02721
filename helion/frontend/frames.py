"""The names of the functions being interpreted, and the place in their source.

Values come to names in `statements` and `expressions`; what can be called is in `calls`.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from .. import exc
from .environment import Environment
from .lengths import note_on_constants
from .outer_index import note_on_pairs
from .source import FunctionSource
from .tracer import Tracer

_MISSING = object()


class Poison:
    """What a name is bound to when only one path through a branch or loop assigns it."""

    def __init__(self, name: str, why: str) -> None:
        self.name = name
        self.why = why


@dataclasses.dataclass
class Frame:
    """One function being interpreted: its names and where it stands.

    Attributes:
        source: the function's source, for locations.
        globals: the function's global and closure names.
        host: names of the kernel function's host code (shared by all frames of a trace).
        device: names assigned in device code, or all local names of an inlined helper.
        is_kernel: the kernel function itself, as opposed to a helper.
        fresh: names of host code that the device loop gives values of its own before it reads them, and of which
            nobody reads host code's afterwards.
    """

    source: FunctionSource
    globals: dict[str, Any]
    host: dict[str, Any]
    device: dict[str, Any]
    is_kernel: bool
    fresh: set[str] = dataclasses.field(default_factory=set)


class _FrameScope:
    """A `with` block in which a frame is the current one."""

    def __init__(self, frames: list[Frame], frame: Frame, tracer: Tracer) -> None:
        self.frames, self.frame, self.tracer = frames, frame, tracer

    def __enter__(self) -> None:
        self.frames.append(self.frame)
        self.tracer.call_sites.append(self.tracer.location)

    def __exit__(self, *exc_info: object) -> None:
        self.frames.pop()
        self.tracer.call_sites.pop()


class Frames:
    """The stack of frames; looks names up and assigns them in the current one.

    Args:
        env: the specialization's environment.
        tracer: who records device code.
    """

    def __init__(self, env: Environment, tracer: Tracer) -> None:
        self.env = env
        self.tracer = tracer
        self.frames: list[Frame] = []

    # -- frames and places -------------------------------------------------------------------------------------------

    @property
    def frame(self) -> Frame:
        return self.frames[-1]

    def enter(self, frame: Frame) -> _FrameScope:
        """Make `frame` the current one for the length of a `with` block."""
        return _FrameScope(self.frames, frame, self.tracer)

    def at(self, node: ast.AST) -> None:
        """Remember where in the user's code we are, for nodes and errors."""
        if hasattr(node, "lineno"):
            self.tracer.location = self.frame.source.location(node)

    def error(self, node: ast.AST, error: exc.BaseError) -> exc.BaseError:
        """The error with a place, unless it has one."""
        if error.location is None:
            error.location = self.frame.source.location(node)
            error.message = self.env.space.readable(error.message)
            if isinstance(error, (exc.ShapeMismatch, exc.TorchOpTracingError)):
                note = note_on_constants(self.tracer, error.message)
                if note is None and isinstance(error, exc.ShapeMismatch):
                    note = note_on_pairs(self.tracer)
                error.advice = f"{error.advice} {note or ''}".strip()
        return error

    def where(self) -> str:
        return "device code" if self.tracer.on_device else "host code"

    # -- names -------------------------------------------------------------------------------------------------------

    def lookup(self, name: str) -> Any:
        frame = self.frame
        for scope in (frame.device, frame.host if frame.is_kernel else {}, frame.globals):
            value = scope.get(name, _MISSING)
            if value is not _MISSING:
                if isinstance(value, Poison):
                    raise exc.UndefinedVariable(name=name, hint=value.why)
                return self.outside(value, name) if scope is frame.globals else value
        value = getattr(builtins, name, _MISSING)
        if value is _MISSING:
            raise exc.UndefinedVariable(name=name, hint="assign it before it is read.")
        return value

    def outside(self, value: Any, name: str) -> Any:
        """A global or closure value: real tensors become fake ones."""
        known = self.env.filled.get(id(value))
        if known is not None:
            return known[1]
        if isinstance(value, torch.Tensor) and not isinstance(value, FakeTensor):
            if self.frame.is_kernel:
                raise unread_tensor()
            return self.tracer.captured(value, name)
        return value

    def bind(self, name: str, value: Any) -> None:
        """Assign a name in the current scope."""
        frame = self.frame
        if not frame.is_kernel:
            frame.device[name] = value
        elif not self.tracer.on_device:
            frame.host[name] = value
        else:
            if name == "_":  # for what nobody reads, in host code as on the device
                frame.host.pop(name, None)
            if name in frame.host and name not in frame.device and name not in frame.fresh:
                raise self.read_only(name)
            frame.device[name] = value
        if self.tracer.on_device:
            self.tracer.name_value(value, name)

    def read_only(self, name: str) -> exc.BaseError:
        """What is wrong with an assignment to a variable of host code."""
        error = exc.CannotModifyHostVariableOnDevice(name=name)
        if not isinstance(self.frame.host.get(name), torch.Tensor):
            error.advice = (
                "host variables are read-only on the device: use another name; what is wanted after the loop, store in "
                "a tensor that host code makes (`out[0] = ...`; hl.atomic_add for a sum over tiles)."
            )
        return error


def unread_tensor() -> exc.BaseError:
    """What is wrong with a tensor of which only the trace would know what it is."""
    return exc.InvalidAPIUsage(
        "the kernel uses a tensor from outside its function that calls would not read anew",
        fix="pass it as an argument; or name it in the kernel function as a global, a variable of the "
        "enclosing function, or an attribute or constant item of one: those are read at every call.",
    )
