"""What errors about a value of a Config advise."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

if TYPE_CHECKING:
    from .fragments import Fragment


def advice(fragment: Fragment | None, key: str, spelled: str, value: Any) -> str:
    """What to do about a value that does not fit a kernel.

    Args:
        fragment: what the kernel takes; None where it has nothing to schedule with the key.
        key: the key.
        spelled: as the Config spells it.
        value: the given value.
    """
    if fragment is None:
        return "leave the key out: this kernel has nothing to schedule with it."
    default = fragment.default()
    if isinstance(value, (list, tuple)) and isinstance(default, list) and len(value) != len(default):
        try:
            fitting = fragment.validate([*value, *default[len(value) :]][: len(default)])
        except ValueError:
            pass
        else:
            if fitting != default:
                return f"write {spelled}={fitting!r}, or leave the key out; the default is {key}={default!r}."
    return f"the default is {key}={default!r}."
