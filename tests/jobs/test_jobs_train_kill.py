"""Real processes killed at random moments, or stopped politely: what is trained is the same to the bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import tomli_w
from jobs_model import MODEL_SETTINGS, document, row, write_shards

from carnac.engine.state import read_state
from carnac.train.checkpoint import list_checkpoints

STEPS = 36
HERE = Path(__file__).parent


class Trainer:
    """The process that runs recipes in processes of their own."""

    def __init__(self) -> None:
        path = os.pathsep.join(str(folder) for folder in (HERE, HERE.parent / "model"))
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "jobs_training.py")],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, recipe: Path) -> int:
        """Start a run and return the number of its process."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{recipe}\n")
        self._process.stdin.flush()
        return int(self._line())

    def wait(self) -> int:
        """Return the exit status of the run under way, negative for the signal that killed it."""
        return int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def trainer() -> Iterator[Trainer]:
    found = Trainer()
    yield found
    found.close()


def make_recipe(folder: Path, shards: Path) -> Path:
    """Write a recipe of two sources whose runs take some seconds."""
    folder.mkdir()
    told: dict[str, Any] = {
        "job": "train",
        "plan": str(folder / "plan"),
        "output": str(folder / "model"),
        "source": [
            {"name": "pages", "shards": str(shards / "pages"), "weight": 0.7},
            {"name": "pairs", "shards": str(shards / "pairs"), "weight": 0.3},
        ],
        "tokenizer": {"vocabulary_size": 320},
        "pictures": {"size_px": 32, "patch_px": 16},
        "mix": {"row_tokens": 64, "rows_per_batch": 2, "ramp": [{"steps": 5, "rows_per_batch": 1}]},
        "model": MODEL_SETTINGS.model_dump(mode="json", exclude_none=True),
        "training": {
            "steps": STEPS,
            "threads": 1,
            "micro_rows": 1,
            "optimizer": {"learning_rate": 3e-3, "z_loss": 1e-4, "rates": {"vision": 1e-3}},
            "schedule": {"warmup_steps": 4},
            "checkpoints": {"every_steps": 5},
            "monitor": {"grounding_every_steps": 3},
        },
    }
    path = folder / "train.toml"
    path.write_text(tomli_w.dumps(told))
    return path


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_shards(
        folder / "pages", [document(number) for number in range(12)], [document(number) for number in (12, 13)]
    )
    write_shards(folder / "pairs", [row(f"p{number}", [document(number)["texts"][2]]) for number in range(8)])
    return folder


@pytest.fixture
def whole(shards: Path, trainer: Trainer) -> Path:
    """Return the recipe of a run that nobody disturbed."""
    folder = shards / "whole"
    if folder.exists():
        return folder / "train.toml"
    recipe = make_recipe(folder, shards)
    trainer.start(recipe)
    assert trainer.wait() == 0, (recipe.parent / "said.txt").read_text()
    return recipe


def steps_of(recipe: Path) -> list[dict[str, Any]]:
    path = recipe.with_name("steps.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def metrics_of(recipe: Path) -> list[dict[str, Any]]:
    lines = (recipe.parent / "model" / "metrics.jsonl").read_text().splitlines()
    timed = ("seconds", "waiting_seconds", "mfu")
    return [{name: value for name, value in json.loads(line).items() if name not in timed} for line in lines]


def wait_for(process: int, recipe: Path, steps: int) -> None:
    """Wait until a run has made so many steps, counted over all its processes."""
    while len(steps_of(recipe)) < steps:
        assert psutil.pid_exists(process), (recipe.parent / "said.txt").read_text()
        time.sleep(0.005)


def assert_equal(recipe: Path, whole: Path) -> None:
    """Assert that a run left what another one left: every batch, loss and norm on the way, the metrics, the weights."""
    wanted = {each["step"]: each for each in steps_of(whole)}
    found = steps_of(recipe)
    assert [each for each in found if each != wanted[each["step"]]] == []
    assert {each["step"] for each in found} == set(wanted)
    assert metrics_of(recipe) == metrics_of(whole)
    weights = [each.parent / "model" / "model.safetensors" for each in (recipe, whole)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_run_killed_at_random_moments_and_moved_equals_the_uninterrupted_one_to_the_bit(
    shards: Path, trainer: Trainer, whole: Path
) -> None:
    recipe = make_recipe(shards / "killed", shards)
    draws = random.Random(1)
    for attempt in range(3):
        process = trainer.start(recipe)
        wait_for(process, recipe, len(steps_of(recipe)) + draws.randint(1, 11))
        time.sleep(draws.random() * 0.05)
        os.kill(process, signal.SIGKILL)
        assert trainer.wait() == -signal.SIGKILL
        if attempt == 1:
            recipe = recipe.parent.rename(shards / "moved") / recipe.name
            recipe.write_text(recipe.read_text().replace("/killed/", "/moved/"))
    trainer.start(recipe)
    assert trainer.wait() == 0, (recipe.parent / "said.txt").read_text()
    assert_equal(recipe, whole)
    assert len(steps_of(recipe)) > STEPS  # something was done again, from a checkpoint
    assert "next pieces" in (recipe.parent / "said.txt").read_text()


def test_requests_to_save_and_to_stop_are_obeyed_and_leave_no_trace(
    shards: Path, trainer: Trainer, whole: Path
) -> None:
    recipe = make_recipe(shards / "asked", shards)
    output = recipe.parent / "model"
    process = trainer.start(recipe)
    wait_for(process, recipe, 2)
    (output / "save").touch()
    wait_for(process, recipe, 7)
    (output / "stop").touch()
    assert trainer.wait() == 0
    assert [path.name for path in output.iterdir() if path.name in ("save", "stop", "manifest.json")] == []
    done = len(steps_of(recipe))
    assert list_checkpoints(output / "checkpoints")[-1].name == f"step-{done:08d}"
    said = (recipe.parent / "said.txt").read_text()
    assert f"train: stopped before step {done} of {STEPS}, as the file {output / 'stop'} asked" in said
    state = read_state(output)
    assert state is not None
    assert "The same command goes on from there." in state.why_stopped
    for number in (signal.SIGTERM, signal.SIGINT):
        process = trainer.start(recipe)
        wait_for(process, recipe, len(steps_of(recipe)) + 2)
        os.kill(process, number)
        assert trainer.wait() == 130
        assert f"as {number.name} asked" in (recipe.parent / "said.txt").read_text()
    trainer.start(recipe)
    assert trainer.wait() == 0
    assert_equal(recipe, whole)
    # Nothing was done twice: every stop had saved.
    assert [each["step"] for each in steps_of(recipe)] == list(range(STEPS))
