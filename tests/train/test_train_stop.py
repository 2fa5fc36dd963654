"""Requests to save or stop: files, and signals to a real process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from carnac.train.stop import Requests

PROGRAM = """
import signal, sys, time
from pathlib import Path
from carnac.train.stop import Requests

def ended(number, frame):
    print("before", number, flush=True)
    sys.exit(7)

signal.signal(signal.SIGTERM, ended)
with Requests(Path(sys.argv[1])) as requests:
    print("listening", flush=True)
    while requests.pending() is None:
        time.sleep(0.01)
    print(requests.pending(), requests.asker, flush=True)
    if sys.argv[2] == "linger":
        time.sleep(60)
    requests.end_as_asked()
print("went on", flush=True)
"""


def start(folder: Path, how: str = "end") -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder), how], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "listening\n"
    return process


def test_files_ask_and_are_removed_when_obeyed(tmp_path: Path) -> None:
    with Requests(tmp_path) as requests:
        assert requests.pending() is None
        (tmp_path / "save").touch()
        assert requests.pending() == "save"
        (tmp_path / "stop").touch()
        assert requests.pending() == "stop"
        assert requests.asker == f"the file {tmp_path / 'stop'}"
        requests.settle()
        assert requests.pending() is None
        assert list(tmp_path.iterdir()) == []


def test_the_first_signal_asks_and_the_end_is_as_it_was_without_training(tmp_path: Path) -> None:
    process = start(tmp_path)
    process.terminate()
    assert process.communicate(timeout=30)[0] == "stop SIGTERM\nbefore 15\n"
    assert process.returncode == 7


def test_ctrl_c_asks_too_and_ends_with_a_keyboard_interrupt(tmp_path: Path) -> None:
    process = start(tmp_path)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[0] == "stop SIGINT\n"
    assert process.returncode == -signal.SIGINT


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    process = start(tmp_path, "linger")
    process.terminate()
    assert process.stdout is not None
    assert process.stdout.readline() == "stop SIGTERM\n"
    process.terminate()
    assert process.communicate(timeout=30)[0] == "before 15\n"
    assert process.returncode == 7


def test_a_file_ends_nothing_by_itself(tmp_path: Path) -> None:
    process = start(tmp_path)
    (tmp_path / "stop").touch()
    assert process.communicate(timeout=30)[0] == f"stop the file {tmp_path / 'stop'}\nwent on\n"
    assert process.returncode == 0


def test_signals_are_heard_as_before_afterwards(tmp_path: Path) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _: heard.append(number))
    try:
        with Requests(tmp_path) as requests:
            os.kill(os.getpid(), signal.SIGHUP)
            assert requests.signal == signal.SIGHUP
            assert heard == []
        os.kill(os.getpid(), signal.SIGHUP)
        assert heard == [signal.SIGHUP]
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ignored_signals_stay_ignored_and_another_thread_hears_files_only(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Requests(tmp_path) as requests:
            os.kill(os.getpid(), signal.SIGHUP)
            assert requests.pending() is None
    finally:
        signal.signal(signal.SIGHUP, before)
    found: list[object] = []

    def listen() -> None:
        with Requests(tmp_path) as requests:
            found.append(requests.pending())
            (tmp_path / "save").touch()
            found.append(requests.pending())

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert found == [None, "save"]


@pytest.mark.parametrize("name", ["save", "stop"])
def test_no_file_is_left_where_none_was(tmp_path: Path, name: str) -> None:
    with Requests(tmp_path) as requests:
        requests.settle()
    assert not (tmp_path / name).exists()
