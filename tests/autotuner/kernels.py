"""Stand-ins for kernels, for the autotuner's tests: plain PyTorch functions whose Config changes how they run.

They live in a file of their own because worker processes import it.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import signal
import time
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from helion import exc
from helion.autotuner import api
from helion.autotuner.cache_key import CacheKey
from helion.autotuner.target import resolve
from helion.backends.base import Recipe
from helion.config import Config
from helion.config_spec import ConfigSpec
from helion.fragments import EnumFragment
from helion.fragments import ListOf
from helion.fragments import PowerOfTwoFragment
from helion.settings import Settings


@dataclasses.dataclass(frozen=True)
class SourceRecipe:
    """A candidate that is rebuilt from the kernel's own source file.

    Attributes:
        file: path of the source file.
        qualname: the kernel in it; has `bind(args)` and `compile_config(config)`, or the latter alone.
        config: what to compile.
    """

    file: str
    qualname: str
    config: Config

    def build(self, args: Sequence[Any]) -> Callable[..., Any]:
        owner = resolve(self.file, self.qualname)
        if hasattr(owner, "bind"):
            owner = owner.bind(tuple(args))
        compiled: Callable[..., Any] = owner.compile_config(self.config)
        return compiled

    def precompile(self, fn: Callable[..., Any], args: Sequence[Any]) -> None:
        pass  # `build` compiled everything


class FunctionTarget:
    """A TuningTarget over an object at the top level of a source file that has `compile_config(config)`."""

    def __init__(self, qualname: str, spec: ConfigSpec, file: str = __file__, **settings: Any) -> None:
        self.qualname = qualname
        self.file = str(Path(file).resolve())
        self.spec = spec
        self.own_settings = Settings(**settings)

    @property
    def kernel_name(self) -> str:
        return self.qualname

    @property
    def config_spec(self) -> ConfigSpec:
        return self.spec

    @property
    def settings(self) -> Settings:
        return self.own_settings

    @property
    def subject(self) -> Any:
        return self

    def recipe(self, config: Config) -> Recipe:
        return SourceRecipe(self.file, self.qualname, config)

    def cache_key(self, args: Sequence[Any]) -> CacheKey:
        shapes = tuple((tuple(a.shape), str(a.dtype)) for a in args if isinstance(a, torch.Tensor))
        return CacheKey(self.qualname, Path(self.file).read_text(), shapes, "cpu")

    def isolation_problem(self) -> str | None:
        return None


class BlockedSum:
    """Row sums, `block_sizes[0]` rows at a time: small blocks are slow."""

    spec = ConfigSpec("blocked_sum", {"block_sizes": ListOf(PowerOfTwoFragment(1, 1024, 16), 1)})

    def compile_config(self, config: Config) -> Callable[[torch.Tensor], torch.Tensor]:
        (block,) = config["block_sizes"]

        def run(x: torch.Tensor) -> torch.Tensor:
            out = torch.empty(x.shape[0], dtype=x.dtype)
            for start in range(0, x.shape[0], block):
                out[start : start + block] = x[start : start + block].sum(1)
            return out

        return run


def _crash(x: torch.Tensor) -> torch.Tensor:
    ctypes.string_at(0)
    return x


def _hang(x: torch.Tensor) -> torch.Tensor:
    if marker := os.environ.get("TEST_HANG_MARKER"):
        Path(marker).touch()
    time.sleep(3600)
    return x


def _out_of_memory(x: torch.Tensor) -> torch.Tensor:
    return torch.empty(1 << 60, dtype=torch.uint8)


def _raise(x: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("CUDA error: misaligned address")


def _killed(x: torch.Tensor) -> torch.Tensor:
    """Killed from outside while it runs, once per marker file."""
    marker = Path(os.environ["TEST_KILL_MARKER"])
    if not marker.exists():
        marker.write_text("killed")
        os.kill(os.getpid(), signal.SIGKILL)
    return x * 2


BEHAVIOURS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "good": lambda x: x * 2,
    "slow": lambda x: (time.sleep(0.02), x * 2)[1],
    "wrong": lambda x: x * 2.1,
    "crash": _crash,
    "hang": _hang,
    "pause": lambda x: (time.sleep(0.3), x * 2)[1],
    "out_of_memory": _out_of_memory,
    "raise": _raise,
    "killed": _killed,
    "compile_hang": lambda x: x * 2,
    "compile_raise": lambda x: x * 2,
    "compile_crash": lambda x: x * 2,
}


class Misbehaving:
    """Doubles its argument; the tunable `mode` says what goes wrong."""

    spec = ConfigSpec("misbehaving", {"mode": EnumFragment(tuple(BEHAVIOURS)), "salt": PowerOfTwoFragment(1, 64)})

    def compile_config(self, config: Config) -> Callable[[torch.Tensor], torch.Tensor]:
        if config["mode"] == "compile_hang":
            time.sleep(3600)
        if config["mode"] == "compile_raise":
            raise exc.ErrorCompilingKernel(kernel="misbehaving", reason="out of resource: shared memory")
        if config["mode"] == "compile_crash":
            os.abort()
        return BEHAVIOURS[config["mode"]]


class InPlace:
    """Adds one to its argument in place and returns nothing."""

    spec = ConfigSpec("in_place", {"amount": PowerOfTwoFragment(1, 2)})

    def compile_config(self, config: Config) -> Callable[[torch.Tensor], None]:
        return lambda x: (x.add_(config["amount"]), None)[1]


class DoubledFirst:
    """Doubles the first of two arguments."""

    spec = ConfigSpec("doubled_first", {"salt": PowerOfTwoFragment(1, 64)})

    def compile_config(self, config: Config) -> Callable[..., torch.Tensor]:
        return lambda x, other: x * 2


blocked_sum = BlockedSum()
doubled_first = DoubledFirst()
misbehaving = Misbehaving()
in_place = InPlace()


class SlowToCompile:
    """Writes down when it was compiled and run. The second one to be compiled is not ready before the first has run."""

    spec = ConfigSpec("slow_to_compile", {"salt": PowerOfTwoFragment(1, 64)})

    def compile_config(self, config: Config) -> Callable[[torch.Tensor], torch.Tensor]:
        log = Path(os.environ["TEST_EVENTS"])

        def note(what: str, start: float) -> None:
            with log.open("a") as file:
                file.write(f"{what} {config['salt']} {os.getpid()} {start} {time.monotonic()}\n")

        start = time.monotonic()
        if config["salt"] == 2:
            end = time.monotonic() + 60
            while "run 1 " not in log.read_text() and time.monotonic() < end:
                time.sleep(0.01)
        note("compile", start)

        def run(x: torch.Tensor) -> torch.Tensor:
            note("run", time.monotonic())
            return x * 2

        return run


slow_to_compile = SlowToCompile()


#: The argument of `blocked`.
X = torch.ones(512, 8)

#: Options of a search that is over soon, in this process.
FAST = {"isolate": False, "progress_bar": False, "effort": "quick"}


def blocked(**settings: Any) -> FunctionTarget:
    """A target whose large blocks are fast."""
    return FunctionTarget("blocked_sum", BlockedSum.spec, **settings)


def misbehaving_target(**settings: Any) -> FunctionTarget:
    """A target that is wrong, slow or fails as its Config says."""
    return FunctionTarget("misbehaving", Misbehaving.spec, **settings)


def quick(target: FunctionTarget, **options: Any) -> Config:
    """The Config that a short random search finds."""
    return api.autotune(target, (X,), **{**FAST, "search": "RandomSearch", **options})
