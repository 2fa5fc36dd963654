"""Checkpoints: folders `step-00000100/`, each whole or not there, from which a run goes on to the bit.

    the model's own files   as `Parts.write_model` writes them, so that a checkpoint is a model folder too
    optimizer.safetensors   `exp_avg/NAME`, `exp_avg_sq/NAME`, `step/NAME` of each trained parameter
    state.json              what the run is (`RunState`), its learning rates, norms, a digest per file and of itself,
                            what computed it

All is written into a hidden folder, synced, and committed by one rename. What a killed process left is swept. No path
is stored: a run's folder can be moved.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from carnac.core.batch import Piece
from carnac.core.errors import InputError
from carnac.engine.storage import sha256_of
from carnac.train.optimizer import rates_now
from carnac.train.run_folder import CHECKPOINT_NAME, STATE_FILE, checkpoint_name, step_of

FORMAT = "carnac-checkpoint-2"
OPTIMIZER_FILE = "optimizer.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a checkpoint saves and restores. The model's files are the business of whoever made the model."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    write_model: Callable[[Path], None]
    read_model: Callable[[Path], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanPosition:
    """Where in its plan a run is: the plan's digest, the next row of it, and `digest_pieces` of the next batch."""

    digest: str
    next_row: int
    next_pieces: str = ""  # nothing comes after the last batch


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """What a run is before `next_step`, apart from its weights: written when it is saved, compared when it goes on.

    `key` identifies the run (its settings and inputs). `settings` are those behind the key, as JSON, so that a
    difference can be named. `random` is the seed of the next step.
    """

    next_step: int
    key: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    plan: PlanPosition | None = None
    random: int | None = None


def digest_pieces(pieces: Iterable[Piece]) -> str:
    """Return a digest of pieces in their order: of which sample each is, and which of its tokens."""
    lines = (f"{each.source}\t{each.shard}\t{each.row}\t{each.start}\t{each.stop}\n" for each in pieces)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the committed checkpoints of a run, oldest first."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if CHECKPOINT_NAME.fullmatch(path.name)), key=step_of)


def sweep(folder: Path) -> None:
    """Remove what killed processes left half written or half removed. One process at a time trains in a folder."""
    if folder.is_dir():
        for path in folder.glob(".step-*"):
            shutil.rmtree(path)


def write_checkpoint(
    folder: Path, parts: Parts, state: RunState, *, keep_last: int, keep_every: int | None = None
) -> Path:
    """Commit the checkpoint before `state.next_step` and return its folder.

    Of the others the `keep_last` newest stay, this one counted, and those of multiples of `keep_every` steps. The
    learning rates are those that the optimizer has: of the step just made. Raises what the disk raises; nothing is left
    of the checkpoint then.
    """
    final = folder / checkpoint_name(state.next_step)
    partial = folder / f".{final.name}-{os.getpid()}"
    partial.mkdir(parents=True)
    try:
        _write_files(partial, parts, state)
    except BaseException:
        # A disk that is full must not stay full because of it.
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _remove(final)
    partial.rename(final)
    _sync(folder)
    for old in list_checkpoints(folder)[:-keep_last]:
        if keep_every is None or step_of(old) % keep_every:
            _remove(old)
    return final


def _write_files(folder: Path, parts: Parts, state: RunState) -> None:
    from safetensors.torch import save_file

    parts.write_model(folder)
    save_file(optimizer_tensors(parts), folder / OPTIMIZER_FILE)
    content = {
        "format": FORMAT,
        "step": state.next_step,
        "key": state.key,
        "settings": state.settings,
        "plan": None if state.plan is None else asdict(state.plan),
        "random": state.random,
        "computed_by": computed_by(parts),
        "rates": rates_now(parts.optimizer),
        "norms": norms(parts),
        "digests": {path.name: sha256_of(path) for path in sorted(folder.iterdir())},
    }
    write_state(folder, content)
    for path in (*folder.iterdir(), folder):
        _sync(path)


def write_state(folder: Path, content: Mapping[str, Any]) -> None:
    """Write `state.json` with a digest of its own content, by which `read_state` knows it again."""
    text = json.dumps({**content, "sha256": _own_digest(content)}, indent=2)
    (folder / STATE_FILE).write_text(text + "\n", encoding="utf-8")


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
    file = path / STATE_FILE
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: missing or damaged ({error})") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        got = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise InputError(f"{file}: not the state of a carnac checkpoint (format {got!r}, wanted {FORMAT!r})")
    if state.pop("sha256", None) != _own_digest(state):
        raise InputError(f"{file}: damaged or edited: its content is not what was written")
    for name, digest in state["digests"].items():
        found = path / name
        if not found.is_file():
            raise InputError(f"{found}: missing from the checkpoint")
        if sha256_of(found) != digest:
            raise InputError(f"{found}: damaged: its sha256 is not the one written in {STATE_FILE}")
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
        # Moments lie where their weights do, the count of steps too: AdamW is fused.
        device = named[name].device
        parts.optimizer.state[named[name]] = {moment: tensors[f"{moment}/{name}"].to(device) for moment in MOMENTS}


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


def computed_by(parts: Parts) -> str:
    """Return what the last bits of a loss depend on besides the run: torch's version, the device, its instructions."""
    device = next(parts.model.parameters()).device
    if device.type == "cuda":
        return f"torch {torch.__version__} on {torch.cuda.get_device_name(device)}"
    return f"torch {torch.__version__} on {device.type} with {torch.backends.cpu.get_cpu_capability()}"


def _trained(parts: Parts) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in parts.model.named_parameters() if parameter.requires_grad}


def _length(tensors: list[torch.Tensor]) -> float:
    # 16 M numbers at a time: a whole embedding table in float64 takes gigabytes.
    chunks = (chunk for tensor in tensors for chunk in torch.split(tensor.reshape(-1), 2**24))
    return math.sqrt(sum(float(chunk.double().square().sum()) for chunk in chunks))


def _is_whole(path: Path) -> bool:
    try:
        read_state(path)
    except InputError:
        return False
    return True


def _own_digest(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


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
