"""The keys of a Config: one table of their names, the forms their values may have, and what a value may be at all.

What of it one kernel can use, and with which defaults, is `config_spec.ConfigSpec`'s.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import Literal

__all__ = ["KEYS", "SINGULARS", "TABLE", "Key", "closest", "flattened", "plural_items"]

PID_TYPES = ("flat", "xyz", "persistent_blocked", "persistent_interleaved")
INDEXING_TYPES = ("pointer", "block_ptr", "tensor_descriptor")
EVICTION_POLICIES = ("", "first", "last")
LOAD_CACHE_MODIFIERS = ("", ".ca", ".cg", ".cv")
STORE_CACHE_MODIFIERS = ("", ".wb", ".cg", ".cs", ".wt")

Check = Callable[[Any], Any]


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _power_of_two(high: int) -> Check:
    def check(value: Any) -> int:
        if not (_is_int(value) and 1 <= value <= high) or value & (value - 1):
            raise ValueError(f"expected a power of two from 1 to {high}")
        return int(value)

    return check


def _integer(low: int, high: int) -> Check:
    def check(value: Any) -> int:
        if not (_is_int(value) and low <= value <= high):
            raise ValueError(f"expected an int from {low} to {high}")
        return int(value)

    return check


def _one_of(*choices: Any) -> Check:
    def check(value: Any) -> Any:
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            raise ValueError(f"expected one of {', '.join(map(repr, choices))}")
        return value

    return check


def _or_none(inner: Check) -> Check:
    def check(value: Any) -> Any:
        try:
            return None if value is None else inner(value)
        except ValueError as error:
            raise ValueError(f"{error}, or None") from None

    return check


def _order(value: Any) -> list[int]:
    if not isinstance(value, (list, tuple)) or sorted(map(repr, value)) != sorted(map(repr, range(len(value)))):
        raise ValueError("expected an order of loops, such as [1, 0]")
    return list(value)


def _path(value: Any) -> str:
    if not isinstance(value, str) or any(c.isspace() for c in value):
        raise ValueError("expected the path of a file as a str, without spaces (Triton splits ptxas' options there)")
    return value


def _subtile(value: Any) -> int | None:
    """True is two parts, False and None are one. The CuTe backend reads a number as columns of a step."""
    if value is None or isinstance(value, bool):
        return 2 if value else None
    if not _is_int(value) or not 1 <= value <= 256 or value & (value - 1):
        raise ValueError("expected None, a power of two (2 or 4 parts for the Triton backend), True or False")
    return int(value)


_FLAG = _one_of(True, False)
_TRI_STATE = _one_of(None, True, False)
_COUNT = _integer(0, 1 << 20)


@dataclasses.dataclass(frozen=True)
class Key:
    """One key of a Config.

    Attributes:
        name: the key.
        check: an item of it (or the value, where it is no list) in its own spelling; ValueError says what is allowed.
        form: "one" value; a "list" of items, which may be given as one value, a tuple, or nested lists; "orders", a
            list of lists; "each", one value for all items or a list.
        neutral: what the key says where it is absent.
        singular: another spelling, for one item.
        flexible: more items than a kernel has places for are no error: how many there are depends on the compiler.
    """

    name: str
    check: Check
    form: Literal["one", "list", "orders", "each"] = "one"
    neutral: Any = None
    singular: str | None = None
    flexible: bool = False

    def parse(self, value: Any) -> Any:
        """The value in its plain form, each item checked.

        Raises:
            ValueError: what is allowed instead.
        """
        if self.form == "one" or (self.form == "each" and not isinstance(value, (list, tuple))):
            return self.check(value)
        if self.form == "orders":
            orders = [value] if _is_order(value) else value
            if not isinstance(orders, (list, tuple)):
                raise ValueError("expected a list of orders of loops, such as [[1, 0]]")
            return [self._item(i, order) for i, order in enumerate(orders)]
        return [self._item(i, item) for i, item in enumerate(flattened(value))]

    def spread(self, value: Any) -> Any:
        """The value as attributes of a Config give it: a list if the key has one, its items unchecked."""
        if self.form == "orders" and _is_order(value):
            return [value]
        if self.form == "list" and not (isinstance(value, list) and all(not isinstance(v, list) for v in value)):
            return flattened(value)
        return value

    def _item(self, place: int, item: Any) -> Any:
        try:
            return self.check(item)
        except ValueError as error:
            raise ValueError(f"item {place}: {error}") from None


def _is_order(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(_is_int(v) for v in value)


def flattened(value: Any) -> list[Any]:
    """The items of a value, nested lists and tuples as one; a single value is a list of itself."""
    if isinstance(value, (list, tuple)):
        return [item for part in value for item in flattened(part)]
    return [value]


def _list(name: str, check: Check, singular: str | None = None, flexible: bool = False) -> Key:
    return Key(name, check, "list", [], singular, flexible)


#: Every key, in the order a Config prints them. Where the search space of a kernel is narrower (`ConfigSpec`), a given
#: Config may still say all that is allowed here.
TABLE: dict[str, Key] = {
    key.name: key
    for key in (
        _list("block_sizes", _power_of_two(1 << 30), "block_size"),
        Key("loop_orders", _order, "orders", [], "loop_order"),
        _list("l2_groupings", _power_of_two(1 << 10), "l2_grouping"),
        _list("flatten_loops", _FLAG, "flatten_loop"),
        _list("reduction_loops", _or_none(_power_of_two(1 << 30)), "reduction_loop"),
        _list("range_unroll_factors", _integer(0, 64), "range_unroll_factor", flexible=True),
        _list("range_num_stages", _integer(0, 16), "range_num_stage", flexible=True),
        _list("range_multi_buffers", _TRI_STATE, "range_multi_buffer", flexible=True),
        _list("range_flattens", _TRI_STATE, "range_flatten", flexible=True),
        _list("range_warp_specializes", _TRI_STATE, "range_warp_specialize", flexible=True),
        _list("static_ranges", _FLAG, "static_range", flexible=True),
        Key("num_warps", _power_of_two(32), neutral=4),
        Key("num_stages", _integer(1, 16), neutral=1),
        Key("maxnreg", _or_none(_integer(16, 256))),
        Key("indexing", _one_of(*INDEXING_TYPES), "each", "pointer", flexible=True),
        _list("load_eviction_policies", _one_of(*EVICTION_POLICIES), flexible=True),
        Key("epilogue_subtile", _subtile),
        Key("pid_type", _one_of(*PID_TYPES), neutral="flat"),
        Key("num_sm_multiplier", _power_of_two(128), neutral=1),
        # What a Config may say, and searches leave alone.
        _list("load_cache_modifiers", _one_of(*LOAD_CACHE_MODIFIERS), flexible=True),
        _list("store_cache_modifiers", _one_of(*STORE_CACHE_MODIFIERS), flexible=True),
        Key("advanced_controls_file", _path, neutral=""),
        # The CuTe backend's.
        Key("tcgen05_ab_stages", _COUNT),
        Key("tcgen05_acc_stages", _COUNT),
        Key("tcgen05_c_stages", _COUNT),
        Key("tcgen05_cluster_m", _COUNT),
        Key("tcgen05_cluster_n", _COUNT),
        Key("tcgen05_l2_swizzle_size", _COUNT),
        # Of other compilers and GPUs: taken, checked, and without effect here.
        Key("num_threads", _COUNT, "each", []),
        Key("atomic_indexing", _one_of(*INDEXING_TYPES), "each", "pointer"),
        Key("xcd_remap", _one_of(True, False, *range(65)), neutral=False),
        Key("cute_vector_widths", _COUNT, "each", []),
        Key("waves_per_eu", _COUNT),
        Key("matrix_instr_nonkdim", _COUNT),
        Key("num_ctas", _power_of_two(16), neutral=1),
        Key("occupancy", _COUNT),
        Key("pallas_load_buffer_count", _COUNT, "each", []),
    )
}

KEYS: tuple[str, ...] = tuple(TABLE)
#: Singular -> key.
SINGULARS: dict[str, str] = {key.singular: key.name for key in TABLE.values() if key.singular is not None}


def plural_items(items: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Each item of a Config as (key as it was given, key of `TABLE` or the user's tunable, value).

    A singular key is the plural with one item.
    """
    for given, value in items.items():
        name = SINGULARS.get(given, given)
        if name == "loop_orders" and given != name:
            value = [value]
        yield given, name, value


def closest(key: str, others: Mapping[str, Any] | tuple[str, ...] = ()) -> str | None:
    """The known key (or one of `others`) that a misspelt one may have been meant to be."""
    found = difflib.get_close_matches(key, [*KEYS, *SINGULARS, *others], n=1, cutoff=0.8)
    return found[0] if found else None
