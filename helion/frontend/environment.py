"""The abstract world one specialization is traced in: fake tensors, symbols, blocks and axes.

Arguments become FakeTensors (sizes ints under static shapes, SymInts otherwise) and symbolic scalars.
Every symbol gets an `Origin`.  Block sizes are symbols too, with large distinct hints, so that PyTorch's
own shape rules tell tiles of different loops apart.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import types
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import sympy
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic
from torch.fx.experimental.symbolic_shapes import StatelessSymbolicContext

from .. import _compat_torch
from .. import exc
from .._compat_tracing import ConstantSource
from .._compat_tracing import unset_fake_temporarily
from ..ir.device_ir import Axis
from ..ir.device_ir import AxisKind
from ..ir.device_ir import BlockSize
from ..ir.device_ir import DeviceIR
from ..ir.device_ir import HostTensor
from ..ir.names import PART
from ..ir.names import RESERVED
from ..ir.names import Names
from ..ir.symbols import Origin
from ..ir.symbols import OriginKind
from ..ir.symbols import expr_of
from ..ir.symbols import is_symbolic
from ..ir.symbols import shape_exprs
from ..ir.symbols import symbols_of
from ..language.sizes import constexpr
from ..settings import Settings
from .captures import with_own_captures
from .decisions import Deciding
from .decisions import RefusingShapeEnv
from .host_reads import HostReads
from .read_places import ReadPlaces
from .shared_memory import SharedMemory
from .unknown_sizes import has_unknown_size
from .unknown_sizes import of_likely_size


class Environment(HostReads):
    """State shared by everything that takes part in tracing one specialization.

    Args:
        settings: the kernel's settings.
        device: where the arguments live.
        overlapping: tensors of the arguments that share memory, in groups, each with its address.
        varying: as `trace_kernel` has it.
        warned: what other traces of the kernel have warned of, and this one does.
    """

    def __init__(
        self,
        settings: Settings,
        device: torch.device,
        overlapping: Sequence[Sequence[tuple[torch.Tensor, int]]] = (),
        varying: dict[str, tuple[frozenset[int], frozenset[int]]] | None = None,
        warned: set[type[exc.BaseWarning]] | None = None,
    ) -> None:
        self.settings = settings
        self._varying = varying or {}
        self.device = device
        self.shape_env = RefusingShapeEnv(lambda symbol: symbol in self._samples, duck_shape=False)
        self.fake_mode = FakeTensorMode(shape_env=self.shape_env, allow_non_fake_inputs=False)
        # Results are kept for sizes of one trace only: looking for them takes longer than what they save.
        self.fake_mode.cache_enabled = False
        self.ir = DeviceIR()
        self.space = self.ir.space
        self.tunables: dict[str, Any] = {}
        # While a host loop is unrolled, of which the host function has nothing: its variables as they are before.
        self.host_variables: dict[str, Any] | None = None
        self.specialized: set[sympy.Symbol] = set()
        self._fakes: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._memories = [SharedMemory(group) for group in overlapping]
        self._names = Names((*RESERVED, PART))
        #: A value that each number of the Config's may have: stand-ins in shapes are like no size (`_size_symbol`).
        self._samples = {}
        self._read = set()
        self._places = ReadPlaces(self)
        self._warned: set[type[exc.BaseWarning]] = set() if warned is None else warned
        self._computed_numbers: dict[tuple[Any, tuple[sympy.Expr, ...]], torch.SymInt] = {}
        #: Host expression of a captured tensor -> what the function that captured it calls it.
        self.capture_names: dict[str, str] = {}
        #: What the kernel function reads from outside itself, by id: the object, and what it is in this trace.
        self.filled: dict[int, tuple[Any, Any]] = {}
        #: Seeds of this launch for torch.rand and the like: one for each place that draws (`seed_statement`).
        self.seeds: torch.Tensor | None = None
        #: Strides of arguments that follow from their sizes in this trace.
        self._inferred: list[sympy.Basic] = []

    # -- names -------------------------------------------------------------------------------------------------

    def note_host_operation(self, kind: type[exc.BaseWarning], text: str, function: str) -> None:
        """Warn, once a kernel, that host code computes with tensors, which is no part of it."""
        if kind not in self._warned:
            self._warned.add(kind)
            exc.warn(kind(name=text, kernel=function), self.settings.ignore_warnings)

    def unique_name(self, wanted: str) -> str:
        """A Python identifier close to `wanted`, not given out before."""
        return self._names.unique(re.sub(r"\W", "_", wanted).strip("_"))

    # -- arguments -----------------------------------------------------------------------------------------------

    def fake_argument(self, value: Any, path: str, name: str, constant: bool) -> Any:
        """The abstract counterpart of one argument (or a part of one).

        Args:
            value: the argument.
            path: host expression that gives it.
            name: how generated code should call it.
            constant: annotated hl.constexpr, so scalars keep their value.
        """
        if isinstance(value, torch.Tensor):
            if id(value) in self._fakes:
                # `k(x, x)` and `k(x, y)` may share a specialization, so the parameters stay two: `.data` is another
                # object.
                with unset_fake_temporarily():
                    value = value.data
            return self.fake_tensor(value, path, name)
        if constant or isinstance(value, (bool, constexpr)):
            return value
        if isinstance(value, int):
            return self.host_int(value, path, name)
        if isinstance(value, float):
            return self.host_float(value, path, name)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            parts = (
                self.fake_argument(getattr(value, field), f"{path}.{field}", f"{name}_{field}", constant)
                for field in value._fields
            )
            return type(value)(*parts)
        if isinstance(value, (tuple, list)):
            return type(value)(
                self.fake_argument(v, f"{path}[{i}]", f"{name}_{i}", constant) for i, v in enumerate(value)
            )
        if isinstance(value, dict):
            return {k: self.fake_argument(v, f"{path}[{k!r}]", f"{name}_{k}", constant) for k, v in value.items()}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {
                f.name: self.fake_argument(getattr(value, f.name), f"{path}.{f.name}", f"{name}_{f.name}", constant)
                for f in dataclasses.fields(value)
            }
            fake = object.__new__(type(value))
            for field, v in fields.items():
                object.__setattr__(fake, field, v)
            return fake
        if isinstance(value, types.FunctionType):
            return with_own_captures(value)
        return value

    def fake_tensor(self, value: torch.Tensor, path: str, name: str) -> torch.Tensor:
        """The FakeTensor of a real tensor; the same one for the same tensor."""
        known = self._fakes.get(id(value))
        if known is not None:
            return known[1]
        # Arguments are apart unless some of this call were found to overlap (`overlapping`): two views of one tensor
        # get a storage each, as the next call with the same key may bring others.  For the same reason, and since the
        # base of a sparse tensor's values has none, a view is traced as the tensor that it is.
        real = value
        _compat_torch.forget_storages(self.fake_mode)
        if has_unknown_size(value):
            real = of_likely_size(value)
        elif value._is_view():
            with unset_fake_temporarily():
                real = value.data
        every, none = frozenset(range(value.dim())), frozenset[int]()
        sizes, strides = self._varying.get(path, (none, none)) if self.settings.static_shapes else (every, none)
        if not sizes and self.settings.static_shapes:
            fake: torch.Tensor = self.fake_mode.from_tensor(real, static_shapes=True)
        else:
            kinds = [DimDynamic.DYNAMIC if i in sizes else DimDynamic.STATIC for i in range(value.dim())]
            context = StatelessSymbolicContext(dynamic_sizes=kinds)  # type: ignore[var-annotated]
            source = ConstantSource(f"{name}_{len(self._fakes)}")
            fake = self.fake_mode.from_tensor(real, symbolic_context=context, source=source)
            self._define_numbers(fake, path, name, strides)
        for memory in self._memories:
            if memory.holds(value):
                fake = memory.place(fake, value, self.fake_mode)
        # Keep the real tensor alive while tracing, so that its id stays taken.
        self._fakes[id(value)] = (value, fake)
        return fake

    def forget_tensors(self) -> None:
        """Let go of the arguments once all is traced: what was made of them outlives the call by far, and a kernel
        that held them would hold a GPU's memory with each of its specializations.
        """
        self._fakes.clear()
        self.filled.clear()
        self._memories.clear()

    def _define_numbers(self, fake: torch.Tensor, path: str, name: str, open_strides: frozenset[int]) -> None:
        """Say where host code finds the sizes and strides of an argument. PyTorch infers those of a contiguous tensor
        from its sizes. Later ones with the same key need not be contiguous: a guard, as for open ones."""
        for method, numbers in (("size", fake.size()), ("stride", fake.stride())):
            for dim, expr in enumerate(shape_exprs(numbers)):
                inferred = not expr.is_Symbol or expr in self.space.origins
                if inferred and (method == "size" or not (expr.free_symbols or dim in open_strides)):
                    continue
                symbol = sympy.Symbol(f"{name}_{len(self._fakes)}_stride_{dim}") if inferred else expr
                origin = Origin(OriginKind.HOST, self.unique_name(f"{name}_{method}_{dim}"), f"{path}.{method}({dim})")
                self.space.define(symbol, origin)
                if inferred:
                    self._inferred.append(sympy.Eq(symbol, expr))

    def captured_tensor(
        self, value: torch.Tensor, name: str, text_of: Callable[[torch.Tensor], str | None]
    ) -> torch.Tensor:
        """The FakeTensor of a tensor that a function passed as an argument closes over.

        Args:
            value: the tensor.
            name: how generated code should call it.
            text_of: finds the host expression that reaches it.
        """
        if id(value) in self._fakes:
            return self._fakes[id(value)][1]
        before = set(self.space.origins)
        fake = self.fake_tensor(value, "", name)
        path = None
        for symbol in self.space.origins.keys() - before:
            # Its sizes are read where the generated host function can: through the argument's closure.
            path = path or text_of(fake) or name
            origin = self.space.origins[symbol]
            self.space.define(symbol, dataclasses.replace(origin, text=f"{path}{origin.text}"))
        return fake

    def host_int(self, value: int, path: str, name: str) -> torch.SymInt:
        """A scalar argument: symbolic, so that one compiled kernel serves every value.  Branching on it in host
        code records a guard."""
        source = ConstantSource(f"arg_{path}")
        symbol = self._symbol(value, source)
        self.space.define(symbol, Origin(OriginKind.HOST, self.unique_name(name), path))
        return self._integer(symbol, value, source)

    def host_float(self, value: float, path: str, name: str) -> torch.SymFloat:
        """A float argument: symbolic, as an int; infinity and nan are not decided on (`host_result`)."""
        return self.host_result(value, Origin(OriginKind.HOST, self.unique_name(name), path, dtype=float))

    def host_result(self, hint: float, origin: Origin) -> torch.SymFloat:
        """A float that the host function knows.  Deciding on it while tracing records a guard.

        sympy does not compare nan: such a number has no value here, and deciding on it is an error.
        """
        if not math.isfinite(hint):
            number = self.shape_env.create_unbacked_symfloat()
            self.space.define(number.node.expr, origin)
            return number
        source = ConstantSource(f"number_{len(self.space.origins)}")
        symbol = self._symbol(hint, source)
        self.space.define(symbol, origin)
        return self.shape_env.create_symfloatnode(symbol, hint=hint, source=source)  # type: ignore[return-value]

    def host_call(self, fn: Callable[..., Any], args: Sequence[Any], text: str, name: str) -> torch.SymFloat | None:
        """A function of numbers that the host function knows, if it gives a float and some number is symbolic; else
        None.

        The host function computes it; the trace does not depend on the result.

        Args:
            fn: the function, without side effects.
            args: plain and symbolic numbers.
            text: the call in Python, with `{}` for each argument.
            name: how generated code should call the result.
        """
        known = all(
            isinstance(a, (int, float)) or (is_symbolic(a) and self.space.is_host_value(a) and a.node.has_hint())
            for a in args
        )
        if not any(map(is_symbolic, args)):
            return None
        if not known:
            return self.call_at_each_call(fn, args, text, name)
        result = fn(*(a.node.hint if is_symbolic(a) else a for a in args))
        if type(result) is not float:
            return None
        origin = Origin(OriginKind.HOST, self.unique_name(name), text, dtype=float, args=tuple(map(expr_of, args)))
        return self.host_result(result, origin)

    # -- numbers of the Config -----------------------------------------------------------------------------------

    def is_configured(self, value: Any) -> bool:
        """Whether a number follows from block sizes or tunables."""
        return not self._samples.keys().isdisjoint(symbols_of(value))

    @contextlib.contextmanager
    def undecided(self) -> Iterator[None]:
        """Host code that runs inside may compute with the Config's numbers, but not decide on them.

        A decision would be taken on the stand-in that a trace has for the number, and hold for every Config.  What
        PyTorch decides inside of its own functions, shapes of tensors that is, holds for all sizes.

        Raises:
            decisions.ConfigDecision: it decides.
        """
        outer, self.shape_env.refuses = self.shape_env.refuses, True
        try:
            with Deciding(self.shape_env, self._places.call):
                yield
        finally:
            self.shape_env.refuses = outer

    @contextlib.contextmanager
    def deciding(self) -> Iterator[None]:
        """Inside, decisions are taken again."""
        outer, self.shape_env.refuses = self.shape_env.refuses, False
        try:
            yield
        finally:
            self.shape_env.refuses = outer

    def config_call(self, fn: Callable[..., Any], args: Sequence[Any], text: str, name: str) -> Any:
        """What a function gives for numbers of the Config's: a number of its own, which the Config decides on.

        Args:
            fn: the function, without side effects.
            args: plain and symbolic numbers.
            text: the call in Python, with `{}` for each argument.
            name: how generated code should call the result.

        Raises:
            exc.SizeNotConstant: it gives anything but an int or bool.
        """
        exprs = tuple(map(expr_of, args))
        sample = fn(*map(self._sample, exprs))
        if not isinstance(sample, int):
            raise exc.SizeNotConstant(
                what=f"{text.format(*args)}, which gives {type(sample).__name__},",
                value="numbers that the Config decides on",
                fix="compute an int in a function of its own: `def levels(n): return math.ceil(math.log2(n))`.",
            )
        number = self._computed(exprs, text, name, fn, sample)
        return number != 0 if isinstance(sample, bool) else number

    def sized(self, value: Any) -> Any:
        """A number as it may stand in a shape: one that is 0 or 1 for the stand-ins of tunables would broadcast."""
        if not isinstance(value, torch.SymInt) or not self.is_configured(value) or int(value.node.hint) > 1:
            return value
        if all(self.space.origins[s].kind is not OriginKind.TUNABLE for s in symbols_of(value)):
            return value
        expr = expr_of(value)
        return self._computed((expr,), "({})", "computed", None, int(self._sample(expr)))

    def _computed(
        self, args: tuple[sympy.Expr, ...], text: str, name: str, fn: Callable[..., Any] | None, sample: int
    ) -> torch.SymInt:
        """The number that `fn` gives for `args`; the same one for the same."""
        if (fn, args) in self._computed_numbers:
            return self._computed_numbers[fn, args]
        kinds = {self.space.origins[symbol].kind for expr in args for symbol in expr.free_symbols}
        of_config = frozenset({OriginKind.TUNABLE, OriginKind.BLOCK_SIZE})
        if not kinds <= of_config | {OriginKind.HOST}:
            raise exc.NotAllowedOnDevice(
                name=f"{text.format(*args)} of a number that is known only while the kernel runs",
                fix="use torch's function on a tensor.",
            )
        constant = kinds <= of_config
        kind = OriginKind.TUNABLE if constant else OriginKind.HOST
        number = self._size_symbol(self._stand_in(), f"computed_{len(self.space.origins)}", positive=None)
        origin = Origin(kind, self.unique_name(name), text, args=args, function=fn, configured=not constant)
        self.space.define(number.node.expr, origin)
        self._samples[number.node.expr] = int(sample)
        self._computed_numbers[fn, args] = number
        return number

    def _sample(self, expr: sympy.Expr) -> float:
        values = {s: self._samples.get(s, self.shape_env.backed_var_to_val.get(s)) for s in expr.free_symbols}
        value = sympy.sympify(expr.xreplace(values))
        return bool(value) if value.is_Boolean else float(value) if value.is_Float else int(value)

    def largest(self, value: Any) -> Any:
        """A size with the largest value for each tunable; None if it has a part that is computed from such, or one that
        is read from a tensor and may well be large: the stand-in for it decides nothing about a call.
        """
        symbols = symbols_of(value)
        if self.is_read(symbols) and not self.is_of_config(symbols) and self._sample(expr_of(value)) > 1 << 31:
            return None
        origins = {symbol: origin for symbol in symbols if (origin := self.space.origins.get(symbol)) is not None}
        if any(origin.on_device and origin.args for origin in origins.values()):
            return None
        bounds = {
            symbol: sympy.Integer(max(_bounds(self.tunables[origin.text])))
            for symbol, origin in origins.items()
            if origin.kind is OriginKind.TUNABLE
        }
        if not bounds:
            return value
        expr = sympy.sympify(expr_of(value).xreplace(bounds))
        return int(expr) if expr.is_Integer else self.shape_env.create_symintnode(expr, hint=None)

    def _stand_in(self) -> int:
        """A size that no tensor has."""
        return 64 * int(sympy.prime(200 + len(self.space.origins)))

    def device_int(self, origin: Origin) -> torch.SymInt:
        """An integer known only while the kernel runs."""
        number = self.shape_env.create_unbacked_symint()
        self.space.define(number.node.expr, origin)
        return number

    # -- blocks and axes ---------------------------------------------------------------------------------------------

    def _size_symbol(self, hint: int, name: str, positive: bool | None = True) -> torch.SymInt:
        """An integer of the Config's, with a hint that tells it apart from every other size."""
        source = ConstantSource(name)
        return self._integer(self._symbol(hint, source, positive), hint, source)

    def _symbol(self, hint: Any, source: ConstantSource, positive: bool | None = None) -> sympy.Symbol:
        symbol: sympy.Symbol = self.shape_env.create_symbol(
            hint,
            source,
            dynamic_dim=DimDynamic.DYNAMIC,
            constraint_dim=None,
            positive=positive,
            do_not_specialize_zero_one=True,
        )
        return symbol

    def _integer(self, expr: sympy.Expr, hint: int | None, source: ConstantSource | None = None) -> torch.SymInt:
        # Of a constant PyTorch makes an int, which serves wherever a symbolic one does.
        made: Any = self.shape_env.create_symintnode(expr, hint=hint, source=source)
        number: torch.SymInt = made
        return number

    def size_of(self, expr: sympy.Expr, hint: int | None = None) -> torch.SymInt:
        """The integer that an expression of sizes gives, as a size; without a hint that of the expression."""
        return self._integer(expr, hint)

    def new_block(
        self, name: str, *, fixed: Any = None, low: int = 1, high: int | None = None, extent: int | None = None
    ) -> BlockSize:
        """A new block size (see `BlockSize`)."""
        id_ = len(self.space.blocks)
        # Hints of block sizes are 32 * prime: distinct, so that two tiles never unify; even, so that `tile // 2`
        # reshapes work; unlikely to equal a real size (`check_blocks_are_free` finds it if one does).
        var = self._size_symbol(32 * int(sympy.prime(26 + id_)), f"block_{id_}")
        block = BlockSize(id_, var.node.expr, var, name, fixed, low, high, extent)
        self.space.add_block(block)
        self.space.define(block.symbol, Origin(OriginKind.BLOCK_SIZE, f"BLOCK_{id_}", index=id_))
        self._samples[block.symbol] = int(self._sample(expr_of(fixed))) if fixed is not None else max(low, 16)
        return block

    def new_tunable(self, name: str, default: float, kind: type[int] | type[float]) -> Any:
        """The symbol of an int or float that the Config gives under `name`.

        One that may be 0 is not taken to be positive: `if n > 0` was decided once for all Configs.
        """
        origin = Origin(OriginKind.TUNABLE, self.unique_name(name), text=name, dtype=kind)
        number: torch.SymInt | torch.SymFloat
        if kind is float:
            number = self.host_result(float(default), origin)
        else:
            positive = True if min(_bounds(self.tunables[name])) > 0 else None
            number = self._size_symbol(self._stand_in(), f"tunable_{name}", positive)
            self.space.define(number.node.expr, origin)
        self._samples[number.node.expr] = kind(default)
        return number

    def new_axis(self, block: BlockSize, kind: AxisKind, begin: Any, end: Any, name: str) -> Axis:
        """A new loop dimension (see `Axis`)."""
        id_ = len(self.space.axes)

        def symbol(kind_: OriginKind, prefix: str) -> torch.SymInt:
            return self.device_int(Origin(kind_, self.unique_name(f"{prefix}{id_}"), index=id_))

        axis = Axis(
            id_,
            block,
            kind,
            begin,
            end,
            name,
            offset=symbol(OriginKind.TILE_BEGIN, "offset_"),
            tile_id=symbol(OriginKind.TILE_ID, "tile_id_"),
            clipped_end=symbol(OriginKind.TILE_END, "tile_end_"),
        )
        self.space.add_axis(axis)
        extent = axis.static_extent
        if extent is None and kind is not AxisKind.GRID:
            extent = self.space.hint(end)
        if extent is not None:
            block.extent = max(block.extent or 0, extent)
        return axis

    # -- host tensors and scalars --------------------------------------------------------------------------------------

    def host_tensor(self, fake: torch.Tensor, text: str) -> HostTensor:
        """The IR's record of a host tensor used on the device; one per tensor."""
        for known in self.ir.host_tensors.values():
            if known.fake is fake:
                return known
        name = self.unique_name(self.capture_names.get(text, text))
        tensor = HostTensor(name, text, fake)
        self.ir.host_tensors[name] = tensor
        return tensor

    def with_decided_sizes(self, value: Any) -> Any:
        """A host tensor with the number for each of its sizes that a guard says is one; any other value as it is.

        PyTorch's `x.view(-1, 8)` calls its last size `n // (n // 8)`, and has a guard that it is 8.
        """
        if not isinstance(value, torch.Tensor) or self.settings.static_shapes:
            return value
        known = {guard.expr.lhs: guard.expr.rhs for guard in self.shape_env.guards if isinstance(guard.expr, sympy.Eq)}

        def decided(size: Any) -> Any:
            number = known.get(expr_of(size))
            return int(number) if number is not None and number.is_Integer else size

        shape = [decided(size) for size in value.shape]
        if all(new is old for new, old in zip(shape, value.shape)):
            return value
        return value.as_strided(shape, [decided(stride) for stride in value.stride()], value.storage_offset())

    # -- guards ------------------------------------------------------------------------------------------------------

    def guards(self) -> list[sympy.Basic]:
        """Facts about host values this trace took for granted, as sympy conditions.

        Facts about block sizes are left out: they hold for every block size or are checked by the backends.
        """
        found = list(self._inferred)
        for guard in self.shape_env.guards:
            symbols = guard.expr.free_symbols
            if symbols and all(s in self.space.origins and not self.space.origins[s].on_device for s in symbols):
                if guard.expr not in found:
                    found.append(guard.expr)
        return found

    def check_blocks_are_free(self) -> None:
        """A block size must not have been unified with anything.

        Raises:
            exc.ShapeMismatch: PyTorch's shape rules equated a tile's size with something else.
        """
        for block in self.space.blocks:
            replaced = self.shape_env.replacements.get(block.symbol)
            if replaced is not None:
                raise exc.ShapeMismatch(left=f"the size of tile {block.name!r}", right=str(replaced))

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Run PyTorch abstractly: fake tensors, no autograd."""
        with self.fake_mode, torch.no_grad():
            yield


def _bounds(fragment: Any) -> Sequence[int]:
    """Integers of which the least and the largest are the bounds of a tunable's values; a bool is 0 or 1."""
    choices: Sequence[int] | None = getattr(fragment, "choices", None)
    return choices or (getattr(fragment, "low", 0), max(getattr(fragment, "high", 1), getattr(fragment, "accepted", 1)))
