"""Settings: values, environment variables, and what is taken without effect."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from helion import exc


@pytest.mark.parametrize(
    "values", [{"dot_precision": "exact"}, {"static_shapes": "maybe"}, {"backend": "cuda"}, {"index_dtype": "int8"}]
)
def test_a_bad_value_is_also_a_value_error(values: dict[str, Any]) -> None:
    (name,) = values
    with pytest.raises(ValueError, match=name) as caught:
        helion.Settings(**values)
    assert isinstance(caught.value, exc.InvalidAPIUsage)


def test_a_variable_that_is_empty_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELION_STATIC_SHAPES", "")
    monkeypatch.setenv("HELION_DOT_PRECISION", "")
    monkeypatch.setenv("HELION_IGNORE_WARNINGS", "")
    settings = helion.Settings()
    assert (settings.static_shapes, settings.dot_precision, settings.ignore_warnings) == (True, "tf32", ())


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    out = torch.empty([a.size(0), b.size(1)], device=a.device)
    for m, n in hl.tile([a.size(0), b.size(1)]):
        acc = hl.zeros([m, n])
        for k in hl.tile(a.size(1)):
            acc = torch.addmm(acc, a[m, k], b[k, n])
        out[m, n] = acc
    return out


@pytest.mark.parametrize(("given", "used"), [("default", "tf32"), ("high", "tf32x3"), ("highest", "ieee")])
def test_precision_in_the_words_of_pytorch(given: str, used: str) -> None:
    kernel = helion.kernel(matmul, dot_precision=given, config=helion.Config(block_sizes=[16, 16, 16]))
    assert kernel.settings.dot_precision == given
    assert f"input_precision='{used}'" in kernel.bind((torch.ones(32, 32), torch.ones(32, 32))).to_triton_code()


def test_precision_from_the_variable_of_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_F32_DEFAULT", "ieee")
    assert helion.Settings().dot_precision == "ieee"
    monkeypatch.setenv("HELION_DOT_PRECISION", "tf32x3")
    assert helion.Settings().dot_precision == "tf32x3"
    assert helion.Settings(dot_precision="tf32").dot_precision == "tf32"


def test_warnings_to_leave_out_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELION_IGNORE_WARNINGS", "NoConfigGiven, RequiresGradWarning")
    assert helion.Settings().ignore_warnings == (exc.NoConfigGiven, exc.RequiresGradWarning)
    monkeypatch.setenv("HELION_IGNORE_WARNINGS", "NoSuchWarning")
    with pytest.raises(ValueError, match=r"HELION_IGNORE_WARNINGS.*NoSuchWarning.*NoConfigGiven"):
        helion.Settings()


def test_a_misspelt_key_is_not_mentioned_where_its_warning_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    args = (torch.ones(16, 16), torch.ones(16, 16))
    quiet = helion.kernel(matmul, ignore_warnings=[exc.MisspelledConfigKey])
    quiet.bind(args).config_spec.normalize({"num_warp": 4})
    assert capsys.readouterr().err == ""
    helion.kernel(matmul).bind(args).config_spec.normalize({"num_warp": 4})
    assert "WARNING[MisspelledConfigKey]" in capsys.readouterr().err


def test_settings_of_other_projects_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = helion.Settings(
        disable_autotuner_heuristics=True,
        autotune_force_persistent=True,
        autotune_adaptive_timeout=False,
        autotune_rebenchmark_threshold=1.5,
        autotune_baseline_accuracy_check_fn=print,
        autotune_log_search_space=True,
        triton_do_not_specialize=("x",),
        distributed=None,
        autotune_with_torch_compile_fusion=True,
    )
    assert settings.autotune_rebenchmark_threshold == 1.5
    with pytest.raises(ValueError, match="autotune_force_persistent"):
        helion.Settings(autotune_force_persistent="perhaps")
    monkeypatch.setenv("HELION_AUTOTUNE_REBENCHMARK_THRESHOLD", "2")
    assert helion.Settings().autotune_rebenchmark_threshold == 2.0


def test_a_repro_is_a_warning_of_the_logger(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "helion"):
        helion.kernel(matmul, print_repro=True, config=helion.Config())(torch.ones(16, 16), torch.ones(16, 16))
    (record,) = [r for r in caplog.records if r.name == "helion"]
    assert record.levelno == logging.WARNING and "def matmul(" in record.getMessage()


def test_a_repro_is_there_for_what_does_not_compile(caplog: pytest.LogCaptureFixture) -> None:
    def wrong(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] + undefined_name  # noqa: F821
        return out

    with caplog.at_level(logging.WARNING, "helion"), pytest.raises(exc.UndefinedVariable):
        helion.kernel(wrong, print_repro=True)(torch.ones(16))
    assert any("def wrong(" in record.getMessage() for record in caplog.records)
