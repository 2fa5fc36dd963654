"""Kept documents and their images to samples: one documents part becomes one shard of each split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from carnac.core.places import Folder, Place
from carnac.core.schema import REPEATS
from carnac.engine.aligned import read_aligned
from carnac.engine.manifest import Manifest, read_manifest
from carnac.engine.part import LOST, Part
from carnac.engine.run import Runner
from carnac.engine.tables import read_rows
from carnac.engine.unit import Stage, Unit
from carnac.images.pack import read_image
from carnac.jobs.kept import kept_images
from carnac.jobs.recipes import keep_recipe
from carnac.recipe.settings import DocumentsFolder, ImagesFolder, MasksFolder, Reads, Recipe
from carnac.shards.features import samples_schema
from carnac.shards.sample import sample_of
from carnac.shards.settings import SplitSettings
from carnac.shards.split import SPLITS, Split, split_folders, split_of


class ShardsRecipe(Recipe):
    """Settings of the job `shards`."""

    job: Literal["shards"] = Field(description="the job that this recipe describes")
    documents: DocumentsFolder = Field(description="folder of the documents")
    images: ImagesFolder = Field(description="folder of their images")
    masks: MasksFolder = Field(description="folder of the last pass's masks: what they keep becomes samples")
    repeats: Annotated[Folder | None, Reads("repeats")] = Field(
        default=None, description="folder of the duplicates found: copies fall into the split of their root"
    )
    output: Folder = Field(description="folder for the shards: train/ and heldout/")
    source: str = Field(default="web", description="name of this source in mixtures and per-source losses")
    split: SplitSettings = Field(default=SplitSettings(), description="the held-out split")

    def folders_written(self) -> Iterator[tuple[str, str, Place]]:
        """Yield the two splits."""
        return split_folders(self.output)


RECIPE = ShardsRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """What a worker needs for one shard of one split."""

    document: Place
    mask: Place
    split: Split
    recipe: ShardsRecipe
    images: Manifest
    repeats: Manifest | None


def run(recipe: ShardsRecipe, runner: Runner) -> None:
    """Write `shards/train` and `shards/heldout`."""
    documents = read_manifest(recipe.documents, "documents")
    masks = read_manifest(recipe.masks, "masks")
    images = read_manifest(recipe.images, "images")
    repeats = None if recipe.repeats is None else read_manifest(recipe.repeats, "repeats")
    settings = {"source": recipe.source, "split": recipe.split.model_dump(mode="json"), "limit": recipe.limit}
    shared = [images.digest, "" if repeats is None else repeats.digest]
    for split in SPLITS:
        units = []
        for entry in documents.parts:
            mask = masks.part(entry.unit)
            task = ShardTask(
                document=entry.path, mask=mask.path, split=split, recipe=recipe, images=images, repeats=repeats
            )
            inputs = [entry.digest, mask.rows_digest, *shared]
            units.append(STAGE.unit(f"{split}-{entry.unit}", task, settings={**settings, "part": split}, inputs=inputs))
        folder = recipe.output / split
        entries = runner.do(STAGE, units, folder)
        names = {name: str(getattr(recipe, name)) for name in ("documents", "images", "masks")}
        runner.publish(STAGE, folder, entries, settings, names)
    if not runner.changes_nothing:
        keep_recipe(recipe, recipe.output)


def write_samples(unit: Unit, part: Part) -> None:
    """Write the samples of one documents part that fall into one split."""
    task: ShardTask = unit.task
    recipe = task.recipe
    images = kept_images(task.images)
    roots = {} if task.repeats is None else _roots(task.repeats)

    def image_bytes(url: str) -> tuple[bytes, str] | None:
        row = images.get(url)
        if row is None:
            return None
        payload = read_image(recipe.images / "packs" / row["pack"], row["offset"], row["length"])
        return payload, f"{row['sha256']}.{row['media_type'].partition('/')[2]}"

    for written, (row, document, mask) in enumerate(_kept(task, roots)):
        if recipe.limit is not None and written >= recipe.limit:
            break
        name = f"{document['id']}@{row}"
        sample = part.attempt(name, sample_of, document, mask["keep_block"], image_bytes, recipe.source)
        if sample is LOST:
            continue
        if sample is None:
            part.count("emptied")
            continue
        part.count("samples")
        part.count("images", sum(image is not None for image in sample["images"]))
        part.count("characters", sum(len(text) for text in sample["texts"] if text is not None))
        part.write(sample)


def _kept(task: ShardTask, roots: dict[str, str]) -> Iterator[tuple[int, dict[str, Any], dict[str, Any]]]:
    """Yield (row, document, mask) of the kept documents of the task's split."""
    recipe = task.recipe
    for row, rows in enumerate(read_aligned({"document": task.document, "mask": task.mask})):
        document, mask = rows["document"], rows["mask"]
        root = roots.get(document["id"], document["id"])
        if mask["keep"] and split_of(root, recipe.split.held_out, recipe.split.seed) == task.split:
            yield row, document, mask


def _roots(repeats: Manifest) -> dict[str, str]:
    """Return the root of every duplicate; roots of roots are followed (a copy by text of a copy by URL)."""
    assert "root" in REPEATS.names
    roots: dict[str, str] = {}
    for entry in repeats.parts:
        for row in read_rows(entry.path, ["id", "root"]):
            if row["id"] != row["root"]:
                roots.setdefault(row["id"], row["root"])

    def follow(name: str) -> str:
        seen = set()
        while name in roots and name not in seen:
            seen.add(name)
            name = roots[name]
        return name

    return {name: follow(name) for name in roots}


# Row groups of 64: what a training reader fetches at once stays near a few tens of megabytes with pictures.
STAGE = Stage(name="shards", version=1, schema=samples_schema(), work=write_samples, rows_per_group=64)
