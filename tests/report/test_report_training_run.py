"""A real training run, seen while it works and after it was killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from report_conversations import conversation
from report_run import picture, write_stage
from selectolax.lexbor import LexborHTMLParser

from carnac.report.page import render
from carnac.report.story import Story, read_story
from carnac.report.text import describe

RECIPE = """
job = "train"
plan = "out/plan"
output = "out/model"

[[source]]
name = "words"
shards = "words"
weight = 1.0

[[source]]
name = "talks"
shards = "talks"
weight = 1.0

[tokenizer]
vocabulary_size = 300

[pictures]
size_px = 32
patch_px = 16

[mix]
row_tokens = 64
row_images = 4
rows_per_batch = 2
workers = 0

[model.vision]
type = "siglip_vision_model"
config = { hidden_size = 16, intermediate_size = 16, num_hidden_layers = 1, num_attention_heads = 2, patch_size = 16 }

[model.connector]
type = "mlp"

[model.language]
type = "llama"

[model.language.config]
hidden_size = 16
intermediate_size = 16
num_hidden_layers = 1
num_attention_heads = 2
num_key_value_heads = 2
max_position_embeddings = 64

[training]
steps = 3000
threads = 1
optimizer = { learning_rate = 1e-3 }
monitor = { grounding_every_steps = 5 }
checkpoints = { every_steps = 50 }
"""
PATIENCE_SECONDS = 120.0  # for what takes ten seconds on a quiet machine; only a failure waits so long


def _write(folder: Path) -> None:
    text = "The old mill turns in the evening, and the river carries its song past the gardens. "
    rows = [
        {
            "id": f"d{number}",
            "source": "words",
            "texts": [text * (1 + number % 3), None],
            "images": [None, {"bytes": picture(colour), "path": "a.png"}],
            "roles": [None, None],
            "metadata": "{}",
        }
        for number, colour in enumerate(["teal", "maroon", "navy", "olive"] * 3)
    ]
    write_stage(folder / "words", "shards", rows, counts={"samples": len(rows)})
    talks = [conversation(f"c{number}", payload=picture("red")) for number in range(6)]
    write_stage(folder / "talks", "shards", talks, counts={"samples": len(talks), "conversations": len(talks)})
    (folder / "train.toml").write_text(RECIPE)


def _start(folder: Path) -> subprocess.Popen[bytes]:
    code = "from carnac.cli import main; main()"
    command = [sys.executable, "-c", code, "run", "train.toml", "--workers", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # Nobody reads what it says: a pipe would fill, a file tells why a test failed.
    with (folder / "said.txt").open("ab") as said:
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )


def _wait_for(folder: Path, process: subprocess.Popen[bytes], condition: Callable[[Story], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not ((folder / "out").is_dir() and condition(read_story(folder))):
        said = (folder / "said.txt").read_text(errors="replace")
        assert process.poll() is None, said
        assert time.monotonic() < deadline, said
        time.sleep(0.1)


def _steps_at_least(number: int) -> Callable[[Story], bool]:
    return lambda story: bool(story.trainings) and len(story.trainings[0].current.series) >= number


def test_a_real_run_is_shown_at_work_and_killed(tmp_path: Path) -> None:
    _write(tmp_path)
    process = _start(tmp_path)
    try:
        _wait_for(tmp_path, process, _steps_at_least(60))
        text = describe(tmp_path)
        assert f"model (out/model): running: process {process.pid} on " in text
        assert re.search(r"^training: \d+ of 3,000 steps so far; loss [\d.]+ at step 0", text, re.MULTILINE)
        assert re.search(r"^  time: .* in steps, about .* to go$", text, re.MULTILINE)
        assert re.search(r"^  plan: 6,000 rows of [\d.]+ pieces, fill 0\.\d+", text, re.MULTILINE)
        assert re.search(r"^  words  +[\d.]+ % \(wanted 50 %\)", text, re.MULTILINE)
        tree = LexborHTMLParser(render(read_story(tmp_path)))
        assert {"Loss", "Loss by source", "Grounding", "Plan"} <= {node.text() for node in tree.css("h3")}
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    text = describe(tmp_path)
    assert f"model (out/model): stopped: process {process.pid} on " in text
    told = re.search(
        r"^  checkpoints: .*; the same command goes on from step (\d+)(: the (\d+) steps after)?", text, re.MULTILINE
    )
    assert told is not None
    (steps,) = re.findall(r"^training: ([\d,]+) of 3,000 steps so far", text, re.MULTILINE)
    assert int(steps.replace(",", "")) == int(told[1]) + int(told[3] or 0)
    assert int(told[1]) % 50 == 0
