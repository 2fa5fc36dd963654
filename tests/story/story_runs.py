"""Run carnac as a user does: as a command in a folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes" / "tiny"
DATA = [f"{part}-{name}.toml" for part, name in (("01", "crawl"), ("02", "images"), ("03", "curate"), ("04", "shards"))]
# The tiny chain made smaller still: a model of 0.3 M parameters, a dozen steps of two short rows.
SMALLER = {
    "tokenizer.vocabulary_size": 512,
    "pictures.size_px": 32,
    "mix.row_tokens": 128,
    "mix.rows_per_batch": 2,
    "model.vision.config.hidden_size": 32,
    "model.vision.config.intermediate_size": 64,
    "model.vision.config.num_hidden_layers": 1,
    "model.language.config.hidden_size": 48,
    "model.language.config.intermediate_size": 96,
    "model.language.config.num_hidden_layers": 2,
    "model.language.config.num_attention_heads": 4,
    "training.threads": 1,
    "training.steps": 12,
    "training.schedule.warmup_steps": 2,
    "training.checkpoints.every_steps": 4,
    "generation.max_new_tokens": 12,
    "num_prompts": 1,
}


def overrides(names: list[str]) -> list[str]:
    """Return the arguments that make the training, evaluation and chat recipes smaller."""
    keys = {
        "05-train.toml": ("tokenizer", "pictures", "mix", "model", "training"),
        "07-chat.toml": ("generation", "num"),
    }
    wanted = tuple(prefix for name in names for prefix in keys.get(name, ()))
    return [f"--set={key}={value}" for key, value in SMALLER.items() if key.startswith(wanted)] if wanted else []


def command(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start carnac in `folder`, in a session of its own so that a whole tree of processes can be killed."""
    return subprocess.Popen(
        [sys.executable, "-m", "carnac", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def carnac(folder: Path, *arguments: str, code: int = 0) -> str:
    """Run carnac in `folder` to its end and return what it printed."""
    process = command(folder, *arguments)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == code, out
    assert "Traceback" not in out, out
    return out


def run_recipes(folder: Path, names: list[str], *arguments: str) -> str:
    """Run recipes of `recipes/tiny` in `folder`, made smaller."""
    return carnac(folder, "run", *(str(RECIPES / name) for name in names), *overrides(names), *arguments)


def kill_tree(process: subprocess.Popen[str], when: Callable[[], bool]) -> bool:
    """Send SIGKILL to the process and all it started as soon as `when()`; False when it ended before."""
    while process.poll() is None:
        if when():
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return True
        time.sleep(0.002)
    process.communicate()
    return False


def digests(folder: Path) -> dict[str, list[str]]:
    """Return the content digest of every part of every stage: equal for equal rows in equal order."""
    found = {}
    for path in sorted(folder.rglob("manifest.json")):
        parts = json.loads(path.read_bytes())["parts"]
        found[str(path.parent.relative_to(folder))] = [f"{part['unit']} {part['digest']}" for part in parts]
    return found


def all_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of all parts that a stage's manifest lists."""
    parts = json.loads((folder / "manifest.json").read_bytes())["parts"]
    return [row for part in parts for row in pq.read_table(folder / part["file"]).to_pylist()]
