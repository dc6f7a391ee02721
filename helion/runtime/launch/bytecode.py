"""Which names a code object reads, and what of them: found in its instructions, whose names differ between Pythons.

Not here: where the values are found, and what they count for (``outside.py``).
"""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Sequence
from typing import Any

__all__ = ["Read", "Step", "names_in", "reads_in"]

#: Instructions that put a name's value on the stack, and what kind of name. From Python 3.13 on one may have two names,
#: the second of which is on top.
_READS = {
    "LOAD_GLOBAL": "global",
    "LOAD_NAME": "global",
    "LOAD_DEREF": "free",
    "LOAD_CLASSDEREF": "free",
    "LOAD_FROM_DICT_OR_DEREF": "free",
    "LOAD_FAST": "self",
    "LOAD_FAST_BORROW": "self",
    "LOAD_FAST_CHECK": "self",
    "LOAD_FAST_LOAD_FAST": "self",
    "LOAD_FAST_BORROW_LOAD_FAST_BORROW": "self",
    "STORE_FAST_LOAD_FAST": "self",
}
#: Instructions that put a constant there; LOAD_SMALL_INT is Python 3.14's.
_CONSTANTS_LOADED = frozenset({"LOAD_CONST", "LOAD_SMALL_INT", "LOAD_CONST_IMMORTAL"})
_ATTRIBUTES = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_NOTHING = frozenset({"CACHE", "EXTENDED_ARG", "PUSH_NULL"})

#: What is read of a value: an attribute by name (True), or an item.
Step = tuple[bool, Any]
#: A name, what is read of it, and whether it is a global, a free variable or the parameter "self".
Read = tuple[str, tuple[Step, ...], str]


@functools.lru_cache(4096)
def reads_in(code: types.CodeType, free: frozenset[str], own: str) -> tuple[Read, ...]:
    """What a code object reads from outside, and of the parameter `own`."""
    found: dict[Read, None] = {}
    instructions = [i for i in dis.get_instructions(code) if i.opname not in _NOTHING]
    for i, instruction in enumerate(instructions):
        name, kind = instruction.argval, _READS.get(instruction.opname)
        if kind is not None and isinstance(name, tuple):
            name = name[-1]
        if kind == "free" and name == own:
            kind = "self"  # which an inner function closes over
        if kind is None or (kind == "free" and name not in free) or (kind == "self" and name != own):
            continue
        found[name, _steps(instructions[i + 1 :]), kind] = None
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = frozenset(constant.co_freevars)
            found.update(dict.fromkeys(reads_in(constant, free & inner, own if own in inner else "")))
    return tuple(found)


def _steps(instructions: Sequence[dis.Instruction]) -> tuple[Step, ...]:
    """The attributes and constant items that are read of the value on the stack."""
    steps: list[Step] = []
    i = 0
    while i < len(instructions):
        instruction = instructions[i]
        if instruction.opname in _ATTRIBUTES:
            steps.append((True, str(instruction.argval)))
            i += 1
        elif instruction.opname in _CONSTANTS_LOADED and i + 1 < len(instructions) and _takes_item(instructions[i + 1]):
            if not isinstance(instruction.argval, (int, str)):
                break
            steps.append((False, instruction.argval))
            i += 2
        else:
            break
    return tuple(steps)


def _takes_item(instruction: dis.Instruction) -> bool:
    return instruction.opname == "BINARY_SUBSCR" or (
        instruction.opname == "BINARY_OP" and instruction.argrepr == "[]"  # from Python 3.14 on
    )


def names_in(code: types.CodeType) -> set[str]:
    """The globals and attributes that code reads, functions within it included."""
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*[names_in(constant) for constant in inner])
