"""What errors and warnings are, and how they are shown."""

from __future__ import annotations

import pickle
import warnings

import pytest
import torch

import helion
import helion.language as hl
from helion import exc

MISSPELT = exc.MisspelledConfigKey(kernel="k", key="a", meant="b")


def copy(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = x[tile]
    return out


def test_errors_are_runtime_errors_that_report_their_name() -> None:
    error = exc.InvalidConfig(reason="no", fix="yes.")
    assert isinstance(error, RuntimeError) and isinstance(error, exc.Base)
    assert error.report() == "ERROR[InvalidConfig]: invalid config: no\nWhat to do: yes."
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_every_class_of_the_module_is_of_the_family() -> None:
    for found in vars(exc).values():
        if isinstance(found, type) and issubclass(found, BaseException):
            assert issubclass(found, exc.Base)
            assert found in (exc.Base,) or issubclass(found, (exc.BaseError, exc.BaseWarning))


def test_a_warning_goes_to_stderr_with_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    exc.warn(MISSPELT)
    assert capsys.readouterr().err.startswith("WARNING[MisspelledConfigKey]: kernel 'k' has no config key 'a'")


def test_filters_of_the_user_come_first(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", exc.MisspelledConfigKey)
        exc.warn(MISSPELT)
        assert capsys.readouterr().err == ""
        warnings.simplefilter("error", exc.MisspelledConfigKey)
        with pytest.raises(exc.MisspelledConfigKey):
            exc.warn(MISSPELT)
    with pytest.warns(exc.MisspelledConfigKey):
        exc.warn(MISSPELT)


def test_the_setting_leaves_out_a_class_and_what_is_derived_from_it(capsys: pytest.CaptureFixture[str]) -> None:
    exc.warn(MISSPELT, [exc.BaseWarning])
    exc.warn(MISSPELT, [exc.RequiresGradWarning])
    assert capsys.readouterr().err.count("WARNING[MisspelledConfigKey]") == 1


def test_ref_mode_has_no_code_to_print() -> None:
    kernel = helion.kernel(copy, ref_mode=helion.RefMode.EAGER, print_output_code=True)
    with pytest.raises(exc.RefEagerModeCodePrintError, match="ref_mode=EAGER and print_output_code=True"):
        kernel(torch.ones(3))


def test_two_interpreters_at_once_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setenv("HELION_INTERPRET", "1")
    with pytest.raises(exc.IncompatibleInterpretModes, match="HELION_INTERPRET and TRITON_INTERPRET"):
        helion.kernel(copy)(torch.ones(3))


@pytest.mark.filterwarnings("ignore")
def test_fusion_is_refused_where_pytorch_has_no_hooks_and_eager_calls_work() -> None:
    kernel = helion.kernel(copy, torch_compile_fusion=True, config=helion.Config())
    x = torch.randn(5)
    torch.testing.assert_close(kernel(x), x)
    compiled = torch.compile(lambda x: kernel(x) + 1, backend="eager")
    with pytest.raises(RuntimeError, match=r"(?s)torch_compile_fusion=True.*PyTorch.*nightly"):
        compiled(x)
    torch._dynamo.reset()
