"""Shards to a plan: a tokenizer (trained on their texts, or another model's), their pieces, the rows of every batch.

Used by `train`. Sources are folders of shards; a piece names its shard SOURCE/UNIT.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa

from carnac.core.errors import InputError
from carnac.core.places import Place
from carnac.engine.manifest import Manifest, PartEntry, manifest_of, write_manifest
from carnac.engine.part import LOST, Part
from carnac.engine.run import Runner
from carnac.engine.storage import sha256_of
from carnac.engine.tables import open_part, read_rows, read_table
from carnac.engine.unit import Stage, Unit, digest_of, outside_digests
from carnac.mix.facts import PlanCount, PlanFacts, facts_of
from carnac.mix.plan import PIECES, PLAN, pieces_of_sample, plan_rows
from carnac.mix.settings import MixSettings, SourceSettings
from carnac.sequence.marks import mark_names
from carnac.sequence.pretrained_tokenizer import read_tokenizer_folder, tokenizer_files
from carnac.sequence.settings import PictureSettings, TokenizerSettings
from carnac.sequence.tokenizer import LoadedTokenizer, load_tokenizer, ready, train_tokenizer

# The tokens by id, then the merges in their order. Another model's tokenizer may differ in more (how it normalises,
# scores): the digest of its file is one row more, without an id.
VOCABULARY = pa.schema([("id", pa.int32()), ("token", pa.string()), ("merge", pa.string())])

ROWS_PER_GROUP = 4096  # read at once by whoever makes batches: some 10 ms


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSource:
    """A source of the mixture and the manifest of its shards."""

    settings: SourceSettings
    manifest: Manifest

    def shard_name(self, unit: str) -> str:
        """Return what pieces call the shard of a unit: no two of all sources are called the same."""
        return f"{self.settings.name}/{unit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSettings:
    """What a plan depends on beside the shards: it holds `steps` batches, of rows from `first_row` on."""

    tokenizer: TokenizerSettings
    pictures: PictureSettings
    mix: MixSettings
    steps: int
    first_row: int = 0

    @property
    def num_rows(self) -> int:
        """Rows of the plan."""
        return self.first_row + self.mix.num_rows(self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerTask:
    """What a worker needs to train the tokenizer, or to take over another model's."""

    shards: tuple[Place, ...]
    folder: Path
    settings: TokenizerSettings
    pictures: PictureSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class PiecesTask:
    """What a worker needs to cut one shard into pieces; `name` is what they call it."""

    shard: Place
    name: str
    source: SourceSettings
    tokenizer_file: Path
    settings: PlanSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanTask:
    """What a worker needs to pack all pieces: those of each source together, in order."""

    pieces: tuple[Place, ...]
    sources: tuple[SourceSettings, ...]
    settings: PlanSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A plan on disk. `digest` covers the tokenizer and the rows: what a batch depends on beside the shards.

    `shards` are the parts of all sources by the names that pieces give them.
    """

    tokenizer_file: Path
    rows: PartEntry
    digest: str
    shards: dict[str, Place]
    facts: PlanFacts
    manifests: tuple[Manifest, ...]

    def publish(self) -> None:
        """Make this plan the one that its folder lists; called when the run that needs it is sure to go on."""
        for manifest in self.manifests:
            write_manifest(manifest)

    def lines(self) -> list[str]:
        """Return what a run prints of it."""
        return self.facts.lines()


def make_plan_folder(
    sources: Sequence[PlanSource],
    folder: Path,
    settings: PlanSettings,
    runner: Runner,
    tokenizer_file: Path | None = None,
) -> Plan:
    """Write the parts of `folder/tokenizer`, `folder/pieces` and `folder/rows`; `Plan.publish` lists them.

    With `tokenizer_file`, another plan's, no tokenizer is made. Raises InputError where the sources do not make a plan.
    """
    names = {source.settings.name: str(source.manifest.folder) for source in sources}
    manifests = []
    if tokenizer_file is None:
        tokenizer_file, made = make_tokenizer(
            sources, folder / "tokenizer", settings.tokenizer, settings.pictures, runner
        )
        manifests.append(made)
    words = _digest_of_file(tokenizer_file)

    units = _pieces_units(sources, tokenizer_file, words, settings)
    cut = runner.do(PIECES_STAGE, units, folder / "pieces")
    cutting = {**_cutting(settings), "windows": {each.settings.name: each.settings.windows for each in sources}}
    pieces = manifest_of(PIECES_STAGE, folder / "pieces", cut, cutting, names)

    mixture = tuple(source.settings for source in sources)
    packing = {
        "mix": settings.mix.affecting_rows(),
        "sources": [source.model_dump(mode="json", include={"name", "weight", "max_epochs"}) for source in mixture],
        "num_rows": settings.num_rows,
        # Of which rows there are facts.
        "first_row": settings.first_row,
    }
    packed = PLAN_STAGE.unit(
        "rows",
        PlanTask(pieces=tuple(entry.path for entry in cut), sources=mixture, settings=settings),
        settings=packing,
        inputs=[pieces.digest],
    )
    rows = runner.do(PLAN_STAGE, [packed], folder / "rows")
    manifest = manifest_of(PLAN_STAGE, folder / "rows", rows, packing, names)
    # Rows hold lengths, not ids: where a plan is shorter than an epoch, another tokenizer may give equal rows.
    return Plan(
        tokenizer_file=tokenizer_file,
        rows=rows[0],
        digest=digest_of([words, manifest.digest]),
        shards={source.shard_name(entry.unit): entry.path for source in sources for entry in source.manifest.parts},
        facts=facts_of(rows[0].counts, mixture, settings.mix, settings.first_row),
        manifests=(*manifests, pieces, manifest),
    )


def make_tokenizer(
    sources: Sequence[PlanSource],
    folder: Path,
    settings: TokenizerSettings,
    pictures: PictureSettings,
    runner: Runner,
) -> tuple[Path, Manifest]:
    """Write the tokenizer of all sources' texts, or another model's, into `folder`.

    Return its file, and the manifest that lists it once it is written. What a tokenizer does not depend on is not in
    its key: the texts and sizes of one that is given, pictures without marks.
    """
    given, marks = settings.folder, mark_names(pictures)
    affecting: dict[str, Any] = {"marks": list(marks)} if marks else {}
    if given is None:
        affecting |= settings.model_dump(mode="json", exclude={"folder"})
    texts = [source.manifest.digest for source in sources]
    inputs = texts if given is None else outside_digests(tokenizer_files(given))
    shards = tuple(entry.path for source in sources for entry in source.manifest.parts)
    task = TokenizerTask(shards=shards, folder=folder, settings=settings, pictures=pictures)
    unit = TOKENIZER.unit("tokenizer", task, settings=affecting, inputs=inputs)
    names = {source.settings.name: str(source.manifest.folder) for source in sources}
    entries = runner.do(TOKENIZER, [unit], folder)
    return folder / f"{unit.stem}.json", manifest_of(TOKENIZER, folder, entries, affecting, names)


def _pieces_units(
    sources: Sequence[PlanSource], tokenizer_file: Path, words: str, settings: PlanSettings
) -> list[Unit]:
    """Return a unit for each shard of each source."""
    units = []
    for source, prefix in zip(sources, _file_names([each.settings.name for each in sources]), strict=True):
        one = source.settings
        affecting = {**_cutting(settings), "source": one.name, "windows": one.windows}
        for entry in source.manifest.parts:
            task = PiecesTask(
                shard=entry.path,
                name=source.shard_name(entry.unit),
                source=one,
                tokenizer_file=tokenizer_file,
                settings=settings,
            )
            inputs = [words, entry.digest]
            units.append(PIECES_STAGE.unit(f"{prefix}-{entry.unit}", task, settings=affecting, inputs=inputs))
    return units


def _file_names(names: Sequence[str]) -> list[str]:
    """Return the names of sources as they may stand in file names, each once."""
    met: Counter[str] = Counter()
    found = []
    for name in names:
        safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:80]
        met[safe] += 1
        found.append(safe if met[safe] == 1 else f"{safe}~{met[safe]}")
    return found


def _cutting(settings: PlanSettings) -> dict[str, Any]:
    """Return what all pieces are cut by."""
    return {
        "pictures": _placing(settings.pictures),
        "row_tokens": settings.mix.row_tokens,
        "row_images": settings.mix.row_images,
    }


def _placing(pictures: PictureSettings) -> dict[str, Any]:
    """Return the picture settings that pieces are keyed by. Settings that came later count where they are used.

    So a plan that was made before them is still good. (Mean and std place no token, but stood in the first keys.)
    """
    first = {"size_px", "patch_px", "mean", "std"}
    later = pictures.model_dump(mode="json", exclude={*first, "resample", "normalisation"}, exclude_defaults=True)
    return {**pictures.model_dump(mode="json", include=first), **later}


def _digest_of_file(file: Path) -> str:
    """Return the sha256 of a tokenizer's file: all that ids depend on."""
    try:
        return sha256_of(file)
    except OSError as error:
        raise InputError(
            f"{file}: cannot be read ({error.strerror}). Wanted a plan's or a model's tokenizer."
        ) from None


def train_tokenizer_unit(unit: Unit, part: Part) -> None:
    """Train a tokenizer on all texts of the shards, or take another model's; its vocabulary becomes the part's rows."""
    task: TokenizerTask = unit.task
    tokenizer = _tokenizer(task)
    text = tokenizer.to_json()
    part.beside(task.folder, ".json").write_text(text, encoding="utf-8")
    content = json.loads(text)
    for token, number in sorted(tokenizer.tokenizer.get_vocab().items(), key=lambda item: item[1]):
        part.write({"id": number, "token": token})
    for merge in content["model"].get("merges", ()):
        part.write({"merge": " ".join(merge)})
    if task.settings.folder is not None:
        part.write({"token": digest_of(content)})
    part.count("tokens", tokenizer.vocabulary_size)


def _tokenizer(task: TokenizerTask) -> LoadedTokenizer:
    if task.settings.folder is not None:
        return read_tokenizer_folder(task.settings.folder, task.pictures)
    return ready(train_tokenizer(_texts(task.shards), task.settings, mark_names(task.pictures)))


def cut_pieces(unit: Unit, part: Part) -> None:
    """Cut the samples of one shard into pieces."""
    task: PiecesTask = unit.task
    settings, source, tokenizer = task.settings, task.source, load_tokenizer(task.tokenizer_file)
    with open_part(task.shard) as file:
        ends = list(accumulate(file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)))
    for number, row in enumerate(read_rows(task.shard)):
        place = {"source": source.name, "shard": task.name, "row": number, "group": bisect_right(ends, number)}
        found = part.attempt(
            f"{task.name}@{number}",
            pieces_of_sample,
            row,
            place,
            tokenizer,
            settings.pictures,
            settings.mix,
            source.windows,
        )
        if found is LOST:
            continue
        for name in ("without_labels", "positions_left_out", "exchanges_left_out"):
            part.count(name, getattr(found, name))
        part.count("tokens", sum(piece["stop"] - piece["start"] for piece in found.rows))
        for piece in found.rows:
            part.write(piece)


def pack_rows(unit: Unit, part: Part) -> None:
    """Pack all pieces into the rows of all batches, and note what the plan holds."""
    task: PlanTask = unit.task
    settings = task.settings
    pieces = pa.concat_tables([_pieces(path) for path in task.pieces])
    counted = PlanCount(pieces, task.sources, settings.mix, settings.first_row)
    waiting: list[pa.Table] = []
    for rows in plan_rows(pieces, task.sources, settings.mix, settings.num_rows):
        counted.add(rows)
        waiting.append(rows.table)
        if sum(table.num_rows for table in waiting) >= ROWS_PER_GROUP:
            part.write_table(pa.concat_tables(waiting))
            waiting.clear()
    if waiting:
        part.write_table(pa.concat_tables(waiting))
    for name, number in counted.counts().items():
        part.count(name, number)


def _pieces(part: Place) -> pa.Table:
    """Read pieces with each name once: of 100 million, names in full would be 5 GB."""
    table = read_table(part).replace_schema_metadata(None)
    for name in ("source", "shard"):
        table = table.set_column(table.schema.get_field_index(name), name, table[name].dictionary_encode())
    return table


def _texts(shards: tuple[Place, ...]) -> Iterator[str]:
    for path in shards:
        for row in read_rows(path, ["texts"]):
            yield from (text for text in row["texts"] if text is not None)


TOKENIZER = Stage(name="tokenizer", version=1, schema=VOCABULARY, work=train_tokenizer_unit)
PIECES_STAGE = Stage(name="pieces", version=2, schema=PIECES, work=cut_pieces)
PLAN_STAGE = Stage(name="plan", version=2, schema=PLAN, work=pack_rows, rows_per_group=ROWS_PER_GROUP)
