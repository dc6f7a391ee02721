"""Running one program in every mode, and comparing each result with the reference.

A mode is "ref", "tiles" (the tile executor with its own large tiles),
"tiles config" (with the Config's block sizes), "80",
"90", "100" (the software GPU), and "gpu".  An outcome is "ok"; "wrong", with how far off; "refused", a clear error of
helion's; "error", any other exception.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import importlib.util
import sys
import traceback
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import helion
from helion import exc
from tests import softgpu
from tests import support

MODES = ("ref", "tiles", "tiles config", "calls", "80", "90", "100", "90 calls")
GPU_MODES = ("80", "90", "100")
#: What a GPU says when it can do no more for this process.
_LOST = ("AcceleratorError", "CUDA error")
#: What calls are told where a size that follows from values is smaller than the loop that reads so many elements.
_DECIDED_BY_CALLS = "is not one that this kernel was compiled for"
#: Errors that no user should see.
_NEVER = tuple(
    getattr(exc, name) for name in ("InternalError", "ErrorCompilingKernel", "TritonError") if hasattr(exc, name)
)


@dataclasses.dataclass
class Outcome:
    """What a run of one mode came to."""

    mode: str
    status: str
    detail: str = ""

    @property
    def failed(self) -> bool:
        return self.status in ("wrong", "error", "crash", "timeout")

    @property
    def is_last(self) -> bool:
        """Whether the process has lost its GPU: every later outcome would be this one again."""
        return self.status == "error" and any(words in self.detail for words in _LOST)


def load(path: Path) -> types.ModuleType:
    """The module of a script; a real file, because the front end reads the source."""
    name = f"generated_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def make_kernel(module: types.ModuleType, config: dict[str, Any] | None, **settings: Any) -> helion.Kernel:
    configs = {"config": helion.Config(**config)} if config is not None else {}
    return helion.kernel(module.kernel, **configs, **module.SETTINGS, **settings)


def _compare(actual: Any, expected: tuple[torch.Tensor, ...], errors: dict[str, float]) -> str:
    if len(actual) != len(expected):
        return f"{len(actual)} results, expected {len(expected)}"
    for (name, error), a, e in zip(errors.items(), actual, expected):
        if not isinstance(a, torch.Tensor) or a.shape != e.shape:
            return f"{name}: shape {list(getattr(a, 'shape', []))}, expected {list(e.shape)}"
        if a.dtype.is_floating_point != e.dtype.is_floating_point:
            return f"{name}: dtype {a.dtype}, expected {e.dtype}"
        got, want = a.cpu().to(e.dtype), e
        if e.dtype.is_floating_point:
            off = (got - want).abs()
            bad = ~(off <= error * 1.01 + 1e-30) & ~(got.isnan() & want.isnan()) & (got != want)
        else:
            bad = got != want
        if bad.any():
            at = tuple(bad.nonzero()[0].tolist())
            return (
                f"{name}: {int(bad.sum())} of {bad.numel()} elements wrong, first at {list(at)}: {got[at].item()}, "
                f"expected {want[at].item()} within {error:.3g}"
            )
    return ""


def _flat(result: Any) -> list[Any]:
    if result is None:
        return []
    if isinstance(result, dict):
        return list(result.values())
    return list(result) if isinstance(result, (tuple, list)) else [result]


class Runner:
    """One script: its kernel is traced once for the modes without a GPU.

    Args:
        path: the script.
        traced: a runner of the same kernel, whose trace serves this one too.
    """

    def __init__(self, path: Path, traced: Runner | None = None) -> None:
        self.module = load(path)
        self._kernel = path.read_text().partition("\ndef reference")[0]
        # A Config's numbers may be in the text of the kernel, and move its lines, by which ref mode knows loops.
        is_same = traced is not None and traced._kernel == self._kernel
        self._bound: helion.BoundKernel | Exception | None = traced._bound if traced is not None and is_same else None

    @functools.cached_property
    def expected(self) -> tuple[torch.Tensor, ...]:
        """What the reference gives."""
        return self.module.reference(*copy.deepcopy(self.module.arguments()))

    @property
    def calls(self) -> bool:
        """Whether there are further calls."""
        return bool(getattr(self.module, "CALLS", ()))

    @property
    def bound(self) -> helion.BoundKernel:
        """The kernel bound to CPU tensors, without a Config of its own; raises why it cannot be."""
        if self._bound is None:
            try:
                self._bound = make_kernel(self.module, None).bind(self.module.arguments())
            except Exception as error:
                self._bound = error
        if isinstance(self._bound, Exception):
            raise self._bound
        return self._bound

    def _results(self, mode: str) -> Any:
        """Results of a mode: what the kernel returns, then the arguments that it writes."""
        given = self.module.arguments()
        names = list(self.module.kernel.__code__.co_varnames)
        config = dict(self.module.CONFIG)
        if mode != "100":
            config.pop("range_warp_specializes", None)  # no key of other targets
        if mode == "ref":
            kernel = make_kernel(self.module, config, ref_mode=helion.RefMode.EAGER)
            if isinstance(self._bound, helion.BoundKernel):
                # What ref mode asks a trace whether the Config fits: half of a program's time was in a second one.
                kernel.__dict__["traceable"] = self._bound.kernel
            result = kernel(*given)
        elif mode in ("tiles", "tiles config"):
            run = self.bound if mode == "tiles" else self.bound.compile_config(config)
            try:
                result = run(*given)
            except exc.BaseError as error:  # what was traced and took the Config has no right to be refused now
                if _DECIDED_BY_CALLS in str(error):
                    raise
                raise RuntimeError(f"{type(error).__name__}: {_first_line(error)}") from error
        else:
            if mode == "gpu":
                run = support._on_gpu(make_kernel(self.module, config), config)
            else:
                run = support._on_software_gpu(self.bound.kernel, config, int(mode), traced=True, threads=1)
            result = run(*given)
        return [*_flat(result), *(given[names.index(n)] for n in self.module.WRITTEN)]

    def _call_in_turn(self, mode: str) -> str:
        """All calls of one kernel, each before and after others; how the first wrong one differs.

        Raises:
            exc.BaseError: a call was refused, and no other is wrong.
        """
        module, config = self.module, dict(self.module.CONFIG)
        config.pop("range_warp_specializes", None)
        kernel = make_kernel(module, config)
        calls = [(module.arguments, module.reference, module.ERRORS), *module.CALLS]
        names = list(module.kernel.__code__.co_varnames)
        refused: exc.BaseError | None = None
        order = [*range(len(calls)), *range(len(calls)), 0]
        with _on_software_gpu(mode):
            for arguments, reference, errors in (calls[i] for i in order):
                given = arguments()
                try:
                    result = kernel(*given)
                except exc.BaseError as error:
                    if isinstance(error, _NEVER):
                        raise
                    refused = error
                    continue
                actual = [*_flat(result), *(given[names.index(n)] for n in module.WRITTEN)]
                if difference := _compare(actual, reference(*arguments()), errors):
                    return f"{arguments.__name__}: {difference}"
        if refused is not None:
            raise refused
        return ""

    def run(self, mode: str) -> Outcome:
        """One mode of the program."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.manual_seed(0)
                if mode.endswith("calls"):
                    difference = self._call_in_turn(mode)
                    return Outcome(mode, "wrong", difference) if difference else Outcome(mode, "ok")
                difference = _compare(self._results(mode), self.expected, self.module.ERRORS)
        except Exception as error:
            return outcome_of(mode, error)
        return Outcome(mode, "wrong", difference) if difference else Outcome(mode, "ok")


@contextlib.contextmanager
def _on_software_gpu(mode: str) -> Iterator[None]:
    """The software GPU that a mode names, if it names one."""
    if not mode[0].isdigit():
        yield
        return
    softgpu.install(int(mode.split()[0]), ptxas=False)
    try:
        yield
        assert not softgpu.faults(), softgpu.faults()
    finally:
        softgpu.uninstall()


def outcome_of(mode: str, error: Exception) -> Outcome:
    """How an exception counts."""
    if isinstance(error, exc.BaseError):
        return Outcome(
            mode, "error" if isinstance(error, _NEVER) else "refused", f"{type(error).__name__}: {_first_line(error)}"
        )
    if type(error).__name__ == "OutOfResources" or "Insufficient registers" in str(error):
        # The launch path of calls makes an InvalidConfig of it.
        return Outcome(mode, "refused", f"{type(error).__name__}: {_first_line(error)}")
    place = traceback.extract_tb(error.__traceback__)
    frame = next((f for f in reversed(place) if "/helion/" in f.filename), place[-1])
    return Outcome(
        mode, "error", f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}: {_first_line(error)}"
    )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    if type(error).__name__ == "CompilationError":  # Triton's: the cause is the last line
        lines = lines[-1:]
    return lines[0][:300] if lines else ""


def modes_here() -> tuple[str, ...]:
    """The modes of this machine: the GPU itself where there is one."""
    return ("ref", "tiles", "tiles config", "calls", "gpu") if torch.cuda.is_available() else MODES


def run_script(path: Path, modes: tuple[str, ...] | None = None) -> list[Outcome]:
    """All modes of a script; after the one in which the process lost its GPU no other."""
    runner = Runner(path)
    outcomes: list[Outcome] = []
    for mode in modes_here() if modes is None else modes:
        if (mode == "tiles" and needs_config(path)) or (mode.endswith("calls") and not runner.calls):
            continue
        outcomes.append(runner.run(mode))
        if outcomes[-1].is_last:
            break
    return outcomes


def needs_config(path: Path) -> bool:
    """Whether what a script means depends on its Config, so that the default one would give something else."""
    text = path.read_text()
    buffers = "register_block_size(" in text and "helion.cdiv(" in text
    return buffers or "chunks(" in text or "register_tunable(" in text
