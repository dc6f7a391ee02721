"""The rule of files on disk: whose are believed, and what may be there instead of a file."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

import pytest

from helion.runtime import cache_files
from helion.runtime.cache_files import Untrusted
from helion.runtime.cache_files import read_file
from helion.runtime.cache_files import replace_file


@pytest.fixture(autouse=True)
def forget_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_files, "_warned", set())


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _give_to(monkeypatch: pytest.MonkeyPatch, user: int) -> None:
    """Every file belongs to this user from now on, as root tests it; without root, by what the system says."""
    monkeypatch.setattr(os, "geteuid", lambda: user)


def test_a_cache_that_helion_makes_is_private(tmp_path: Path) -> None:
    root = tmp_path / "home" / "cache"
    replace_file(root / "code" / "ab" / "f.py", "x", root=root)
    assert [_mode(p) for p in (root, root / "code", root / "code" / "ab")] == [0o700] * 3


def test_a_cache_that_is_open_to_readers_stays_so_and_never_gets_open_to_writers(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    root.mkdir()
    root.chmod(0o775)
    replace_file(root / "code" / "f.py", "x", root=root)
    assert _mode(root / "code") & 0o777 == 0o755
    assert _mode(root / "code" / "f.py") & 0o022 == 0


def test_files_of_the_users_own_have_the_usual_permissions(tmp_path: Path) -> None:
    replace_file(tmp_path / "new" / "mine.json", "{}")
    (tmp_path / "usual").write_text("")
    assert _mode(tmp_path / "new" / "mine.json") == _mode(tmp_path / "usual")


@pytest.mark.parametrize("mode", [0o666, 0o664, 0o622])
def test_a_binary_that_others_can_write_is_not_read(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "kernel.cubin"
    file.write_bytes(b"code")
    file.chmod(mode)
    with pytest.raises(Untrusted, match=r"others can write"):
        read_file(file, binary=True)
    assert read_file(file) == b"code"


def test_a_binary_of_another_user_is_not_read_and_one_of_root_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "kernel.cubin"
    file.write_bytes(b"code")
    assert read_file(file, binary=True) == b"code"
    owner = file.stat().st_uid
    _give_to(monkeypatch, owner + 1)
    if owner == 0:
        assert read_file(file, binary=True) == b"code"
        os.chown(file, 12345, -1)
    with pytest.raises(Untrusted, match="belongs to user"):
        read_file(file, binary=True)


def test_a_directory_that_others_can_write_gets_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a").write_text("1")
    with caplog.at_level(logging.WARNING, "helion.runtime"):
        read_file(tmp_path / "a")
        assert caplog.text == ""
        tmp_path.chmod(0o777)
        read_file(tmp_path / "a")
        read_file(tmp_path / "a")
    assert caplog.text.count("chmod go-w") == 1


def test_a_link_in_place_of_a_file_is_neither_followed_nor_written_through(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    link = tmp_path / "cache" / "f.json"
    link.parent.mkdir()
    link.symlink_to(target)
    with pytest.raises(OSError):
        read_file(link)
    replace_file(link, "new", root=tmp_path / "cache")
    assert target.read_text() == "precious" and read_file(link) == b"new"


def test_a_linked_cache_directory_is_followed(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "scratch")
    replace_file(tmp_path / "cache" / "code" / "f.py", "x", root=tmp_path / "cache")
    assert read_file(tmp_path / "scratch" / "code" / "f.py") == b"x"


def test_a_pipe_or_a_directory_in_place_of_a_file_is_an_error_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    for name in ("pipe", "directory"):
        with pytest.raises(OSError):
            read_file(tmp_path / name)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(cache_files.MOST_BYTES + 1)
    with pytest.raises(OSError, match="bytes"):
        read_file(tmp_path / "huge")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_file(tmp_path / "f", "old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        replace_file(tmp_path / "f", "new")
    assert [p.name for p in tmp_path.iterdir()] == ["f"] and (tmp_path / "f").read_text() == "old"


def test_without_a_home_there_is_still_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("HELION_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert cache_files.cache_dir().name == f"helion-{os.getuid()}"
