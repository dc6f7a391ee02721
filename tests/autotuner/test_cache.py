"""Caches: files that are corrupt, shared, read-only or foreign; keys; the remote store."""

from __future__ import annotations

import http.server
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helion import exc
from helion.autotuner import api
from helion.autotuner.cache import Entry
from helion.autotuner.cache import LocalAutotuneCache
from helion.autotuner.cache import StrictLocalAutotuneCache
from helion.autotuner.cache_key import CacheKey
from helion.autotuner.remote_cache import HTTPStore
from helion.autotuner.remote_cache import RemoteAutotuneCache
from helion.config import Config
from tests.waiting import wait_until

KEY = CacheKey("add", "def add(x): ...", (("float32", (8, 8), (8, 1)), 3), "GPU sm_90 132 SMs")
ENTRY = Entry(Config(num_warps=8, block_sizes=[64, None, "x"]), 0.5, "note")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def cache(tmp_path: Path) -> LocalAutotuneCache:
    return LocalAutotuneCache(tmp_path / "tuned")


def test_what_was_put_is_got_by_another_cache_object(cache: LocalAutotuneCache) -> None:
    assert cache.get(KEY) is None
    cache.put(KEY, ENTRY)
    assert LocalAutotuneCache(cache.directory).get(KEY) == ENTRY


@pytest.mark.spawns
def test_the_digest_is_the_same_in_another_process() -> None:
    code = (
        f"from helion.autotuner.cache_key import CacheKey; print(CacheKey({KEY.kernel_name!r}, {KEY.source!r}, "
        f"{KEY.specialization!r}, {KEY.device!r}).digest())"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "12345"}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert other.stdout.strip() == KEY.digest()


@pytest.mark.parametrize(
    "change",
    [
        {"kernel_name": "sub"},
        {"source": "def add(y): ..."},
        {"specialization": (("float32", (8, 9), (9, 1)), 3)},
        {"specialization": (("float32", (8, 8), (8, 1)), True)},
        {"device": "GPU sm_100 148 SMs"},
        {"backend": "cute"},
        {"settings": {"fast_math": True}},
        {"versions": {"torch": "2.0"}},
    ],
)
def test_every_part_of_the_key_counts(change: dict[str, object]) -> None:
    import dataclasses

    assert dataclasses.replace(KEY, **change).digest() != KEY.digest()  # type: ignore[arg-type]


def test_a_patch_release_keeps_configs_but_not_strictly(
    cache: LocalAutotuneCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = StrictLocalAutotuneCache(cache.directory)
    monkeypatch.setattr("helion.autotuner.cache_key.torch.__version__", "2.13.0")
    cache.put(KEY, ENTRY)
    strict.put(KEY, ENTRY)
    monkeypatch.setattr("helion.autotuner.cache_key.torch.__version__", "2.13.1")
    assert cache.get(KEY) == ENTRY
    assert strict.get(KEY) is None
    monkeypatch.setattr("helion.autotuner.cache_key.torch.__version__", "2.14.0")
    assert cache.get(KEY) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"config": 3}', "\x00\xff", '{"config": {}, "format": 1, "time_ms": "fast"}']
)
def test_a_corrupt_file_counts_as_absent_and_is_replaced(cache: LocalAutotuneCache, text: str) -> None:
    cache.put(KEY, ENTRY)
    cache.path(KEY).write_bytes(text.encode("latin1"))
    assert cache.get(KEY) is None
    cache.put(KEY, ENTRY)
    assert cache.get(KEY) == ENTRY


def test_a_truncated_file_counts_as_absent(cache: LocalAutotuneCache) -> None:
    cache.put(KEY, ENTRY)
    whole = cache.path(KEY).read_bytes()
    for cut in range(0, len(whole) - 2, 37):
        cache.path(KEY).write_bytes(whole[:cut])
        assert cache.get(KEY) is None


def test_a_file_of_another_key_or_format_is_not_taken(cache: LocalAutotuneCache) -> None:
    cache.put(KEY, ENTRY)
    record = json.loads(cache.path(KEY).read_text())
    for change in ({"format": 99}, {"key": {**record["key"], "source": "other"}}):
        cache.path(KEY).write_text(json.dumps({**record, **change}))
        assert cache.get(KEY) is None


def test_writers_at_once_leave_one_whole_entry_and_no_scratch_files(cache: LocalAutotuneCache) -> None:
    entries = [Entry(Config(num_warps=w, filler="x" * 20000), float(w)) for w in range(16)]
    stop = threading.Event()
    seen: list[Entry | None] = []

    def read() -> None:
        while not stop.is_set():
            seen.append(cache.get(KEY))

    reader = threading.Thread(target=read)
    cache.put(KEY, entries[0])
    reader.start()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda e: cache.put(KEY, e), entries * 4))
    stop.set()
    reader.join()
    assert cache.get(KEY) in entries
    assert seen and all(entry in entries for entry in seen)
    assert [p.name for p in cache.directory.iterdir()] == [cache.path(KEY).name]


_TUNE_ONCE = """
import sys, time
from pathlib import Path
from helion.autotuner.cache import Entry, LocalAutotuneCache
from helion.autotuner.cache_key import CacheKey
from helion.config import Config
cache = LocalAutotuneCache(sys.argv[1])
key = CacheKey("add", "source", (1, 2), "device")
with cache.tuning(key):
    if cache.get(key) is None:
        with open(sys.argv[2], "a") as log:
            log.write("tuned\\n")
        time.sleep(0.5)
        cache.put(key, Entry(Config(num_warps=4)))
assert cache.get(key).config["num_warps"] == 4
"""


@pytest.mark.spawns
def test_processes_that_want_the_same_config_tune_it_once(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", _TUNE_ONCE, str(tmp_path / "tuned"), str(tmp_path / "log")]
    running = [subprocess.Popen(command, env=environment) for _ in range(3)]
    assert [p.wait() for p in running] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "tuned\n"


@pytest.mark.spawns
def test_the_lock_of_a_killed_process_is_free(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    code = _TUNE_ONCE.replace("time.sleep(0.5)", "time.sleep(600)")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "tuned"), str(tmp_path / "log")], env=environment
    )
    wait_until((tmp_path / "log").exists)
    holder.kill()
    holder.wait()
    cache = LocalAutotuneCache(tmp_path / "tuned", wait_seconds=10.0)
    key = CacheKey("add", "source", (1, 2), "device")
    with caplog.at_level(logging.WARNING, "helion.autotuner"), cache.tuning(key):
        pass
    assert "another process has been tuning" not in caplog.text


def test_waiting_for_another_tuner_ends(cache: LocalAutotuneCache, caplog: pytest.LogCaptureFixture) -> None:
    impatient = LocalAutotuneCache(cache.directory, wait_seconds=0.1)
    with cache.tuning(KEY), caplog.at_level(logging.WARNING, "helion.autotuner"), impatient.tuning(KEY):
        pass
    assert "another process has been tuning" in caplog.text


def test_an_unwritable_directory_is_reported_once_and_breaks_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # A file where the directory should be: unwritable for root as well, unlike permission bits.
    (tmp_path / "file").write_text("")
    cache = LocalAutotuneCache(tmp_path / "file" / "tuned")
    with caplog.at_level(logging.WARNING, "helion.autotuner"):
        with cache.tuning(KEY):
            cache.put(KEY, ENTRY)
            cache.put(KEY, ENTRY)
        assert cache.get(KEY) is None
    assert caplog.text.count("HELION_CACHE_DIR") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_permission_denied_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "tuned").mkdir(mode=0o500)
    with caplog.at_level(logging.WARNING, "helion.autotuner"):
        LocalAutotuneCache(tmp_path / "tuned").put(KEY, ENTRY)
    assert "HELION_CACHE_DIR" in caplog.text


def test_a_failed_write_leaves_the_old_entry(cache: LocalAutotuneCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.put(KEY, ENTRY)

    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    cache.put(KEY, Entry(Config(num_warps=1)))
    monkeypatch.undo()
    assert cache.get(KEY) == ENTRY
    assert len(list(cache.directory.iterdir())) == 1


def test_a_clock_that_goes_backwards_changes_nothing(
    cache: LocalAutotuneCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put(KEY, ENTRY)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    os.utime(cache.path(KEY), (4e9, 4e9))
    newer = Entry(Config(num_warps=1))
    assert cache.get(KEY) == ENTRY
    with cache.tuning(KEY):
        cache.put(KEY, newer)
    assert cache.get(KEY) == newer


def test_a_key_with_an_address_is_not_cached(cache: LocalAutotuneCache, caplog: pytest.LogCaptureFixture) -> None:
    key = CacheKey("add", "source", (object(),), "device")
    with caplog.at_level(logging.WARNING, "helion.autotuner"):
        cache.put(key, ENTRY)
    assert "address" in caplog.text and not cache.directory.exists()
    assert cache.get(key) is None


# -- remote ------------------------------------------------------------------------------------------


class DictStore:
    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.gets = 0

    def get(self, name: str) -> bytes | None:
        self.gets += 1
        return self.data.get(name)

    def put(self, name: str, data: bytes) -> None:
        self.data[name] = data


def test_two_hosts_share_configs_through_a_store(tmp_path: Path) -> None:
    store = DictStore()
    one, two = (RemoteAutotuneCache(store, tmp_path / name) for name in ("one", "two"))
    one.put(KEY, ENTRY)
    assert two.get(KEY) == ENTRY
    assert two.get(KEY) == ENTRY and store.gets == 1  # the second time from its own directory


def test_a_broken_store_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def get(self, name: str) -> bytes | None:
            raise ConnectionError("no route to host")

        put = get  # type: ignore[assignment]

    cache = RemoteAutotuneCache(Broken(), tmp_path)  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING, "helion.autotuner"):
        assert cache.get(KEY) is None
        cache.put(KEY, ENTRY)
    assert "no route to host" in caplog.text
    assert cache.get(KEY) == ENTRY


def test_garbage_in_the_store_is_a_warning(tmp_path: Path) -> None:
    store = DictStore()
    cache = RemoteAutotuneCache(store, tmp_path)
    store.put(cache.path(KEY).name, b"\xff{")
    assert cache.get(KEY) is None


@pytest.fixture
def server() -> Iterator[str]:
    data: dict[str, bytes] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = data.get(self.path)
            self.send_response(200 if found is not None else 404)
            self.end_headers()
            self.wfile.write(found or b"")

        def do_PUT(self) -> None:
            data[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_address[1]}/configs"
    made.shutdown()


def test_http_store(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = HTTPStore(server)
    assert store.get("nothing") is None
    store.put("name", b"value")
    assert store.get("name") == b"value"
    monkeypatch.setenv("HELION_REMOTE_CACHE", server)
    RemoteAutotuneCache(directory=tmp_path / "one").put(KEY, ENTRY)
    assert RemoteAutotuneCache(directory=tmp_path / "two").get(KEY) == ENTRY


def test_a_store_that_is_not_named_is_an_error_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELION_REMOTE_CACHE", "no_such_module:store")
    with pytest.raises(exc.InvalidAPIUsage, match="module:attribute"):
        RemoteAutotuneCache()


# -- names -------------------------------------------------------------------------------------------


def test_caches_are_found_by_name_and_a_wrong_name_lists_the_right_ones() -> None:
    assert isinstance(api.cache_named("StrictLocalAutotuneCache"), StrictLocalAutotuneCache)
    assert isinstance(api.cache_named("helion.autotuner.cache:LocalAutotuneCache"), LocalAutotuneCache)
    with pytest.raises(exc.InvalidAPIUsage, match="LocalAutotuneCache"):
        api.cache_named("Nope")
