"""Environment variables that are switches: read in one way everywhere.

Settings of kernels are in `settings.py`; this is also for what is decided before there is a kernel.
"""

from __future__ import annotations

import os

TRUE = frozenset({"1", "true", "on", "yes"})
FALSE = frozenset({"", "0", "false", "off", "no"})


def is_set(name: str) -> bool:
    """Whether a variable is set to anything but what `FALSE` lists."""
    return os.environ.get(name, "").lower() not in FALSE


#: Variables that are no settings of a kernel, and what they do: docs/settings.md shows this table.
VARIABLES: dict[str, str] = {
    "HELION_LOGS": "what helion logs, as TORCH_LOGS: `all`, `+all`, or names of its modules",
    "HELION_CACHE_DIR": "where generated source and tuning results are kept; default `~/.cache/helion`. Where it "
    "cannot be written, neither is, with a warning. It is private unless it was there before; binaries in it that "
    "others can have written are not used",
    "HELION_PLAN_CACHE": "`0`: plans are neither kept on disk nor taken from there",
    "HELION_SKIP_CACHE": "`1`: the autotuner reads no cached results",
    "HELION_ASSERT_CACHE_HIT": "`1`: where tuning would begin for want of a cached result, raise "
    "`exc.CacheAssertionError`",
    "HELION_DISALLOW_AUTOTUNING": "`1`: where tuning would begin, raise `exc.AutotuningDisallowedInEnvironment`",
    "HELION_AUTOTUNER": "name of the search that `autotuner_fn` uses by default",
    "HELION_CAP_AUTOTUNE_NUM_NEIGHBORS": "most neighbours of a config that the pattern searches measure",
    "HELION_REMOTE_CACHE": "the store behind `RemoteAutotuneCache`: an address, or `module:attribute`",
    "HELION_MEASURE_COMPILE_TIME": "`1`: report where compile time went when the process ends",
    "HELION_SKIP_FAST_LAUNCHER": "`1`: leave every launch to Triton",
    "HELION_NO_EXTENSION": "`1`: ignore `helion._C`",
    "HELION_OUTPUT_POOL": "`1`: reuse the memory of outputs that nobody holds any more",
    "HELION_OUTPUT_POOL_ENTRIES": "most outputs that the pool keeps",
    "HELION_OUTPUT_POOL_BYTES": "most bytes of outputs that the pool keeps",
}
#: Set by helion itself, for processes that it starts.
INTERNAL = frozenset({"HELION_AUTOTUNE_WORKER", "HELION_BUILD_EXTENSION"})
