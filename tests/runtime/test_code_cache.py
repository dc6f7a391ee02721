"""Generated source on disk: one text, one file, one module; safe with several processes."""

from __future__ import annotations

import importlib.util
import inspect
import logging
import os
import py_compile
import subprocess
import sys
import threading

import pytest

from helion.runtime import cache_files
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


def _compiled_file(path, source):
    """`__pycache__` of a file as Python would find it valid, made from another source of the same size."""
    pyc = importlib.util.cache_from_source(str(path))
    status = path.stat()
    original = path.read_text()
    path.write_text(source)
    os.utime(path, (status.st_atime, status.st_mtime))
    py_compile.compile(str(path), pyc)
    path.write_text(original)
    os.utime(path, (status.st_atime, status.st_mtime))
    return pyc


@pytest.mark.parametrize("globals", [None, {}])
def test_compiled_files_beside_the_source_do_not_run(globals):
    source = "VALUE = 'mine'\n"
    code_cache.load_module(source)
    path = code_cache.path_for(source)
    pyc = _compiled_file(path, "VALUE = 'evil'\n")
    code_cache.clear_modules()
    # It is what an import would have run:
    spec = importlib.util.spec_from_file_location("imported", path)
    imported = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(imported)
    assert imported.VALUE == "evil"
    assert code_cache.load_module(source, globals=globals).VALUE == "mine"
    code_cache.clear_modules()
    with open(pyc, "r+b") as file:
        file.truncate(20)
    assert code_cache.load_module(source, globals=globals).VALUE == "mine"


def test_a_file_that_is_changed_after_it_ran_does_not_change_what_is_read_of_it():
    source = "def f():\n    return 'mine'\n"
    function = code_cache.load_module(source).f
    code_cache.path_for(source).write_text("def f():\n    return 'evil'\n")
    assert inspect.getsource(function) == source


def test_failed_module_is_not_remembered(cache):
    source = "import helion_module_that_is_not_there\n"
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError):
            code_cache.load_module(source)


def test_on_a_full_disk_code_runs_and_nothing_is_left_behind(cache, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(cache_files.os, "replace", fail)
    assert code_cache.load_module("x = 1\n").x == 1
    assert [p for p in cache.rglob("*") if p.is_file()] == []


def test_where_the_directory_cannot_be_written_code_runs_without_a_file_and_with_one_warning(
    cache, monkeypatch, caplog
):
    # A file where the directory should be: unwritable for root as well, unlike permission bits.
    (cache / "file").write_text("")
    monkeypatch.setenv("HELION_CACHE_DIR", str(cache / "file" / "cache"))
    with caplog.at_level(logging.WARNING, "helion.runtime"):
        assert [code_cache.load_module(f"VALUE = {i}\n").VALUE for i in range(3)] == [0, 1, 2]
    assert caplog.text.count("set HELION_CACHE_DIR") == 1
    function = code_cache.load_module("def f():\n    return 1\n").f
    assert inspect.getsource(function) == "def f():\n    return 1\n"
    assert [p.name for p in cache.iterdir()] == ["file"]


def test_directories_that_cannot_be_written_serve_what_is_in_them(cache, monkeypatch, caplog):
    code_cache.load_module("VALUE = 7\n")
    code_cache.clear_modules()
    monkeypatch.setattr(code_cache, "replace_file", lambda *_: pytest.fail("written again"))
    assert code_cache.load_module("VALUE = 7\n").VALUE == 7


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
        "import importlib, os, sys, types\n"
        # Without importing PyTorch, which would take longer than what is tested here.
        f"folder = {os.path.dirname(code_cache.__file__)!r}\n"
        "for name, path in (('p', os.path.dirname(folder)), ('p.runtime', folder)):\n"
        "    sys.modules[name] = types.ModuleType(name); sys.modules[name].__path__ = [path]\n"
        "cc = importlib.import_module('p.runtime.code_cache')\n"
        "for i in range(50):\n"
        "    assert cc.load_module(f'VALUE = {i}\\n' + '#' * 100000 + '\\n').VALUE == i\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(4)]
    assert [process.wait() for process in running] == [0, 0, 0, 0]
    assert not list(cache.rglob("*.tmp"))
