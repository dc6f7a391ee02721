"""Kernels whose programs wait for flags of others (`hl.wait`): what their Configs may not change.

A program may only wait for one that has begun, which is one with a lower number.  With tiles in another order it would
be one that begins when this one ends, and the kernel would never end.
"""

from __future__ import annotations

from ...config_spec import ConfigSpec
from ...fragments import EnumFragment
from ...fragments import ListOf
from ...ir.device_ir import DeviceIR
from ...language.distributed import wait

#: Of programs that take every n-th tile those with higher numbers have tiles that come earlier.
_PID_TYPES = ("flat", "xyz", "persistent_blocked")


def keep_order(spec: ConfigSpec, device: DeviceIR) -> None:
    """Leave out of a spec what would change the order of tiles, where programs wait for others."""
    if wait not in device.calls:
        return
    for key in ("loop_orders", "l2_groupings"):
        fragment = spec.fields.get(key)
        if isinstance(fragment, ListOf):
            alone = [EnumFragment([item.default()]) for item in fragment.items]
            spec.fields[key] = ListOf(alone, labels=fragment.labels, blocks=fragment.blocks)
    pid_type = spec.fields["pid_type"]
    assert isinstance(pid_type, EnumFragment)
    choices = [choice for choice in pid_type.choices if choice in _PID_TYPES]
    if choices:  # with barriers all programs run at once, and may wait for any
        spec.fields["pid_type"] = EnumFragment(choices)
