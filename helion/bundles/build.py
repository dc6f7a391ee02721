"""`bundle`: compile calls of kernels ahead, for GPUs that need not be here, into one file.

Each call is traced for the capability asked for, its host function runs once on the example (nothing is launched) under
the recorder of plans, and what it would have launched is compiled.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import types
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from typing import cast

import torch

from .. import _extension
from .. import exc
from .._version import __version__
from ..backends.base import Backend
from ..backends.base import Launch
from ..kernel import Kernel
from ..runtime import device
from ..runtime.code_cache import load_module
from ..runtime.host_function import clone_host_function
from ..runtime.host_function import set_launcher
from ..runtime.launch import plan_data as data
from ..runtime.launch.plan import NotAPlan
from ..runtime.launch.plan import Recorder
from ..runtime.launch.plan import record
from ..runtime.native.binary import Binary
from ..target import Target
from . import manifest
from . import signature as calls
from .container import write
from .fingerprint import Unreadable
from .fingerprint import fingerprint
from .fingerprint import python

__all__ = ["BundleReport", "bundle"]

#: Multiprocessors of the GPUs of a capability, for which the grids of persistent kernels are made where nobody says:
#: A100, A30; A40, A10G, A10; L40S, RTX 4090, L20, L4; H100 SXM and H200, H100 PCIe, H20; B200, GB200; B300, GB300.
SMS = {
    80: (108, 56),
    86: (84, 80, 72),
    89: (142, 128, 92, 58),
    90: (132, 114, 78),
    100: (148, 152),
    103: (148, 152, 160),
}


@dataclasses.dataclass(frozen=True)
class BundleReport:
    """What went into a bundle.

    Attributes:
        path: the file.
        plans: calls times capabilities that are in it.
        binaries: different kernels that are in it.
        size: bytes.
        left_out: (kernel, capability, why) of each call that is not in it.
    """

    path: Path
    plans: int
    binaries: int
    size: int
    left_out: tuple[tuple[str, int, str], ...]

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.plans} plans, {self.binaries} binaries, {self.size / 1e6:.1f} MB"]
        return "\n".join([*lines, *(f"  left out: {name} for sm_{c}: {why}" for name, c, why in self.left_out)])


class _TargetProvider:
    """A device provider for the GPU that code is made for: the examples' memory passes for its memory."""

    name = "target"

    def __init__(self, capability: int, sms: int) -> None:
        self._capability, self._sms = capability, sms
        #: Whether anybody asked for the number of multiprocessors: what was made then is for that number.
        self.sms_asked = False
        self.current_device = lambda: 0
        self.current_stream = lambda index: 0
        self.device_tag = lambda tensor: 0

    def available(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def target(self, index: int) -> Target:
        return Target("nvidia", self._capability)

    def sm_count(self, index: int) -> int:
        self.sms_asked = True
        return self._sms

    def guard(self, index: int) -> AbstractContextManager[object]:
        return contextlib.nullcontext()

    def owns(self, tensor: torch.Tensor) -> bool:
        return True

    def device_index_of(self, tensor: torch.Tensor) -> int:
        return 0

    def torch_device(self, index: int) -> torch.device:
        return torch.device("cpu")

    def is_capturing(self) -> bool:
        return False

    def synchronize(self, index: int) -> None:
        pass


@contextlib.contextmanager
def _compiling_for(provider: _TargetProvider) -> Iterator[None]:
    previous = device.set_provider(provider)
    try:
        yield
    finally:
        device.set_provider(previous)


class _BundleRecorder(Recorder):
    """Makes `data.PlanData`, whose launches have the `Binary` in the place of a LaunchSpec."""

    def spec_of(
        self, kernel: Any, compiled: Any, argument_count: int, keywords: dict[str, Any]
    ) -> tuple[Any, int, list[int]]:
        assert isinstance(compiled, Binary)
        arguments = [argument for argument, _ in compiled.params]
        return compiled, 0, arguments[:-1] if compiled.scratch_bytes else arguments

    def plan(self, leaf_count: int, buffers: Any, result: Any, written: Any) -> data.PlanData:
        return data.PlanData(leaf_count, buffers, tuple(self.steps), result, written, self.analysis.identity)


#: What host code may not ask of tensors in host memory, which stand for tensors on the GPU.
_TELLING = frozenset({"is_cuda", "is_cpu", "get_device"})


def _refuse_what_tells_devices_apart(host: types.FunctionType) -> None:
    code = host.__code__
    if "cpu" in code.co_consts or "cuda" in code.co_consts or _TELLING.intersection(code.co_names):
        raise NotAPlan("host code asks on which device its tensors are: make the bundle from examples on the GPU")


def _source_hash(kernel: Kernel) -> str:
    try:
        return fingerprint(kernel, text=True)
    except (OSError, TypeError):
        return ""  # of no source: it serves the Python that it was made with


class _Builder:
    def __init__(self, sms: Mapping[int, Sequence[int]]) -> None:
        self.sms = {**SMS, **sms}
        self.blobs: list[bytes] = []
        self.binaries: dict[Binary, int] = {}
        self.kernels: dict[str, dict[str, Any]] = {}
        #: How many calls, each capability by itself.
        self.plans = 0

    def add(self, kernel: Kernel, args: Sequence[Any], capability: int) -> None:
        """Compile one call, once more for each further number of multiprocessors if its grid is made for one.

        Raises:
            NotAPlan, calls.Unsupported, manifest.Malformed: why it cannot be in a bundle.
            exc.BaseError: it cannot be compiled.
        """
        arguments = kernel.normalize_args(*args)
        for sms in self.sms.get(capability, (132,)):
            provider = _TargetProvider(capability, sms)
            self.compile(kernel, arguments, capability, provider)
            if not provider.sms_asked:
                break
        self.plans += 1

    def compile(self, kernel: Kernel, arguments: tuple[Any, ...], capability: int, provider: _TargetProvider) -> None:
        user_key = calls.user_key(kernel.specializer, arguments)
        chosen = _config_in_use(kernel, arguments, capability)
        with _compiling_for(provider):
            fresh = Kernel(kernel.fn, configs=kernel.configs, settings=kernel.settings, key=kernel.specializer.key_fn)
            bound = fresh.bind(arguments)
            if fresh.specializer.filled:
                read = ", ".join(place.name for place in fresh.specializer.filled)
                raise NotAPlan(f"it reads tensors from outside itself ({read}): pass them as arguments")
            if bound.guards:
                by_value = set(range(len(arguments)))
            else:
                by_value = set(fresh.specializer.constexpr)
            if fresh.specializer.overlaps(arguments):
                raise NotAPlan("the arguments of the example overlap")
            own = kernel.configs[0] if kernel.configs else bound.config_spec.default_config()
            config = own if chosen is None else chosen
            source = bound.generated_source(config)
            module = load_module(source.text, source.function, source.injected or None)
            host = clone_host_function(getattr(module, source.function))
            if all(tensor.device.type == "cpu" for tensor in calls.tensors(arguments)):
                _refuse_what_tells_devices_apart(host)
            set_launcher(host, _compiler(bound.backend()))
            recording = record(host, arguments, cast(Any, fresh).leaves_of, _BundleRecorder)
            if recording.plan is None:
                raise NotAPlan(recording.reason)
        row = self.row(kernel, len(arguments))
        for i in by_value | recording.by_value:
            row["by_value"][i] = True
        row["apart"] = sorted({*row["apart"], *bound.assumed_apart})
        item = self.item(arguments, capability, recording.plan, repr(config), provider)
        row["calls"][capability, item["sms"], repr(calls.describe(arguments))] = (arguments, {**item, "key": user_key})

    def row(self, kernel: Kernel, parameters: int) -> dict[str, Any]:
        """What the manifest says of a kernel."""
        code = fingerprint(kernel)
        # A function that makes kernels makes several of one name, with other values captured.
        name, count = kernel.stats.name, 1
        while (found := self.kernels.get(name)) is not None and found["code"] != code:
            count += 1
            name = f"{kernel.stats.name}#{count}"
        if found is None:
            found = self.kernels[name] = {
                "code": code,
                "python": python(),
                "source": _source_hash(kernel),
                "by_value": [False] * parameters,
                "apart": [],
                "calls": {},
            }
        return found

    def item(
        self,
        arguments: tuple[Any, ...],
        capability: int,
        plan: data.PlanData,
        config: str,
        provider: _TargetProvider,
    ) -> dict[str, Any]:
        """What the manifest says of a call."""
        steps = [
            # A number takes the place of the LaunchSpec.
            step._replace(spec=cast(Any, self.number_of(cast(Any, step.spec))))
            if isinstance(step, data.Launch)
            else step
            for step in plan.steps
        ]
        numbered = plan._replace(steps=tuple(steps))
        here = calls.tensors(arguments)[0].device
        return {
            "capability": capability,
            "config": config,
            "sms": provider.sm_count(0) if provider.sms_asked else None,
            "default_dtype": str(torch.get_default_dtype()),
            "plan": manifest.encode_plan(numbered, here),
        }

    def number_of(self, binary: Binary) -> int:
        found = self.binaries.get(binary)
        if found is None:
            found = self.binaries[binary] = len(self.binaries)
            self.blobs.append(binary.cubin)
        return found

    def manifest(self) -> dict[str, Any]:
        """All of it as JSON."""
        kernels: dict[str, Any] = {}
        for name, row in self.kernels.items():
            # Only now is it known of which parameters the values count.
            plans = [
                {**item, "signature": calls.signature(arguments, row["by_value"])}
                for arguments, item in row["calls"].values()
            ]
            kernels[name] = {**{key: value for key, value in row.items() if key != "calls"}, "plans": plans}
        binaries = [
            {
                **{f.name: getattr(binary, f.name) for f in dataclasses.fields(binary) if f.name != "cubin"},
                "blob": number,
            }
            for binary, number in self.binaries.items()
        ]
        return {"helion": __version__, "torch": torch.__version__, "kernels": kernels, "binaries": binaries}


def _compiler(backend: Backend) -> Any:
    """A launcher that compiles what it is asked to launch, and launches nothing."""

    def compile_only(
        kernel: Any, grid: tuple[int, ...], *args: Any, num_warps: int, num_stages: int, **options: Any
    ) -> Binary:
        return backend.binary(Launch(kernel, grid, args, {"num_warps": num_warps, "num_stages": num_stages, **options}))

    return compile_only


def _config_in_use(kernel: Kernel, arguments: tuple[Any, ...], capability: int) -> Any:
    """The Config that this process uses for a call, if it runs on a GPU of that capability; None: the kernel's own."""
    if not kernel._is_bound(arguments):
        return None
    bound = kernel.bind(arguments)
    return bound.config if bound.target == Target("nvidia", capability) else None


def bundle(
    kernels: Kernel | Sequence[Kernel],
    examples: Sequence[Sequence[Any]] | Mapping[Kernel, Sequence[Sequence[Any]]],
    path: str | os.PathLike[str] = "kernels.hlb",
    *,
    capabilities: Sequence[int] | None = None,
    sms: Mapping[int, int | Sequence[int]] | None = None,
    strict: bool = True,
) -> BundleReport:
    """Compile calls of kernels into one file, from which `helion.load_bundle` serves them without a compiler.

    No GPU is needed. The Config of a call is that which it runs with in this process, if it has run on a GPU of the
    capability; else the kernel's own, or the one computed for that GPU. Nothing is tuned.

    Args:
        kernels: one kernel, or several.
        examples: for one kernel the argument tuples of its calls; for several a dict, kernel -> its argument tuples.
            Only dtypes, sizes, strides, alignment and values of numbers count; tensors may be in host memory.
        path: where to write.
        capabilities: as major * 10 + minor: 80 (A100), 89 (L40S), 90 (H100), 100 (B200). Default: that of the GPU here.
        sms: capability -> multiprocessors of the GPUs that will run it, one number or several, where they are others
            than those of the known GPUs (H100, H200 and H20 for 90): a part of a GPU (MIG), say. The grid of a
            persistent kernel is made for each of them, and refused elsewhere.
        strict: raise if a call cannot be in a bundle; else it is left out, and in the report.

    Returns:
        What is in it, and what was left out.

    Raises:
        exc.CannotBundle: `strict`, and a call's host code is no plan, or a kernel cannot be compiled: with each reason.
        exc.InvalidAPIUsage: no capability is given and there is no GPU, or the examples or `sms` are not of that form.
        exc.BundleMismatch: the extension is not in use, which records plans.
    """
    found = _pairs(kernels, examples)
    if _extension.C is None:
        raise exc.BundleMismatch(path=str(path), reason=f"the extension is not in use: {_extension.why_not}")
    builder = _Builder({capability: _counts(given) for capability, given in (sms or {}).items()})
    targets = tuple(capabilities) if capabilities is not None else capability_here()
    left_out: list[tuple[str, int, str]] = []
    for kernel, args in found:
        for capability in targets:
            try:
                builder.add(kernel, args, capability)
            except Unreadable as why:
                reason = (
                    f"it refers to {why}, whose content cannot be compared when it is loaded: pass it as an argument"
                )
                left_out.append((kernel.stats.name, capability, reason))
            except (NotAPlan, calls.Unsupported, manifest.Malformed, exc.BaseError) as why:
                left_out.append((kernel.stats.name, capability, getattr(why, "message", None) or str(why)))
            except Exception as error:  # Triton's and ptxas' own errors are of many kinds
                left_out.append((kernel.stats.name, capability, f"{type(error).__name__}: {error}"))
    if left_out and strict:
        reasons = "\n".join(f"  {name} for sm_{capability}: {why}" for name, capability, why in left_out)
        raise exc.CannotBundle(count=len(left_out), total=len(found) * len(targets), reasons=reasons)
    target = Path(path)
    write(target, builder.manifest(), builder.blobs)
    return BundleReport(target, builder.plans, len(builder.binaries), target.stat().st_size, tuple(left_out))


def _counts(given: int | Sequence[int]) -> tuple[int, ...]:
    counts = (given,) if isinstance(given, int) else tuple(given)
    if not counts or not all(type(count) is int and 1 <= count < 1 << 16 for count in counts):
        raise exc.InvalidAPIUsage(
            f"sms has {given!r}", fix="give numbers of multiprocessors: {90: 132}, {90: [132, 60]}."
        )
    return counts


def capability_here() -> tuple[int, ...]:
    if not device.is_available():
        raise exc.InvalidAPIUsage(
            "there is no GPU here to compile for", fix="name one: capabilities=[90], or --capability 90."
        )
    arch = device.target_of().arch
    assert isinstance(arch, int)
    return (arch,)


def _pairs(
    kernels: Kernel | Sequence[Kernel], examples: Sequence[Sequence[Any]] | Mapping[Kernel, Sequence[Sequence[Any]]]
) -> list[tuple[Kernel, tuple[Any, ...]]]:
    """(kernel, arguments) of each call."""
    several = [kernels] if isinstance(kernels, Kernel) else list(kernels)
    if not isinstance(examples, Mapping):
        if len(several) != 1:
            raise exc.InvalidAPIUsage(
                "examples of several kernels are a dict", fix="pass {kernel: [(arguments of a call), ...], ...}."
            )
        examples = {several[0]: examples}
    for kernel in several:
        given = examples.get(kernel)
        if not given or not all(isinstance(args, (tuple, list)) for args in given):
            raise exc.InvalidAPIUsage(
                f"kernel {kernel.name!r} has no examples, or one that is not a tuple of arguments",
                fix="pass the argument tuples of the calls to compile: [(x, y), ...].",
            )
    return [(kernel, tuple(args)) for kernel in several for args in examples[kernel]]
