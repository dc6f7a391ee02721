"""Arguments -> specialization key: what distinguishes two BoundKernels of one Kernel.

A key is a plain nested tuple, one element per argument, that is cheap to build, hash and compare. Each element comes
from the *extractor* of the argument's type (`_EXTRACTORS`); tensors have two that agree:

- the concrete path, for exactly ``torch.Tensor``/``Parameter``: ``torch.Size`` and stride tuples as they are;
- the SymInt-safe path, for subclasses and FakeTensors: ints stay ints and symbolic sizes become their expression, so
  that asking for a key never adds a guard. For concrete sizes it gives an equal key with an equal hash.

What an argument contributes
    tensor              dtype, sizes, strides, sizes marked static for Dynamo, device; the Python type does not count
    tensor, dynamic     dtype, per size and stride which of {0, 1, other}, marked static sizes exactly, whether offsets
                        need 64 bits, device
    int, float          type only: they are run-time scalars of the kernel
    bool, complex, str, enum, dtype, device, None   type and value
    any scalar annotated ``hl.constexpr``           type and value
    tuple, list, dict, NamedTuple, dataclass        type and the keys of what they hold
    function            its code object and what it captured and its defaults, numbers by value
    other callables     which object it is
    arguments that the code takes to be apart       how they lie to each other, if they overlap

Keys of caches that outlive the process are made from the same elements by ``stable_key.stable_key``.

Not here: what a key is looked up in (``kernel.py``), and what Triton specializes on at launch (``launcher.py``).
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import re
import types
from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import torch
from torch.nn import Parameter

from ... import _compat_torch
from ... import exc
from ..stable_key import Identity
from .attributes import Attributes
from .attributes import constants_of_call
from .outside import Place
from .outside import are_same
from .outside import of_member
from .outside import places_of
from .overlaps import overlapping_tensors
from .overlaps import overlaps
from .sizes import Varying
from .sizes import varying
from .tensor_kinds import refuse_unreadable

if TYPE_CHECKING:
    from ...settings import Settings

__all__ = ["Specializer"]

#: ``(dtype, sizes, strides, static_indices)``, with a fifth element under dynamic shapes.
TensorKey = tuple[Any, ...]

_Tensor = torch.Tensor
_default_dtype = torch.get_default_dtype
_is_readable = _compat_torch.is_readable
_INT32_MAX = 2**31 - 1


_NO_INDICES: frozenset[int] = frozenset()


def _static_indices(tensor: torch.Tensor) -> frozenset[int]:
    """Dimensions that ``torch._dynamo.mark_static`` marked."""
    return frozenset(getattr(tensor, "_dynamo_static_indices", _NO_INDICES))


def _safe_int(value: int | torch.SymInt) -> int | tuple[str, str]:
    """An int as it is; a symbolic one as its expression, without guarding on it."""
    if isinstance(value, int):
        return value
    constant = value.node.maybe_as_int()
    return constant if constant is not None else ("sym", str(value.node.expr))


def _bucket(value: int | torch.SymInt) -> int:
    """0, 1 or 2 for "other". A symbolic size is "other": PyTorch specializes on 0 and 1 before it makes one."""
    constant = _safe_int(value)
    return constant if constant in (0, 1) else 2


def _needs_int64(sizes: Iterable[int], strides: Iterable[int]) -> bool:
    """Whether the offset of the last element does not fit an int32."""
    return sum((size - 1) * abs(stride) for size, stride in zip(sizes, strides)) > _INT32_MAX


@functools.lru_cache(maxsize=8192)
def _dynamic_shape_key(
    sizes: tuple[int, ...], strides: tuple[int, ...], static: frozenset[int]
) -> tuple[Hashable, ...]:
    # Remembered, as the same shapes come again and the loops below cost more than one lookup.
    return (
        tuple([size if i in static else _bucket(size) for i, size in enumerate(sizes)]),
        tuple([_bucket(stride) for stride in strides]),
        static,
        _needs_int64(sizes, strides),
    )


def _safe_dynamic_shape_key(tensor: torch.Tensor, static: frozenset[int]) -> tuple[Hashable, ...]:
    sizes, strides = tensor.size(), tensor.stride()
    concrete = all(isinstance(n, int) for n in (*sizes, *strides))
    return (
        tuple([_safe_int(size) if i in static else _bucket(size) for i, size in enumerate(sizes)]),
        tuple([_bucket(stride) for stride in strides]),
        static,
        # A symbolic shape has no last element to ask for; the run-time call with real tensors is keyed again.
        concrete and _needs_int64(sizes, strides),
    )


def _static_shapes(owner: Any) -> bool:
    """``static_shapes`` of a Settings, or of something that has ``settings``."""
    # In this order: what a Settings does not have costs it a search for similar names.
    static: bool | None = getattr(owner, "static_shapes", None)
    return owner.settings.static_shapes if static is None else static


def _tensor_key(fn_or_settings: Any, tensor: torch.Tensor) -> TensorKey:
    """What a tensor contributes to the key, besides its device.

    Args:
        fn_or_settings: a ``Settings``, or a ``Kernel``/``BoundKernel`` that has some.
        tensor: any tensor; the concrete path is for exactly ``torch.Tensor`` and ``Parameter``.

    Returns:
        ``(dtype, sizes, strides, static_indices)`` under static shapes, else
        ``(dtype, size buckets, stride buckets, static_indices, offsets need int64)``.
    """
    static = _static_indices(tensor)
    concrete = type(tensor) in (torch.Tensor, Parameter)
    if _static_shapes(fn_or_settings):
        if concrete:
            return (tensor.dtype, tensor.shape, tensor.stride(), static)
        return (
            tensor.dtype,
            tuple([_safe_int(size) for size in tensor.size()]),
            tuple([_safe_int(stride) for stride in tensor.stride()]),
            static,
        )
    if concrete:
        return (tensor.dtype, *_dynamic_shape_key(tensor.shape, tensor.stride(), static))
    return (tensor.dtype, *_safe_dynamic_shape_key(tensor, static))


def _family_key(settings: Settings, tensor: torch.Tensor) -> TensorKey:
    """What a tensor contributes to the key of a family under dynamic shapes, besides its device: no size or stride but
    those that were marked static, and whether 64-bit offsets are needed where that is not settled."""
    sizes, strides = tensor.size(), tensor.stride()
    marked = tuple([(i, _safe_int(sizes[i])) for i in sorted(_static_indices(tensor))])
    symbols = [n for n in (*sizes, *strides) if not isinstance(n, int)]
    wide = not symbols and settings.index_dtype is not torch.int64 and _needs_int64(sizes, strides)
    return (tensor.dtype, len(sizes), marked, wide, *[Identity(n.node.shape_env) for n in symbols[:1]])


# -- the other types ----------------------------------------------------------------------------------------------


class _Extract:
    """Keys of the arguments of one kernel: the extractors, with the settings they depend on."""

    def __init__(
        self,
        settings: Settings,
        kernel_name: str,
        on_requires_grad: Callable[[], None] | None,
        tensor_key: Callable[[Any, torch.Tensor], TensorKey] = _tensor_key,
        attributes: Attributes | None = None,
    ) -> None:
        self.settings = settings
        self.tensor_key = tensor_key
        self.kernel_name = kernel_name
        self.on_requires_grad = on_requires_grad
        self.attributes = attributes or Attributes()

    def __call__(self, value: Any) -> Hashable:
        extractor = _EXTRACTORS.get(type(value))
        if extractor is None:
            extractor = _extractor_by_base(value)
            if extractor is None:
                raise exc.InvalidAPIUsage(
                    f"kernel {self.kernel_name!r} was called with an argument of type "
                    f"{type(value).__module__}.{type(value).__qualname__}, which it cannot take",
                    fix=_instead_of(value),
                )
        return extractor(self, value)

    def tensor(self, value: torch.Tensor) -> Hashable:
        if not value.is_meta:  # what a call with it means is not asked here
            refuse_unreadable(self.kernel_name, value)
        if value.requires_grad and self.on_requires_grad is not None and torch.is_grad_enabled():
            self.on_requires_grad()
        return (*self.tensor_key(self.settings, value), value.device)

    def by_type(self, value: Any) -> Any:
        return type(value)

    def sym_number(self, value: object) -> Hashable:
        # A SymInt stands for an int: the call with the real one must find the same kernel.
        return _SYMBOLIC[type(value)]

    def by_value(self, value: Hashable) -> Hashable:
        # With the type, as True == 1 == 1.0.
        return (type(value), value)

    def member(self, value: enum.Enum) -> Hashable:
        return (*of_member(value, self), *self.of_class(type(value)))

    def number_by_value(self, value: complex) -> Hashable:
        # repr tells 0.0 from -0.0, which compare equal, and lets NaN equal itself.
        return (type(value), value if type(value) is int else repr(value))

    def by_identity(self, value: object) -> Hashable:
        # The object itself and not its id(), so that it stays alive as long as the key.
        return ("object", Identity(value), *self.read_of(value))

    def constant(self, value: Any) -> Hashable:
        # hl.constexpr(...) around an argument.
        return ("constexpr", self.captured(value.value))

    def sequence(self, value: Sequence[Any]) -> Hashable:
        # NamedTuples come here too: their class is part of the key.
        return (type(value), *[self(item) for item in value], *self.of_parts(value))

    def mapping(self, value: Mapping[Any, Any]) -> Hashable:
        # In the dict's own order, which host code can observe.
        items: list[Hashable] = [(self.by_value(name), self(item)) for name, item in value.items()]
        return (type(value), *items, *self.of_parts(value))

    def dataclass(self, value: Any) -> Hashable:
        fields: list[Any] = [(field.name, self(getattr(value, field.name))) for field in dataclasses.fields(value)]
        return (type(value), *fields, *self.of_parts(value))

    def of_class(self, cls: type) -> list[Hashable]:
        """What an argument's class holds by names that the kernel's code reads: its methods, which are inlined."""
        if cls in _WITHOUT_METHODS:
            return []
        return [(place.name, place.element(self)) for place in self.attributes.of_class(cls)]

    def of_parts(self, value: Any) -> list[Hashable]:
        """`of_class` of an argument that is traced by its parts."""
        if type(value) in _WITHOUT_METHODS:
            return []
        self.attributes.refuse_hidden(value, self.kernel_name)
        return self.of_class(type(value))

    def slice(self, value: slice) -> Hashable:
        # What a subscript takes; its numbers are none of the kernel's.
        return (slice, self.captured(value.start), self.captured(value.stop), self.captured(value.step))

    def function(self, value: types.FunctionType) -> Hashable:
        captured: list[Hashable] = []
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or ()):
            content = cell.cell_contents
            # A recursive inner function captures itself.
            captured.append((name, "self" if content is value else self.captured(content)))
        _, constants = places_of(value)
        # A function in a cell is in `captured`, by what it is made of: closures are often made anew for each call.
        shown = [place for place in constants if not (place.called and isinstance(place.holder, types.CellType))]
        captured += [(place.name, place.element(self)) for place in shown]
        self.attributes.note(value)
        for place in constants:
            if place.called and isinstance(helper := place.read(), types.FunctionType):
                self.attributes.note(helper)
        captured += self.attributes.of_object(value)
        defaults = (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())
        return (types.FunctionType, value.__code__, *captured, *[self.captured(default) for default in defaults])

    def captured(self, value: Any) -> Hashable:
        """A closure's number is a constant of the code that is inlined, as one of `hl.constexpr` is, so it counts by
        value, in containers too."""
        by_value = _Captured(self.settings, self.kernel_name, self.on_requires_grad, self.tensor_key, self.attributes)
        return by_value(value)

    def method(self, value: types.MethodType) -> Hashable:
        read = [(place.name, place.element(self)) for place in constants_of_call(value)]
        of_object = ("object", Identity(value.__self__), *read)
        return (types.MethodType, self(value.__func__), of_object)

    def read_of(self, value: Any) -> list[Hashable]:
        """The constants that an object's `__call__` reads, and those that the kernel reads of the object."""
        read = [(place.name, place.element(self)) for place in constants_of_call(value)]
        of_class = self.of_class(value if isinstance(value, type) else type(value))
        return [*read, *of_class, *([] if isinstance(value, type) else self.attributes.of_object(value))]

    def partial(self, value: functools.partial[Any]) -> Hashable:
        return (
            functools.partial,
            self(value.func),
            *[self.captured(item) for item in value.args],
            *[(name, self.captured(item)) for name, item in value.keywords.items()],
        )


class _Captured(_Extract):
    """As `_Extract`, for what the code that is inlined holds: its numbers count by value."""

    def __call__(self, value: Any) -> Hashable:
        return self.number_by_value(value) if type(value) in (int, float) else super().__call__(value)

    def captured(self, value: Any) -> Hashable:
        return self(value)


_WITHOUT_METHODS = frozenset({tuple, list, dict, torch.Size})
_SYMBOLIC: dict[type, Hashable] = {torch.SymInt: int, torch.SymFloat: float, torch.SymBool: bool}

_EXTRACTORS: dict[type, Callable[[_Extract, Any], Hashable]] = {
    torch.Tensor: _Extract.tensor,
    Parameter: _Extract.tensor,
    int: _Extract.by_type,
    float: _Extract.by_type,
    bool: _Extract.by_value,
    complex: _Extract.number_by_value,
    str: _Extract.by_value,
    bytes: _Extract.by_value,
    type(None): _Extract.by_value,
    type(...): _Extract.by_value,
    torch.dtype: _Extract.by_value,
    torch.device: _Extract.by_value,
    torch.layout: _Extract.by_value,
    torch.memory_format: _Extract.by_value,
    torch.SymInt: _Extract.sym_number,
    torch.SymFloat: _Extract.sym_number,
    torch.SymBool: _Extract.sym_number,
    tuple: _Extract.sequence,
    list: _Extract.sequence,
    torch.Size: _Extract.sequence,
    dict: _Extract.mapping,
    slice: _Extract.slice,
    types.FunctionType: _Extract.function,
    types.MethodType: _Extract.method,
    functools.partial: _Extract.partial,
}

#: For types that are not in the table by themselves; first match wins.
_BASES: tuple[tuple[Any, Callable[[_Extract, Any], Hashable]], ...] = (
    (torch.Tensor, _Extract.tensor),
    (enum.Enum, _Extract.member),
    (tuple, _Extract.sequence),
    (list, _Extract.sequence),
    (dict, _Extract.mapping),
)


def _instead_of(value: object) -> str:
    """What to pass for an argument of a type that no kernel takes."""
    if type(value).__module__ == "numpy":  # asked by name, as calls should not import NumPy
        if type(value).__name__ == "ndarray":
            return "pass `torch.from_numpy(array)`."
        return "pass a number of Python's: `value.item()`."
    return (
        "pass tensors, numbers, bools, strings, dtypes, devices, None, functions, or tuples, lists, dicts, NamedTuples "
        "or dataclasses of these."
    )


def _extractor_by_base(value: object) -> Callable[[_Extract, Any], Hashable] | None:
    if is_constant(value):
        return _Extract.constant
    for base, extractor in _BASES:
        if isinstance(value, base):
            return extractor
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _Extract.dataclass
    # Builtins, torch ops, classes, callable objects: one function each, told apart by which object it is.
    return _Extract.by_identity if callable(value) else None


def _is_constexpr(annotation: object) -> bool:
    """Whether a parameter is annotated ``hl.constexpr``, as an object or as the text of a postponed annotation."""
    name: Any = getattr(annotation, "__forward_arg__", annotation)  # a ForwardRef's
    name = name if isinstance(name, str) else getattr(name, "__name__", "")
    return name.strip("'\"").partition("[")[0].rpartition(".")[2] == "constexpr"


def is_constant(value: object) -> bool:
    """Whether an argument is an `hl.constexpr(...)`; asked by name, as calls should not load the language."""
    return any(base.__name__ == "constexpr" and base.__module__ == _CONSTEXPR for base in type(value).__mro__)


_CONSTEXPR = "helion.language.sizes"


class Specializer:
    """Keys of one kernel's calls.

    Args:
        signature: the kernel function's; only positional parameters.
        annotations: parameter name -> annotation, resolved or as text.
        settings: the kernel's.
        key_fn: the kernel's ``key=``: called with the arguments, its (hashable) result becomes part of the key.
        kernel_name: for error messages.
        on_requires_grad: called for each argument tensor that requires grad while grad mode is on.
    """

    def __init__(
        self,
        signature: inspect.Signature,
        annotations: Mapping[str, Any],
        settings: Settings,
        key_fn: Callable[..., Hashable] | None = None,
        *,
        kernel_name: str = "kernel",
        on_requires_grad: Callable[[], None] | None = None,
    ) -> None:
        #: With a parameter for each of `filled`, after those that callers give.
        self.signature = signature
        #: Only those that callers give.
        self.given = signature
        #: Where a call finds the tensors that the kernel function reads from outside itself, which are arguments, and
        #: the constants, which are in the key. Replaced, never changed.
        self.filled: tuple[Place, ...] = ()
        self.watched: tuple[Place, ...] = ()
        self.settings = settings
        self.key_fn = key_fn
        self.kernel_name = kernel_name
        self.attributes = Attributes()
        self.extract = _Extract(settings, kernel_name, on_requires_grad, attributes=self.attributes)
        self.constexpr = frozenset(
            i for i, name in enumerate(signature.parameters) if _is_constexpr(annotations.get(name, ""))
        )
        # The common kernel takes the loop below without a question per argument; the others the general one.
        self._plain = not self.constexpr and key_fn is None and settings.static_shapes
        #: Position of an argument -> its dynamic dimensions, under `static_shapes="auto"`. Replaced, never changed.
        self.dynamic: dict[int, frozenset[int]] = {}
        #: Pairs of positions: arguments that code which was compiled so far takes to be apart. Replaced, never changed,
        #: and before anybody can find that code: whoever finds some by a key asks whether it is still the same object.
        self.assumed_apart: frozenset[tuple[int, int]] = frozenset()

    def key(self, args: Sequence[Any]) -> tuple[Hashable, ...]:
        """The key of a call.

        Args:
            args: all arguments by position, defaults filled in.

        Returns:
            One element per argument, then the result of ``key_fn`` if there is one. Hashable; equal for two calls
            exactly if they may share a BoundKernel, but for guards on values (``hl.specialize``), which a BoundKernel
            asks itself.

        Raises:
            exc.InvalidAPIUsage: an argument of a type that a kernel cannot take.
        """
        if not self._plain:
            return self._general_key(args) + self.overlaps(args)
        # The tensor element is written out: it equals `extract.tensor(a)`, which a test holds, without its two calls.
        # A tensor whose memory is not what it shows may not get here.
        extract = self.extract
        elements = tuple(
            [
                (a.dtype, a.shape, a.stride(), _NO_INDICES, a.device)
                if type(a) is _Tensor
                and not a.requires_grad
                and _is_readable(a)
                and getattr(a, "_dynamo_static_indices", None) is None
                else extract(a)
                for a in args
            ]
        )
        if self.watched or _default_dtype() is not torch.float32:
            elements += self.outside()
        return elements + self.overlaps(args) if self.assumed_apart else elements

    def outside(self) -> tuple[tuple[Hashable, ...], ...]:
        """What the constants that the kernel function reads from outside itself contribute: "outside", name, value.

        One is read by PyTorch's operations on integers: the default dtype, which contributes where it is not float32.
        """
        found = [("outside", place.name, place.element(self._of_outside)) for place in self.watched]
        if (dtype := _default_dtype()) is not torch.float32:
            found.append(("outside", "torch.get_default_dtype()", dtype))
        return tuple(found)

    def _of_outside(self, value: Any) -> Hashable:
        """What a value contributes that is where a constant was."""
        if type(value) in _EXTRACTORS or _extractor_by_base(value) is not None:
            return self.extract(value)
        return ("object", type(value))

    def look_outside(self, fn: types.FunctionType) -> bool:
        """Find out what a kernel function reads from outside itself.

        Returns:
            Whether it is something else than before.
        """
        self.attributes.look(fn)
        tensors, constants = places_of(fn)
        if are_same(tensors, self.filled) and are_same(constants, self.watched):
            return False
        taken = {*fn.__code__.co_varnames, *fn.__code__.co_names, *fn.__code__.co_freevars, *self.given.parameters}
        parameters = list(self.given.parameters.values())
        for place in tensors:
            name = re.sub(r"\W", "_", place.name)
            of_kernel = place.name == name and place.key == name and place.holder is fn.__globals__
            of_kernel = of_kernel or (place.name == name and name in fn.__code__.co_freevars)
            while not of_kernel and name in taken:
                name += "_"
            taken.add(name)
            parameters.append(inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None))
        self.filled, self.watched = tuple(tensors), tuple(constants)
        self.signature = self.given.replace(parameters=parameters)
        return True

    def outside_tensors(self) -> dict[str, Any]:
        """The objects that the last parameters are filled with now."""
        return dict(zip(list(self.signature.parameters)[len(self.given.parameters) :], [p.read() for p in self.filled]))

    def overlaps(self, args: Sequence[Any]) -> tuple[Hashable, ...]:
        """What overlapping arguments contribute; nothing if there are none, or if it does not matter."""
        found = overlaps(args, self.assumed_apart) if self.assumed_apart else ()
        return (("overlap", *found),) if found else ()

    def overlapping(self, args: Sequence[Any]) -> list[list[tuple[torch.Tensor, int]]]:
        """The arguments that overlap where it matters, in groups of tensors that lie together, with their addresses."""
        return overlapping_tensors(args, self.assumed_apart) if self.assumed_apart else []

    def family_key(self, args: Sequence[Any]) -> tuple[Hashable, ...]:
        """The key of a call without what only variants of one BoundKernel differ in: `key` under static shapes."""
        if self.settings.static_shapes:
            return self.key(args)
        extract = _Extract(self.settings, self.kernel_name, None, _family_key, self.attributes)
        elements = [extract.captured(a) if i in self.constexpr else extract(a) for i, a in enumerate(args)]
        return (*elements, *self.outside(), *([self.user_key(args)] if self.key_fn is not None else []))

    def _general_key(self, args: Sequence[Any]) -> tuple[Hashable, ...]:
        elements = [*[self.element(i, a) for i, a in enumerate(args)], *self.outside()]
        if self.key_fn is not None:
            elements.append(self.user_key(args))
        return tuple(elements)

    def element(self, index: int, value: Any) -> Hashable:
        """What argument ``index`` contributes to the key."""
        if index in self.constexpr:
            return self.extract.captured(value)
        element = self.extract(value)  # also refuses what cannot be read
        numbers = self.varying(index, value) if index in self.dynamic else None
        if numbers is None:
            return element
        sizes = tuple([None if i in numbers.sizes else size for i, size in enumerate(value.shape)])
        strides = tuple([None if i in numbers.strides else step for i, step in enumerate(value.stride())])
        wide = _needs_int64(value.shape, value.stride())
        return ("auto", value.dtype, sizes, strides, _static_indices(value), wide, value.device)

    def varying(self, index: int, value: Any) -> Varying | None:
        """The numbers of an argument that its key leaves open; None where that is no question."""
        if type(value) not in (torch.Tensor, Parameter) or index not in self.dynamic:
            return None
        return varying(value, self.dynamic[index], _static_indices(value))

    def all_varying(self, args: Sequence[Any]) -> dict[str, tuple[frozenset[int], frozenset[int]]]:
        """`varying` of the arguments by the names of their parameters."""
        found = {name: self.varying(i, args[i]) for i, name in enumerate(self.signature.parameters)}
        return {name: numbers for name, numbers in found.items() if numbers is not None}

    def make_dynamic(self, dimensions: Mapping[int, frozenset[int]]) -> None:
        """Leave these dimensions open from now on."""
        known = self.dynamic
        self.dynamic = {i: known.get(i, frozenset()) | dimensions.get(i, frozenset()) for i in {*known, *dimensions}}
        self._plain = False

    def make_constant(self, dimensions: Mapping[int, frozenset[int]]) -> None:
        """Take back what `make_dynamic` left open."""
        self.dynamic = {i: known - dimensions.get(i, frozenset()) for i, known in self.dynamic.items()}

    def user_key(self, args: Sequence[Any]) -> Hashable:
        """What ``key=`` contributes; None without one."""
        if self.key_fn is None:
            return None
        result = self.key_fn(*args[: len(self.given.parameters)])
        try:
            hash(result)
        except TypeError:
            raise exc.InvalidAPIUsage(
                f"the key function of kernel {self.kernel_name!r} returned {result!r}, which is not hashable",
                fix="return a number, string, or tuple of these.",
            ) from None
        if isinstance(result, torch.Tensor):
            raise exc.InvalidAPIUsage(
                f"the key function of kernel {self.kernel_name!r} returned a tensor",
                fix="return a Python value; reading one from a tensor on every call would wait for the device.",
            )
        return ("key", result)
