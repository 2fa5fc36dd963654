"""What is shown of runs that work, were really killed, or failed: real processes, the real engine."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from report_run import write_documents, write_run
from report_script import commit_pages
from selectolax.lexbor import LexborHTMLParser

from carnac.engine.manifest import MANIFEST
from carnac.engine.state import STATE, RunState, read_state, write_state
from carnac.engine.storage import host
from carnac.report.folders import MAX_FOOTERS
from carnac.report.layout import clock
from carnac.report.page import render
from carnac.report.story import read_story
from carnac.report.text import describe

SCRIPT = Path(__file__).parent / "report_script.py"
PATIENCE_SECONDS = 60.0  # for what takes a second or two on a quiet machine; only a failure waits so long

_Process = subprocess.Popen[str]


def _start(output: Path, *units: str) -> _Process:
    arguments = [sys.executable, str(SCRIPT), str(output), *units]
    return subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, start_new_session=True)


def _run(output: Path, *units: str) -> int:
    process = _start(output, *units)
    process.communicate(timeout=PATIENCE_SECONDS)
    return process.returncode


def _kill(process: _Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=PATIENCE_SECONDS)


def _wait_for(folder: Path, condition: Callable[[RunState], bool]) -> RunState:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (state := read_state(folder)) is None or not condition(state):
        assert time.monotonic() < deadline, f"waited in vain: {state}"
        time.sleep(0.02)
    return state


def _at(state: RunState) -> list[str]:
    return sorted(unit.record for unit in state.running)


@pytest.fixture
def working(tmp_path: Path) -> Iterator[_Process]:
    """A run with one unit done, one at a record that hangs, one that lost two processes to a record and hangs too."""
    process = _start(tmp_path / "out" / "pages", "u0=a,b:refused", "u1=c,d:waits", "u2=e:abort,f:waits", "u3=g")
    try:
        _wait_for(tmp_path / "out" / "pages", lambda state: _at(state) == ["d", "f"] and state.num_done == 1)
        yield process
    finally:
        _kill(process)


def test_a_run_at_work_is_told_with_its_units(tmp_path: Path, working: _Process) -> None:
    text = describe(tmp_path / "out")
    lines = text.splitlines()
    assert lines[0].split() == ["stage", "folder", "state", "rows", "MB", "units", "seconds", "counts"]
    assert lines[1].split()[:4] == ["documents", "pages", "running", "1"]
    state = read_state(tmp_path / "out" / "pages")
    assert state is not None
    since = clock(state.started)
    assert f"documents (pages): running: process {working.pid} on {state.host} since {since}, 1 of 4 units" in text
    assert re.search(r"^  running: unit u1 since \d\d:\d\d:\d\d, at record d$", text, re.MULTILINE)
    # The record was tried with the others, then alone; then came the unit without it.
    assert re.search(r"^  running: unit u2 since \d\d:\d\d:\d\d, try 3, at record f$", text, re.MULTILINE)
    assert "was under way" not in text
    tree = LexborHTMLParser(render(read_story(tmp_path / "out")))
    assert "Under way" in [node.text() for node in tree.css("h2")]
    assert any(node.text().startswith("running: unit u1 since") for node in tree.css("p.grave"))


def test_a_killed_run_says_what_it_was_at_and_what_is_kept(tmp_path: Path, working: _Process) -> None:
    _kill(working)
    text = describe(tmp_path / "out" / "pages")
    assert re.search(rf"documents: stopped: process {working.pid} on \S+, began \S+, its last word was at \S+;", text)
    assert "; 1 of 4 units done. The same command goes on from there." in text
    assert "was under way: unit u1 since" in text
    assert "running" not in text
    assert text.splitlines()[1].split()[:4] == ["documents", ".", "stopped", "1"]
    # What is committed is told as of a finished stage: its loss, its row.
    assert "page_refused: 1 (50 %)" in text
    assert "sample a  a" in text


def test_records_that_killed_are_shown_before_and_after_their_unit_is_committed(
    tmp_path: Path, working: _Process
) -> None:
    _kill(working)
    output = tmp_path / "out" / "pages"
    text = describe(output)
    crashed = text.splitlines().index("  crashed: 1, not committed yet (unit u2)")
    assert text.splitlines()[crashed + 1 : crashed + 3] == [
        "    e  its process died (SIGABRT)",
        "    again: carnac run RECIPE --record e",
    ]
    assert "documents: 1 records lost of 2 tried" in text
    assert "not committed yet (unit u2)" in render(read_story(output))

    assert _run(output, "u0=a,b:refused", "u1=c,d", "u2=e:abort,f", "u3=g") == 0
    text = describe(output)
    assert "not committed" not in text
    assert "documents: 2 records lost of 7 tried (28.6 %)" in text
    assert "crashed: 1 (14.3 %)" in text
    assert not {"state", "stopped", "running"} & set(text.split())


def test_a_failed_unit_says_why(tmp_path: Path) -> None:
    output = tmp_path / "pages"
    assert _run(output, "u0=a", "u1=b,x:stray", "u2=c") == 1
    text = describe(output)
    assert text.splitlines()[1].split()[:4] == ["documents", ".", "failed", "2"]
    assert "; 2 of 3 units done, 1 failed. The same command goes on" in text
    assert "  failed: unit u1: ValueError: something outside any record (report_script.py:" in text
    assert "failed: unit u1" in render(read_story(tmp_path))
    assert describe(output, brief=True) == f"{output}: nothing to sum up yet."


def test_a_run_anew_is_told_beside_what_finished_before(tmp_path: Path) -> None:
    output = tmp_path / "pages"
    assert _run(output, "u0=a,b,c") == 0
    process = _start(output, "u0=a,b,c", "u1=d:waits")
    try:
        _wait_for(output, lambda state: _at(state) == ["d"])
        text = describe(output)
    finally:
        _kill(process)
    assert ", 1 of 2 units done. The figures shown are those of the run that finished here before." in text
    assert text.splitlines()[1].split()[:5] == ["documents", ".", "running", "3", "0.01"]


def test_a_run_that_was_killed_before_its_first_manifest_is_found_in_a_whole_run(tmp_path: Path) -> None:
    write_run(tmp_path)
    commit_pages(tmp_path / "more", "u0=a")
    write_state(tmp_path / "more", _dead(num_units=2))
    story = read_story(tmp_path)
    assert len(story.folders) == 14
    assert [(folder.name, folder.status) for folder in story.folders if folder.status != "done"] == [
        ("more", "stopped")
    ]
    assert [found.title for found in story.under_way] == ["documents (more)"]
    assert "more" in describe(tmp_path)
    assert "Under way" in render(story)


# -- how far it was


def _dead(num_units: int, num_done: int = 0, process: int | None = None) -> RunState:
    """The state of a process that is gone: this one's number with another beginning."""
    return RunState(
        stage="documents",
        host=host(),
        process=process or os.getpid(),
        process_started=1.0,
        started=time.time() - 60,
        updated=time.time() - 30,
        num_units=num_units,
        num_done=num_done,
    )


@pytest.mark.parametrize(
    ("committed", "num_units", "num_done", "told"),
    [
        (["u0=a", "u1=b"], 4, 0, 2),  # killed before it had said so: the parts know better
        (["u0=a", "u1=b"], 4, 2, 2),
        (["u0=a", "u1=b"], 4, 3, 3),  # parts were removed by hand since
        (["u0=a", "u1=b"], 1, 0, 0),  # more parts than units: of other settings, or of units done before these
        ([], 4, 0, 0),
    ],
)
def test_the_parts_tell_how_many_units_are_done(
    tmp_path: Path, committed: list[str], num_units: int, num_done: int, told: int
) -> None:
    commit_pages(tmp_path, *committed)
    write_state(tmp_path, _dead(num_units=num_units, num_done=num_done))
    assert f"; {told} of {num_units} units done." in describe(tmp_path)
    assert describe(tmp_path).splitlines()[1].split()[3] == str(len(committed))


def test_parts_without_a_manifest_and_without_a_run_are_told_when_asked_for(tmp_path: Path) -> None:
    commit_pages(tmp_path / "keys", "u0=a", "u1=b")
    text = describe(tmp_path / "keys")
    assert text.splitlines()[1].split()[:4] == ["documents", ".", "unfinished", "2"]
    assert "documents: not finished: no manifest and no run at work; 2 parts are committed." in text
    write_documents(tmp_path)
    assert [folder.name for folder in read_story(tmp_path).folders] == ["documents"]


def test_of_many_parts_without_a_manifest_the_first_are_read(tmp_path: Path) -> None:
    commit_pages(tmp_path, "u0=a")
    (part,) = tmp_path.iterdir()
    for number in range(MAX_FOOTERS + 4):
        (tmp_path / f"v{number:03d}-{number:016x}.parquet").hardlink_to(part)
    write_state(tmp_path, _dead(num_units=1000))
    text = describe(tmp_path)
    assert "; 205 of 1,000 units done." in text
    assert f"The figures shown are those of the first {MAX_FOOTERS} of its 205 parts." in text
    assert text.splitlines()[1].split()[3:6:2] == [str(MAX_FOOTERS), "205"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"stage": "x"}'])
def test_a_damaged_state_is_none(tmp_path: Path, content: bytes) -> None:
    write_documents(tmp_path)
    (tmp_path / "documents" / STATE).write_bytes(content)
    (folder,) = read_story(tmp_path).folders
    assert folder.status == "done"
    (tmp_path / "documents" / MANIFEST).unlink()
    (folder,) = read_story(tmp_path).folders
    assert (folder.status, folder.num_parts) == ("unfinished", 1)


def test_many_failed_units_are_cut_in_a_whole_run(tmp_path: Path) -> None:
    write_run(tmp_path)
    state = dataclasses.asdict(_dead(num_units=30))
    state["failed"] = [{"unit": f"u{number}", "why": "\x1b]0;owned\x07 no disk"} for number in range(20)]
    (tmp_path / "documents" / STATE).write_text(json.dumps(state))
    text = describe(tmp_path)
    assert text.count("  failed: unit u") == 5
    assert "  ... and 15 more" in text
    assert "\x1b" not in text
    assert describe(tmp_path / "documents").count("  failed: unit u") == 20
    assert render(read_story(tmp_path)).count("failed: unit u") == 20


def test_a_time_of_another_day_has_its_date() -> None:
    now = time.mktime((2026, 3, 4, 12, 0, 0, 0, 0, -1))
    assert clock(now - 60, now) == "11:59:00"
    assert clock(now - 24 * 3600, now) == "2026-03-03 12:00:00"
