"""Plans on disk: a call that an earlier process has made runs as a plan from its first time on, with nothing traced.

When a call is recorded as a plan, the plan and its binaries are written to the cache directory, in the format of a
bundle; before a call is traced in a later process, its file is looked for. The file's name is a hash of all that the
code depends on: the kernel with everything it refers to (`fingerprint`), the settings, the environment
(`surroundings`), and the call's signature. Where one of these cannot be compared nothing is kept, and the call is
traced as ever.

    plans/<hash of kernel and surroundings>/by_value         which parameters' numbers count by value
    plans/<hash of kernel and surroundings>/<signature>.hlb  one call

A Config that somebody sets, or tunes in this process, is no part of it: only what a first call chooses by itself is
kept, and a tuned Config together with the hash of the tuner's file that it is from.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import torch

from .. import _compat_triton_abi
from .. import exc
from .._environment import FALSE
from .._version import __version__
from ..runtime import device
from ..runtime import events
from ..runtime.cache_files import cache_dir
from ..runtime.cache_files import read_file
from ..runtime.cache_files import replace_file
from ..runtime.launch import bundled
from ..runtime.launch import plan_data as data
from ..runtime.launch import spec as launch_spec
from ..runtime.native.binary import Binary
from ..settings import RefMode
from . import manifest
from . import signature as calls
from . import surroundings
from .container import encode
from .fingerprint import Unreadable
from .fingerprint import exact_fingerprint
from .load import LoadedBundle

__all__ = ["PlanCache", "install"]

log = logging.getLogger("helion.runtime")

#: Calls of one kernel that are kept: a kernel that is compiled for every size would fill the disk.
MOST_CALLS = 256


#: What a file that is damaged, or not ours, is refused with; by the reader, the extension or the driver.
_REFUSED = (OSError, exc.InvalidBundle, ValueError, TypeError, IndexError, OverflowError, RuntimeError)


class _NotKept(Exception):
    """Why a plan is not in the cache, in words."""


def _key(dispatcher: Any, index: int) -> str:
    """What the directory of a kernel is named by.

    Raises:
        _NotKept: something that the code depends on cannot be compared, or somebody watches the compiler.
    """
    settings = dispatcher.specializer.settings
    if settings.ref_mode is not RefMode.OFF or settings.print_output_code or settings.print_repro:
        raise _NotKept("its settings ask to see the source")
    if settings.force_autotune or dispatcher.aot is not None:
        raise _NotKept("its Config is chosen anew by each process")
    if not _compat_triton_abi.knobs_untouched():
        raise _NotKept("a knob or a hook of Triton's is set")
    try:
        parts = (__version__, exact_fingerprint(dispatcher), surroundings.of_process(), surroundings.of_gpu(index))
    except (Unreadable, surroundings.Unknown) as what:
        raise _NotKept(f"it depends on {what}") from None
    except (OSError, TypeError):
        raise _NotKept("it has no source") from None
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:40]


def _device_of(args: tuple[Any, ...]) -> int:
    tensors = calls.tensors(args)
    if not tensors or not all(device.owns(tensor) for tensor in tensors):
        raise _NotKept("its tensors are not on the GPU")
    indices = {device.device_index_of(tensor) for tensor in tensors}
    if len(indices) != 1:
        raise _NotKept("its tensors are on several devices")
    return indices.pop()


def _signature(dispatcher: Any, args: tuple[Any, ...], by_value: tuple[bool, ...]) -> str:
    try:
        found = (by_value, calls.signature(args, by_value), calls.user_key(dispatcher.specializer, args))
    except calls.Unsupported as why:
        raise _NotKept(f"it was called with {why}") from None
    return hashlib.sha256(repr(found).encode()).hexdigest()[:40]


def _read_mask(directory: Path) -> tuple[bool, ...] | None:
    try:
        found = json.loads(read_file(directory / "by_value", binary=True))
    except (OSError, ValueError):
        return None
    return tuple(found) if type(found) is list and all(type(counts) is bool for counts in found) else None


def _sha256(path: str) -> str | None:
    try:
        return hashlib.sha256(read_file(Path(path))).hexdigest()
    except OSError:
        return None


class PlanCache:
    """Serves calls from the cache on disk, and keeps those that are recorded; see the module."""

    def serve(self, dispatcher: Any, args: tuple[Any, ...]) -> str | None:
        """Install the plan for a call, if there is one; returns None, or why there is none."""
        started = time.time_ns()
        if not _wanted():
            return "HELION_PLAN_CACHE=0"
        try:
            directory = cache_dir() / "plans" / _key(dispatcher, _device_of(args))
            mask = _read_mask(directory)
            if mask is None or len(mask) != len(args):
                return "no call of it is kept"
            path = directory / f"{_signature(dispatcher, args, mask)}.hlb"
            loaded = LoadedBundle(path, "compile", read_file(path, binary=True))
            reason = self._outdated(loaded) or loaded.serve(dispatcher, args)
        except _NotKept as why:
            return str(why)
        except FileNotFoundError:
            return "this call of it is not kept"
        except _REFUSED as error:
            log.info("%s: the plan on disk is not used: %s", dispatcher.stats.name, error)
            return str(error)
        if reason is None:
            events.emit("plan_load", dispatcher.stats.name, started, file=path)
        return reason

    @staticmethod
    def _outdated(loaded: LoadedBundle) -> str | None:
        """That the tuner has another Config than the plan was made with."""
        chosen = loaded.manifest.get("config_file")
        if chosen is None or (type(chosen) is list and len(chosen) == 2 and _sha256(chosen[0]) == chosen[1]):
            return None
        return "it was tuned since"

    def keep(self, dispatcher: Any, args: tuple[Any, ...], plan: data.PlanData) -> None:
        """Write a plan that was recorded to disk, if all that it depends on can be compared."""
        if not _wanted():
            return
        try:
            index = _device_of(args)
            directory = cache_dir() / "plans" / _key(dispatcher, index)
            mask = self._mask(directory, tuple(dispatcher._value_keyed))
            path = directory / f"{_signature(dispatcher, args, mask)}.hlb"
            if directory.is_dir() and sum(1 for _ in directory.iterdir()) > MOST_CALLS:
                raise _NotKept(f"{MOST_CALLS} calls of it are kept already")
            content = _content(dispatcher, args, plan, mask, index)
            replace_file(directory / "by_value", json.dumps(mask), root=cache_dir())
            replace_file(path, content, root=cache_dir())
        except (_NotKept, manifest.Malformed, calls.Unsupported) as why:
            log.debug("%s: the plan is not kept on disk: %s", dispatcher.stats.name, why)
        except OSError as error:
            log.debug("%s: the plan cannot be written: %s", dispatcher.stats.name, error)

    @staticmethod
    def _mask(directory: Path, mine: tuple[bool, ...]) -> tuple[bool, ...]:
        """Numbers that count by value in this call or in one that is kept."""
        kept = _read_mask(directory)
        if kept is None or len(kept) != len(mine):
            return mine
        return tuple([a or b for a, b in zip(kept, mine)])


def _wanted() -> bool:
    return os.environ.get("HELION_PLAN_CACHE", "1").lower() not in FALSE


def _binary(step: data.Launch) -> Binary:
    found = launch_spec.binary_of(step.spec)
    if found is None:
        raise _NotKept("a launch of it needs what only Triton's launcher does")
    return found


def _content(dispatcher: Any, args: tuple[Any, ...], plan: data.PlanData, mask: tuple[bool, ...], index: int) -> bytes:
    """The file of one call."""
    bound = dispatcher.variant(args)
    depends = bound.config_depends_on(args)
    if depends is None:
        raise _NotKept(f"its Config is {bound.config_source or 'of this process'}")
    chosen = None
    if depends:
        chosen = [depends, _sha256(depends)]
        if chosen[1] is None:
            raise _NotKept("the tuner keeps no file of its Config")
    binaries: dict[Binary, int] = {}
    steps = []
    for step in plan.steps:
        if isinstance(step, data.Launch):
            number = binaries.setdefault(_binary(step), len(binaries))
            step = step._replace(spec=number)  # type: ignore[arg-type]  # a number stands for it in a manifest
        steps.append(step)
    item = {
        "capability": device.target_of(index).arch,
        "config": repr(bound.config),
        "sms": device.get_provider().sm_count(index),
        "default_dtype": str(torch.get_default_dtype()),
        "plan": manifest.encode_plan(plan._replace(steps=tuple(steps)), calls.tensors(args)[0].device),
        "signature": calls.signature(args, mask),
        "key": calls.user_key(dispatcher.specializer, args),
    }
    row = {
        "code": "",  # in the name of the directory
        "python": "",
        "source": "",
        "by_value": mask,
        "apart": sorted(dispatcher.specializer.assumed_apart | bound.assumed_apart),
        "plans": [item],
    }
    rows = [
        {**{f.name: getattr(binary, f.name) for f in dataclasses.fields(binary) if f.name != "cubin"}, "blob": number}
        for binary, number in binaries.items()
    ]
    text = {
        "config_file": chosen,
        "torch": torch.__version__,
        "kernels": {dispatcher.stats.name: row},
        "binaries": rows,
    }
    return encode(text, [binary.cubin for binary in binaries])


def install() -> None:
    """Ask the cache from now on before a call is traced, and keep what is recorded."""
    bundled.cache = PlanCache()
