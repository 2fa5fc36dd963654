"""Shards from packs in a store: a request for each pack instead of one for each image."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

from jobs_model import DoneHere, runner
from jobs_shards_inputs import HELD_OUT, Size, expected_samples, write_inputs
from store_server import Bucket

from carnac.core.places import place_of
from carnac.engine.manifest import read_manifest
from carnac.engine.tables import read_table
from carnac.jobs import shards
from carnac.shards.settings import GatherSettings, SplitSettings
from carnac.shards.split import SPLITS


def recipe_of(bucket: Bucket, output: str) -> shards.ShardsRecipe:
    documents, images, masks = (place_of(f"{bucket.url}/{name}") for name in ("documents", "images", "masks"))
    return shards.ShardsRecipe(
        job="shards",
        documents=documents,
        images=images,
        masks=masks,
        output=place_of(f"{bucket.url}/{output}"),
        split=SplitSettings(held_out=HELD_OUT),
        gather=GatherSettings(group_mb=1, buffer_mb=1),
    )


def pack_requests(bucket: Bucket, since: int) -> list[str]:
    return [line for line in bucket.requests()[since:] if line.startswith("GET ") and "/packs/" in line]


def test_each_pack_in_a_store_is_asked_for_once(bucket: Bucket, tmp_path: Path, done: DoneHere) -> None:
    write_inputs(tmp_path, Size(parts=2, documents=40, packs=5, image_bytes=8000))
    for file in sorted(tmp_path.rglob("*")):
        if file.is_file():
            bucket.put(str(file.relative_to(tmp_path)), file.read_bytes())
    packs = sorted(path.name for path in (tmp_path / "images" / "packs").iterdir())
    since = len(bucket.requests())
    shards.run(recipe_of(bucket, "gathered"), runner()[0])
    asked = pack_requests(bucket, since)
    assert len(asked) == len(packs)
    assert all(sum(name in line for line in asked) == 1 for name in packs)
    samples = {split: read_manifest(place_of(f"{bucket.url}/gathered/{split}")) for split in SPLITS}
    for split, manifest in samples.items():
        rows = {entry.unit: read_table(entry.path).to_pylist() for entry in manifest.parts}
        assert rows == expected_samples(tmp_path, split)
    assert not any("/gather/" in name for name in bucket.objects())
    with mock.patch.object(shards, "gather", return_value=None):  # a random read for each image
        since = len(bucket.requests())
        shards.run(recipe_of(bucket, "read"), runner()[0])
        assert len(pack_requests(bucket, since)) > 20 * len(packs)
    again = {split: read_manifest(place_of(f"{bucket.url}/read/{split}")).digest for split in SPLITS}
    assert again == {split: manifest.digest for split, manifest in samples.items()}
