"""How the special functions of the IR are spelled in Triton: libdevice's where CUDA has them, else functions of
`helion.runtime`: `triton_special` (`hls_...`), `triton_gamma` (`hlg_...`) and `triton_polynomials` (`hlp_...`).

Some iterate until all elements are done; padding, which may hold anything, must not keep them waiting (`_PATIENT`).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.fx

from ...ir.nodes import tensor_of
from ..text import Text
from ..text import call
from .axes import along
from .emitter import KernelEmitter
from .emitter import Rules
from .memory import all_of

_aten = torch.ops.aten

#: Op -> the function of libdevice.
_LIBDEVICE: dict[Any, str] = {
    _aten.i0.default: "cyl_bessel_i0",
    _aten.special_i1.default: "cyl_bessel_i1",
    _aten.special_modified_bessel_i0.default: "cyl_bessel_i0",
    _aten.special_modified_bessel_i1.default: "cyl_bessel_i1",
    _aten.special_bessel_j0.default: "j0",
    _aten.special_bessel_j1.default: "j1",
    _aten.special_bessel_y0.default: "y0",
    _aten.special_bessel_y1.default: "y1",
    _aten.special_erfcx.default: "erfcx",
    _aten.special_ndtri.default: "normcdfinv",
}
#: Those of them that have a limit where PyTorch gives nan.
_FINITE = frozenset(_LIBDEVICE) - {_aten.special_erfcx.default, _aten.special_ndtri.default}
#: Those of order 1 that begin as x / 2.
_HALVES = frozenset(
    [
        _aten.special_i1.default,
        _aten.special_modified_bessel_i1.default,
        _aten.special_bessel_j1.default,
    ]
)
#: Op -> our function, and constants that follow the operands.
_OURS: dict[Any, tuple[Any, ...]] = {
    _aten.digamma.default: ("hlg_digamma",),
    _aten.special_i0e.default: ("hls_i0e",),
    _aten.special_i1e.default: ("hls_i1e",),
    _aten.special_modified_bessel_k0.default: ("hls_modified_bessel_k0",),
    _aten.special_modified_bessel_k1.default: ("hls_modified_bessel_k1",),
    _aten.special_scaled_modified_bessel_k0.default: ("hls_scaled_modified_bessel_k0",),
    _aten.special_scaled_modified_bessel_k1.default: ("hls_scaled_modified_bessel_k1",),
    _aten.special_airy_ai.default: ("hls_airy_ai",),
    _aten.special_zeta.default: ("hlg_zeta",),
    _aten.igamma.default: ("hlg_igamma", False),
    _aten.igammac.default: ("hlg_igamma", True),
    **{
        getattr(_aten, f"special_{prefix}chebyshev_polynomial_{letter}").default: ("hlp_chebyshev", kind, bool(prefix))
        for prefix in ("", "shifted_")
        for kind, letter in enumerate("tuvw")
    },
    **{
        getattr(_aten, f"special_{name}").default: ("hlp_orthogonal", kind)
        for kind, name in enumerate(
            ["hermite_polynomial_h", "hermite_polynomial_he", "laguerre_polynomial_l", "legendre_polynomial_p"]
        )
    },
}
#: Functions that iterate -> what their second operand is in padding: one for which they do not.
_PATIENT = {"hlg_zeta": 1, "hlg_igamma": 1, "hlp_chebyshev": 0, "hlp_orthogonal": 0}


def _unpadded(k: KernelEmitter, node: Any, value: float) -> Text:
    """An operand with its padding set to a number."""
    rank = tensor_of(node).dim()
    masks = (k.axes.dim_mask(node, d) for d in range(rank))
    mask = all_of([None if mask is None else along(mask, d, rank) for d, mask in enumerate(masks)])
    return k.text(node) if mask is None else call("tl.where", mask, k.text(node), float(value))


def _emit_libdevice(k: KernelEmitter, node: torch.fx.Node) -> None:
    x = k.text(node.args[0])
    text = call(k.module.libdevice(_LIBDEVICE[node.target]), x)
    text = k.helper("hls_finite", x, text) if node.target in _FINITE else text
    # Bessel functions of order 1 are x / 2 near 0, where libdevice takes subnormal numbers for 0.
    halves = node.target in _HALVES and not k.settings.fast_math
    k.assign(node, k.helper("hlt_linear_near_zero", x, text, 0.5) if halves else text)


def _emit_ours(k: KernelEmitter, node: torch.fx.Node) -> None:
    name, *constants = _OURS[node.target]
    operands = [k.text(arg) for arg in node.args]
    if name in _PATIENT:
        operands[1] = _unpadded(k, node.args[1], _PATIENT[name])
    k.assign(node, k.helper(name, *operands, *constants))


RULES: Rules = {**dict.fromkeys(_LIBDEVICE, _emit_libdevice), **dict.fromkeys(_OURS, _emit_ours)}
