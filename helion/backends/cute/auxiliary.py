"""Auxiliary operands of the epilogue in printed source: how each is passed, and where each is loaded.

A ``value`` is a number. A ``scalar`` and a per-row ``column`` are read one element at a time. A ``row`` or ``matrix``
is read where it is used, one epilogue step at a time: holding a whole row of a tile in registers spills.
"""

from __future__ import annotations

import math

from .schedule import MatmulSchedule
from .spec import Aux
from .spec import MatmulSpec
from .spec import cutlass_name

__all__ = [
    "NOT_PAST",
    "annotated",
    "example",
    "in_place",
    "load_columns",
    "names",
    "once",
    "per_batch",
    "per_element",
    "per_row",
    "per_step",
    "vector_width",
]


# Behind the name of a load that reads nothing past the edge, and in its docstring.
_INSIDE = "_inside"
NOT_PAST = (
    "\n\n    Past the edge nothing is read: those are other threads' places of the output, and stored by then.\n    "
)


def names(spec: MatmulSpec) -> list[str]:
    """Parameter names in the kernel and the host entry: operand ``bias`` is the tensor ``m_bias``; a number keeps its
    name.
    """
    return [aux.name if aux.kind == "value" else f"m_{aux.name}" for aux in spec.epilogue.aux]


def vector_width(aux: Aux, spec: MatmulSpec, epilogue_n: int) -> int:
    """Elements of one load along n: it must divide a row, so that the last vector ends where the row does."""
    return aux.vector_elements(math.gcd(spec.n, epilogue_n))


def example(aux: Aux, spec: MatmulSpec, s: MatmulSchedule) -> str:
    """The stand-in for ``aux`` that the toolkit compiles against, as a line of an argument tuple."""
    name = f"cutlass.{cutlass_name(aux.dtype)}"
    if aux.kind == "value":
        return f"{name}(0),"
    shape, stride = _vectors(aux, spec, s) if s.blackwell else _elements(aux, spec)
    return f"make_fake_tensor({name}, {shape}, {stride}, assumed_align={aux.alignment}),"


def _vectors(aux: Aux, spec: MatmulSpec, s: MatmulSchedule) -> tuple[str, str]:
    """sm_100a: a thread reads along one row, so rows are passed as (vector, vectors)."""
    width = vector_width(aux, spec, s.epilogue_n)
    pieces = spec.n // width
    return {
        "scalar": (f"({spec.batch},)", f"({aux.batch},)"),
        "column": (f"({spec.m}, {spec.batch})", f"({aux.m}, {aux.batch})"),
        "row": (f"({width}, {pieces}, {spec.batch})", f"({aux.n}, {width * aux.n}, {aux.batch})"),
        "matrix": (
            f"({width}, {pieces}, {spec.m}, {spec.batch})",
            f"({aux.n}, {width * aux.n}, {aux.m}, {aux.batch})",
        ),
    }[aux.kind]


def _elements(aux: Aux, spec: MatmulSpec) -> tuple[str, str]:
    """sm_90a: a thread reads pairs of columns of two rows, element by element; what is broadcast has stride 0."""
    if aux.kind == "scalar":
        return f"({spec.batch},)", f"({aux.batch},)"
    return f"({spec.m}, {spec.n}, {spec.batch})", f"({aux.m}, {aux.n}, {aux.batch})"


def annotated(spec: MatmulSpec) -> list[str]:
    """The parameters with their types; a number's own type is what makes it a runtime argument."""
    kinds = [aux.kind for aux in spec.epilogue.aux]
    return [name if kind == "value" else f"{name}: cute.Tensor" for name, kind in zip(names(spec), kinds)]


def once(spec: MatmulSpec) -> list[str]:
    """Loads that do not depend on the tile."""
    return [f"{a.name} = m_{a.name}[0]" for a in spec.epilogue.aux if a.kind == "scalar" and not _batched(a, spec)]


def per_batch(spec: MatmulSpec) -> list[str]:
    """Loads of one element for a tile."""
    return [f"{a.name} = m_{a.name}[batch]" for a in spec.epilogue.aux if a.kind == "scalar" and _batched(a, spec)]


def per_row(spec: MatmulSpec) -> list[str]:
    """sm_100a: loads of one element for a thread's row of a tile."""
    return [f"{a.name} = m_{a.name}[(row, batch)]" for a in spec.epilogue.aux if a.kind == "column"]


def per_step(spec: MatmulSpec) -> list[str]:
    """sm_100a: loads of one epilogue step's elements of one row."""
    where = {"row": "(None, None, batch)", "matrix": "(None, None, row, batch)"}
    return [
        f"{a.name} = load_columns{_INSIDE * a.in_place}(m_{a.name}[{where[a.kind]}], column{', inside' * a.in_place})"
        for a in spec.epilogue.aux
        if a.kind in where
    ]


def per_element(spec: MatmulSpec) -> list[str]:
    """sm_90a: loads of the elements at a thread's places of one epilogue step."""
    return [
        f"{a.name} = load_elements{_INSIDE * a.in_place}(m_{a.name}[(None, None, batch)], held, row, column)"
        for a in spec.epilogue.aux
        if a.kind in ("column", "row", "matrix")
    ]


def _batched(aux: Aux, spec: MatmulSpec) -> bool:
    return spec.batch > 1 and aux.batch != 0


def in_place(spec: MatmulSpec) -> bool:
    """Whether an operand is the output: past the edge it must not be read, where it is another thread's by then."""
    return any(aux.in_place for aux in spec.epilogue.aux)


def load_columns(spec: MatmulSpec, schedule: MatmulSchedule) -> list[str]:
    """The printed functions that read one step's columns of one row."""
    whole = spec.n % (schedule.tile_n * schedule.cluster_n) == 0
    piece, note = "first // width + i", ""
    if not whole:
        piece = "min(first // width + i, cute.size(source, mode=[1]) - 1)"
        note = "\n\n    Past the end of the row the last vector is read again; the store clips those columns.\n    "
    copy = f"cute.autovec_copy(source[(None, {piece})], values[(None, i)])"
    loads = [_load_columns("(source, first)", note, "", copy)]
    if in_place(spec):
        test = """if inside and first // width + i < cute.size(source, mode=[1]):
            cute.autovec_copy(source[(None, first // width + i)], values[(None, i)])"""
        loads.append(_load_columns(f"{_INSIDE}(source, first, inside)", NOT_PAST, "\n    values.fill(0)", test))
    return loads


def _load_columns(head: str, note: str, start: str, copy: str) -> str:
    return f'''@cute.jit
def load_columns{head}:
    """VALUES consecutive elements, from column `first` on, of a row given as (vector, vectors).{note}"""
    width = cute.size(source, mode=[0])
    values = cute.make_rmem_tensor((width, VALUES // width), source.element_type){start}
    for i in cutlass.range_constexpr(VALUES // width):
        {copy}
    return cute.make_tensor(values.iterator, VALUES).load()'''
