"""Kept documents and their images to samples: one documents part becomes one shard of each split.

Which documents and images: shards_choice.py. How the images come from the packs: shards_gather.py, shards_images.py.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from carnac.core.places import Folder, Place
from carnac.core.taken_down import TakenDown
from carnac.engine.manifest import Manifest, read_listed, read_manifest
from carnac.engine.part import LOST, Part
from carnac.engine.run import Runner
from carnac.engine.unit import Stage, Unit
from carnac.jobs.images_found import read_found
from carnac.jobs.recipes import keep_recipe
from carnac.jobs.shards_card import CardSources, write_card
from carnac.jobs.shards_choice import Choice, chosen_of
from carnac.jobs.shards_gather import FOLDER, Wanted, gather, remove_gathered
from carnac.jobs.shards_images import Gathered, GatheredImages, ImageBytes, ImageSource, PackedImages
from carnac.recipe.settings import DocumentsFolder, ImagesFolder, MasksFolder, Reads, Recipe
from carnac.shards.features import samples_schema
from carnac.shards.personal import Personal, mask_document
from carnac.shards.sample import COLUMNS, sample_of
from carnac.shards.settings import GatherSettings, SplitSettings
from carnac.shards.split import SPLITS, Split, split_folders


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
    mask_personal: tuple[Personal, ...] = Field(
        default=(), description="what is masked in texts and titles: e-mail addresses (`email`), numbers (`phone`)"
    )
    gather: GatherSettings = Field(default=GatherSettings(), description="how images are brought from their packs")

    def folders_written(self) -> Iterator[tuple[str, str, Place]]:
        """Yield the two splits."""
        return split_folders(self.output)


RECIPE = ShardsRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """What a worker needs for one shard of one split. `gathered` is None where images are read from the packs."""

    documents_unit: str
    choice: Choice
    split: Split
    source: str
    mask_personal: tuple[Personal, ...]
    packs: Place
    gathered: tuple[Gathered, ...] | None
    buffer_bytes: int


def run(recipe: ShardsRecipe, runner: Runner) -> None:
    """Write `shards/train` and `shards/heldout`."""
    settings: dict[str, Any] = {
        "source": recipe.source,
        "split": recipe.split.model_dump(mode="json"),
        "limit": recipe.limit,
    }
    wanted = _wanted(recipe, settings)
    units = {split: [_shard(recipe, each, split) for each in wanted] for split in SPLITS}
    if not runner.changes_nothing:
        missing = [unit for split in SPLITS for unit in runner.missing(units[split], recipe.output / split)]
        if missing:
            names = {unit.task.documents_unit for unit in missing}
            packs, size = recipe.images / "packs", recipe.gather.group_mb * 1_000_000
            gathered = gather(runner, recipe.output / FOLDER, packs, wanted, names, size)
            units = {split: [_with(unit, gathered) for unit in units[split]] for split in SPLITS}
    shown = {**settings, "mask_personal": sorted(recipe.mask_personal)} if recipe.mask_personal else settings
    shards: dict[str, Manifest] = {}
    for split in SPLITS:
        folder = recipe.output / split
        entries = runner.do(STAGE, units[split], folder)
        inputs = {name: str(getattr(recipe, name)) for name in ("documents", "images", "masks")}
        shards[split] = runner.publish(STAGE, folder, entries, shown, inputs)
    write_card(runner, recipe.output, wanted, _card_sources(recipe, shards))
    if not runner.changes_nothing:
        remove_gathered(recipe.output / FOLDER)
        keep_recipe(recipe, recipe.output)


def _card_sources(recipe: ShardsRecipe, shards: dict[str, Manifest]) -> CardSources:
    return CardSources(
        source=recipe.source,
        documents=read_manifest(recipe.documents, "documents"),
        masks=read_manifest(recipe.masks, "masks"),
        images=read_listed(recipe.images, "images"),
        splits=shards,
        taken_down=TakenDown.read([recipe.output, recipe.documents, recipe.images]),
        mask_personal=recipe.mask_personal,
    )


def _wanted(recipe: ShardsRecipe, settings: dict[str, Any]) -> list[Wanted]:
    documents = read_manifest(recipe.documents, "documents")
    masks = read_manifest(recipe.masks, "masks")
    found = read_found(recipe.images)
    repeats = None if recipe.repeats is None else read_manifest(recipe.repeats, "repeats")
    # No part of a key: a take-down removes its victims from the shards that are there itself.
    taken_down = TakenDown.read([recipe.output, recipe.documents, recipe.images])
    wanted = []
    for entry in documents.parts:
        mask, images = masks.part(entry.unit), found.part(entry.unit)
        choice = Choice(
            documents=entry.path,
            mask=mask.path,
            found=images.path,
            repeats=() if repeats is None else tuple(part.path for part in repeats.parts),
            split=recipe.split,
            limit=recipe.limit,
            taken_down=taken_down,
        )
        inputs = (entry.digest, mask.rows_digest, images.digest, "" if repeats is None else repeats.digest)
        wanted.append(Wanted(unit=entry.unit, choice=choice, settings=settings, inputs=inputs))
    return wanted


def _shard(recipe: ShardsRecipe, wanted: Wanted, split: Split) -> Unit:
    task = ShardTask(
        documents_unit=wanted.unit,
        choice=wanted.choice,
        split=split,
        source=recipe.source,
        mask_personal=recipe.mask_personal,
        packs=recipe.images / "packs",
        gathered=None,
        buffer_bytes=recipe.gather.buffer_mb * 1_000_000,
    )
    settings = {**wanted.settings, "part": split}
    if recipe.mask_personal:
        settings["mask_personal"] = sorted(recipe.mask_personal)
    return STAGE.unit(f"{split}-{wanted.unit}", task, settings=settings, inputs=wanted.inputs)


def _with(unit: Unit, gathered: tuple[Gathered, ...]) -> Unit:
    return dataclasses.replace(unit, task=dataclasses.replace(unit.task, gathered=gathered))


def write_samples(unit: Unit, part: Part) -> None:
    """Write the samples of one documents part that fall into one split."""
    task: ShardTask = unit.task
    images: ImageSource = PackedImages(task.packs)
    if task.gathered is not None:
        images = GatheredImages(task.gathered, task.documents_unit, task.split, task.buffer_bytes)
    for chosen in chosen_of(task.choice, COLUMNS):
        if chosen.split != task.split:
            continue
        document, image_bytes = chosen.document, images.take(chosen.found)
        name = f"{document['id']}@{chosen.row}"
        made = part.attempt(name, _sample, task, document, chosen.keep_block, image_bytes)
        if made is LOST:
            continue
        sample, masked = made
        for kind, number in masked.items():
            part.count(f"masked.{kind}", number)
        if sample is None:
            part.count("emptied")
            continue
        part.count("samples")
        part.count("images", sum(image is not None for image in sample["images"]))
        part.count("characters", sum(len(text) for text in sample["texts"] if text is not None))
        part.write(sample)


def _sample(
    task: ShardTask, document: Mapping[str, Any], keep_block: Sequence[bool], image_bytes: ImageBytes
) -> tuple[dict[str, Any] | None, Counter[str]]:
    """Return the sample of a document, None when nothing is left, and how much of what kind was masked in it."""
    masked, counts = mask_document(document, keep_block, task.mask_personal)
    return sample_of(masked, keep_block, image_bytes, task.source), counts


# Row groups of 64: what a training reader fetches at once stays near a few tens of megabytes with pictures.
STAGE = Stage(name="shards", version=2, schema=samples_schema(), work=write_samples, rows_per_group=64)
