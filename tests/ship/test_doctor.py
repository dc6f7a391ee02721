"""`python -m helion` and its doctor: what it finds off, what it advises, and that it changes nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helion import __main__ as command_line
from helion import _environment
from helion import _version
from helion import doctor
from helion.settings import TABLE

ROOT = Path(__file__).resolve().parents[2]


def fixes(topic: str) -> list[str]:
    return [found.fix for found in doctor.examine() if found.topic == topic and found.fix]


@pytest.fixture(autouse=True)
def own_environment(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith("HELION_") and not name.startswith("HELION_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HELION_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))


def test_a_cache_that_is_not_there_yet_is_fine_and_stays_so(tmp_path) -> None:
    assert fixes("cache") == []
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_others_can_write_to_is_off(tmp_path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    assert fixes("cache") == [f"chmod go-w {tmp_path / 'cache'}"]


def test_a_file_in_the_place_of_the_cache_is_off(tmp_path) -> None:
    (tmp_path / "cache").write_text("")
    assert fixes("cache") == ["set HELION_CACHE_DIR to a directory of your own"]


def test_a_misspelt_variable_is_off_with_the_one_that_was_meant(monkeypatch) -> None:
    monkeypatch.setenv("HELION_AUTOTUNE_EFORT", "none")
    assert fixes("environment") == ["did you mean HELION_AUTOTUNE_EFFORT?"]


def test_a_variable_that_makes_calls_slow_is_off_only_while_it_is_on(monkeypatch) -> None:
    monkeypatch.setenv("HELION_SKIP_FAST_LAUNCHER", "0")
    assert fixes("environment") == []
    monkeypatch.setenv("HELION_SKIP_FAST_LAUNCHER", "1")
    assert fixes("environment") == ["unset HELION_SKIP_FAST_LAUNCHER"]


def test_a_torch_outside_of_the_tested_range_is_off(monkeypatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.99.0")
    assert any("newer than what helion" in found.text for found in doctor.examine() if found.topic == "version")


@pytest.mark.parametrize(("version", "said"), [("2.10.1", "older"), ("2.14.0", "newer"), ("main", "no version")])
def test_versions_outside_of_the_range_say_on_which_side(version: str, said: str) -> None:
    assert said in (_version.outside_tested("torch", version) or "")


def test_versions_in_the_range_are_fine() -> None:
    assert all(_version.outside_tested("torch", v) is None for v in ("2.11.0", "2.12", "2.13.0+cpu", "2.13.0a0+git"))


def test_it_knows_every_variable_that_the_package_reads() -> None:
    text = "".join(path.read_text() for path in (ROOT / "helion").rglob("*.py"))
    read = set(re.findall(r'["\'](HELION_[A-Z_]+[A-Z])["\']', text))
    settings = {name for row in TABLE for name in (row.env, row.other_env) if name}
    assert read - settings - _environment.VARIABLES.keys() - _environment.INTERNAL == set()


def test_the_exit_status_says_whether_something_is_off(monkeypatch, capsys) -> None:
    monkeypatch.setattr(doctor, "_CHECKS", (lambda: iter([doctor.Finding("GPU", "fine")]),))
    assert command_line.main(["doctor"]) == 0
    monkeypatch.setattr(doctor, "_CHECKS", (lambda: iter([doctor.Finding("GPU", "none", "buy one")]),))
    assert command_line.main(["doctor"]) == 1
    assert "-> buy one" in capsys.readouterr().out


def test_every_command_says_what_it_takes(capsys) -> None:
    for name in command_line.COMMANDS:
        with pytest.raises(SystemExit) as ended:
            command_line.main([name, "--help"])
        assert ended.value.code == 0
        assert "usage: python -m helion" in capsys.readouterr().out


def test_an_unknown_command_is_an_error_that_lists_those_that_there_are(capsys) -> None:
    assert command_line.main(["docter"]) == 2
    assert "doctor" in capsys.readouterr().err


@pytest.mark.spawns
def test_it_runs_as_a_program() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = [sys.executable, "-m", "helion", "doctor"]
    result = subprocess.run(run, capture_output=True, text=True, env=environment, timeout=120)
    assert result.returncode in (0, 1), result.stderr
    assert "helion" in result.stdout and "torch" in result.stdout


@pytest.mark.spawns
def test_an_untested_torch_is_warned_of_once_when_helion_is_imported() -> None:
    code = "import torch; torch.__version__ = '2.99.0'; import helion, helion.runtime; import helion"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HELION_NO_EXTENSION": "1"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("torch 2.99.0 is newer than what helion") == 1
