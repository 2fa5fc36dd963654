"""Folders of training runs for the tests of their pages, written by what writes real ones."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from report_run import write_stage

from carnac.engine.state import RunState, write_state
from carnac.engine.storage import host
from carnac.train.metrics import GroundingRecord, MetricsFile, SourceRecord, StepRecord


def step_record(step: int, **changes: Any) -> StepRecord:
    """A step of two sources; every tenth is looked at for grounding, every twentieth evaluated."""
    web = SourceRecord(loss=4.0 - step / 50, label_tokens=60, tokens=80, images=1)
    shapes = SourceRecord(loss=3.0, label_tokens=30, tokens=40, images=2)
    told: dict[str, Any] = {
        "step": step,
        "loss": 5.0 - step / 50,
        "learning_rate": 1e-3,
        "gradient_norm": 0.5 + step % 2,
        "label_tokens": 90,
        "tokens": 120,
        "images": 3,
        "pieces": 4,
        "seconds": 0.5,
        "waiting_seconds": 0.05,
        "rows": 2,
        "sources": {"web": web, "shapes": shapes},
        "flops": 1e12,
        "grounding": GroundingRecord(right=3.0, other=3.25, label_tokens=40) if step % 10 == 0 else None,
        "evaluation": {"heldout_loss": 4.5 - step / 100} if step % 20 == 19 else None,
    }
    return StepRecord(**(told | changes))


def write_steps(folder: Path, steps: range, **changes: Any) -> None:
    """Append steps to the metrics of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    with MetricsFile(folder / "metrics.jsonl") as metrics:
        for step in steps:
            metrics.append(step_record(step, **changes))


def settings_of(steps: int, **more: Any) -> dict[str, Any]:
    """The settings behind a run, as its checkpoints and its manifest have them."""
    training = {"steps": steps, "optimizer": {"clip_norm": 1.0}}
    return {"training": training, "mix": {"row_tokens": 64, "rows_per_batch": 4}, **more}


def _write_model(folder: Path) -> None:
    (folder / "config.json").write_text("{}")


def write_checkpoint_at(folder: Path, step: int, settings: Mapping[str, Any]) -> Path:
    """Save a model of one layer, its parts at two rates, and return the checkpoint's folder."""
    import torch

    from carnac.train.checkpoint import Parts, RunState, write_checkpoint

    model = torch.nn.Linear(2, 2)
    groups = [
        {"params": [model.weight], "part": "connector", "lr": 1e-3},
        {"params": [model.bias], "part": "language", "lr": 1e-4},
    ]
    parts = Parts(
        model=model,
        optimizer=torch.optim.AdamW(groups),
        write_model=_write_model,
        read_model=lambda _: None,
    )
    state = RunState(next_step=step, key="k" * 64, settings=settings)
    return write_checkpoint(folder / "checkpoints", parts, state, keep_last=100)


def finish(folder: Path, steps: int, **more: Any) -> None:
    """Commit the model of a run, as its last deed."""
    rows = [{"step": step, "loss": 1.0} for step in range(steps)]
    write_stage(folder, "model", rows, settings=settings_of(steps, **more))


def at_work(folder: Path, *, is_alive: bool, why_stopped: str = "") -> None:
    """Say that a run works in a folder: this process, or one that is gone."""
    started = psutil.Process().create_time() if is_alive else 1.0
    state = RunState(
        stage="model",
        host=host(),
        process=os.getpid(),
        process_started=started,
        started=time.time() - 60,
        updated=time.time() - 1,
        num_units=1,
        num_done=0,
        why_stopped=why_stopped,
    )
    write_state(folder, state)


def write_plan(
    folder: Path, sources: Sequence[Mapping[str, Any]], counts: Mapping[str, int], first_row: int = 0
) -> None:
    """Write the manifest of a plan's rows."""
    piece = {"source": "web", "shard": "web/a", "row": 0, "start": 0, "stop": 50, "images": 1}
    row = {"epoch": 0, "tokens": 50, "images": 1, "labels": 40, "pieces": [piece]}
    mix = {"row_tokens": 64, "row_images": 8, "pieces_per_block": 4096, "seed": 0}
    settings = {"mix": mix, "sources": list(sources), "num_rows": 4, "first_row": first_row}
    write_stage(folder / "rows", "plan", [row] * 4, counts=counts, settings=settings)


def keep_recipe_of(folder: Path, names: Sequence[str]) -> None:
    """Keep a recipe with these stages beside a finished run."""
    stages = "".join(f"\n[[stage]]\nname = {json.dumps(name)}\n" for name in names)
    (folder / "recipe.toml").write_text(f'job = "train"\n{stages}')
