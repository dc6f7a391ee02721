"""The CuTe backend: one matrix kernel per kernel function, printed for the architecture at hand."""

from __future__ import annotations

import types
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import sympy

from ...config import Config
from ...config_spec import ConfigSpec
from ...ir.block_sizes import add_computed
from ...ir.device_ir import KernelIR
from ...runtime import output_pool
from ...runtime.cache_files import cache_dir
from ...runtime.launch.cute_launcher import cute_launcher
from ...runtime.native.binary import Binary
from ...runtime.stats import KernelStats
from ...runtime.stats import counted
from ...settings import Settings
from ...target import CPU
from ...target import Target
from ..base import Backend
from ..base import GeneratedSource
from ..base import Launch
from ..host import HostPrinter
from . import _compat
from .kernel import CuteKernel
from .match import HostExpression
from .match import match
from .printer import entry_name
from .printer import print_module
from .schedule import Arch
from .schedule import MatmulSchedule
from .spec import refuse
from .tuning import build_config_spec
from .tuning import schedule_of
from .tuning import tunable_blocks

__all__ = ["CuteBackend"]

# Compute capability -> what the toolkit compiles for. The letter is needed: tcgen05 and wgmma exist only there.
_ARCHS: dict[int | str, Arch] = {90: "sm_90a", 100: "sm_100a", 103: "sm_103a"}


class CuteBackend(Backend):
    """Device IR -> CuTe DSL source.

    Raises:
        BackendUnsupported: when it is made, if the function is not a matrix kernel (with the statement and the reason),
            the toolkit is of another version, or the GPU has neither tcgen05 nor wgmma. A missing toolkit is an error
            where a kernel is not in the disk cache.
    """

    name = "cute"
    vendors = frozenset({"nvidia"})
    language = "CuTe DSL"

    def __init__(self, ir: KernelIR, settings: Settings, target: Target) -> None:
        super().__init__(ir, settings, target)
        self.arch = _arch(target)
        if target != CPU:
            _compat.installed()
        self.match = match(ir, fast_accumulate=settings.fast_math)
        self.match.spec.check()
        self._spec = build_config_spec(ir.device, self.match, self.arch)

    @property
    def spec(self) -> ConfigSpec:
        return self._spec

    def generate(self, config: Config) -> GeneratedSource:
        schedule = schedule_of(config, self.ir.device, self.match, self.arch)
        device_source = print_module(self.match.spec, schedule)
        kernel = f"_{entry_name(self.match.spec)}_kernel"
        host = HostPrinter(self.ir, self._constants(config), pool=output_pool.enabled())
        launch = self._launch(host, schedule, kernel)
        body = host.function([launch, *host.after_launch()], "_default_launcher")
        imports, injected = host.imports_and_globals()
        text = _module(device_source, body, imports, host.runtime_imports(), kernel)
        return GeneratedSource(text, self.ir.name, {**injected, kernel: CuteKernel(self.match.spec, schedule)})

    def launcher(
        self, host: types.FunctionType, name: str, device: int | None, stats: KernelStats
    ) -> Callable[..., Any]:
        # The launch finds its device by its tensors.
        return counted(cute_launcher, stats.counter("native_launcher"))

    def stages(self, launch: Launch) -> Mapping[str, Any]:
        """Stages "source" (of the toolkit's language), "ptx" and "cubin"; kept in the disk cache too."""
        kernel: CuteKernel = launch.kernel
        return kernel.stages(launch.args, cache_dir())

    def binary(self, launch: Launch) -> Binary:
        kernel: CuteKernel = launch.kernel
        return kernel.binary(launch.args, cache_dir())

    def _constants(self, config: Config) -> dict[sympy.Symbol, int]:
        """Values of the block sizes and tunables that host statements may use."""
        constants: dict[sympy.Symbol, int] = {}
        for block, size in zip(tunable_blocks(self.ir.device), config["block_sizes"]):
            constants[block.symbol] = size
        add_computed(self.ir.device, constants, {key: config[key] for key in self.ir.tunables})
        return constants

    def _launch(self, host: HostPrinter, schedule: MatmulSchedule, kernel: str) -> str:
        """The host statement that launches: one CTA a multiprocessor, in whole clusters, as long as there are tiles."""
        arguments = [a.text if isinstance(a, HostExpression) else host.number(a) for a in self.match.arguments]
        sms = host.multiprocessors(arguments[0], self.settings.persistent_reserved_sms)
        ctas = schedule.cluster_m * schedule.cluster_n
        clusters = sms if ctas == 1 else f"max({sms} // {ctas}, 1)"
        tiles = schedule.tile_count(self.match.spec)
        grid = f"({schedule.cluster_m}, {schedule.cluster_n}, min({clusters}, {tiles}))"
        warps = 6 if schedule.blackwell else 4 * (1 + schedule.consumer_warpgroups)
        options = f"num_warps={warps}, num_stages={schedule.ab_stages}"
        return f"_launcher({kernel}, {grid}, {', '.join(arguments)}, {options})"


def _arch(target: Target) -> Arch:
    """The architecture of a target; without a GPU, the one this backend is about."""
    if target == CPU:
        return "sm_100a"
    if target.vendor != "nvidia" or target.arch not in _ARCHS:
        number = target.arch
        gpu = f"has compute capability {number // 10}.{number % 10}" if isinstance(number, int) else f"is {target}"
        raise refuse(
            f"the GPU {gpu}; its kernels need wgmma (9.0) or tcgen05 (10.0, 10.3)",
            'use backend="triton" on this GPU.',
        )
    return _ARCHS[target.arch]


def _module(device_source: str, host: list[str], imports: list[str], runtime: list[str], kernel: str) -> str:
    """The generated module: the device code as text, then the host function."""
    head = ["from __future__ import annotations", "", "import torch"]
    head += [line for line in imports if line not in head and line.startswith("import ")]
    head += [
        "from helion.runtime import cute_launcher as _default_launcher",
        *runtime,
        "",
        *(line for line in imports if not line.startswith("import ")),
    ]
    device = [
        f"# The device code. The toolkit compiles it as a module of its own; {kernel} is made of it.",
        "_device_source = r'''\\",
        device_source.rstrip("\n"),
        "'''",
    ]
    blocks = ["\n".join(head).rstrip(), "\n".join(device), "\n".join(host)]
    return "\n\n\n".join(blocks) + "\n"
