from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from carnac.engine.progress import TerminalReporter

SCRIPT = Path(__file__).parent / "engine_script.py"
ESCAPE = "\x1b["
# What rich and continuous integration read; a test must not depend on where it runs.
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "TTY_COMPATIBLE", "NO_COLOR")},
    "TERM": "xterm-256color",
    "COLUMNS": "60",
}


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    return io.StringIO()


def _arguments(tmp_path: Path) -> list[str]:
    return [sys.executable, str(SCRIPT), str(tmp_path / "out"), str(tmp_path / "log"), "3", "2", "0", "0.1"]


def test_plain_lines_in_a_pipe(tmp_path: Path) -> None:
    done = subprocess.run(_arguments(tmp_path), check=True, capture_output=True, text=True, env=ENVIRONMENT)
    lines = done.stderr.splitlines()
    assert ESCAPE not in done.stderr + done.stdout
    assert "\r" not in done.stderr
    assert lines[0].startswith("numbers: 3/3 after ")
    assert lines[-1].startswith("numbers: 15 rows, ")
    assert len(done.stdout.split()) == 1, "what a program reads stays clean"


def test_a_bar_on_a_terminal(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    process = subprocess.Popen(_arguments(tmp_path), stdout=subprocess.DEVNULL, stderr=theirs, env=ENVIRONMENT)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:
        pass  # how Linux says that the other side of a terminal is closed
    finally:
        os.close(ours)
    assert process.wait(timeout=60) == 0
    text = shown.decode()
    assert ESCAPE in text
    assert "3/3" in text
    assert "numbers: 15 rows, " in text


def test_a_log_gets_a_line_now_and_then_and_always_the_last(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 1.0, 10.0, 11.0, 12.0])
    monkeypatch.setattr("carnac.engine.progress.time", SimpleNamespace(monotonic=lambda: next(clock)))
    with TerminalReporter(stream).task("signals", total=44, done=40) as task:
        task.advance(note="a")
        task.advance(note="b")
        task.advance(note="c")
        task.advance(note="d")
    assert stream.getvalue().splitlines() == [
        "signals: 42/44 after 10 s, about 10 s left  b",
        "signals: 44/44 after 12 s  d",
    ]


def test_lines_are_printed_as_they_are(stream: io.StringIO) -> None:
    line = "[bold]out/[/bold] :warning: " + "long " * 60
    TerminalReporter(stream).say(line)
    assert stream.getvalue() == line + "\n"


def test_a_terminal_too_gets_lines_as_they_are(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "isatty", lambda: True)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    reporter = TerminalReporter(stream)
    path = "out/" + "a-long-folder/" * 12
    reporter.say(f"[x] :warning: {path}")
    with reporter.task("signals", total=2) as task:
        task.advance(note="part")
        task.advance()
    assert f"[x] :warning: {path}\n" in stream.getvalue(), "a path broken over lines cannot be copied"
    assert "2/2" in stream.getvalue()
