"""The operator that a graph holds for a launch that PyTorch has no node of its own for.

``triton_kernel_wrapper_mutation`` holds launches of Triton kernels with the options that PyTorch knows. The others (the
tile executor's, cooperative launches, those with ``maxnreg``, kernels of the CuTe DSL) are calls of ``helion::launch``:
a function with a name, the tensors it writes, those it only reads, and numbers. PyTorch functionalizes it as it does
any operator that writes to its arguments, and never looks into it.

Not here: when a call is traced and what of the host function is (``dynamo.py``, ``tracing.py``).
"""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
import types
import uuid
import weakref
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import torch

from ... import _compat_torch
from ... import exc
from ..._parsing import parse
from ...ir.block_sizes import SizedIR
from ...ir.effects import written_storages
from ..eager.tile_executor import launch as launch_tiles
from ..host_function import triton_kernels
from ..host_function import written_by

__all__ = ["graph_launcher", "needs_graph_launch"]

Launch = Callable[[Sequence[torch.Tensor], Sequence[torch.Tensor], Sequence[Any], str], None]

#: What graphs of this process call. The names are this process's own: a graph that another one has stored does not
#: find a launch of its own here.
_launches: dict[str, Launch] = {}
_launchers: weakref.WeakKeyDictionary[types.FunctionType, Callable[..., None]] = weakref.WeakKeyDictionary()
_process = uuid.uuid4().hex
_numbers = itertools.count()

_library = torch.library.Library("helion", "FRAGMENT")
_library.define(
    "launch(str code, str layout, Tensor(a!)[] written, Tensor[] read, Scalar[] numbers) -> ()",
    tags=[_compat_torch.exact_strides_tag],
)


def _run(
    code: str, layout: str, written: Sequence[torch.Tensor], read: Sequence[torch.Tensor], numbers: Sequence[Any]
) -> None:
    _launches[code](written, read, numbers, layout)
    _compat_torch.increment_version(written)


_library.impl("launch", _run, "CompositeExplicitAutograd")
# A kernel's results have no gradient, inside of a graph as outside.
_library.impl("launch", torch.library.fallthrough_kernel, "Autograd")
torch.library.register_fake("helion::launch", lambda code, layout, written, read, numbers: None, lib=_library)


#: Launch options that PyTorch would take for arguments of the kernel (torch/_higher_order_ops/triton_kernel_wrap.py
#: knows others).
_UNKNOWN_TO_PYTORCH = frozenset({"launch_cooperative_grid", "maxnreg"})


def needs_graph_launch(run: types.FunctionType) -> bool:
    """Whether PyTorch has no node for the launches of a host function; False where it makes none."""
    if (run.__kwdefaults__ or {}).get("_launcher") is None:
        return False
    keywords = {name for const in run.__code__.co_consts if isinstance(const, tuple) for name in const}
    return not triton_kernels(run) or bool(keywords & _UNKNOWN_TO_PYTORCH)


def graph_launcher(run: types.FunctionType) -> Callable[..., None]:
    """A ``_launcher`` for a generated host function whose launches are calls of ``helion::launch``.

    Args:
        run: the host function as it was imported. What it names ``_launcher`` by default does the launch.

    Returns:
        The launcher, which Dynamo can trace and which records under other tracing modes.
    """
    if run not in _launchers:
        name = f"{run.__name__} {next(_numbers)} of {_process}"
        sized = run.__globals__.get("_device_code")
        made = _tile_launcher(name, sized) if isinstance(sized, SizedIR) else _positional_launcher(name, run)
        _launchers[run] = made
    return _launchers[run]


def _tile_launcher(code: str, sized: SizedIR) -> Callable[..., None]:
    # What shares memory with a tensor that is written counts as written: functionalization gives the operator other
    # memory for what it writes, and a read through another view would not see it.
    storages = written_storages(sized.ir)
    changed = [n for n, t in sized.ir.host_tensors.items() if _compat_torch.storage_identity(t.fake) in storages]
    others = [name for name in sized.ir.host_tensors if name not in changed]

    def run(written: Sequence[torch.Tensor], read: Sequence[torch.Tensor], numbers: Sequence[Any], layout: str) -> None:
        tensors = dict(zip((*changed, *others), (*written, *read)))
        launch_tiles(sized, tensors, dict(zip(layout.split(), numbers)))

    def launch(device_code: SizedIR, tensors: dict[str, torch.Tensor], scalars: dict[str, Any]) -> None:
        torch.ops.helion.launch(
            code,
            " ".join(scalars),
            [tensors[name] for name in changed],
            [tensors[name] for name in others],
            [scalars[name] for name in scalars],
        )

    _launches[code] = run
    return launch


def _positional_launcher(code: str, function: types.FunctionType) -> Callable[..., None]:
    """A launch of the form ``_launcher(kernel, grid, *arguments, **options)``."""
    statement = _launch_statement(function)
    triton_kernel = function.__globals__[ast.unparse(statement.args[0])]
    texts = written_by(function)
    changed = [i for i, arg in enumerate(statement.args[2:]) if texts is None or ast.unparse(arg) in texts]
    launcher = (function.__kwdefaults__ or {})["_launcher"]

    def run(written: Sequence[torch.Tensor], read: Sequence[torch.Tensor], numbers: Sequence[Any], layout: str) -> None:
        kinds, *names = layout.split()
        of = {"w": iter(written), "r": iter(read), "n": iter(numbers)}
        args = [next(of[kind]) for kind in kinds]
        rank = args.pop(0)
        options = dict(zip(names, args[len(args) - len(names) :]))
        args = args[: len(args) - len(names)]
        launcher(triton_kernel, tuple(args[:rank]), *args[rank:], **options)

    def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
        written, read = [], []
        numbers: list[Any] = [len(grid)]
        kinds = "n"
        for item in grid:
            numbers.append(item)
            kinds += "n"
        for i, arg in enumerate(args):
            if not isinstance(arg, torch.Tensor):
                numbers.append(arg)
                kinds += "n"
            elif i in changed:
                written.append(arg)
                kinds += "w"
            else:
                read.append(arg)
                kinds += "r"
        for option in options:
            numbers.append(options[option])
            kinds += "n"
        torch.ops.helion.launch(code, f"{kinds} {' '.join(options)}", written, read, numbers)

    _launches[code] = run
    return launch


def _launch_statement(function: types.FunctionType) -> ast.Call:
    """The one call of ``_launcher`` in a host function."""
    tree = parse(textwrap.dedent(inspect.getsource(function)))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "_launcher"]
    if len(calls) != 1:
        raise exc.InternalError(reason=f"host function {function.__name__!r} has {len(calls)} launches")
    return calls[0]
