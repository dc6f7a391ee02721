"""What is said of errors of PyTorch's and Python's that a trace meets, as ours."""

from __future__ import annotations

from .. import exc
from ..language.refusals import of_number

_FIX_HOST_SHAPES = "check their shapes; one that follows from what a tensor holds is like no other: do it outside."


def as_ours(error: Exception, text: str, on_device: bool, is_read: bool) -> exc.BaseError:
    """An error of PyTorch or Python met while interpreting, as one of ours.

    Args:
        error: the error.
        text: the expression or statement that was interpreted.
        on_device: whether it stands in device code.
        is_read: whether a number in it is read from a tensor by host code.

    Raises:
        exc.BaseWarning: that is it, under a filter that makes errors of warnings.
    """
    if isinstance(error, exc.Base):
        raise error
    said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if "must match the size of tensor" in said or "cannot be broadcast" in said or "Shape mismatch" in said:
        fix = exc.ShapeMismatch.fix if on_device else _FIX_HOST_SHAPES
        return exc.ShapeMismatch(f"operands do not broadcast: {said}", fix=fix)
    if is_data_dependent(error):
        if not on_device:
            return exc.HostTensorRead(text=text)
        return exc.NotAllowedOnDevice(
            f"{text!r} needs a value that is known only while the kernel runs",
            fix="branch with `if` on it directly, or make it a compile-time value (hl.specialize, hl.constexpr).",
        )
    if on_device and (number := of_number(error)) is not None:
        return number
    fix = "check the operands' shapes and dtypes."
    if not on_device and is_read:
        fix = (
            "what it gives follows from a number that host code reads from a tensor, for which a trace has a "
            "stand-in: do it outside of the kernel function, and pass the result."
        )
    if "TracedTile" in said:
        fix = "a tile is no number: use tile.index, tile.begin or tile.block_size."
    elif isinstance(error, AttributeError):
        fix = "check the name."
    what = "device code" if on_device else "host code"
    said = said.replace("FakeTensor", "Tensor").replace("TracedTile", "Tile")
    if isinstance(error, AttributeError):
        return exc.TypeInferenceError(f"{text!r} in {what}: {said}", fix=fix)
    return exc.TorchOpTracingError(f"evaluating {text!r} in {what} failed: {type(error).__name__}: {said}", fix=fix)


def is_data_dependent(error: Exception) -> bool:
    """Whether PyTorch asked for a value that a trace does not have."""
    return "GuardOnDataDependent" in type(error).__name__ or "data-dependent" in str(error).strip().partition("\n")[0]
