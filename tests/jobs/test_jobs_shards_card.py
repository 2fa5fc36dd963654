"""The data card of shards: counted by real workers, beside the splits."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jobs_shards_inputs import Size, write_inputs

from carnac.engine.manifest import read_manifest
from carnac.engine.progress import TerminalReporter
from carnac.engine.run import Runner
from carnac.engine.tables import read_rows
from carnac.jobs.recipes import load_checked, run_recipes

SIZE = Size(parts=3, documents=20, images=2, packs=3, image_bytes=400)


def run(recipe: Path, workers: int = 2) -> dict[str, Any]:
    run_recipes(load_checked([recipe], []), Runner(reporter=TerminalReporter(io.StringIO()), workers=workers))
    content: dict[str, Any] = json.loads((recipe.parent / "shards" / "card.json").read_bytes())
    return content


def rewrite(folder: Path, change: Any) -> None:
    """Change the tables of a folder of documents or masks where they lie; readers go by what the manifest lists."""
    for part in read_manifest(folder).parts:
        place = Path(str(part.path))
        table = pq.read_table(place)
        pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), place)


def with_facts(table: pa.Table) -> pa.Table:
    rows = table.to_pylist()
    for number, row in enumerate(rows):
        row["language"] = ("en", "fr", None)[number % 3]
        row["licence"] = "CC-BY-4.0" if number % 5 == 0 else None
        row["fetched_at"] = f"2026-11-{1 + number % 9:02}T00:00:00Z"
        row["reservations"] = ["noai"] if number % 4 == 0 else []
    return pa.Table.from_pylist(rows, table.schema)


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    recipe = write_inputs(tmp_path, SIZE)
    rewrite(tmp_path / "documents", with_facts)
    return recipe


def test_the_card_counts_what_became_samples_and_what_was_left_out(recipe: Path) -> None:
    card = run(recipe)
    folder = recipe.parent
    documents = {row["id"]: row for part in read_manifest(folder / "documents").parts for row in read_rows(part.path)}
    samples = [
        row["id"]
        for split in ("train", "heldout")
        for part in read_manifest(folder / "shards" / split).parts
        for row in read_rows(part.path, ["id"])
    ]
    assert sum(split["samples"] for split in card["splits"].values()) == len(samples) > 10
    kept = [documents[each] for each in samples]
    assert dict(card["languages"]) == Counter(row["language"] or "(not stated)" for row in kept)
    assert dict(card["licences"]) == Counter(row["licence"] or "(not stated)" for row in kept)
    assert dict(card["fetched"]) == Counter(row["fetched_at"][:10] for row in kept)
    reserved = [row for row in documents.values() if row["reservations"]]
    assert card["reservations"] == [["noai", len(reserved), sum(bool(row["reservations"]) for row in kept)]]
    assert card["sites"] == [["pages.test", len(kept)]]
    assert card["read_from"]["masks"] == "masks"
    text = (folder / "shards" / "CARD.md").read_text()
    assert f"- {len(reserved)} pages object to `noai`;" in text


def test_a_second_run_counts_nothing_again_and_writes_the_same(recipe: Path) -> None:
    first = run(recipe, workers=1)
    card = recipe.parent / "shards" / "card"
    before = {path: path.stat().st_mtime_ns for path in card.rglob("*")}
    text = (recipe.parent / "shards" / "CARD.md").read_bytes()
    (recipe.parent / "shards" / "CARD.md").unlink()
    assert run(recipe) == first
    assert {path: path.stat().st_mtime_ns for path in card.rglob("*")} == before
    assert (recipe.parent / "shards" / "CARD.md").read_bytes() == text


def test_what_is_taken_down_is_counted_no_more(recipe: Path) -> None:
    from carnac.core.taken_down import RECORD, TakenDown

    first = run(recipe)
    (recipe.parent / RECORD).write_bytes(TakenDown.of(domains=["pages.test"]).to_json())
    second = run(recipe)
    assert first["sites"]
    assert second["sites"] == []
    assert second["num_taken_down"] == 1
