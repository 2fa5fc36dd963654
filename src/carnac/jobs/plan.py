"""Shards to a plan: a tokenizer (trained on their texts, or another model's), their pieces, the rows of every batch.

Used by `train`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from carnac.core.places import Place
from carnac.engine.manifest import Manifest, PartEntry, manifest_of, write_manifest
from carnac.engine.part import LOST, Part
from carnac.engine.run import Runner
from carnac.engine.tables import read_rows, read_table
from carnac.engine.unit import Stage, Unit, digest_of, outside_digests
from carnac.mix.plan import PIECES, PLAN, describe_plan, make_plan, pieces_of_sample
from carnac.mix.settings import MixSettings
from carnac.sequence.marks import mark_names
from carnac.sequence.pretrained_tokenizer import read_tokenizer_folder, tokenizer_files
from carnac.sequence.settings import PictureSettings, TokenizerSettings
from carnac.sequence.tokenizer import LoadedTokenizer, load_tokenizer, ready, train_tokenizer

# The tokens by id, then the merges in their order: together they are the tokenizer. Another model's may differ in more
# (how it normalises, scores): the digest of its file is one row more, without an id.
VOCABULARY = pa.schema([("id", pa.int32()), ("token", pa.string()), ("merge", pa.string())])


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSettings:
    """What a plan depends on beside the shards."""

    tokenizer: TokenizerSettings
    pictures: PictureSettings
    mix: MixSettings
    num_batches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerTask:
    """What a worker needs to train the tokenizer, or to take over another model's."""

    shards: tuple[Place, ...]
    folder: Path
    settings: TokenizerSettings
    pictures: PictureSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class PiecesTask:
    """What a worker needs to cut one shard into pieces."""

    shard: Place
    shard_unit: str
    source: str
    tokenizer_file: Path
    settings: PlanSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanTask:
    """What a worker needs to pack all pieces."""

    pieces: tuple[Place, ...]
    settings: PlanSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A plan on disk. `digest` covers the tokenizer and the rows: what a batch depends on beside the shards."""

    tokenizer_file: Path
    rows: PartEntry
    digest: str
    manifests: tuple[Manifest, ...]

    def publish(self) -> None:
        """Make this plan the one that its folder lists; called when the run that needs it is sure to go on."""
        for manifest in self.manifests:
            write_manifest(manifest)

    def table(self) -> pa.Table:
        """Read the packed rows."""
        return read_table(self.rows.path)


def make_plan_folder(shards: Manifest, folder: Path, settings: PlanSettings, runner: Runner) -> Plan:
    """Write the parts of `folder/tokenizer`, `folder/pieces` and `folder/rows`; `Plan.publish` lists them."""
    names = {"shards": str(shards.folder)}
    unit, tokenizer_settings = _tokenizer_unit(shards, folder / "tokenizer", settings)
    trained = runner.do(TOKENIZER, [unit], folder / "tokenizer")
    tokenizer_file = folder / "tokenizer" / f"{unit.stem}.json"
    vocabulary = manifest_of(TOKENIZER, folder / "tokenizer", trained, tokenizer_settings, names)

    cutting = {
        "pictures": _placing(settings.pictures),
        "row_tokens": settings.mix.row_tokens,
        "row_images": settings.mix.row_images,
    }
    units = [
        PIECES_STAGE.unit(
            entry.unit,
            PiecesTask(
                shard=entry.path,
                shard_unit=entry.unit,
                source=shards.settings["source"],
                tokenizer_file=tokenizer_file,
                settings=settings,
            ),
            settings=cutting,
            inputs=[trained[0].digest, entry.digest],
        )
        for entry in shards.parts
    ]
    cut = runner.do(PIECES_STAGE, units, folder / "pieces")
    pieces = manifest_of(PIECES_STAGE, folder / "pieces", cut, cutting, names)

    packing = {"mix": settings.mix.model_dump(mode="json"), "num_batches": settings.num_batches}
    packed = PLAN_STAGE.unit(
        "rows",
        PlanTask(pieces=tuple(entry.path for entry in cut), settings=settings),
        settings=packing,
        inputs=[pieces.digest],
    )
    rows = runner.do(PLAN_STAGE, [packed], folder / "rows")
    manifest = manifest_of(PLAN_STAGE, folder / "rows", rows, packing, names)
    # Rows hold lengths, not ids: where a plan is shorter than an epoch, another tokenizer may give equal rows.
    digest = digest_of([trained[0].digest, manifest.digest])
    manifests = (vocabulary, pieces, manifest)
    return Plan(tokenizer_file=tokenizer_file, rows=rows[0], digest=digest, manifests=manifests)


def _placing(pictures: PictureSettings) -> dict[str, Any]:
    """Return the picture settings that pieces are keyed by. Settings that came later count where they are used.

    So a plan that was made before them is still good. (Mean and std place no token, but stood in the first keys.)
    """
    first = {"size_px", "patch_px", "mean", "std"}
    later = pictures.model_dump(mode="json", exclude={*first, "resample", "normalisation"}, exclude_defaults=True)
    return {**pictures.model_dump(mode="json", include=first), **later}


def _tokenizer_unit(shards: Manifest, folder: Path, settings: PlanSettings) -> tuple[Unit, dict[str, Any]]:
    """Return the unit that makes the tokenizer, with its settings.

    What a tokenizer does not depend on is not in its key: the texts and sizes of one that is given, pictures without
    marks.
    """
    given = settings.tokenizer.folder
    marks = mark_names(settings.pictures)
    affecting = {"marks": list(marks)} if marks else {}
    if given is None:
        affecting |= settings.tokenizer.model_dump(mode="json", exclude={"folder"})
    inputs = [shards.digest] if given is None else outside_digests(tokenizer_files(given))
    task = TokenizerTask(
        shards=tuple(entry.path for entry in shards.parts),
        folder=folder,
        settings=settings.tokenizer,
        pictures=settings.pictures,
    )
    return TOKENIZER.unit("tokenizer", task, settings=affecting, inputs=inputs), affecting


def train_tokenizer_unit(unit: Unit, part: Part) -> None:
    """Train a tokenizer on all texts of the shards, or take another model's; its vocabulary becomes the part's rows."""
    task: TokenizerTask = unit.task
    tokenizer = _tokenizer(task)
    text = tokenizer.to_json()
    part.beside(task.folder, ".json").write_text(text, encoding="utf-8")
    for token, number in sorted(tokenizer.tokenizer.get_vocab().items(), key=lambda item: item[1]):
        part.write({"id": number, "token": token})
    for merge in json.loads(text)["model"].get("merges", ()):
        part.write({"merge": " ".join(merge)})
    if task.settings.folder is not None:
        part.write({"token": digest_of(json.loads(text))})
    part.count("tokens", tokenizer.vocabulary_size)


def _tokenizer(task: TokenizerTask) -> LoadedTokenizer:
    if task.settings.folder is not None:
        return read_tokenizer_folder(task.settings.folder, task.pictures)
    return ready(train_tokenizer(_texts(task.shards), task.settings, mark_names(task.pictures)))


def cut_pieces(unit: Unit, part: Part) -> None:
    """Cut the samples of one shard into pieces."""
    task: PiecesTask = unit.task
    settings, tokenizer = task.settings, load_tokenizer(task.tokenizer_file)
    for number, row in enumerate(read_rows(task.shard)):
        place = {"source": task.source, "shard": task.shard_unit, "row": number}
        name = f"{task.shard_unit}@{number}"
        found = part.attempt(name, pieces_of_sample, row, place, tokenizer, settings.pictures, settings.mix)
        if found is LOST:
            continue
        part.count("without_labels", found.without_labels)
        for piece in found.rows:
            part.write(piece)


def pack_rows(unit: Unit, part: Part) -> None:
    """Pack all pieces into the rows of all batches, and note what the plan holds."""
    task: PlanTask = unit.task
    pieces = pa.concat_tables([read_table(path) for path in task.pieces]).replace_schema_metadata(None)
    table = make_plan(pieces, task.settings.mix, task.settings.num_batches)
    facts = describe_plan(table, task.settings.mix)
    for name in ("pieces", "tokens", "label_tokens", "images", "epochs_begun"):
        part.count(name, getattr(facts, name))
    part.count("fill_per_mille", round(1000 * facts.fill))
    part.write_table(table)


def _texts(shards: tuple[Place, ...]) -> Iterator[str]:
    for path in shards:
        for row in read_rows(path, ["texts"]):
            yield from (text for text in row["texts"] if text is not None)


TOKENIZER = Stage(name="tokenizer", version=1, schema=VOCABULARY, work=train_tokenizer_unit)
PIECES_STAGE = Stage(name="pieces", version=1, schema=PIECES, work=cut_pieces)
PLAN_STAGE = Stage(name="plan", version=1, schema=PLAN, work=pack_rows, rows_per_group=10_000)
