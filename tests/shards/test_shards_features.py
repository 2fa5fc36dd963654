from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image

from carnac.core.schema import SAMPLES
from carnac.engine.part import Part
from carnac.engine.tables import read_rows
from carnac.engine.unit import Stage, Unit
from carnac.shards.features import FEATURES, samples_schema

# What a user writes, and nothing more: no cast_column.
READER = """
import json, sys
import datasets
from PIL import Image
rows = []
for row in datasets.load_dataset("parquet", data_files=sys.argv[1], split="train"):
    pictures = row["images"]
    facts = [p and [isinstance(p, Image.Image), p.mode, *p.size, p.getpixel((0, 0))] for p in pictures]
    rows.append({**row, "images": facts})
print(json.dumps(rows))
"""


def _no_work(unit: Unit, part: Part) -> None:
    """Stand where a work function stands; this test writes the rows itself."""


def _png(mode: str, size: tuple[int, int], color: Any) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.new(mode, size, color).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": "a.png"}


def _sample(name: str, texts: list[str | None], images: list[Any], roles: list[str | None]) -> dict[str, Any]:
    return {"id": name, "source": "web", "texts": texts, "images": images, "roles": roles, "metadata": "{}"}


def test_datasets_opens_shards_with_pictures_as_pictures(tmp_path: Path) -> None:
    rows = [
        _sample("a", ["before", None, "after"], [None, _png("RGB", (3, 2), (255, 0, 0)), None], [None] * 3),
        _sample("b", [None, "what?"], [_png("L", (1, 4), 7), None], ["user", "assistant"]),
        _sample("c", ["words only"], [None], [None]),
    ]
    stage = Stage(name="shards", version=1, schema=samples_schema(), work=_no_work, rows_per_group=2)
    unit = Unit(name="train-00000", key="0" * 64, task=None)
    with Part(stage, unit, tmp_path) as part:
        for row in rows:
            part.write(row)
    path = tmp_path / unit.file_name

    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache"), "HF_DATASETS_OFFLINE": "1"}
    arguments = [sys.executable, "-c", READER, str(path)]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout)
    assert [row["images"] for row in read] == [
        [None, [True, "RGB", 3, 2, [255, 0, 0]], None],
        [[True, "L", 1, 4, 7], None],
        [None],
    ]
    for ours, theirs in zip(rows, read, strict=True):
        assert {**ours, "images": None} == {**theirs, "images": None}
    assert list(read_rows(path)) == rows


def test_the_footer_names_every_column() -> None:
    metadata = samples_schema().metadata
    assert metadata is not None
    assert list(json.loads(metadata[b"huggingface"])["info"]["features"]) == SAMPLES.names == list(FEATURES)
    assert samples_schema().remove_metadata().equals(SAMPLES)


def test_the_footer_survives_the_part(tmp_path: Path) -> None:
    stage = Stage(name="shards", version=1, schema=samples_schema(), work=_no_work)
    unit = Unit(name="empty", key="0" * 64, task=None)
    with Part(stage, unit, tmp_path):
        pass
    metadata = pq.read_schema(tmp_path / unit.file_name).metadata
    assert b"huggingface" in metadata
