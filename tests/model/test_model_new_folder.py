"""Folders that commands write appear whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from carnac.core.errors import OutputError
from carnac.model.new_folder import check_free, new_folder

FULL = """
import resource, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from carnac.core.errors import OutputError
from carnac.model.new_folder import new_folder
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    with new_folder(Path(sys.argv[1])) as folder:
        save_file({"a": torch.zeros(10_000)}, folder / "model.safetensors")
except OutputError as error:
    print(error)
"""
KILLED = """
import os, signal, sys
from pathlib import Path
from carnac.model.new_folder import new_folder
with new_folder(Path(sys.argv[1])) as folder:
    (folder / "half").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def run(code: str, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, out], capture_output=True, text=True, check=False, timeout=120)


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "new" / "model"
    with new_folder(out) as folder:
        save_file({"a": torch.zeros(3)}, folder / "model.safetensors")
        (folder / "other").touch()
        assert not out.exists()
    assert {path.name for path in out.iterdir()} == {"model.safetensors", "other"}
    # A library that closes its files to others must not decide who reads a model.
    assert (out / "model.safetensors").stat().st_mode == (out / "other").stat().st_mode
    assert list(out.parent.iterdir()) == [out]


def test_nothing_is_left_of_a_folder_that_was_not_finished(tmp_path: Path) -> None:
    def stop_midway() -> None:
        with new_folder(tmp_path / "out") as folder:
            (folder / "half").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_midway()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    done = run(FULL, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{tmp_path / 'out'}: cannot be written (")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_swept_by_the_next_one(tmp_path: Path) -> None:
    assert run(KILLED, tmp_path / "out").returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    running = tmp_path / f".out.{os.getpid()}.other"
    running.mkdir()
    with new_folder(tmp_path / "out") as folder:
        (folder / "whole").touch()
    assert sorted(tmp_path.iterdir()) == sorted([running, tmp_path / "out"])


def test_a_place_that_cannot_be_replaced_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    with pytest.raises(OutputError, match="is a link"):
        check_free(tmp_path / "link")
    check_free(tmp_path / "empty")
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(OutputError, match="is the working folder"):
        check_free(Path())
    (tmp_path / "empty" / "file").touch()
    with pytest.raises(OutputError, match="is not empty"):
        check_free(tmp_path / "empty")
