"""The autotuner: finds the Config of a kernel, and remembers it.

`api.py` has the entry points; a search (`model.py` and its siblings) proposes Configs from a `space.py`, an
`executor.py` measures them in worker processes, `tuner.py` runs the loop, `cache.py` keeps the answer.  Names below are
imported when they are first used: a cache hit loads no search.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING
from typing import Any

from ..config_spec import BooleanFragment
from ..config_spec import EnumFragment
from ..config_spec import IntegerFragment
from ..config_spec import ListOf
from ..config_spec import PermutationFragment
from ..config_spec import PowerOfTwoFragment

if TYPE_CHECKING:
    from .aot import AOTAutotuneCache as AOTAutotuneCache
    from .api import autotune as autotune
    from .api import config_for as config_for
    from .api import lookup as lookup
    from .cache import AutotuneCache as AutotuneCache
    from .cache import LocalAutotuneCache as LocalAutotuneCache
    from .cache import StrictLocalAutotuneCache as StrictLocalAutotuneCache
    from .evolution import DifferentialEvolutionSearch as DifferentialEvolutionSearch
    from .lfbo import LFBOPatternSearch as LFBOPatternSearch
    from .model import ModelSearch as ModelSearch
    from .pattern import PatternSearch as PatternSearch
    from .remote_cache import HTTPStore as HTTPStore
    from .remote_cache import RemoteAutotuneCache as RemoteAutotuneCache
    from .report import write_report as write_report
    from .search import FiniteSearch as FiniteSearch
    from .search import RandomSearch as RandomSearch
    from .search import Search as Search
    from .space import SearchSpace as SearchSpace
    from .target import TuningTarget as TuningTarget

_LAZY: dict[str, str] = {
    "AOTAutotuneCache": "aot",
    "AutotuneCache": "cache",
    "DifferentialEvolutionSearch": "evolution",
    "FiniteSearch": "search",
    "HTTPStore": "remote_cache",
    "LFBOPatternSearch": "lfbo",
    "LocalAutotuneCache": "cache",
    "ModelSearch": "model",
    "PatternSearch": "pattern",
    "RandomSearch": "search",
    "RemoteAutotuneCache": "remote_cache",
    "Search": "search",
    "SearchSpace": "space",
    "StrictLocalAutotuneCache": "cache",
    "TuningTarget": "target",
    "autotune": "api",
    "config_for": "api",
    "lookup": "api",
    "write_report": "report",
}

__all__ = [
    "BooleanFragment",
    "EnumFragment",
    "IntegerFragment",
    "ListOf",
    "PermutationFragment",
    "PowerOfTwoFragment",
    *_LAZY,
]


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
