"""Records a host function as a ``LaunchPlan``: the call as data, which ``csrc/plan.cpp`` then runs without Python.

The host function is run once, for a real call, under a recorder that sees every tensor operation and every launch. It
becomes a plan only if all it did was allocate, fill, view and launch, and if the static analysis of its source
(``host_analysis.py``) agrees that nothing else went on. Otherwise there is a reason, in words, and the host function
stays.

A plan holds for one signature: sizes, strides, dtypes and alignment of all tensors are fixed, so that sizes, offsets
and grids are plain numbers in it. Numbers among the arguments are passed on where the host function does no more than
that with them; the value of any other number becomes part of the signature.

Not here: when a call is recorded, and what happens to the plan (``compiled_dispatch.py``).
"""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ... import _extension
from .. import device as _device
from ..allocation import is_helions_allocator
from ..allocation import scratch_allocators
from ..versions import increment_version
from . import spec as launch_spec
from .host_analysis import HostAnalysis
from .host_analysis import analyze
from .leaves import lists_in
from .leaves import with_originals
from .leaves import without_duplicates
from .native_kernel import NativeKernel
from .plan_data import Address
from .plan_data import Allocation
from .plan_data import Constant
from .plan_data import Container
from .plan_data import Fill
from .plan_data import Launch
from .plan_data import Made
from .plan_data import Number
from .plan_data import Object
from .plan_data import Op
from .plan_data import PlanData
from .plan_data import Result
from .plan_data import Step
from .plan_data import Structure
from .plan_data import TensorRef
from .plan_data import View
from .records import fields_of

__all__ = ["NotAPlan", "Recorder", "Recording", "record"]

aten = torch.ops.aten


class NotAPlan(Exception):
    """The message is the reason."""


@dataclasses.dataclass
class Recording:
    """What came of recording one call.

    Attributes:
        result: what the call returned.
        plan: a LaunchPlan, or what another recorder makes; None if it cannot be one.
        reason: why not; "" if there is a plan.
        by_value: positions of parameters whose value, if they are numbers, has to be part of the signature.
        description: the plan as data; None where it cannot be that of another process.
    """

    result: Any
    plan: Any
    reason: str
    by_value: frozenset[int] = frozenset()
    description: PlanData | None = None


@dataclasses.dataclass(frozen=True)
class _Known:
    """A tensor whose origin is known: ``offset`` bytes after the first element of an input or buffer."""

    tensor: torch.Tensor  # keeps the id its own
    ref: TensorRef
    offset: int
    is_root: bool = False  # it is the input or buffer itself


# -- operations
# ---------------------------------------------------------------------------------------------------------

#: Operations that allocate, and the value they fill with: None, a number, or the position of the value in the
#: arguments.
_ALLOCATIONS: dict[Any, Callable[[Sequence[Any]], Any]] = {
    aten.empty.memory_format: lambda args: None,
    aten.empty_strided.default: lambda args: None,
    aten.empty_like.default: lambda args: None,
    aten.new_empty.default: lambda args: None,
    aten.new_empty_strided.default: lambda args: None,
    aten.zeros.default: lambda args: 0,
    aten.zeros_like.default: lambda args: 0,
    aten.new_zeros.default: lambda args: 0,
    aten.ones.default: lambda args: 1,
    aten.ones_like.default: lambda args: 1,
    aten.new_ones.default: lambda args: 1,
    aten.full.default: lambda args: args[1],
    aten.full_like.default: lambda args: args[1],
    aten.new_full.default: lambda args: args[2],
}

#: In-place fills of their first argument, as above.
_FILLS: dict[Any, Callable[[Sequence[Any]], Any]] = {
    aten.zero_.default: lambda args: 0,
    aten.fill_.Scalar: lambda args: args[1],
}

#: Views of their first argument. ``as_strided`` is not among them: its offset counts from the start of the storage,
#: which is not in the signature.
_VIEWS: frozenset[Any] = frozenset(
    {
        aten.alias.default,
        aten.detach.default,
        aten.diagonal.default,
        aten.expand.default,
        aten.permute.default,
        aten.select.int,
        aten.slice.Tensor,
        aten.split.Tensor,
        aten.split_with_sizes.default,
        aten.squeeze.default,
        aten.squeeze.dim,
        aten.squeeze.dims,
        aten.t.default,
        aten.transpose.int,
        aten.unbind.int,
        aten.unfold.default,
        aten.unsqueeze.default,
        aten.view.default,
        aten._reshape_alias.default,
        aten._unsafe_view.default,
    }
)


#: Operations on tensors that only look at what a signature holds.
_OF_METADATA: frozenset[Any] = frozenset(
    {aten.result_type.Tensor, aten.result_type.Scalar, aten.result_type.Scalar_Tensor, aten.is_same_size.default}
)

#: Tags of operations whose result depends on what is in memory by more than its values.
_UNPREDICTABLE: frozenset[Any] = frozenset({torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output})

#: Types of values that are the same in every call.
_PLAIN_VALUES: frozenset[type] = frozenset(
    {int, float, bool, complex, str, torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format}
)


class Recorder(TorchDispatchMode):
    """Watches one run of a host function; ``problem`` is the first thing that cannot be in a plan."""

    def __init__(self, inputs: Sequence[Any], launcher: Callable[..., Any], analysis: HostAnalysis) -> None:
        super().__init__()
        self.launcher = launcher
        self.analysis = analysis
        self.problem: str | None = None
        self.has_scratch = False
        self.buffers: list[Allocation | Made] = []
        self.steps: list[Step] = []
        self.launched: set[TensorRef] = set()
        #: What operations wrote to, once for each time.
        self.changes: list[TensorRef] = []
        self.filled: set[TensorRef] = set()
        self.device: int | None = None
        self.just_allocated: int | None = None
        self.argument_lists: set[int] = set()
        #: Views, tuples and lists in the result, which a plan makes anew.
        self.made: list[Any] = []
        self.roots: dict[TensorRef, torch.Tensor] = {}
        self.known: dict[int, _Known] = {}
        self.description: PlanData | None = None
        #: Parameters that are passed to launches by identity: name -> leaf.
        self.numbers: dict[str, int] = {}
        for leaf, value in enumerate(inputs):
            if isinstance(value, torch.Tensor):
                self.add_root(value, TensorRef(True, leaf))

    def add_root(self, tensor: torch.Tensor, ref: TensorRef) -> None:
        self.roots[ref] = tensor
        self.known[id(tensor)] = _Known(tensor, ref, 0, is_root=True)

    def refuse(self, reason: str) -> None:
        if self.problem is None:
            self.problem = reason

    # Runs for every operation; the mode is off inside.
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.problem is None:
            if func in _ALLOCATIONS:
                self.allocated(result, _ALLOCATIONS[func](args))
            elif func in _FILLS:
                self.fill(args[0], _FILLS[func](args))
            elif func is aten.detach.default and id(args[0]) == self.just_allocated:
                # torch.empty_like and its like detach what they allocated if somebody (this mode) has seen it: to host
                # code this is the new tensor.
                found = self.known[id(args[0])]
                self.known[id(result)] = dataclasses.replace(found, tensor=result)
                self.roots[found.ref] = result
            elif func in _VIEWS:
                self.viewed(args[0], result)
            else:
                self.operation(func, args, kwargs or {}, result)
            self.just_allocated = id(result) if func in _ALLOCATIONS else None
        return result

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """An operation that the plan has to perform as it is."""
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if (not tensors and not isinstance(result, torch.Tensor)) or func in _OF_METADATA:
            return  # arithmetic on dtypes and sizes
        results = list(result) if isinstance(result, (tuple, list)) else [result]
        known = {id(tensor) for tensor in tensors}
        memory = {tensor.untyped_storage()._cdata for tensor in tensors if type(tensor) is torch.Tensor}
        changed = [
            tensor
            for argument, value in zip(func._schema.arguments, args)
            if argument.alias_info is not None and argument.alias_info.is_write and isinstance(value, torch.Tensor)
            for tensor in [value]
        ]
        new = [tensor for tensor in results if id(tensor) not in known]
        if (
            not all(isinstance(tensor, torch.Tensor) for tensor in results)
            or _UNPREDICTABLE.intersection(func.tags)
            or any(type(t) is not torch.Tensor or t.layout is not torch.strided or t.data_ptr() % 16 for t in new)
            or any(tensor.untyped_storage()._cdata in memory for tensor in new)
            or (new and (changed or len(new) != len(results)))
            or torch.is_autocast_enabled("cpu")
            or torch.is_autocast_enabled("cuda")
        ):
            self.refuse(f"host code runs {func}")
            return
        try:
            arguments = tuple([self.argument(value) for value in (*args, *kwargs.values())])
        except NotAPlan as why:
            self.refuse(str(why))
            return
        outputs = []
        for tensor in new:
            outputs.append(len(self.buffers))
            self.add_root(tensor, TensorRef(False, len(self.buffers)))
            self.buffers.append(Made(tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device))
        for tensor in changed:
            ref = self.known[id(tensor)].ref
            self.filled.add(ref)
            self.changes.append(ref)
        self.steps.append(Op(func, Container(True, arguments), tuple(kwargs), tuple(outputs), bool(changed)))

    def argument(self, value: Any) -> Result:
        """The description of what an operation is given."""
        if isinstance(value, torch.Tensor):
            found = self.known.get(id(value))
            if found is None:
                raise NotAPlan("an operation of host code gets a tensor of unknown origin")
            return found.ref if found.is_root else self.view(value, found)
        if type(value) in (tuple, list):
            return Container(type(value) is tuple, tuple([self.argument(item) for item in value]))
        if value is None or type(value) in _PLAIN_VALUES:
            return Object(value)
        raise NotAPlan(f"an operation of host code gets a {type(value).__name__}")

    def allocated(self, tensor: torch.Tensor, value: Any) -> None:
        if type(tensor) is not torch.Tensor or tensor.layout is not torch.strided or tensor.is_pinned():
            self.refuse("host code allocates something other than a plain tensor")
            return
        ref = TensorRef(False, len(self.buffers))
        self.buffers.append(Allocation(tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device, False))
        self.add_root(tensor, ref)
        if value is not None:
            self.add_fill(ref, value, fresh=True)

    def fill(self, tensor: torch.Tensor, value: Any) -> None:
        found = self.known.get(id(tensor))
        root = self.roots[found.ref] if found is not None else None
        if (
            found is None
            or root is None
            or found.offset
            or (tensor.shape, tensor.stride()) != (root.shape, root.stride())
        ):
            self.refuse("host code fills part of a tensor")
            return
        self.add_fill(found.ref, value)

    def add_fill(self, ref: TensorRef, value: Any, *, fresh: bool = False) -> None:
        if type(value) not in (int, float, bool):
            self.refuse(f"host code fills a tensor with a {type(value).__name__}")
            return
        self.filled.add(ref)
        self.steps.append(Fill(ref, value, fresh))

    def viewed(self, base: torch.Tensor, result: Any) -> None:
        found = self.known.get(id(base))
        for view in result if isinstance(result, (list, tuple)) else [result]:
            if found is None:
                self.refuse("host code views a tensor of unknown origin")
            elif id(view) not in self.known:
                offset = (
                    found.offset + view.data_ptr() - base.data_ptr() if view.numel() and base.numel() else found.offset
                )
                self.known[id(view)] = _Known(view, found.ref, offset)

    def launch(self, kernel: Any, grid: tuple[int, ...], *args: Any, **keywords: Any) -> Any:
        """The host function's ``_launcher``: launches for real, and takes it down."""
        line = sys._getframe(1).f_lineno
        # What the launcher does is not host code.
        self.__exit__(None, None, None)
        try:
            compiled = self.launcher(kernel, grid, *args, **keywords)
            if self.problem is None:
                try:
                    self.steps.append(self.launch_step(kernel, grid, args, keywords, compiled, line))
                except NotAPlan as why:
                    self.refuse(str(why))
        finally:
            self.__enter__()
        return compiled

    def launch_step(
        self, kernel: Any, grid: Any, args: tuple[Any, ...], keywords: dict[str, Any], compiled: Any, line: int
    ) -> Launch:
        if not isinstance(grid, tuple) or not all(type(size) is int for size in grid):
            raise NotAPlan("the grid is not a tuple of ints")
        spec, device, positions = self.spec_of(kernel, compiled, len(args), keywords)
        found = self.analysis.launch_at(line)
        if found is None or len(found.names) != len(args):
            raise NotAPlan("the launch cannot be found in the host code")
        current = _device.current_device()
        if any(isinstance(a, torch.Tensor) and _device.device_index_of(a) != current for a in args):
            # The launcher switches to the tensors' device for the launch; a plan is on one device, all of it.
            raise NotAPlan("the arguments are on another device than the current one")
        if self.device is None:
            self.device = device
        elif self.device != device:
            raise NotAPlan("host code launches on two devices")
        sources = [self.source(args[i], found.names[i]) for i in positions]
        if launch_spec.needs_scratch(compiled):
            sources.append(self.scratch(launch_spec.scratch_bytes(compiled, grid)))
        return Launch(spec, grid, tuple(sources))

    def spec_of(
        self, kernel: Any, compiled: Any, argument_count: int, keywords: dict[str, Any]
    ) -> tuple[Any, int, list[int]]:
        """What the plan launches, on which device, and the argument that each parameter of the binary comes from."""
        if not isinstance(compiled, NativeKernel) and not hasattr(compiled, "metadata"):
            raise NotAPlan("the launcher does not tell what it launched")
        if reason := launch_spec.unsupported_reason(compiled, argument_count, keywords, scratch=True):
            raise NotAPlan(f"kernel {compiled.name}: {reason}")
        spec = launch_spec.describe(kernel, compiled)
        return spec, spec.device, launch_spec.parameter_positions(compiled)

    def scratch(self, size: int) -> Address:
        """A launch's scratch memory: a buffer of the plan, as helion's allocator for Triton would give it."""
        if not is_helions_allocator():
            raise NotAPlan("triton.set_allocator was called: a user's own allocator gives scratch memory")
        self.has_scratch = True
        ref = TensorRef(False, len(self.buffers))
        self.buffers.append(Allocation((size,), (1,), torch.int8, _device.torch_device(), False))
        return Address(ref, 0)

    def source(self, value: Any, name: str | None) -> Address | Number | Constant:
        """Where a launch gets an argument from."""
        if isinstance(value, torch.Tensor):
            found = self.known.get(id(value))
            if found is None:
                raise NotAPlan("a launch gets a tensor of unknown origin")
            if found.ref.is_input and value.data_ptr() % 16 == 0 and self.roots[found.ref].data_ptr() % 16:
                # The signature knows that the argument is misaligned, and not by how much: with another one this view
                # is misaligned, too, where the binary was compiled for an aligned one.
                raise NotAPlan("a launch gets an aligned view of a misaligned argument")
            self.launched.add(found.ref)
            return Address(found.ref, found.offset)
        if type(value) not in (int, float, bool):
            raise NotAPlan(f"a launch gets a {type(value).__name__}")
        if name is not None and name in self.numbers and name not in self.analysis.by_value:
            return Number(self.numbers[name])
        return Constant(value)

    # -- what it adds up to
    # -----------------------------------------------------------------------------------------------

    def result(self, value: Any) -> Result:
        """The description of what the host function returned."""
        if isinstance(value, torch.Tensor):
            return self.tensor_result(value)
        if id(value) in self.argument_lists:
            raise NotAPlan("host code returns a container that is there already")
        if type(value) in (tuple, list):
            self.once(value, type(value).__name__)
            return Container(type(value) is tuple, tuple([self.result(item) for item in value]))
        if value is None or type(value) in _PLAIN_VALUES:
            return Object(value)
        if type(value) is dict and all(type(key) in _PLAIN_VALUES for key in value):
            self.once(value, "dict")
            return Structure(tuple(value), tuple([self.result(item) for item in value.values()]))
        fields = fields_of(value)
        if fields is None:
            raise NotAPlan(f"host code returns a {type(value).__name__}")
        self.once(value, type(value).__name__)
        return Structure(type(value), tuple([self.result(item) for item in fields]))

    def tensor_result(self, value: torch.Tensor) -> Result:
        found = self.known.get(id(value))
        if found is None:
            raise NotAPlan("host code returns a tensor of unknown origin")
        if found.is_root:
            if value.requires_grad and not found.ref.is_input:
                raise NotAPlan("host code returns a new tensor that requires grad")
            return found.ref
        self.once(value, "view")
        view, root = self.view(value, found), self.roots[found.ref]
        # What the plan returns, to be compared in kind with what host code does: x.detach() is a tensor of its own.
        made = root.as_strided(view.sizes, view.strides, root.storage_offset() + view.offset)
        if _kind(made) != _kind(value):
            raise NotAPlan("host code returns a view that is not a plain one, such as x.detach()")
        return view

    def view(self, value: torch.Tensor, found: _Known) -> View:
        root = self.roots[found.ref]
        if value.dtype != root.dtype or type(value) is not torch.Tensor:
            raise NotAPlan("host code has a tensor reinterpreted as another dtype")
        if found.offset % value.element_size():
            raise NotAPlan("host code has a view at an odd offset")
        offset = found.offset // value.element_size()
        return View(found.ref, tuple(value.shape), value.stride(), offset)

    def once(self, value: Any, what: str) -> None:
        """Refuse what host code returns in two places: a plan would make two of it."""
        if any(value is other for other in self.made):
            raise NotAPlan(f"host code returns one {what} twice")
        self.made.append(value)

    def returned(self, description: Result) -> set[TensorRef]:
        if isinstance(description, TensorRef):
            return {description}
        if isinstance(description, View):
            return {description.tensor}
        if isinstance(description, (Container, Structure)):
            return set().union(*[self.returned(item) for item in description.items])
        return set()

    def written(self, leaves: Sequence[Any], before: Sequence[int]) -> tuple[TensorRef, ...]:
        """The tensors whose version counters host code advanced, once for each time, but for what its fills and
        operations did, which a plan does as well.
        """
        counted = [step.tensor for step in self.steps if isinstance(step, Fill) and not step.fresh] + self.changes
        advanced = {TensorRef(True, i): _version(leaf) - before[i] for i, leaf in enumerate(leaves)}
        advanced |= {ref: _version(root) for ref, root in self.roots.items() if not ref.is_input}
        return tuple([ref for ref, times in advanced.items() for _ in range(times - counted.count(ref))])

    def build(self, leaves: Sequence[Any], result: Any, written: tuple[TensorRef, ...]) -> Any:
        """The plan.

        Raises:
            NotAPlan: why it cannot be one.
        """
        if self.problem is not None:
            raise NotAPlan(self.problem)
        if self.device is None:
            raise NotAPlan("host code launches nothing")
        description = self.result(result)
        returned = self.returned(description)
        buffers: list[Allocation | Made] = []
        for number, buffer in enumerate(self.buffers):
            if buffer.device.type == "cuda" and buffer.device.index != self.device:
                raise NotAPlan("host code allocates on another device")
            ref = TensorRef(False, number)
            # An output: a kernel gets it, nothing else has written it, and the caller sees it.
            pooled = ref in returned and ref in self.launched and ref not in self.filled
            buffers.append(buffer._replace(pooled=pooled) if isinstance(buffer, Allocation) else buffer)
        return self.plan(len(leaves), tuple(buffers), description, written)

    def plan(
        self, leaf_count: int, buffers: tuple[Allocation | Made, ...], result: Result, written: tuple[TensorRef, ...]
    ) -> Any:
        """What `build` makes of it all."""
        assert _extension.C is not None and self.device is not None
        self.description = PlanData(leaf_count, buffers, tuple(self.steps), result, written, self.analysis.identity)
        return _extension.C.LaunchPlan(
            leaf_count,
            self.device,
            buffers,
            tuple(self.steps),
            result,
            written,
            self.analysis.identity,
            scratch_allocators() if self.has_scratch else (),
        )


# -- recording one call
# ---------------------------------------------------------------------------------------------------


def _kind(tensor: torch.Tensor) -> tuple[Any, ...]:
    """What a program can see of a view but its values."""
    return (
        tensor.shape,
        tensor.stride(),
        tensor.storage_offset(),
        tensor.dtype,
        tensor.requires_grad,
        tensor.is_inference(),
        tensor._is_view(),
        id(tensor._base) if tensor._is_view() else None,
        _version(tensor),
    )


def _version(value: Any) -> int:
    """The version counter of a tensor; 0 for what has none."""
    return value._version if isinstance(value, torch.Tensor) and not value.is_inference() else 0


def _holds_number(value: Any) -> bool:
    if type(value) in (tuple, list):
        return any(_holds_number(item) for item in value)
    return type(value) in (int, float)


def record(
    host_function: types.FunctionType,
    args: tuple[Any, ...],
    leaves_of: Callable[[tuple[Any, ...]], tuple[Any, ...] | None],
    recorder_class: type[Recorder] = Recorder,
) -> Recording:
    """Run ``host_function(*args)`` and try to make a plan of it.

    Args:
        host_function: a generated host function with its launcher installed.
        args: all arguments by position.
        leaves_of: ``Dispatcher.leaves_of``: the tensors, numbers and other values among arguments, in the plan's order.
        recorder_class: what watches, and makes the plan.

    Returns:
        The call's result in any case, and a plan or a reason.

    Raises:
        whatever the host function raises.
    """
    analysis = analyze(host_function)
    if analysis.reason is not None:
        return Recording(host_function(*args), None, analysis.reason)
    separated = without_duplicates(args)
    if separated is None:
        return Recording(host_function(*args), None, "a tensor occurs twice in a list or tuple")
    distinct, originals = separated
    if analysis.identity and originals:
        return Recording(host_function(*args), None, "host code asks which of its arguments are the same object")
    leaves = leaves_of(distinct)
    names = host_function.__code__.co_varnames[: host_function.__code__.co_argcount]
    if leaves is None or len(names) != len(args):
        return Recording(host_function(*args), None, "an argument that only the Python path takes")
    by_value = frozenset(
        i for i, (name, arg) in enumerate(zip(names, args)) if name in analysis.by_value and _holds_number(arg)
    )
    lists = [(one, list(one)) for arg in args for one in lists_in(arg)]
    recorder = recorder_class(leaves, (host_function.__kwdefaults__ or {})["_launcher"], analysis)
    first_leaf = 0
    for name, arg in zip(names, distinct):
        if type(arg) in (int, float, bool):
            recorder.numbers[name] = first_leaf
        first_leaf += len(leaves_of((arg,)) or ())
    recorder.argument_lists = {id(one) for one in (*(one for one, _ in lists), *analysis.tables_now())}
    before = [_version(leaf) for leaf in leaves]
    aliases = [(alias, originals[id(alias)], _version(alias)) for alias in distinct if id(alias) in originals]
    with recorder:
        result = host_function(*distinct, _launcher=recorder.launch)
    for alias, original, version in aliases:
        if _version(alias) != version:
            increment_version(original)
    try:
        if any(len(one) != len(before) or any(a is not b for a, b in zip(one, before)) for one, before in lists):
            raise NotAPlan("host code changes a list that it was given")
        plan = recorder.build(leaves, result, recorder.written(leaves, before))
    except NotAPlan as why:
        return Recording(with_originals(result, originals), None, str(why))
    return Recording(with_originals(result, originals), plan, "", by_value, recorder.description)
