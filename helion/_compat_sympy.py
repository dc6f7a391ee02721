"""PyTorch's private kinds of sympy expressions, and their printer (torch >= 2.11): whoever reads the IR needs them.

Not here: what only a trace needs (``_compat_tracing``).
"""

from __future__ import annotations

from torch.utils._sympy.functions import CleanDiv as CleanDiv
from torch.utils._sympy.functions import FloorDiv as FloorDiv
from torch.utils._sympy.functions import Max as Max
from torch.utils._sympy.functions import Min as Min
from torch.utils._sympy.functions import Mod as Mod
from torch.utils._sympy.functions import PowByNatural as PowByNatural
from torch.utils._sympy.functions import PythonMod as PythonMod
from torch.utils._sympy.printers import PythonPrinter as PythonPrinter
