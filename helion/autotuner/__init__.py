"""The autotuner: finds the Config of a kernel, and remembers it.

`api.py` has the entry points; a strategy (`model.py` and its siblings) proposes Configs from a `space.py`, an
`executor.py` measures them in worker processes, `tuner.py` runs the loop, `cache.py` keeps the answer; `searches.py`
has the strategies by their public names, put to work on a kernel.  Names below are imported when they are first used:
a cache hit loads no search.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING
from typing import Any

if TYPE_CHECKING:
    from ..fragments import BooleanFragment as BooleanFragment
    from ..fragments import EnumFragment as EnumFragment
    from ..fragments import IntegerFragment as IntegerFragment
    from ..fragments import ListOf as ListOf
    from ..fragments import PermutationFragment as PermutationFragment
    from ..fragments import PowerOfTwoFragment as PowerOfTwoFragment
    from .aot.cache import AOTAutotuneCache as AOTAutotuneCache
    from .api import announce as announce
    from .api import announce_first_call as announce_first_call
    from .api import config_for as config_for
    from .api import lookup as lookup
    from .base_search import BaseSearch as BaseSearch
    from .cache import AutotuneCache as AutotuneCache
    from .cache import LocalAutotuneCache as LocalAutotuneCache
    from .cache import StrictLocalAutotuneCache as StrictLocalAutotuneCache
    from .external import autotune as autotune
    from .multi import autotune_multi as autotune_multi
    from .remote_cache import HTTPStore as HTTPStore
    from .remote_cache import RemoteAutotuneCache as RemoteAutotuneCache
    from .report import write_report as write_report
    from .searches import DESurrogateHybrid as DESurrogateHybrid
    from .searches import DifferentialEvolutionSearch as DifferentialEvolutionSearch
    from .searches import FiniteSearch as FiniteSearch
    from .searches import LFBOPatternSearch as LFBOPatternSearch
    from .searches import LFBOTreeSearch as LFBOTreeSearch
    from .searches import ModelSearch as ModelSearch
    from .searches import PatternSearch as PatternSearch
    from .searches import RandomSearch as RandomSearch
    from .searches import cache_classes as cache_classes
    from .searches import search_algorithms as search_algorithms
    from .space import SearchSpace as SearchSpace
    from .strategy import Strategy as Strategy
    from .target import TuningTarget as TuningTarget

_LAZY: dict[str, str] = {
    "AOTAutotuneCache": "aot.cache",
    "AutotuneCache": "cache",
    "BaseSearch": "base_search",
    "BooleanFragment": ".fragments",
    "DESurrogateHybrid": "searches",
    "DifferentialEvolutionSearch": "searches",
    "EnumFragment": ".fragments",
    "FiniteSearch": "searches",
    "HTTPStore": "remote_cache",
    "IntegerFragment": ".fragments",
    "LFBOPatternSearch": "searches",
    "LFBOTreeSearch": "searches",
    "ListOf": ".fragments",
    "LocalAutotuneCache": "cache",
    "ModelSearch": "searches",
    "PatternSearch": "searches",
    "PermutationFragment": ".fragments",
    "PowerOfTwoFragment": ".fragments",
    "RandomSearch": "searches",
    "RemoteAutotuneCache": "remote_cache",
    "SearchSpace": "space",
    "Strategy": "strategy",
    "StrictLocalAutotuneCache": "cache",
    "TuningTarget": "target",
    "announce": "api",
    "announce_first_call": "api",
    "autotune": "external",
    "autotune_multi": "multi",
    "cache_classes": "searches",
    "config_for": "api",
    "lookup": "api",
    "search_algorithms": "searches",
    "write_report": "report",
}

# Modules that programs reach as attributes.
_MODULES = ("base_search", "external", "local_cache")

__all__ = [*_LAZY]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{module}", __name__), name)
