"""A model with adapters to one without, or to a folder of what was trained alone: `carnac merge`, `carnac adapters`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from carnac.core.batch import IGNORED, Batch
from carnac.core.errors import InputError, RunError
from carnac.core.seeds import generator
from carnac.engine.manifest import collect_parts, manifest_of, write_manifest
from carnac.engine.part import Part
from carnac.engine.storage import sha256_of
from carnac.jobs.models import INPUTS_FILE, open_model
from carnac.jobs.train import STAGE
from carnac.model.new_folder import check_free, new_folder
from carnac.sequence.tokenizer import FILE_NAME as TOKENIZER_FILE

if TYPE_CHECKING:
    import torch

    from carnac.model.adapters import Backbone
    from carnac.model.multimodal import MultimodalModel

# Rounding in fp32 is 1e-7 to 1e-6 of the logits' scale over the layers of a model.
TOLERANCE = 1e-5
BESIDE = (TOKENIZER_FILE, INPUTS_FILE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What a merge did. `difference` is the largest between logits before and after, as a share of their scale."""

    layers: int
    parameters: int
    difference: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a folder of adapters holds, and what the whole model held, in bytes."""

    kept_bytes: int
    whole_bytes: int


def merge_model(folder: Path, output: Path, backbones: Mapping[Backbone, Path] | None = None) -> Merged:
    """Write to `output` the model of `folder` with its adapters merged into the weights, ready for every other job.

    `folder` holds a model, or what `save_trained` wrote; the backbones of the latter are read from where they were, or
    from `backbones`. Raises InputError where there is nothing to merge, RunError where the merged model computes
    something else.
    """
    from carnac.model.adapters import BACKBONES, adapted_layers, merge_adapters

    check_free(output)
    model = _open(folder, backbones or {})
    layers = sum(1 for part in BACKBONES for _ in adapted_layers(getattr(model, part)))
    before = _probe(model)
    merge_adapters(model)
    difference = float((_probe(model) - before).abs().max() / before.abs().max())
    if not difference <= TOLERANCE:
        raise RunError(
            f"{folder}: merged, logits differ by {difference:.1e} of their scale (at most {TOLERANCE:.0e}). Nothing "
            "was written; are its weights sound?"
        )
    with new_folder(output) as partial:
        _write_model(model, folder, partial)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Merged(layers=layers, parameters=parameters, difference=difference)


def save_trained(folder: Path, output: Path) -> Kept:
    """Write to `output` the model of `folder` without the frozen weights that the backbones' own folders hold.

    Raises InputError where no such weights are in it.
    """
    from carnac.model.adapter_files import save_adapters
    from carnac.model.adapters import BACKBONES
    from carnac.model.weights import WEIGHTS_FILE

    check_free(output)
    model = open_model(folder).model
    settings = model.settings
    if all(part in settings.trained or getattr(settings, part).type is not None for part in BACKBONES):
        raise InputError(
            f"{folder}: no frozen backbone of it lies in a folder or on the hub: there is nothing to leave out."
        )
    with new_folder(output) as partial:
        for name in BESIDE:
            shutil.copyfile(folder / name, partial / name)
        save_adapters(model, partial)
    sizes = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    return Kept(kept_bytes=sizes, whole_bytes=(folder / WEIGHTS_FILE).stat().st_size)


def _open(folder: Path, backbones: Mapping[Backbone, Path]) -> MultimodalModel:
    from carnac.model.adapter_files import is_adapters, load_adapters

    if is_adapters(folder):
        missing = [name for name in BESIDE if not (folder / name).is_file()]
        if missing:
            raise InputError(f"{folder / missing[0]}: missing; the adapters' folder is not whole. Copy it again.")
        return load_adapters(folder, backbones)
    if backbones:
        raise InputError(f"{folder}: a whole model, with its backbones in it. Name backbones with adapters only.")
    model = open_model(folder).model
    if model.settings.adapters is None:
        raise InputError(f"{folder}: the model has no adapters: there is nothing to merge.")
    return model


def _probe(model: MultimodalModel) -> torch.Tensor:
    """Return the logits of one row with a picture, made of random ids and pixels."""
    import torch

    from carnac.model.tensors import to_tensors

    image, side = model.tokens_per_image, model.image_size_px
    draws, shape = generator(0, "merge"), (1, image + 24)
    ids = draws.integers(0, model.language.config.vocab_size, shape)
    batch = Batch(
        input_ids=ids,
        labels=np.full(shape, IGNORED, np.int64),
        positions=np.arange(shape[1])[None],
        segment=np.zeros(shape, np.int64),
        image_slots=np.array([[0, 4, image]]),
        image_of_token=np.full(shape, -1, np.int64),
        pixels=draws.standard_normal((1, 3, side, side), dtype=np.float32),
        provenance=(),
    )
    with torch.no_grad():
        logits: torch.Tensor = model(to_tensors(batch, image, model.device))
    return logits


def _write_model(model: MultimodalModel, folder: Path, output: Path) -> None:
    """Write a model's folder as training does: its files, the part that names them, the manifest last."""
    from carnac.model.weights import CONFIG_FILE, WEIGHTS_FILE, save_model

    save_model(model, output)
    for name in BESIDE:
        shutil.copyfile(folder / name, output / name)
    weights = sha256_of(output / WEIGHTS_FILE)
    unit = STAGE.unit("merged", None, settings={}, inputs=[weights])
    with Part(STAGE, unit, output) as part:
        part.write({"weights_sha256": weights})
        for name in (CONFIG_FILE, WEIGHTS_FILE, *BESIDE):
            part.needs(output / name)
        part.count("parameters", sum(parameter.numel() for parameter in model.parameters()))
    write_manifest(manifest_of(STAGE, output, collect_parts(output, [unit]), {}, {"merged": str(folder)}))
