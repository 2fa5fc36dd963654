"""`import carnac` and `carnac --help` load nothing heavy and open no socket."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PRELUDE = """
import sys, json
events = []
sys.addaudithook(lambda event, arguments: events.append(event) if event.startswith("socket.") else None)
"""
EPILOGUE = """
names = {name.partition(".")[0] for name in sys.modules}
print("\\n" + json.dumps({"modules": sorted(names), "sockets": events}))
"""
HELP = """
import runpy
sys.argv = ["carnac", *{arguments!r}]
try:
    runpy.run_module("carnac", run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert not end.code, end.code
"""
HEAVY = {
    "torch", "transformers", "tokenizers", "safetensors", "pyarrow", "PIL", "numpy", "duckdb", "matplotlib", "pydantic",
    "rich", "selectolax", "fastwarc", "aiohttp", "datasets", "multiprocessing", "asyncio",
}  # fmt: skip


@pytest.mark.parametrize(
    "body",
    ["import carnac", *(HELP.format(arguments=words) for words in (["--help"], ["--version"], ["run", "--help"]))],
    ids=["import", "--help", "--version", "run --help"],
)
def test_nothing_heavy_is_loaded_and_no_socket_is_opened(body: str) -> None:
    command = [sys.executable, "-c", PRELUDE + body + EPILOGUE]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seen = json.loads(done.stdout.splitlines()[-1])
    assert "carnac" in seen["modules"]
    assert HEAVY & set(seen["modules"]) == set()
    assert seen["sockets"] == []


def test_the_watch_sees_what_it_should() -> None:
    body = "import numpy, socket\nsocket.socket().close()"
    done = subprocess.run([sys.executable, "-c", PRELUDE + body + EPILOGUE], check=True, capture_output=True, text=True)
    seen = json.loads(done.stdout.splitlines()[-1])
    assert "numpy" in seen["modules"]
    assert seen["sockets"] == ["socket.__new__"]
