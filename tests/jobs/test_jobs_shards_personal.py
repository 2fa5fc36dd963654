"""Samples without addresses and numbers, where the recipe asks for it: counted, told, and no other sample changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jobs_model import DoneHere, runner
from jobs_shards_inputs import HELD_OUT, Size, rows_of, write_inputs, write_parts
from pydantic import ValidationError

from carnac.core.schema import DOCUMENTS
from carnac.engine.manifest import read_manifest
from carnac.jobs.shards import ShardsRecipe, run
from carnac.shards.settings import SplitSettings
from carnac.shards.split import SPLITS

SIZE = Size(parts=2, documents=20, image_bytes=800)


@pytest.fixture
def inputs(tmp_path: Path, done: DoneHere) -> Path:
    """What the job reads: every text has an address and a number before it."""
    write_inputs(tmp_path, SIZE)
    documents = rows_of(tmp_path / "documents")
    for row in (row for rows in documents.values() for row in rows):
        row["title"] = "Call 020 7946 0958"
        row["texts"] = [None if text is None else f"jane@mail.test +49 30 1234567 {text}" for text in row["texts"]]
    write_parts(tmp_path / "documents", "documents", DOCUMENTS, documents)
    return tmp_path


def samples(folder: Path, output: str, **settings: Any) -> dict[str, list[dict[str, Any]]]:
    recipe: dict[str, Any] = {name: folder / name for name in ("documents", "images", "masks")}
    split = SplitSettings(held_out=HELD_OUT)
    run(ShardsRecipe(job="shards", output=folder / output, split=split, **recipe, **settings), runner()[0])
    return {unit: rows for part in SPLITS for unit, rows in rows_of(folder / output / part).items()}


def text_of(row: dict[str, Any]) -> str:
    return " ".join(text for text in row["texts"] if text is not None)


def test_what_is_asked_for_is_masked_and_counted(inputs: Path) -> None:
    plain = samples(inputs, "plain")
    masked = samples(inputs, "masked", mask_personal=("email", "phone"))
    numbers = 0
    for unit, rows in plain.items():
        for before, after in zip(rows, masked[unit], strict=True):
            assert text_of(after) == text_of(before).replace("jane@mail.test", "<email>").replace(
                "+49 30 1234567", "<phone>"
            )
            assert after["metadata"] == before["metadata"].replace("020 7946 0958", "<phone>")
            assert after["images"] == before["images"]
            numbers += text_of(before).count("+49 30 1234567") + 1
    assert numbers > 50
    manifests = [read_manifest(inputs / "masked" / split) for split in SPLITS]
    assert sum(manifest.counts["masked.phone"] for manifest in manifests) == numbers
    assert [manifest.settings["mask_personal"] for manifest in manifests] == [["email", "phone"]] * 2


def test_one_kind_alone_leaves_the_other_and_an_unknown_one_is_refused(inputs: Path) -> None:
    rows = [row for rows in samples(inputs, "masked", mask_personal=("email",)).values() for row in rows]
    assert rows
    assert not any("jane@mail.test" in text_of(row) for row in rows)
    assert all("020 7946 0958" in row["metadata"] for row in rows)
    with pytest.raises(ValidationError):
        samples(inputs, "other", mask_personal=("names",))


def test_a_recipe_that_masks_nothing_makes_the_same_parts(inputs: Path) -> None:
    samples(inputs, "plain")
    names = {entry.path.name for split in SPLITS for entry in read_manifest(inputs / "plain" / split).parts}
    samples(inputs, "empty", mask_personal=())
    assert {entry.path.name for split in SPLITS for entry in read_manifest(inputs / "empty" / split).parts} == names
