"""What a kernel may tune and what it fixes: block sizes, tunables, `hl.specialize`, `hl.constexpr`."""

from __future__ import annotations

from typing import Any
from typing import TypeVar

import torch

from .. import exc
from .op import current_handler

T = TypeVar("T")


def register_block_size(min_or_max: Any, max_or_none: Any = None) -> Any:
    """Declare a block size in host code, to use in several loops or in the shape of an output.

    `hl.register_block_size(max)` or `hl.register_block_size(min, max)`.

    Args:
        min_or_max: largest sensible size; or the smallest, when `max_or_none` is given.
        max_or_none: largest sensible size, usually the extent that is tiled.

    Returns:
        The size, an integer chosen by the config (key `block_sizes`): pass it as `block_size=` to `hl.tile`.

    Raises:
        exc.InvalidAPIUsage: the minimum is not a positive constant.
    """
    handler = current_handler("hl.register_block_size")
    low, high = (1, min_or_max) if max_or_none is None else (min_or_max, max_or_none)
    for bound in (low, high):
        if isinstance(bound, bool) or not isinstance(bound, (int, torch.SymInt)):
            raise exc.InvalidAPIUsage(f"hl.register_block_size takes integers, got {type(bound).__name__}")
    if not isinstance(low, int) or low < 1:
        raise exc.InvalidAPIUsage(f"hl.register_block_size: the minimum must be a positive constant, got {low}")
    if isinstance(high, int) and high < low and max_or_none is not None:
        raise exc.InvalidAPIUsage(f"hl.register_block_size: the maximum {high} is below the minimum {low}")
    return handler.register_block_size(low, high)


def register_tunable(name: str, fragment: Any) -> Any:
    """Declare a tunable of your own in host code.

    Args:
        name: its key in the config.
        fragment: the values it may have, a fragment of `helion.autotuner` such as `IntegerFragment(1, 8, 2)`.

    Returns:
        The config's value for `name`, or the fragment's default; a compile-time constant.
    """
    handler = current_handler("hl.register_tunable")
    if not isinstance(name, str) or not name.isidentifier():
        raise exc.InvalidAPIUsage(f"hl.register_tunable: the name must be an identifier, got {name!r}")
    if not callable(getattr(fragment, "default", None)):
        raise exc.InvalidAPIUsage(
            f"hl.register_tunable: {type(fragment).__name__} is not a fragment",
            fix="use IntegerFragment, PowerOfTwoFragment, EnumFragment or BooleanFragment of helion.autotuner.",
        )
    return handler.register_tunable(name, fragment)


def specialize(value: T) -> T:
    """Make a size or stride a compile-time constant, in host code.

    Args:
        value: an integer such as `x.size(0)` or `x.stride(1)`, or a tuple or list of them (`x.shape`).

    Returns:
        The same value(s); a call with other ones compiles another specialization.

    Raises:
        exc.SpecializeOnDevice: called inside a device loop.
    """
    handler = current_handler("hl.specialize")
    for item in value if isinstance(value, (tuple, list)) else (value,):
        if not isinstance(item, (int, torch.SymInt)):
            raise exc.InvalidAPIUsage(
                f"hl.specialize takes integers or tuples of them, got {type(item).__name__}",
                fix="pass a size or a stride, such as x.size(0).",
            )
    result: T = handler.specialize(value)
    return result


class constexpr:
    """A compile-time constant: as annotation of a kernel's parameter (`n: hl.constexpr`, `hl.constexpr[int]`), around
    an argument (`kernel(x, hl.constexpr(3))`), or around a value in the kernel function.

    A call with another value compiles another specialization.  `hl.constexpr(block_m < 64)` in device code decides an
    `if` for each Config.

    Args:
        value: the constant; a number that the Config decides on stays what it is.

    Attributes:
        value: the constant.
    """

    value: Any

    def __class_getitem__(cls, item: Any) -> type[constexpr]:
        return cls

    def __new__(cls, value: Any) -> Any:
        if isinstance(value, (constexpr, torch.SymInt, torch.SymFloat, torch.SymBool)):
            return value
        if isinstance(value, torch.Tensor):
            raise exc.InvalidAPIUsage("hl.constexpr takes a Python value, got a tensor", fix="pass the tensor itself.")
        kind = _CONSTANTS.get(type(value))
        return object.__new__(cls) if kind is None else kind.__new__(kind, value)

    def __init__(self, value: Any) -> None:
        self.value = value.value if isinstance(value, constexpr) else value

    def __repr__(self) -> str:
        return f"constexpr({self.value!r})"


class _Int(int, constexpr):
    def __new__(cls, value: int) -> _Int:
        return int.__new__(cls, value)


class _Float(float, constexpr):
    def __new__(cls, value: float) -> _Float:
        return float.__new__(cls, value)


class _Str(str, constexpr):
    def __new__(cls, value: str) -> _Str:
        return str.__new__(cls, value)


class _Tuple(tuple[Any, ...], constexpr):  # type: ignore[misc]  # both may be written with an item's type
    def __new__(cls, value: tuple[Any, ...]) -> _Tuple:
        return tuple.__new__(cls, value)


#: Constants that are also what they hold, so that code need not ask for `.value`.
_CONSTANTS: dict[type, Any] = {bool: _Int, int: _Int, float: _Float, str: _Str, tuple: _Tuple}
