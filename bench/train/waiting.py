"""What share of its time training waits for batches: a real run on shards with photographs, one worker.

The run is `carnac run` on a recipe of the pinned configuration, in a process of its own; `metrics.jsonl` says of each
step how long it took and how long it waited. The batches begin as JPEG files of 640 x 480 pixels and text.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from PIL import Image, ImageFilter

from carnac.core.seeds import generator
from carnac.engine.manifest import collect_parts, manifest_of, read_manifest, write_manifest
from carnac.engine.part import Part
from carnac.jobs.shards import STAGE
from carnac.mix.batches import BatchReader
from carnac.mix.settings import MixSettings
from carnac.sequence.tokenizer import load_tokenizer
from train.pinned import Size, language_fields, make_settings, vision_fields
from train.rows import MEAN, SPREADS

WANTED = 0.02
SOURCE = "bench"
SAMPLES, PARTS = 4096, 4
PHOTOGRAPHS = 64  # different ones: decoding is what costs
PHOTO_PX = (640, 480)
LETTERS_PER_TOKEN = 3.4  # of these words by the tokenizer trained on them
WARM_UP_STEPS = 4  # left out: the worker starts, and imports what it needs


def measure_waiting(size: Size, steps: int) -> dict[str, float]:
    """Return the share of the time that steps after the first few waited, and medians of their seconds."""
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder) / "shards", size)
        lines = run_training(Path(folder), size, steps)
        return {**_waited(lines[WARM_UP_STEPS:]), "batch_seconds": batch_seconds(Path(folder), size, steps)}


def run_training(folder: Path, size: Size, steps: int) -> list[dict[str, Any]]:
    """Train `steps` steps on the shards of `folder` and return the lines of `metrics.jsonl`."""
    recipe = folder / "train.toml"
    recipe.write_text(tomli_w.dumps(_recipe(size, steps)), encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "carnac", "run", str(recipe)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return [json.loads(line) for line in (folder / "model" / "metrics.jsonl").read_text().splitlines()]


def batch_seconds(folder: Path, size: Size, steps: int) -> float:
    """Return the CPU seconds that a batch of the run in `folder` takes to make: median of those after the first few."""
    parts = read_manifest(folder / "shards", "shards").parts
    reader = BatchReader(
        read_manifest(folder / "plan" / "rows", "plan").parts[0].path,
        {f"{SOURCE}/{part.unit}": part.path for part in parts},
        load_tokenizer(folder / "model" / "tokenizer.json"),
        size.pictures,
        MixSettings(**_mix(size)),
    )
    seconds = []
    for step in range(steps):
        began = time.process_time()
        reader.batch(step)
        seconds.append(time.process_time() - began)
    return statistics.median(seconds[min(WARM_UP_STEPS, steps - 1) :])


def write_shards(folder: Path, size: Size, samples: int = SAMPLES) -> None:
    """Write samples as the job `shards` does: log-normal lengths, a photograph for every row of tokens."""
    folder.mkdir(parents=True)
    units = [STAGE.unit(f"{number:05d}", None, settings={}, inputs=[]) for number in range(PARTS)]
    made = _samples(size)
    for unit in units:
        with Part(STAGE, unit, folder) as part:
            for _ in range(samples // PARTS):
                sample = next(made)
                part.count("images", sum(image is not None for image in sample["images"]))
                part.count("characters", sum(len(text) for text in sample["texts"] if text is not None))
                part.write(sample)
    write_manifest(manifest_of(STAGE, folder, collect_parts(folder, units), {"source": SOURCE}, {}))


def _samples(size: Size) -> Iterator[dict[str, Any]]:
    draws = generator(0, "bench train waiting")
    words = ["".join(draws.choice(list("abcdefghijklmnopqrstuvwxyz"), 2 + number % 7)) for number in range(3000)]
    shares = 1 / np.arange(1, len(words) + 1)  # as words are: the n-th one in 1 / n
    photographs = [_photograph(number) for number in range(PHOTOGRAPHS)]
    scale = size.row_tokens / 512
    number = 0
    while True:
        spread = SPREADS[1]
        tokens = draws.lognormal(np.log(MEAN * scale) - spread**2 / 2, spread)
        letters = int(tokens * LETTERS_PER_TOKEN)
        text = " ".join(draws.choice(words, max(4, letters // 5), p=shares / shares.sum()))
        texts: list[str | None] = [text]
        images: list[dict[str, Any] | None] = [None]
        if draws.random() < MEAN / 512:
            texts.insert(0, None)
            images.insert(0, {"bytes": photographs[number % PHOTOGRAPHS], "path": f"{number}.jpeg"})
        yield {
            "id": f"{number:08d}", "source": SOURCE, "texts": texts, "images": images,
            "roles": [None] * len(texts), "metadata": "{}",
        }  # fmt: skip
        number += 1


def _photograph(number: int) -> bytes:
    """Return a JPEG file as large as a photograph's: colours that change smoothly, and grain."""
    draws = generator(0, "bench train photograph", number)
    coarse = Image.fromarray(draws.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(PHOTO_PX)
    grain = Image.fromarray(draws.integers(0, 256, (*PHOTO_PX[::-1], 3), dtype=np.uint8))
    picture = Image.blend(coarse, grain.filter(ImageFilter.BoxBlur(1)), 0.2)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _recipe(size: Size, steps: int) -> dict[str, Any]:
    settings = make_settings(size)
    connector = settings.connector.model_dump(mode="json", exclude_none=True)
    return {
        "job": "train",
        "source": [{"name": SOURCE, "shards": "shards"}],
        "plan": "plan",
        "output": "model",
        "tokenizer": {"vocabulary_size": size.vocabulary},
        "pictures": {"size_px": size.image_px, "patch_px": size.patch_px, "tokens": size.latents},
        "mix": _mix(size),
        "model": {
            "vision": {"type": settings.vision.type, "config": vision_fields(size)},
            "connector": connector,
            "language": {"type": settings.language.type, "config": language_fields(size)},
        },
        "training": {
            "steps": steps,
            "threads": 1,
            "optimizer": {"learning_rate": 1e-3},
            "schedule": {"warmup_steps": 4},
            "checkpoints": {"every_steps": steps},
        },
    }


def _mix(size: Size) -> dict[str, Any]:
    return {"row_tokens": size.row_tokens, "row_images": 8, "rows_per_batch": size.rows, "workers": 1}


def _waited(lines: list[dict[str, Any]]) -> dict[str, float]:
    waited, seconds = ([line[name] for line in lines] for name in ("waiting_seconds", "seconds"))
    return {
        "share": sum(waited) / sum(seconds),
        "waiting_seconds": statistics.median(waited),
        "step_seconds": statistics.median(seconds),
        "steps": len(lines),
    }
