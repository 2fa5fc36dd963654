"""Checkpoints: folders `step-00000100/`, each whole or not there, from which a run goes on to the bit.

    the model's own files   as `Parts.write_model` writes them, so that a checkpoint is a model folder too
    optimizer.safetensors   `exp_avg/NAME`, `exp_avg_sq/NAME`, `step/NAME` of each trained parameter
    state.json              next step, key of the run, learning rate, a digest per file, norms

All is written into a hidden folder, synced, and committed by one rename. What a killed process left is swept.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from carnac.core.errors import InputError

FORMAT = "carnac-checkpoint-1"
STATE_FILE = "state.json"
OPTIMIZER_FILE = "optimizer.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq", "step")
_NAME = re.compile(r"step-\d{8,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a checkpoint saves and restores. The model's files are the business of whoever made the model."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    write_model: Callable[[Path], None]
    read_model: Callable[[Path], None]


def checkpoint_name(next_step: int) -> str:
    """Return the folder name of the checkpoint from which `next_step` comes next."""
    return f"step-{next_step:08d}"


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the committed checkpoints of a run, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(
        (path for path in folder.iterdir() if _NAME.fullmatch(path.name)), key=lambda path: int(path.name[5:])
    )


def sweep(folder: Path) -> None:
    """Remove what killed processes left half written or half removed. One process at a time trains in a folder."""
    if folder.is_dir():
        for path in folder.glob(".step-*"):
            shutil.rmtree(path)


def write_checkpoint(
    folder: Path, parts: Parts, next_step: int, *, key: str, learning_rate: float, keep_last: int
) -> Path:
    """Commit the checkpoint before `next_step` and drop all but the `keep_last` newest; return its folder.

    `key` identifies the run (its settings and inputs); `learning_rate` is that of the step just made.
    """
    from safetensors.torch import save_file

    final = folder / checkpoint_name(next_step)
    partial = folder / f".{final.name}-{os.getpid()}"
    partial.mkdir(parents=True)
    parts.write_model(partial)
    save_file(optimizer_tensors(parts), partial / OPTIMIZER_FILE)
    state = {
        "format": FORMAT,
        "step": next_step,
        "key": key,
        "learning_rate": learning_rate,
        "norms": norms(parts),
        "digests": {path.name: _digest(path) for path in sorted(partial.iterdir())},
    }
    (partial / STATE_FILE).write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
    for path in (*partial.iterdir(), partial):
        _sync(path)
    _remove(final)
    partial.rename(final)
    _sync(folder)
    for old in list_checkpoints(folder)[:-keep_last]:
        _remove(old)
    return final


def latest(folder: Path) -> Path | None:
    """Return the newest checkpoint of a run, or None; raise InputError, offering an older one, where it is damaged."""
    checkpoints = list_checkpoints(folder)
    if not checkpoints:
        return None
    try:
        read_state(checkpoints[-1])
    except InputError as error:
        good = next((path.name for path in reversed(checkpoints[:-1]) if _is_whole(path)), None)
        offer = f"the last good one is {good}" if good else "there is no older one: the run starts again"
        raise InputError(f"{error}. Remove {checkpoints[-1]} to go on without it; {offer}") from error
    return checkpoints[-1]


def read_state(path: Path) -> dict[str, Any]:
    """Return `state.json` of a checkpoint once every file's digest is found right; raise InputError naming the file."""
    try:
        state = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path / STATE_FILE}: missing or damaged ({error})") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise InputError(f"{path / STATE_FILE}: not the state of a carnac checkpoint (wanted format {FORMAT})")
    for name, digest in state["digests"].items():
        file = path / name
        if not file.is_file():
            raise InputError(f"{file}: missing from the checkpoint")
        if _digest(file) != digest:
            raise InputError(f"{file}: damaged: its sha256 is not the one written in {STATE_FILE}")
    return state


def restore_optimizer(parts: Parts, path: Path) -> None:
    """Copy the moments of a checkpoint into the optimizer; raise InputError unless they fit its parameters."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = path / OPTIMIZER_FILE
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{file}: damaged or not a safetensors file ({error})") from error
    named = _trained(parts)
    unknown = sorted(name for name in tensors if name.partition("/")[2] not in named)
    if unknown:
        raise InputError(f"{file}: moments of another model: {len(unknown)} unknown, first {unknown[0]}")
    for name in sorted({name.partition("/")[2] for name in tensors}):
        state = {moment: tensors.get(f"{moment}/{name}") for moment in MOMENTS}
        shapes = {None if tensor is None else tuple(tensor.shape) for tensor in (state["exp_avg"], state["exp_avg_sq"])}
        if state["step"] is None or shapes != {tuple(named[name].shape)}:
            raise InputError(f"{file}: moments of another model: those of {name} are missing or of another shape")
        parts.optimizer.state[named[name]] = state


def optimizer_tensors(parts: Parts) -> dict[str, torch.Tensor]:
    """Return the optimizer's moments by `MOMENT/NAME`; a parameter that never had a gradient has none."""
    return {
        f"{moment}/{name}": parts.optimizer.state[parameter][moment]
        for name, parameter in _trained(parts).items()
        if parameter in parts.optimizer.state
        for moment in MOMENTS
    }


def norms(parts: Parts) -> dict[str, float]:
    """Return the Euclidean lengths, in float64, of all weights and of all moments of each kind."""
    tensors = optimizer_tensors(parts)
    lengths = {"weights": _length([parameter.detach() for parameter in parts.model.parameters()])}
    for moment in MOMENTS[:2]:
        lengths[moment] = _length([tensor for name, tensor in tensors.items() if name.startswith(f"{moment}/")])
    return lengths


def _trained(parts: Parts) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in parts.model.named_parameters() if parameter.requires_grad}


def _length(tensors: list[torch.Tensor]) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))


def _is_whole(path: Path) -> bool:
    try:
        read_state(path)
    except InputError:
        return False
    return True


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _remove(path: Path) -> None:
    # Out of sight by one rename first: a kill inside rmtree must not leave a committed checkpoint with missing files.
    if path.exists():
        hidden = path.with_name(f".{path.name}-old-{os.getpid()}")
        path.rename(hidden)
        shutil.rmtree(hidden)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
