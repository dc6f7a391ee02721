"""`load_bundle`: calls are served from a file of kernels that were compiled ahead, without a compiler."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Any
from typing import cast

import torch

from .. import _extension
from .. import exc
from .._locks import new_lock
from ..runtime import device
from ..runtime import events
from ..runtime.launch import bundled
from ..runtime.launch import plan_data as data
from ..runtime.native.driver import Driver
from ..runtime.native.driver import default_driver
from . import manifest
from . import signature as calls
from .container import Container
from .fingerprint import Unreadable
from .fingerprint import fingerprint
from .fingerprint import python

__all__ = ["LoadedBundle", "load_bundle"]

ON_MISS = ("compile", "warn", "error")


@dataclasses.dataclass(frozen=True)
class _Binary:
    """A row of the manifest: the fields of `runtime.native.binary.Binary`, with the number of the blob."""

    blob: int
    name: str
    symbol: str
    num_warps: int
    shared: int
    params: tuple[tuple[int, str], ...]
    scratch: int
    cluster: tuple[int, int, int]
    maps: tuple[Any, ...]
    cooperative: bool

    @property
    def types(self) -> tuple[str, ...]:
        return tuple([kind for _, kind in self.params])


@dataclasses.dataclass(frozen=True)
class _Specialization:
    """One signature of a kernel on one capability."""

    leaves: list[tuple[Any, ...]]
    plan: Any
    sms: int | None
    default_dtype: str
    grad_free: bool


#: Capability, signature, and what the `key=` function said.
_Call = tuple[int, tuple[Any, ...], Any]
#: The plans of a call, by the number of multiprocessors that they are for; None: for any.
_Plans = dict[int | None, _Specialization]


@dataclasses.dataclass(frozen=True)
class _Kernel:
    """One kernel: its hashes, parameters whose numbers count by value, (capability, signature, result of the `key=`
    function) -> plans, and arguments that must not overlap, in pairs.
    """

    code: str
    python: str
    source: str
    by_value: tuple[bool, ...]
    plans: dict[_Call, _Plans]
    apart: frozenset[tuple[int, int]]


def _tuples(value: Any) -> Any:
    return tuple([_tuples(item) for item in value]) if type(value) is list else value


class _Reader:
    """Checks a manifest and makes objects of it."""

    def __init__(self, container: Container) -> None:
        self.container = container
        rows = self.field(container.manifest, "binaries", list)
        self.binaries = [self.binary(row) for row in rows]
        self.capabilities: set[int] = set()
        self.kernels = {
            self.text(name): self.kernel(row) for name, row in self.field(container.manifest, "kernels", dict).items()
        }

    @staticmethod
    def field(row: Any, name: str, kind: type) -> Any:
        if type(row) is not dict or type(row.get(name)) is not kind:
            raise manifest.Malformed(f"its {name} is malformed")
        return row[name]

    @staticmethod
    def text(value: Any) -> str:
        if type(value) is not str or "\0" in value:
            raise manifest.Malformed("a text is malformed")
        return value

    def number(self, row: Any, name: str, low: int, high: int) -> int:
        value: int = self.field(row, name, int)
        if not low <= value <= high:
            raise manifest.Malformed(f"its {name} is not from {low} to {high}")
        return value

    def binary(self, row: Any) -> _Binary:
        params = _tuples(self.field(row, "params", list))
        if not all(
            type(p) is tuple and len(p) == 2 and type(p[0]) is int and 0 <= p[0] < 1 << 16 and type(p[1]) is str
            for p in params
        ):
            raise manifest.Malformed("the parameters of a binary are malformed")
        cluster = _tuples(self.field(row, "cluster", list))
        if len(cluster) != 3 or not all(type(size) is int and 1 <= size <= 16 for size in cluster):
            raise manifest.Malformed("a cluster is malformed")
        return _Binary(
            blob=self.number(row, "blob", 0, self.container.blob_count - 1),
            name=self.text(row.get("name")),
            symbol=self.text(row.get("symbol")),
            num_warps=self.number(row, "num_warps", 1, 32),
            shared=self.number(row, "shared", 0, 1 << 20),
            params=params,
            scratch=self.number(row, "scratch", 0, 4),
            cluster=cluster,
            maps=_tuples(self.field(row, "maps", list)),
            cooperative=self.field(row, "cooperative", bool),
        )

    def types_of(self, number: int) -> tuple[str, ...]:
        if number >= len(self.binaries):
            raise manifest.Malformed("a plan launches a binary that is not there")
        return self.binaries[number].types

    def kernel(self, row: Any) -> _Kernel:
        by_value = tuple(self.field(row, "by_value", list))
        if not all(type(counts) is bool for counts in by_value) or len(by_value) > 64:
            raise manifest.Malformed("the parameters of a kernel are malformed")
        plans: dict[_Call, _Plans] = {}
        for item in self.field(row, "plans", list):
            found = _tuples(self.field(item, "signature", list))
            capability = self.number(item, "capability", 0, 1000)
            self.capabilities.add(capability)
            user_key = _tuples(item.get("key"))
            if user_key is not None:
                _checked((user_key,))
            specialization = self.specialization(item, found, len(by_value))
            plans.setdefault((capability, found, user_key), {})[specialization.sms] = specialization
        hashes = [self.text(row.get(name)) for name in ("code", "python", "source")]
        apart = _tuples(self.field(row, "apart", list))
        if not all(type(p) is tuple and len(p) == 2 and set(p) <= set(range(len(by_value))) for p in apart):
            raise manifest.Malformed("the parameters of a kernel are malformed")
        return _Kernel(hashes[0], hashes[1], hashes[2], by_value, plans, frozenset(apart))

    def specialization(self, item: Any, found: tuple[Any, ...], parameters: int) -> _Specialization:
        if len(found) != parameters:
            raise manifest.Malformed("a signature is for another number of parameters")
        leaves = calls.leaves(_checked(found))
        # Read once now, for a device that is not there, so that what is malformed is refused before any call.
        here = torch.device("meta")
        plan = manifest.decode_plan(item.get("plan"), leaves, self.types_of, here)
        # Views and operations of PyTorch's would show that an argument requires grad; a plan knows plain ones.
        grad_free = _shows_inputs(plan.result) or any(isinstance(step, data.Op) for step in plan.steps)
        sms = None if item.get("sms") is None else self.number(item, "sms", 1, 1 << 16)
        return _Specialization(leaves, item["plan"], sms, self.text(item.get("default_dtype")), grad_free)


def _shows_inputs(result: data.Result) -> bool:
    if isinstance(result, (data.Container, data.Structure)):
        return any(_shows_inputs(item) for item in result.items)
    return isinstance(result, data.View) and result.tensor.is_input


#: Kind of an element -> the types of what follows.
_ELEMENTS: dict[str, tuple[tuple[type, ...], ...]] = {
    "tensor": ((str, tuple, tuple, bool),),
    "int": ((bool, bool, bool), (str, int)),
    "float": ((), (str,)),
    "bool": ((bool,),),
    "none": ((),),
    "str": ((str,),),
    "dtype": ((str,),),
}


def _checked(found: tuple[Any, ...], depth: int = 0) -> tuple[Any, ...]:
    """A signature, if it is one."""
    for element in found:
        if type(element) is not tuple or not element or type(element[0]) is not str or depth > 16:
            raise manifest.Malformed("a signature is malformed")
        kind, *rest = element
        if kind in ("tuple", "list"):
            _checked(tuple(rest), depth + 1)
        elif tuple(map(type, rest)) not in _ELEMENTS.get(kind, ()):
            raise manifest.Malformed("a signature is malformed")
        if kind == "tensor":
            sizes = (*rest[1], *rest[2])
            fits = len(rest[1]) == len(rest[2]) and all(type(n) is int and 0 <= n < 1 << 62 for n in sizes)
            if not fits or type(getattr(torch, rest[0], None)) is not torch.dtype:
                raise manifest.Malformed("a signature is malformed")
    return found


class LoadedBundle:
    """An open bundle, from which calls are served until `unload`; what `load_bundle` returns.

    Attributes:
        path: the file.
        on_miss: what happens to a call that it does not have.
        kernels: names of the kernels in it, as in `launch_stats()`: further ones of a name have "#2", "#3", ... behind.
        capabilities: compute capabilities in it, as major * 10 + minor.
        served: how many signatures it has served in this process.
    """

    def __init__(self, path: str | os.PathLike[str], on_miss: str, content: bytes | None = None) -> None:
        self.path = Path(path)
        self.on_miss = on_miss
        self.served = 0
        #: It is a file of the cache: named by its kernel's source, and stands for what Triton would have loaded.
        self._of_cache = content is not None
        self._container = Container(self.path, content)
        try:
            reader = _Reader(self._container)
        except (manifest.Malformed, RecursionError) as error:
            raise self._container.invalid(str(error)) from None
        self._binaries, self._kernels = reader.binaries, reader.kernels
        self.kernels = tuple(self._kernels)
        self._by_name: dict[str, list[_Kernel]] = {}
        for name, kernel in self._kernels.items():
            self._by_name.setdefault(name.partition("#")[0], []).append(kernel)
        self.capabilities = tuple(sorted(reader.capabilities))
        self._lock = new_lock()
        #: (binary, device, provider) -> its LaunchSpec; the provider is kept alive by what is in the plan.
        self._specs: dict[tuple[int, int, Any], Any] = {}

    @property
    def manifest(self) -> dict[str, Any]:
        """What the file says, as JSON."""
        return self._container.manifest

    def __repr__(self) -> str:
        return f"<helion.bundles.LoadedBundle {self.path}: {len(self.kernels)} kernels, {self.capabilities}>"

    def check_machine(self) -> None:
        """Raise exc.BundleMismatch if nothing of it can run here."""
        if _extension.C is None:
            raise self._mismatch(f"the extension is not in use: {_extension.why_not}")
        if not device.is_available():
            raise self._mismatch("there is no GPU")
        here = [device.target_of(index) for index in range(device.get_provider().device_count())]
        if not any(_fitting(self.capabilities, target.arch) for target in here):
            has = ", ".join(f"sm_{capability}" for capability in self.capabilities)
            raise self._mismatch(f"it is for {has or 'nothing'}, and the GPU is {', '.join(map(str, here))}")

    def _mismatch(self, reason: str) -> exc.BundleMismatch:
        return exc.BundleMismatch(path=str(self.path), reason=reason)

    def unload(self) -> None:
        """Serve no more calls; plans that are installed stay."""
        bundled.remove(self)

    # -- `bundled.Source` ------------------------------------------------------------------------------------------

    def serve(self, dispatcher: Any, args: tuple[Any, ...]) -> str | None:
        started = time.time_ns()
        found = self._look_up(dispatcher, args)
        if isinstance(found, str):
            return found
        entry, specialization, index = found
        # From now on every call is asked whether these lie apart, also in C.
        dispatcher._assume_apart(entry.apart)
        if dispatcher.specializer.overlaps(args):
            return "its arguments overlap, and those that were bundled did not"
        generation = dispatcher.count_by_value(i for i, counts in enumerate(entry.by_value) if counts)
        plan = self._plan(specialization, index)
        if not dispatcher.install_plan(args, plan, generation):
            return "the kernel's plans were dropped meanwhile"
        with self._lock:
            self.served += 1
        if not self._of_cache:
            events.emit("bundle_load", dispatcher.stats.name, started, bundle=self.path)
        return None

    def missed(self, dispatcher: Any, reason: str) -> None:
        events.emit("bundle_miss", dispatcher.stats.name, bundle=self.path, reason=reason)
        name = dispatcher.specializer.kernel_name
        if self.on_miss == "error":
            raise exc.BundleMiss(kernel=name, reason=reason)
        if self.on_miss == "warn":
            warning = exc.BundleMissWarning(kernel=name, reason=reason)
            exc.warn(warning, dispatcher.specializer.settings.ignore_warnings)

    def _look_up(self, dispatcher: Any, args: tuple[Any, ...]) -> str | tuple[_Kernel, _Specialization, int]:
        """The plan for a call and its device, or why there is none."""
        entries = self._by_name.get(dispatcher.stats.name)
        if entries is None:
            return f"{self.path.name} has no kernel {dispatcher.stats.name}"
        tensors = calls.tensors(args)
        if not tensors or not all(device.owns(tensor) for tensor in tensors):
            return "its tensors are not on the GPU"
        indices = {device.device_index_of(tensor) for tensor in tensors}
        if len(indices) != 1:
            return "its tensors are on several devices"
        entry = entries[0] if self._of_cache else self._of_same_source(entries, dispatcher)
        if entry is None:
            return "its source, settings, configs or captured values are others than when the bundle was made"
        try:
            found = calls.signature(args, entry.by_value)
            user_key = calls.user_key(dispatcher.specializer, args)
        except calls.Unsupported as why:
            return f"it was called with {why}"
        index = indices.pop()
        capability = _fitting({key[0] for key in entry.plans}, device.target_of(index).arch)
        plans = entry.plans.get((capability, found, user_key)) if capability is not None else None
        if plans is None:
            which = f"of {len(entry.plans)} that it has" if capability is not None else f"for {device.target_of(index)}"
            return f"{self.path.name} has no plan for these arguments, {which}"
        sms = device.get_provider().sm_count(index)
        specialization = plans.get(sms) or plans.get(None)
        if specialization is None:
            made = " or ".join(map(str, plans))
            return (
                f"its grid is for {made} multiprocessors, and the GPU has {sms}: "
                f"make the bundle with --sms {sms}, or sms={{{capability}: {sms}}}"
            )
        return self._problem(specialization, tensors) or (entry, specialization, index)

    @staticmethod
    def _problem(specialization: _Specialization, tensors: list[torch.Tensor]) -> str | None:
        """What keeps a plan from being used here."""
        if specialization.default_dtype != str(torch.get_default_dtype()):
            return f"it was bundled with the default dtype {specialization.default_dtype}"
        if specialization.grad_free and any(tensor.requires_grad for tensor in tensors):
            return "an argument requires grad, and host code shows it"
        return None

    @staticmethod
    def _of_same_source(entries: list[_Kernel], dispatcher: Any) -> _Kernel | None:
        """That of the kernels of one name which was made of what this one is."""
        hashes: dict[bool, str | None] = {}
        for entry in entries:
            text = entry.python != python()
            if text not in hashes:
                try:
                    hashes[text] = fingerprint(dispatcher, text=text)
                except (OSError, TypeError, Unreadable):  # nothing to compare with
                    hashes[text] = None
            if hashes[text] == (entry.source if text else entry.code):
                return entry
        return None

    # -- from a plan's description to a LaunchPlan ------------------------------------------------------------------

    def _plan(self, specialization: _Specialization, index: int) -> Any:
        assert _extension.C is not None
        here = device.torch_device(index)
        found = manifest.decode_plan(specialization.plan, specialization.leaves, self._types_of, here)
        with device.device_guard(index):
            steps = [
                step._replace(spec=self._spec(cast(int, step.spec), index)) if isinstance(step, data.Launch) else step
                for step in found.steps
            ]
        return _extension.C.LaunchPlan(
            found.leaf_count, index, found.buffers, tuple(steps), found.result, found.written, found.distinct
        )

    def _types_of(self, number: int) -> tuple[str, ...]:
        return self._binaries[number].types

    def _spec(self, number: int, index: int) -> Any:
        """The loaded binary, on the device that is current."""
        key = (number, index, device.get_provider())
        with self._lock:
            found = self._specs.get(key)
            if found is None:
                found = self._specs[key] = self._load(self._binaries[number], index, default_driver())
        return found

    def _load(self, binary: _Binary, index: int, driver: Driver) -> Any:
        assert _extension.C is not None
        cubin = self._container.blob(binary.blob)
        driver.ensure_context(index, binary.name)
        function = driver.load(cubin, binary.symbol, binary.name)
        driver.prepare(function, binary.shared, binary.cluster != (1, 1, 1), binary.name)
        return _extension.C.LaunchSpec(
            compiled=self,
            jit_function=None,
            function=function.value,
            name=binary.name,
            num_warps=binary.num_warps,
            shared=binary.shared,
            device=index,
            params=binary.params,
            used_globals=(),
            scratch=binary.scratch,
            cluster=binary.cluster,
            maps=binary.maps,
            cooperative=binary.cooperative,
            of_triton=self._of_cache,
        )


def _fitting(capabilities: Any, arch: int | str) -> int | None:
    """The capability whose binaries a GPU runs: its own, else an earlier one of the same major version.

    From 9.0 on binaries use what one capability has and its successors need not (wgmma, tcgen05), so only the same one
    fits.
    """
    if not isinstance(arch, int):
        return None
    fitting = [c for c in capabilities if c == arch or (arch < 90 and c // 10 == arch // 10 and c < arch)]
    return max(fitting, default=None)


def load_bundle(path: str | os.PathLike[str], on_miss: str = "compile") -> LoadedBundle:
    """Serve calls of kernels from a bundle from now on, without tracing or compiling them.

    A kernel is found by its module and name, and only if its source, helpers, settings and Configs are those that were
    bundled. The file is mapped read-only, and its hashes are checked: of its description now, of each binary when it is
    first used. They show damage, not who made it: a binary of it runs on the GPU, so load only what you would run.

    Args:
        path: what `helion.bundle` or `python -m helion bundle` wrote.
        on_miss: what happens to calls on the GPU that it does not have: "compile" them as usual, "warn" and compile, or
            "error" (exc.BundleMiss).

    Raises:
        exc.InvalidBundle: the file is no bundle, damaged, or of another format.
        exc.BundleMismatch: it is for other GPUs, there is none, or the extension is not in use.
        exc.InvalidAPIUsage: `on_miss` is none of these.
        OSError: it cannot be read.

    Example:
        >>> helion.load_bundle("kernels.hlb", on_miss="error")  # doctest: +SKIP
    """
    if on_miss not in ON_MISS:
        raise exc.InvalidAPIUsage(f"on_miss={on_miss!r}", fix=f"it is one of {', '.join(ON_MISS)}.")
    started = time.time_ns()
    loaded = LoadedBundle(path, on_miss)
    loaded.check_machine()
    bundled.add(loaded)
    events.emit("bundle_load", "", started, bundle=loaded.path, kernels=len(loaded.kernels))
    return loaded
