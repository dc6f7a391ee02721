"""Generated source on disk: one text, one file, one module; safe with several processes."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading

import pytest

from helion.runtime import code_cache


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HELION_CACHE_DIR", str(tmp_path))
    code_cache.clear_modules()
    yield tmp_path
    code_cache.clear_modules()


def test_module_is_imported_from_a_file_with_that_text():
    source = "VALUE = 6 * 7\n"
    module = code_cache.load_module(source, "answer")
    assert module.VALUE == 42
    path = code_cache.path_for(source, "answer")
    assert module.__file__ == str(path)
    assert path.read_text() == source
    assert path.name.startswith("answer_")


def test_same_text_is_the_same_module():
    assert code_cache.load_module("x = object()\n") is code_cache.load_module("x = object()\n")


def test_different_text_is_a_different_file():
    assert code_cache.path_for("x = 1\n") != code_cache.path_for("x = 2\n")


def test_with_globals_every_call_is_its_own_module():
    source = "def get():\n    return captured\n"
    one = code_cache.load_module(source, "f", {"captured": 1})
    two = code_cache.load_module(source, "f", {"captured": 2})
    assert (one.get(), two.get()) == (1, 2)
    assert one.__file__ == two.__file__


def test_damaged_file_is_written_again():
    source = "VALUE = 1\n"
    path = code_cache.path_for(source)
    path.parent.mkdir(parents=True)
    path.write_text("VALUE =")
    assert code_cache.load_module(source).VALUE == 1
    assert path.read_text() == source


def test_failed_module_is_not_remembered(cache):
    source = "import helion_module_that_is_not_there\n"
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError):
            code_cache.load_module(source)


def test_failed_write_leaves_nothing_behind(cache, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(code_cache.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        code_cache.load_module("x = 1\n")
    assert [p for p in cache.rglob("*") if p.is_file()] == []


def test_where_the_directory_cannot_be_written_code_goes_elsewhere_with_one_warning(cache, monkeypatch, caplog):
    # A file where the directory should be: unwritable for root as well, unlike permission bits.
    (cache / "file").write_text("")
    monkeypatch.setenv("HELION_CACHE_DIR", str(cache / "file" / "cache"))
    with caplog.at_level(logging.WARNING, "helion.runtime"):
        assert [code_cache.load_module(f"VALUE = {i}\n").VALUE for i in range(3)] == [0, 1, 2]
    assert caplog.text.count("set HELION_CACHE_DIR") == 1
    assert [p.name for p in cache.iterdir()] == ["file"]


def test_directories_that_cannot_be_written_serve_what_is_in_them(cache, monkeypatch, caplog):
    code_cache.load_module("VALUE = 7\n")
    code_cache.clear_modules()
    monkeypatch.setattr(code_cache, "replace_file", lambda *_: pytest.fail("written again"))
    assert code_cache.load_module("VALUE = 7\n").VALUE == 7


def test_files_have_the_usual_permissions(tmp_path):
    code_cache.replace_file(tmp_path / "new" / "mine.json", "{}")
    (tmp_path / "usual").write_text("")
    assert (tmp_path / "new" / "mine.json").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_threads_get_one_module():
    source = "import time\ntime.sleep(0.05)\nx = object()\n"
    found = []
    threads = [threading.Thread(target=lambda: found.append(code_cache.load_module(source))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1 and len(found) == 8


@pytest.mark.spawns
def test_processes_at_once_all_load_it(cache):
    program = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('cc', {code_cache.__file__!r})\n"
        "cc = importlib.util.module_from_spec(spec); spec.loader.exec_module(cc)\n"
        "for i in range(50):\n"
        "    assert cc.load_module(f'VALUE = {i}\\n' + '#' * 100000 + '\\n').VALUE == i\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(4)]
    assert [process.wait() for process in running] == [0, 0, 0, 0]
    assert not list(cache.rglob("*.tmp"))
