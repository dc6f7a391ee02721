"""What a device op is, and who answers when one is called.

An `Op` declares a name, a signature, a *shape rule* (abstract inputs -> abstract outputs), an *eager
rule* (real tensors in, real tensors out), and the *facts* that the front end, the analyses, the executors and
the backends go by: which memory it touches, which arguments are sizes, ...  Nobody asks for an op's name to
learn what it is.  Calling one binds the arguments and asks the innermost `Handler` of this thread: the front
end's records a graph node, the eager one runs the eager rule.  With no handler the call stands outside a
kernel, which is an error.

The ops themselves live in their families' files (`memory`, `matmul`, ...); nothing here knows them.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import enum
import functools
import inspect
import threading
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

from .. import exc

if TYPE_CHECKING:
    import torch

    from .tile import Tile

Rule = Callable[..., Any]


class Effect(enum.Enum):
    """What an op does to the elements it names."""

    READ = "read"
    WRITE = "stored to"
    UPDATE = "updated"  # read and written in one step: two such accesses may meet


@dataclasses.dataclass(frozen=True)
class Access:
    """Where the arguments of an op that accesses memory stand.  The first one is the host tensor.

    Attributes:
        effect: what happens to the elements.
        index_at: the index into the tensor (see `helion.language.indexing`).
        mask_at: `extra_mask`.
        values_at: what is written, or takes part in an update.
        addresses_at: addresses of tensors like the first argument, which are accessed instead of it: it is unknown
            what else lies there.
    """

    effect: Effect
    index_at: int
    mask_at: int
    values_at: tuple[int, ...]
    addresses_at: int | None


@dataclasses.dataclass(frozen=True)
class Product:
    """A matrix product: positions of its [..., M, K] and [..., K, N] operands.

    Attributes:
        a_at, b_at: the operands.
        group: elements of K that share one scale, 1 without scales: K comes in multiples of it.
        packed: for each operand, from the op's arguments, how many elements of K one of its elements holds.
    """

    a_at: int
    b_at: int
    group: int = 1
    packed: Callable[..., tuple[int, int]] = lambda *args: (1, 1)


#: Names of the parameters that `Access` looks for.
_VALUES = ("expected", "value")


class Op:
    """A callable device operation.

    Attributes:
        name: public name, `load` for `hl.load`.
        signature: parameters and defaults; every call reaches a handler with all of them, in this order.
        shape_rule: called by a tracer as `op.shape_rule(*args)`.  Receives FakeTensors for tensors,
            int/SymInt/float/bool scalars, `Tile` objects, slices, None, and lists/tuples of these, and
            returns FakeTensors made with `torch.empty` under the tracer's FakeTensorMode (or a tuple of
            them, or None).  Raises `helion.exc` errors; never turns a SymInt into an int or a bool.
        eager_rule: called as `op.eager_rule(*args)` with real tensors and eager tiles.
        positions: parameter name -> place among the arguments.
        has_side_effect: the op writes memory or prints, so it must stay even when its result is unused.
        access: how it accesses memory, None if it does not.
        product: its operands, if it is a matrix product.
        combine_at: position of a combine function; the tensors it combines are the next argument.
        shape_args: positions of sizes of dimensions of the result.
        takes_tiles: tiles among its arguments stay tiles; other ops see a tile's size.
        commutes: two runs of it whose results nobody reads leave the same in memory whichever comes first.
        elementwise: an element of the result comes from the same element of the operands, and from where it stands.
        takes_pointers: a host tensor among its arguments stands for its address; other ops get one indexed.
        padding: from the arguments, what the result holds past the end of a tile's range: a number, or None if unknown.
    """

    __module__ = "helion.language"

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        has_side_effect: bool = False,
        effect: Effect | None = None,
        product: Product | None = None,
        shape_args: Sequence[str] = (),
        takes_tiles: bool = False,
        commutes: bool = False,
        elementwise: bool = False,
        takes_pointers: bool = False,
        padding: Rule | None = None,
    ) -> None:
        functools.update_wrapper(self, fn)
        self.__module__ = "helion.language"
        self.name = self.__name__ = self.__qualname__ = fn.__name__
        self.signature = inspect.signature(fn)
        self.positions = {parameter: i for i, parameter in enumerate(self.signature.parameters)}
        self.has_side_effect = has_side_effect or effect not in (None, Effect.READ)
        self.access = None if effect is None else self._access(effect)
        self.product = product
        self.combine_at = self.positions.get("combine_fn")
        self.shape_args = tuple(self.positions[parameter] for parameter in shape_args)
        self.takes_tiles = takes_tiles or effect is not None
        self.commutes = commutes
        self.elementwise = elementwise
        self.takes_pointers = takes_pointers
        self.padding = padding
        self._shape_rule: Rule | None = None
        self._eager_rule: Rule | None = None
        self._redirect: Rule | None = None

    def _access(self, effect: Effect) -> Access:
        at = self.positions
        values = tuple(at[name] for name in _VALUES if name in at)
        return Access(effect, at["index"], at["extra_mask"], values, at.get("dev_ptrs"))

    def bind(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """The call's arguments in signature order, defaults filled in.

        Raises:
            exc.InvalidAPIUsage: wrong number of arguments, or an unknown keyword.
        """
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as e:
            raise exc.InvalidAPIUsage(
                f"hl.{self.name}: {e}", fix=f"its signature is hl.{self.name}{self._signature_text()}."
            ) from None
        bound.apply_defaults()
        return tuple(bound.arguments.values())

    def _signature_text(self) -> str:
        parameters = [p.replace(annotation=inspect.Parameter.empty) for p in self.signature.parameters.values()]
        return str(inspect.Signature(parameters))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        bound = self.bind(args, kwargs)
        if self._redirect is not None:
            result = self._redirect(*bound)
            if result is not NotImplemented:
                return result
        return current_handler(f"hl.{self.name}").call_op(self, bound)

    def shape_rule(self, *args: Any) -> Any:
        """Abstract result of the op for abstract `args` (all of them, in signature order)."""
        assert self._shape_rule is not None, f"{self.name} has no shape rule"
        return self._shape_rule(*args)

    def eager_rule(self, *args: Any) -> Any:
        """Result of the op for real `args` (all of them, in signature order)."""
        assert self._eager_rule is not None, f"{self.name} has no eager rule"
        return self._eager_rule(*args)

    def set_shape_rule(self, fn: Rule) -> Rule:
        """Decorator that declares the shape rule."""
        self._shape_rule = fn
        return fn

    def set_eager_rule(self, fn: Rule) -> Rule:
        """Decorator that declares the eager rule."""
        self._eager_rule = fn
        return fn

    def set_redirect(self, fn: Rule) -> Rule:
        """Decorator that declares a redirect: called with the bound arguments before the handler, it either
        answers the call (by calling other ops) or returns NotImplemented."""
        self._redirect = fn
        return fn

    def __repr__(self) -> str:
        return f"hl.{self.name}"

    # Ops are identified by the object in graphs and tables: copying a graph must not copy them.
    def __deepcopy__(self, memo: dict[int, Any]) -> Op:
        return self

    def __copy__(self) -> Op:
        return self

    def __reduce__(self) -> tuple[Callable[[str], Op], tuple[str]]:
        return (_op_by_name, (self.name,))


def _op_by_name(name: str) -> Op:
    return ALL_OPS[name]


#: Every op by name, in order of declaration: backends and tests check their tables against it.
ALL_OPS: dict[str, Op] = {}


def device_op(**facts: Any) -> Callable[[Callable[..., Any]], Op]:
    """Decorator: makes an `Op` of a typed, documented function whose body is not run.

    Args:
        facts: keyword arguments of `Op`.  With `effect` the op accesses memory: its first parameter is a host tensor,
            and it has parameters `index` and `extra_mask`, `value` for what it writes, and `dev_ptrs` where addresses
            give the memory.  `shape_args` are names of parameters.
    """

    def make(fn: Callable[..., Any]) -> Op:
        op = Op(fn, **facts)
        assert op.name not in ALL_OPS, f"op {op.name} declared twice"
        ALL_OPS[op.name] = op
        return op

    return make


@dataclasses.dataclass(frozen=True)
class LoopRanges:
    """The iteration space of one `hl.tile(...)` or `hl.grid(...)` call, one entry per dimension.

    Attributes:
        name: `hl.tile` or `hl.grid`, for messages.
        begins, ends: int, SymInt or 0-d integer tensor.
        block_sizes: for `hl.tile`, the given block size (int, SymInt or a registered size) or None for a
            tunable one; for `hl.grid`, the step (int or SymInt), 1 if not given.
        is_sequence: the bounds were lists, so the loop variable is a tuple even for one dimension.
    """

    name: str
    begins: tuple[Any, ...]
    ends: tuple[Any, ...]
    block_sizes: tuple[Any, ...]
    is_sequence: bool

    @property
    def ndim(self) -> int:
        return len(self.ends)


class Handler(abc.ABC):
    """Gives the language its meaning: one implementation traces, others run eagerly.

    Attributes:
        device: the device of values created in device code.
        index_dtype: dtype of `tile.index` and `hl.arange` (torch.int32 or torch.int64).
        traces: whether sizes of tiles are symbols; else a size of one may be a partial tile's.
    """

    device: torch.device
    index_dtype: torch.dtype
    traces: bool = False

    @abc.abstractmethod
    def call_op(self, op: Op, args: tuple[Any, ...]) -> Any:
        """Run or record `op`; `args` are complete and in signature order."""

    @abc.abstractmethod
    def tile(self, ranges: LoopRanges) -> Iterable[Any]:
        """`hl.tile`: iterates over a `Tile`, or a tuple of them when `ranges.is_sequence`."""

    @abc.abstractmethod
    def grid(self, ranges: LoopRanges) -> Iterable[Any]:
        """`hl.grid`: iterates over a scalar index, or a tuple of them when `ranges.is_sequence`."""

    @abc.abstractmethod
    def jagged_tile(self, lengths: torch.Tensor, block_size: Any) -> Iterable[Tile]:
        """`hl.jagged_tile`: tiles over [0, max(lengths)), each carrying `lengths` in `tile.lengths`."""

    @abc.abstractmethod
    def static_range(self, begin: int, end: int, step: int) -> Iterable[int]:
        """`hl.static_range`: the indices of an unrolled loop."""

    @abc.abstractmethod
    def register_block_size(self, low: int, high: Any) -> Any:
        """`hl.register_block_size`: a new tunable block size in [low, high]."""

    @abc.abstractmethod
    def register_tunable(self, name: str, fragment: Any) -> Any:
        """`hl.register_tunable`: the config's value for `name`."""

    @abc.abstractmethod
    def specialize(self, value: Any) -> Any:
        """`hl.specialize`: `value` (int, SymInt, or a tuple/list of them) as compile-time constants."""

    @abc.abstractmethod
    def barrier(self) -> None:
        """`hl.barrier`: ends a phase of the launch."""

    @abc.abstractmethod
    def tile_of_size(self, size: Any) -> Tile | None:
        """The active tile whose block size is `size` (SymInt or eager block size), None for a plain int."""

    def constant_text(self, number: Any) -> str | None:
        """Host code that makes a number a constant of the compiled kernel; None if there is none."""
        return None

    def guard_equal(self, left: Any, right: Any) -> bool:
        """Whether two sizes that are not known to be equal are so in this call; if both are the host's."""
        return False

    def extents(self, sizes: Sequence[Any]) -> list[int]:
        """How many elements the dimensions of a new value have; eager rules ask it, so eager handlers answer."""
        raise NotImplementedError

    def sizes_of(self, tensor: torch.Tensor) -> list[Any]:
        """The shape of a device value as elements that `tile_of_size` understands."""
        return list(tensor.shape)

    @abc.abstractmethod
    def is_device_value(self, tensor: torch.Tensor) -> bool:
        """Whether `tensor` was made in device code (so it has no address), not in host code."""

    @abc.abstractmethod
    def torch_seed(self) -> Any:
        """Seed for torch.rand and the like in device code: drawn from torch's generator once a launch."""

    @abc.abstractmethod
    def iterations(self, tiles: Sequence[Tile]) -> list[Any]:
        """Numbers of the current iterations of the enclosing loops, outermost first, without those of `tiles`."""


_local = threading.local()


def _stack() -> list[Handler]:
    stack: list[Handler] | None = getattr(_local, "stack", None)
    if stack is None:
        stack = _local.stack = []
    return stack


def current_handler(name: str = "this function") -> Handler:
    """The innermost handler of this thread.

    Args:
        name: what the user called, for the message.

    Raises:
        exc.NotInsideKernel: there is none.
    """
    stack = _stack()
    if not stack:
        raise exc.NotInsideKernel(name=name)
    return stack[-1]


def active_handler() -> Handler | None:
    """The innermost handler of this thread, or None outside kernels."""
    stack = _stack()
    return stack[-1] if stack else None


@contextlib.contextmanager
def handler(h: Handler) -> Iterator[Handler]:
    """Make `h` the innermost handler of this thread for the length of a `with` block."""
    stack = _stack()
    stack.append(h)
    try:
        yield h
    finally:
        stack.pop()
