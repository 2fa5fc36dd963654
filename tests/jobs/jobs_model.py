"""A small model's folder with random weights, and shards: what evaluate, chat and plan read, without a run before."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from carnac.core.schema import SAMPLES
from carnac.core.seeds import generator
from carnac.engine.child import do_unit
from carnac.engine.guard import Done
from carnac.engine.manifest import Manifest, collect_parts, write_manifest
from carnac.engine.part import Part
from carnac.engine.progress import TerminalReporter
from carnac.engine.run import Runner
from carnac.engine.unit import Stage, Unit
from carnac.jobs.models import InputSettings, write_inputs
from carnac.jobs.train import MODEL
from carnac.model.build import build_model
from carnac.model.language import Vocabulary
from carnac.model.settings import MlpSettings, ModelSettings, TowerSettings, VisionSettings
from carnac.model.weights import save_model
from carnac.recipe.settings import Limits
from carnac.sequence.marks import mark_names
from carnac.sequence.settings import PictureSettings, TokenizerSettings
from carnac.sequence.tokenizer import ready, save_tokenizer, train_tokenizer

PICTURES = PictureSettings(size_px=32, patch_px=16)
INPUTS = InputSettings(pictures=PICTURES, row_tokens=64)
LONGEST = 128
WORDS = "the old mill by the river turns its wheel in the evening while people walk along the water"
MODEL_SETTINGS = ModelSettings(
    vision=VisionSettings(
        type="siglip_vision_model",
        config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "patch_size": 16,
        },
    ),
    connector=MlpSettings(hidden_size=16),
    language=TowerSettings(
        type="llama",
        config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": LONGEST,
            "tie_word_embeddings": True,
        },
    ),
)


def write_model(
    folder: Path,
    weight: float | None = None,
    *,
    settings: ModelSettings = MODEL_SETTINGS,
    inputs: InputSettings = INPUTS,
) -> Path:
    """Write a finished model; `weight` replaces every number of it."""
    folder.mkdir(parents=True)
    pictures = inputs.pictures
    tokenizer = train_tokenizer([WORDS] * 2, TokenizerSettings(vocabulary_size=320), mark_names(pictures))
    words = ready(tokenizer)
    vocabulary = Vocabulary(size=words.vocabulary_size, pad_id=words.pad, bos_id=words.begin, eos_id=words.end)
    native = pictures.aspect == "native"
    model = build_model(settings, vocabulary, pictures.size_px, seed=1, native_aspect=native)
    if weight is not None:
        for parameter in model.parameters():
            parameter.data.fill_(weight)
    save_model(model, folder)
    write_inputs(folder, save_tokenizer(tokenizer, folder), inputs)
    _write_stage(folder, "model", MODEL, [])
    return folder


def picture(number: int) -> bytes:
    out = io.BytesIO()
    noise = generator(number, "picture").integers(0, 256, (24, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(out, "PNG")
    return out.getvalue()


def row(name: str, blocks: Sequence[str | bytes]) -> dict[str, Any]:
    images = [{"bytes": block, "path": None} if isinstance(block, bytes) else None for block in blocks]
    return {
        "id": name,
        "source": "test",
        "texts": [block if isinstance(block, str) else None for block in blocks],
        "images": images,
        "roles": [None] * len(blocks),
        "metadata": json.dumps({"url": f"https://example.org/{name}", "title": None, "image_urls": []}),
    }


def document(number: int) -> dict[str, Any]:
    """Return a short page; its text is the same words from another one on."""
    words = WORDS.split()
    return row(f"d{number}", [f"Page {number}.", picture(number), " ".join(words[number:] + words[:number])])


def write_shards(folder: Path, *parts: Sequence[dict[str, Any]]) -> Path:
    """Write shards of one part per argument."""
    return _write_stage(folder, "shards", SAMPLES, *parts)


def _write_stage(folder: Path, name: str, schema: Any, *parts: Sequence[dict[str, Any]]) -> Path:
    stage = Stage(name=name, version=1, schema=schema, work=None)
    folder.mkdir(parents=True, exist_ok=True)
    units = [stage.unit(f"{number:05d}-a", None, settings={}, inputs=[str(rows)]) for number, rows in enumerate(parts)]
    for unit, rows in zip(units, parts, strict=True):
        with Part(stage, unit, folder) as part:
            for one in rows:
                part.write(one)
    entries = collect_parts(folder, units)
    manifest = Manifest(folder=folder, stage=name, version=1, settings={"source": "test"}, inputs={}, parts=entries)
    write_manifest(manifest)
    return folder


@dataclass
class DoneHere:
    """Does units in this process, as a worker would, and remembers which."""

    units: list[str] = field(default_factory=list)

    def run_units(
        self, stage: Stage, units: Sequence[Unit], folder: Path, workers: int, limits: Limits, preload: Sequence[str]
    ) -> Iterator[Done]:
        """Stand where `engine.local.run_units` does: a process per test would take seconds to import torch."""
        for unit in units:
            self.units.append(f"{stage.name}/{unit.name}")
            yield Done(unit=do_unit(stage, unit, folder))


def runner(*, dry_run: bool = False) -> tuple[Runner, io.StringIO]:
    out = io.StringIO()
    return Runner(reporter=TerminalReporter(out), dry_run=dry_run), out
