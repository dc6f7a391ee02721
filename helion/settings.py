"""Settings: how a kernel is compiled and run, as opposed to a Config, which is its schedule.

One table (`TABLE`) names every setting with its environment variable, default and meaning; the
`Settings` object, its validation and the reference in docs/settings.md all come from it.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import os
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import torch

from . import exc
from ._environment import FALSE
from ._environment import TRUE


class RefMode(enum.Enum):
    """OFF: kernels are compiled.  EAGER: the user's own Python function runs on eager tiles."""

    OFF = "off"
    EAGER = "eager"


def _bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in TRUE | FALSE:
        return value.lower() in TRUE
    raise ValueError("expected a bool (or 1/0, true/false, on/off)")


def _int(value: object) -> int:
    if isinstance(value, bool):
        raise ValueError("expected an int, got a bool")
    if isinstance(value, (int, str)):
        return int(value)
    raise ValueError("expected an int")


def _float(value: object) -> float:
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        return float(value)
    raise ValueError("expected a number")


def _any(value: object) -> object:
    return value


def _optional(parse: Callable[[object], object]) -> Callable[[object], object]:
    def parse_optional(value: object) -> object:
        if value is None or (isinstance(value, str) and value.lower() in ("", "none")):
            return None
        return parse(value)

    return parse_optional


def _choice(*choices: str) -> Callable[[object], object]:
    def parse_choice(value: object) -> object:
        if isinstance(value, str) and value.lower() in choices:
            return value.lower()
        raise ValueError(f"expected one of {', '.join(choices)}")

    return parse_choice


#: Names of backends; `backends.registry` fills it in, so that settings need not know of what is above them.
BACKENDS: list[str] = []


def _backend(value: object) -> object:
    return _choice(*BACKENDS)(value)


def _effort(value: object) -> object:
    # Not `_optional`: the string "none" is a value of its own here, while None leaves it to the device.
    return None if value in (None, "") else _choice("none", "quick", "full")(value)


def _index_dtype(value: object) -> object:
    names = {"auto": "auto", "int32": torch.int32, "int64": torch.int64}
    if isinstance(value, torch.dtype) and value in (torch.int32, torch.int64):
        return value
    if isinstance(value, str) and value.lower().removeprefix("torch.") in names:
        return names[value.lower().removeprefix("torch.")]
    raise ValueError("expected auto, int32 or int64")


def _ref_mode(value: object) -> object:
    if isinstance(value, RefMode):
        return value
    if isinstance(value, str) and value.upper() in RefMode.__members__:
        return RefMode[value.upper()]
    return RefMode.EAGER if _bool(value) else RefMode.OFF


def _warning_list(value: object) -> object:
    classes = list(value) if isinstance(value, (list, tuple)) else [value]
    if all(isinstance(c, type) and issubclass(c, exc.BaseWarning) for c in classes):
        return tuple(classes)
    raise ValueError("expected warning classes of helion.exc")


@dataclasses.dataclass(frozen=True)
class Row:
    """One setting: keyword and attribute `name`, environment variable, default, parser and meaning."""

    name: str
    env: str | None
    default: Any
    parse: Callable[[object], Any]
    doc: str


TABLE: tuple[Row, ...] = (
    Row(
        "backend",
        "HELION_BACKEND",
        "triton",
        _backend,
        "Code generator: triton, or cute for fp8/bf16/fp16 matrix kernels.",
    ),
    Row(
        "index_dtype",
        "HELION_INDEX_DTYPE",
        "auto",
        _index_dtype,
        "dtype of offsets; auto takes int64 only where an argument's offsets need it.",
    ),
    Row(
        "dot_precision",
        "HELION_DOT_PRECISION",
        "tf32",
        _choice("tf32", "tf32x3", "ieee"),
        "Precision of float32 matrix products on tensor cores.",
    ),
    Row(
        "fast_math",
        "HELION_FAST_MATH",
        False,
        _bool,
        "Allow approximate exp, division and square root in generated code.",
    ),
    Row(
        "static_shapes",
        "HELION_STATIC_SHAPES",
        True,
        _bool,
        "Sizes and strides are constants of the kernel; off: one kernel serves many shapes.",
    ),
    Row(
        "persistent_reserved_sms",
        "HELION_PERSISTENT_RESERVED_SMS",
        0,
        _int,
        "Multiprocessors that persistent kernels leave free.",
    ),
    Row("print_output_code", "HELION_PRINT_OUTPUT_CODE", False, _bool, "Print the generated source to stderr."),
    Row("print_repro", "HELION_PRINT_REPRO", False, _bool, "Print a script that rebuilds the call to stderr."),
    Row(
        "output_origin_lines",
        "HELION_OUTPUT_ORIGIN_LINES",
        True,
        _bool,
        "Comment generated code with the user's file and line.",
    ),
    Row(
        "ref_mode",
        "HELION_INTERPRET",
        RefMode.OFF,
        _ref_mode,
        "Run the user's own function on eager tiles, for debugging.",
    ),
    Row("ignore_warnings", None, (), _warning_list, "Warning classes of helion.exc not to show."),
    Row(
        "debug_dtype_asserts",
        "HELION_DEBUG_DTYPE_ASSERTS",
        False,
        _bool,
        "Emit static asserts on the dtype of every generated value.",
    ),
    Row("verify_ir", "HELION_VERIFY_IR", False, _bool, "Check the IR after tracing and after each rewrite of it."),
    Row(
        "allow_warp_specialize",
        "HELION_ALLOW_WARP_SPECIALIZE",
        True,
        _bool,
        "Offer range_warp_specializes where the target has it.",
    ),
    Row(
        "max_specializations",
        "HELION_MAX_SPECIALIZATIONS",
        1024,
        _int,
        "Most call signatures a kernel keeps on its fast path; the least recently used go first.",
    ),
    Row("force_autotune", "HELION_FORCE_AUTOTUNE", False, _bool, "Tune even where a config is given or cached."),
    Row(
        "autotune_effort",
        "HELION_AUTOTUNE_EFFORT",
        None,
        _effort,
        "How hard to search; default full on a GPU, none on CPU tensors.",
    ),
    Row(
        "autotune_log",
        "HELION_AUTOTUNE_LOG",
        None,
        _optional(_any),
        "File that records every measured config (CSV or JSON by its ending).",
    ),
    Row(
        "autotune_log_level",
        "HELION_AUTOTUNE_LOG_LEVEL",
        "info",
        _choice("debug", "info", "warning", "error"),
        "What the tuner prints.",
    ),
    Row(
        "autotune_compile_timeout", "HELION_AUTOTUNE_COMPILE_TIMEOUT", 60.0, _float, "Seconds a candidate may compile."
    ),
    Row(
        "autotune_benchmark_timeout",
        "HELION_AUTOTUNE_BENCHMARK_TIMEOUT",
        30.0,
        _float,
        "Seconds a candidate may run while measured.",
    ),
    Row(
        "autotune_precompile",
        "HELION_AUTOTUNE_PRECOMPILE",
        True,
        _bool,
        "Compile candidates in worker processes ahead of their measurement.",
    ),
    Row(
        "autotune_precompile_jobs",
        "HELION_AUTOTUNE_PRECOMPILE_JOBS",
        None,
        _optional(_int),
        "Worker processes; default: the number of CPU cores.",
    ),
    Row("autotune_random_seed", "HELION_AUTOTUNE_RANDOM_SEED", 0, _int, "Seed of the search."),
    Row(
        "autotune_accuracy_check",
        "HELION_AUTOTUNE_ACCURACY_CHECK",
        True,
        _bool,
        "Compare every candidate's results with the baseline.",
    ),
    Row("autotune_baseline_fn", None, None, _any, "Function giving the expected result; default: the default config."),
    Row(
        "autotune_baseline_atol",
        "HELION_AUTOTUNE_BASELINE_ATOL",
        None,
        _optional(_float),
        "Absolute tolerance of the accuracy check; default by dtype.",
    ),
    Row(
        "autotune_baseline_rtol",
        "HELION_AUTOTUNE_BASELINE_RTOL",
        None,
        _optional(_float),
        "Relative tolerance of the accuracy check; default by dtype.",
    ),
    Row("autotune_progress_bar", "HELION_AUTOTUNE_PROGRESS_BAR", True, _bool, "Show progress while tuning."),
    Row(
        "autotune_max_generations",
        "HELION_AUTOTUNE_MAX_GENERATIONS",
        None,
        _optional(_int),
        "Most rounds of the search; default by effort.",
    ),
    Row(
        "autotune_budget_seconds",
        "HELION_AUTOTUNE_BUDGET_SECONDS",
        None,
        _optional(_float),
        "Seconds the search may take in all.",
    ),
    Row(
        "autotune_ignore_errors",
        "HELION_AUTOTUNE_IGNORE_ERRORS",
        False,
        _bool,
        "Go on after an unexpected error of a candidate.",
    ),
    Row("autotune_config_overrides", None, None, _any, "Config keys fixed during the search, as a dict."),
    Row("autotune_seed_configs", None, None, _any, "Configs measured first."),
    Row(
        "autotune_search",
        "HELION_AUTOTUNE_SEARCH",
        None,
        _any,
        "Name of the search class in helion.autotuner; default ModelSearch.",
    ),
    Row(
        "autotune_devices",
        "HELION_AUTOTUNE_DEVICES",
        None,
        _any,
        "Devices of one model to measure on, as a list or comma-separated; default: where the arguments are.",
    ),
    Row(
        "autotune_storage",
        "HELION_AUTOTUNE_STORAGE",
        None,
        _any,
        "File or database URL through which several processes and hosts share one search.",
    ),
    Row(
        "autotune_cache",
        "HELION_AUTOTUNE_CACHE",
        "LocalAutotuneCache",
        _any,
        "Name of the cache class in helion.autotuner.",
    ),
    Row("autotune_config_filter", None, None, _any, "Function Config -> bool; False drops a candidate."),
    Row("autotune_benchmark_fn", None, None, _any, "Function that times a candidate instead of the built-in one."),
)
_ROWS = {row.name: row for row in TABLE}


def _suggest(name: str) -> str:
    near = difflib.get_close_matches(name, _ROWS, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


class Settings:
    """The settings of one kernel, as attributes.

    A keyword beats the environment variable, which beats the default.  Environment variables are read
    when the object is made.

    Args:
        **values: settings by name; see `helion.settings.TABLE`.

    Raises:
        exc.InvalidAPIUsage: an unknown name, or a value the setting does not take.

    >>> Settings(static_shapes=False).static_shapes
    False
    """

    def __init__(self, **values: object) -> None:
        for name in values:
            if name not in _ROWS:
                raise exc.InvalidAPIUsage(
                    f"unknown setting {name!r}{_suggest(name)}", fix=f"valid settings are: {', '.join(_ROWS)}."
                )
        for row in TABLE:
            if row.name in values:
                value = values[row.name]
                if value != row.default:
                    value = self._parse(row, value, f"setting {row.name!r}")
            elif row.env is not None and row.env in os.environ:
                value = self._parse(row, os.environ[row.env], f"environment variable {row.env}")
            else:
                value = row.default
            object.__setattr__(self, row.name, value)

    @staticmethod
    def _parse(row: Row, value: object, source: str) -> object:
        try:
            return row.parse(value)
        except ValueError as error:
            raise exc.InvalidAPIUsage(
                f"{source}: {value!r} is not valid: {error}", fix=f"{row.name}: {row.doc}"
            ) from None

    def __getattr__(self, name: str) -> Any:
        # Reached only for names that are not settings: the constructor sets every row's attribute.
        raise AttributeError(f"no setting {name!r}{_suggest(name)}")

    def __setattr__(self, name: str, value: object) -> None:
        if name not in _ROWS:
            raise exc.InvalidAPIUsage(
                f"unknown setting {name!r}{_suggest(name)}", fix=f"valid settings are: {', '.join(_ROWS)}."
            )
        object.__setattr__(self, name, self._parse(_ROWS[name], value, f"setting {name!r}"))

    def items(self) -> Iterator[tuple[str, Any]]:
        """All settings with their values, in the order of the table."""
        return ((row.name, getattr(self, row.name)) for row in TABLE)

    def non_default(self) -> dict[str, Any]:
        """The settings that differ from the table's default."""
        return {row.name: getattr(self, row.name) for row in TABLE if getattr(self, row.name) != row.default}

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{k}={v!r}' for k, v in self.non_default().items())})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Settings) and dict(self.items()) == dict(other.items())

    __hash__ = None  # type: ignore[assignment]  # mutable
