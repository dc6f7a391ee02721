"""The private parts of PyTorch that only a trace needs (torch >= 2.11): they load torch._dynamo, which takes seconds.

What each call needs is in ``_compat_torch``, kinds of expressions are in ``_compat_sympy``. Elsewhere are only the
names that PyTorch's own extension guides use (``tests/test_imports.py`` lists them).
"""

from __future__ import annotations

from torch._decomp import decomposition_table as decomposition_table
from torch._dynamo.source import ConstantSource as ConstantSource
from torch._prims_common import ELEMENTWISE_TYPE_PROMOTION_KIND as ELEMENTWISE_TYPE_PROMOTION_KIND
from torch._prims_common import elementwise_dtypes as elementwise_dtypes
from torch._subclasses.fake_tensor import unset_fake_temporarily as unset_fake_temporarily
from torch.utils._mode_utils import no_dispatch as no_dispatch
