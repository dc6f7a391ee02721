"""Settings: how a kernel is compiled and run, as opposed to a Config, which is its schedule.

One table (`TABLE`) names every setting with its environment variable, default and meaning; the
`Settings` object, its validation and the reference in docs/settings.md all come from it.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import enum
import importlib
import os
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import torch

from . import exc
from . import setting_values as takes


class RefMode(enum.Enum):
    """OFF: kernels are compiled.  EAGER: the user's own Python function runs on eager tiles."""

    OFF = "off"
    EAGER = "eager"

    def __repr__(self) -> str:
        return f"helion.{self}"  # as a printed decorator has it


#: Backend -> module and class, a text since settings stand below them; `backends.registry` adds to it.
BACKENDS = {
    "triton": "helion.backends.triton.backend:TritonBackend",
    "cute": "helion.backends.cute.backend:CuteBackend",
    "tiles": "helion.backends.tiles:TileBackend",
}


def _backend(value: object) -> object:
    return takes.choice(*BACKENDS)(value)


def _autotuner(*args: Any, **kwargs: Any) -> Any:
    """The default `autotuner_fn`; settings stand below the autotuner, so it is looked up when it is called."""
    return importlib.import_module("helion.autotuner.searches").default_autotuner_fn(*args, **kwargs)


DEFAULT_AUTOTUNER = _autotuner


#: `dot_precision` in PyTorch's words -> in Triton's.
DOT_PRECISIONS = {"default": "tf32", "high": "tf32x3", "highest": "ieee"}


def _effort(value: object) -> object:
    # Not `takes.optional`: the string "none" is a value of its own here, while None leaves it to the device.
    return None if value in (None, "") else takes.choice("none", "quick", "full")(value)


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
    return RefMode.EAGER if takes.a_bool(value) else RefMode.OFF


def _is_warning(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, exc.BaseWarning)


def _warning_list(value: object) -> object:
    classes = list(value) if isinstance(value, (list, tuple)) else [value]
    if isinstance(value, str):
        names = [name.strip() for name in value.split(",") if name.strip()]
        known = {name: found for name, found in vars(exc).items() if _is_warning(found)}
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ValueError(f"there is no warning {unknown[0]!r}; there are {', '.join(sorted(known))}")
        classes = [known[name] for name in names]
    if all(map(_is_warning, classes)):
        return tuple(classes)
    raise ValueError("expected warning classes of helion.exc")


@dataclasses.dataclass(frozen=True)
class Row:
    """One setting: keyword and attribute `name`, environment variable, default, parser and meaning.

    A variable of another project that says the same is `other_env`.
    """

    name: str
    env: str | None
    default: Any
    parse: Callable[[object], Any]
    doc: str
    other_env: str | None = None


# Settings of other autotuners for this language, whose work ours does in another way or has no use for.
_WITHOUT_EFFECT: tuple[tuple[str, Any, Callable[[object], Any], str], ...] = (
    ("disable_autotuner_heuristics", False, takes.a_bool, "Search without heuristics"),
    ("autotune_force_persistent", False, takes.a_bool, "Search persistent kernels alone"),
    ("autotune_adaptive_timeout", True, takes.a_bool, "Timeouts that adapt to the candidates (ours always do)"),
    (
        "autotune_rebenchmark_threshold",
        None,
        takes.optional(takes.a_float),
        "How near the best a config is measured again",
    ),
    (
        "autotune_suspicious_rebenchmark_ratio",
        None,
        takes.optional(takes.a_float),
        "When a time is too good, and taken again",
    ),
    ("autotune_baseline_accuracy_check_fn", None, takes.optional(takes.a_callable), "An accuracy check of one's own"),
    ("autotune_log_search_space", False, takes.a_bool, "Log the space of configs"),
    ("triton_do_not_specialize", False, takes.a_any, "Arguments that Triton shall not specialize"),
    ("distributed", False, takes.a_any, "Kernels over several devices"),
)

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
        takes.choice("tf32", "tf32x3", "ieee", *DOT_PRECISIONS),
        "Precision of float32 matrix products on tensor cores: tf32 (default), tf32x3 (high), ieee (highest).",
        "TRITON_F32_DEFAULT",
    ),
    Row(
        "fast_math",
        "HELION_FAST_MATH",
        False,
        takes.a_bool,
        "Allow approximate exp, division and square root in generated code.",
    ),
    Row(
        "static_shapes",
        "HELION_STATIC_SHAPES",
        True,
        takes.bool_or("auto"),
        "Sizes and strides are constants of the kernel; off: one kernel serves many shapes; `auto`: constants, but for "
        "a dimension from its eighth size on.",
    ),
    Row(
        "persistent_reserved_sms",
        "HELION_PERSISTENT_RESERVED_SMS",
        0,
        takes.a_int,
        "Multiprocessors that persistent kernels leave free.",
    ),
    Row("print_output_code", "HELION_PRINT_OUTPUT_CODE", False, takes.a_bool, "Print the generated source to stderr."),
    Row(
        "print_repro",
        "HELION_PRINT_REPRO",
        False,
        takes.a_bool,
        "Log a script that rebuilds the call as a warning of the logger helion, on stderr if that has no handler.",
    ),
    Row(
        "output_origin_lines",
        "HELION_OUTPUT_ORIGIN_LINES",
        True,
        takes.a_bool,
        "Comment generated code with the user's file and line.",
    ),
    Row(
        "ref_mode",
        "HELION_INTERPRET",
        RefMode.OFF,
        _ref_mode,
        "Run the user's own function on eager tiles, for debugging.",
    ),
    Row(
        "ignore_warnings",
        "HELION_IGNORE_WARNINGS",
        (),
        _warning_list,
        "Warning classes of helion.exc not to show; in the variable their names, with commas.",
    ),
    Row(
        "debug_dtype_asserts",
        "HELION_DEBUG_DTYPE_ASSERTS",
        False,
        takes.a_bool,
        "Emit static asserts on the dtype of every generated value.",
    ),
    Row(
        "verify_ir", "HELION_VERIFY_IR", False, takes.a_bool, "Check the IR after tracing and after each rewrite of it."
    ),
    Row(
        "allow_warp_specialize",
        "HELION_ALLOW_WARP_SPECIALIZE",
        True,
        takes.a_bool,
        "Offer range_warp_specializes where the target has it.",
    ),
    Row(
        "max_specializations",
        "HELION_MAX_SPECIALIZATIONS",
        1024,
        takes.a_int,
        "Most call signatures a kernel keeps on its fast path; the least recently used go first.",
    ),
    Row(
        "torch_compile_fusion",
        "HELION_TORCH_COMPILE_FUSION",
        False,
        takes.a_bool,
        "Fuse what torch.compile finds around a call into the kernel; needs hooks that no PyTorch release has so far.",
    ),
    Row("force_autotune", "HELION_FORCE_AUTOTUNE", False, takes.a_bool, "Tune even where a config is given or cached."),
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
        takes.optional(takes.a_any),
        "File that records every measured config (.csv or .json); without an ending, X.csv and a text log X.log.",
    ),
    Row(
        "autotune_log_level",
        "HELION_AUTOTUNE_LOG_LEVEL",
        20,
        takes.log_level,
        "What the tuner prints, as a level of logging: 20 (info) progress and a summary, 30 warnings, 0 nothing.",
    ),
    Row(
        "autotune_compile_timeout",
        "HELION_AUTOTUNE_COMPILE_TIMEOUT",
        60.0,
        takes.at_least(0.01, takes.a_float),
        "Seconds a candidate may compile.",
    ),
    Row(
        "autotune_benchmark_timeout",
        "HELION_AUTOTUNE_BENCHMARK_TIMEOUT",
        30.0,
        takes.at_least(0.01, takes.a_float),
        "Seconds a candidate may run while measured.",
    ),
    Row(
        "autotune_precompile",
        "HELION_AUTOTUNE_PRECOMPILE",
        "fork",
        takes.precompile,
        "Compile candidates ahead of their measurement, in new processes (fork and spawn mean the same), or None.",
    ),
    Row(
        "autotune_precompile_jobs",
        "HELION_AUTOTUNE_PRECOMPILE_JOBS",
        None,
        takes.optional(takes.at_least(0)),
        "Worker processes; default: the number of CPU cores.",
    ),
    Row("autotune_random_seed", "HELION_AUTOTUNE_RANDOM_SEED", 0, takes.a_int, "Seed of the search."),
    Row(
        "autotune_accuracy_check",
        "HELION_AUTOTUNE_ACCURACY_CHECK",
        True,
        takes.a_bool,
        "Compare every candidate's results with the baseline.",
    ),
    Row(
        "autotune_baseline_fn",
        None,
        None,
        takes.a_any,
        "Function giving the expected result; default: the default config's.",
    ),
    Row(
        "autotune_baseline_atol",
        "HELION_AUTOTUNE_BASELINE_ATOL",
        None,
        takes.optional(takes.at_least(0, takes.a_float)),
        "Absolute tolerance of the accuracy check; default by dtype.",
    ),
    Row(
        "autotune_baseline_rtol",
        "HELION_AUTOTUNE_BASELINE_RTOL",
        None,
        takes.optional(takes.at_least(0, takes.a_float)),
        "Relative tolerance of the accuracy check; default by dtype.",
    ),
    Row("autotune_progress_bar", "HELION_AUTOTUNE_PROGRESS_BAR", True, takes.a_bool, "Show progress while tuning."),
    Row(
        "autotune_max_generations",
        "HELION_AUTOTUNE_MAX_GENERATIONS",
        None,
        takes.optional(takes.at_least(0)),
        "Most rounds of the search; default by effort.",
    ),
    Row(
        "autotune_budget_seconds",
        "HELION_AUTOTUNE_BUDGET_SECONDS",
        None,
        takes.optional(takes.at_least(0, takes.a_float)),
        "Seconds the search may take in all.",
    ),
    Row(
        "autotune_ignore_errors",
        "HELION_AUTOTUNE_IGNORE_ERRORS",
        False,
        takes.a_bool,
        "Go on after an unexpected error of a candidate.",
    ),
    Row(
        "autotune_config_overrides",
        "HELION_AUTOTUNE_CONFIG_OVERRIDES",
        None,
        takes.optional(takes.overrides),
        "Config keys fixed during the search: a dict, or JSON or the name of a file with it.",
    ),
    Row("autotune_seed_configs", None, None, takes.a_any, "Configs measured first."),
    Row(
        "autotune_search",
        "HELION_AUTOTUNE_SEARCH",
        None,
        takes.a_any,
        "Name of the search class in helion.autotuner; default ModelSearch.",
    ),
    Row(
        "autotune_devices",
        "HELION_AUTOTUNE_DEVICES",
        None,
        takes.a_any,
        "Devices of one model to measure on, as a list or comma-separated; default: where the arguments are.",
    ),
    Row(
        "autotune_storage",
        "HELION_AUTOTUNE_STORAGE",
        None,
        takes.a_any,
        "File or database URL through which several processes and hosts share one search.",
    ),
    Row(
        "autotune_cache",
        "HELION_AUTOTUNE_CACHE",
        "LocalAutotuneCache",
        takes.a_any,
        "Name of the cache class in helion.autotuner.",
    ),
    Row(
        "autotune_config_filter",
        None,
        None,
        takes.optional(takes.a_callable),
        "Function Config -> the Config to use, or None to drop it (True and False mean the same).",
    ),
    Row(
        "autotuner_fn",
        None,
        _autotuner,
        takes.a_callable,
        "Function (bound_kernel, args, **kwargs) of an object whose autotune(skip_cache=False) gives the Config; "
        "default: the class HELION_AUTOTUNER names, behind autotune_cache.",
    ),
    Row(
        "autotune_benchmark_subprocess",
        "HELION_AUTOTUNE_BENCHMARK_SUBPROCESS",
        True,
        takes.a_bool,
        "Measure candidates in a process of their own; off: in this one.",
    ),
    Row(
        "autotune_best_of_k",
        "HELION_AUTOTUNE_BEST_OF_K",
        1,
        takes.at_least(1),
        "Searches to run, with seeds autotune_random_seed + i; their winners are measured again.",
    ),
    Row(
        "autotune_search_acf",
        "HELION_AUTOTUNE_SEARCH_ACF",
        [],
        takes.strings,
        "Values of advanced_controls_file to search, besides none.",
    ),
    Row(
        "autotune_initial_population_strategy",
        "HELION_AUTOTUNE_INITIAL_POPULATION_STRATEGY",
        None,
        takes.optional(takes.choice("from_random", "from_best_available")),
        "from_best_available: begin with the tuned configs of like kernels that the cache holds.",
    ),
    Row(
        "autotune_best_available_max_configs",
        "HELION_BEST_AVAILABLE_MAX_CONFIGS",
        20,
        takes.at_least(1),
        "Most tuned configs of like kernels to begin with.",
    ),
    Row(
        "autotune_best_available_max_cache_scan",
        "HELION_BEST_AVAILABLE_MAX_CACHE_SCAN",
        500,
        takes.at_least(1),
        "Most cache files to look at for them.",
    ),
    Row(
        "autotune_log_details",
        "HELION_AUTOTUNE_LOG_DETAILS",
        False,
        takes.a_bool,
        "With autotune_log: also a .meta.jsonl with a JSON object for each run.",
    ),
    Row(
        "autotune_with_torch_compile_fusion",
        "HELION_AUTOTUNE_WITH_TORCH_COMPILE_FUSION",
        False,
        takes.a_bool,
        "Tune with what torch.compile fused; taken, kernels are tuned by themselves.",
    ),
    *(
        Row(
            name,
            f"HELION_{name.upper()}",
            default,
            parse,
            f"{what}; taken, and without effect.",
        )
        for name, default, parse, what in _WITHOUT_EFFECT
    ),
    Row(
        "autotune_benchmark_fn",
        None,
        None,
        takes.a_any,
        "Function that times a candidate instead of the built-in one.",
    ),
)
_ROWS = {row.name: row for row in TABLE}
_DEFAULTS = {row.name: row.default for row in TABLE}
#: Defaults that are an object's own.
_MUTABLE = {name: default for name, default in _DEFAULTS.items() if isinstance(default, (list, dict, set))}
#: Variable -> its setting, and whether it is the one that beats the other.
_VARIABLES = {name: (row, name == row.env) for row in TABLE for name in (row.other_env, row.env) if name}


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
        # Kernels are made while modules are imported, dozens of them: what is not given costs nothing by itself.
        found = _DEFAULTS | {name: copy.copy(default) for name, default in _MUTABLE.items()}
        found |= self._from_environment(values)
        for name, value in values.items():
            row = _ROWS[name]
            found[name] = self._parse(row, value, f"setting {name!r}") if value != row.default else value
        self.__dict__.update(found)

    def _from_environment(self, given: Mapping[str, object]) -> dict[str, object]:
        """The values of settings that a variable sets; an empty variable is as good as none."""
        set_ = sorted((_VARIABLES[name][1], name) for name in os.environ if name in _VARIABLES and os.environ[name])
        found = {}
        for _, name in set_:
            row = _VARIABLES[name][0]
            if row.name not in given:
                found[row.name] = name
        return {
            setting: self._parse(_ROWS[setting], os.environ[name], f"environment variable {name}")
            for setting, name in found.items()
        }

    @staticmethod
    def _parse(row: Row, value: object, source: str) -> object:
        try:
            return row.parse(value)
        except (ValueError, OSError) as error:  # OSError: a variable that names a file
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

    def get_suspicious_rebenchmark_ratio(self) -> float | None:
        """`autotune_suspicious_rebenchmark_ratio`, or what it is where it is not set."""
        if self.autotune_suspicious_rebenchmark_ratio is not None:
            return float(self.autotune_suspicious_rebenchmark_ratio)
        return 0.9 if self.autotune_benchmark_subprocess else None

    def __repr__(self) -> str:
        return f"Settings({', '.join(self.keywords())})"

    def keywords(self) -> list[str]:
        """Settings that are not default ones as a decorator has them, `name=value`."""
        return [f"{name}={_text(value)}" for name, value in self.non_default().items()]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Settings) and dict(self.items()) == dict(other.items())

    __hash__ = None  # type: ignore[assignment]  # mutable


def _text(value: object) -> str:
    """A value as Python; functions and classes by their names."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, type) and issubclass(value, exc.Base):
        return f"helion.exc.{value.__name__}"
    return getattr(value, "__name__", None) or repr(value)
