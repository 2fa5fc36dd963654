"""The same calls on disks: other file systems, links, names, and what a network file system does otherwise."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from store_chain import files_of, write_recipes
from story_runs import carnac

from carnac.core.places import place_of
from carnac.engine.storage import commit, host, list_files, remove, sweep, temporary_path, write_file

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 -- another file system than that of the tests' folder


@pytest.mark.parametrize("refusal", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES])
def test_a_folder_that_cannot_be_flushed_commits_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: int
) -> None:
    flush = os.fsync

    def refuse_folders(handle: int) -> None:
        if Path(f"/proc/self/fd/{handle}").resolve().is_dir():
            raise OSError(refusal, os.strerror(refusal))
        flush(handle)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    write_file(tmp_path / "a", b"whole")
    assert list_files(tmp_path) == {"a": 5}


def test_a_file_that_cannot_be_flushed_is_not_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    temporary = temporary_path(tmp_path / "a")
    temporary.write_bytes(b"half")
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="Input/output"):
        commit(temporary, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_rename_whose_answer_got_lost_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.replace

    def rename_twice(self: Path, target: Path) -> Path:
        rename(self, target)
        return rename(self, target)  # as a client does that has heard nothing

    monkeypatch.setattr(Path, "replace", rename_twice)
    (tmp_path / "a").write_bytes(b"old")
    write_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    with pytest.raises(FileNotFoundError):
        commit(tmp_path / ".gone.tmp", tmp_path / "a")


def test_a_listing_bears_files_that_come_and_go(tmp_path: Path) -> None:
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            write_file(tmp_path / "there", b"12345")
            remove(tmp_path / "there")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(3000):
            assert list_files(tmp_path).get("there", 5) == 5
    finally:
        stop.set()
        thread.join()


def test_links_to_folders_are_followed_and_circles_end(tmp_path: Path) -> None:
    (tmp_path / "large disk").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "packs").symlink_to(tmp_path / "large disk")
    (tmp_path / "out" / "again").symlink_to(tmp_path / "out")
    write_file(tmp_path / "out" / "packs" / "a.tar", b"123")
    (tmp_path / "large disk" / f".b.{host()}.999999999.0.tmp").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    assert sweep(tmp_path / "link") == 1
    assert list_files(tmp_path / "link") == {"packs/a.tar": 3}


@pytest.mark.parametrize("place", ["a b/\u00e9t\u00e9 [1]", "x/../y", "linked/out", "shared memory", "url"])
def test_a_stage_is_done_wherever_its_folder_lies(tmp_path: Path, place: str) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "work" / "linked").symlink_to(tmp_path / "elsewhere")
    output = place
    if place == "shared memory":
        if not SHARED_MEMORY.is_dir() or SHARED_MEMORY.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("no second file system here")
        output = str(SHARED_MEMORY / f"carnac-test-{os.getpid()}" / "out")
    if place == "url":
        output = (tmp_path / "by url").as_uri()
    recipe = write_recipes(tmp_path / "work" / "recipes", output)[0]
    assert "2 of 2 units done" in carnac(tmp_path / "work", "run", recipe, "--limit", "5")
    assert "all done before" in carnac(tmp_path / "work", "run", recipe, "--limit", "5")
    folder = place_of(output) if "://" in output or output.startswith("/") else tmp_path / "work" / output
    assert isinstance(folder, Path)
    files = files_of(folder)
    assert {name.rpartition(".")[2] for name in files} == {"parquet", "json", "toml"}
    assert len(files) == 4
    for name in files:
        (folder / name).unlink()
