"""Other people's sets to documents, so that they enter the same pipeline: one file is one unit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from carnac.archive.pairs import read_pairs
from carnac.archive.records import Damage
from carnac.core.errors import InputError
from carnac.core.places import Folder, Place, absolute, open_binary
from carnac.core.schema import DOCUMENTS
from carnac.core.stores import store_errors
from carnac.core.taken_down import TakenDown
from carnac.engine.part import LOST, Part
from carnac.engine.run import Runner
from carnac.engine.unit import Stage, Unit, outside_digests, unit_names
from carnac.jobs.adopt_documents import obelics_document, pair_document
from carnac.jobs.documents import MAX_PAYLOAD_BYTES, write_document
from carnac.jobs.inputs import find_files
from carnac.jobs.recipes import keep_recipe
from carnac.recipe.settings import Recipe, Writes
from carnac.recipe.source import Location

Kind = Literal["obelics", "pairs"]
_COLUMNS = ("texts", "images", "metadata", "general_metadata", "url")
_WANTED = "Wanted a Parquet file with texts, images and general_metadata (the OBELICS format)."
_BATCH_ROWS = 64  # a document of OBELICS takes 10 KB on average, the largest a thousand times that


class AdoptRecipe(Recipe):
    """Settings of the job `adopt`. Exactly one of `obelics` and `pairs` is given."""

    job: Literal["adopt"] = Field(description="the job that this recipe describes")
    obelics: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="Parquet files in the OBELICS format; * and ** match as in a shell"
    )
    pairs: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="WebDataset tars of images with captions; * and ** match as in a shell"
    )
    output: Annotated[Folder, Writes("documents")] = Field(description="folder for the documents")


RECIPE = AdoptRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptTask:
    """What a worker needs for one file."""

    kind: Kind
    file: Place
    limit: int | None
    taken_down: TakenDown


def check(recipe: AdoptRecipe) -> Sequence[tuple[Location, str]]:
    """Return what is wrong between settings: no source or two."""
    if recipe.obelics is None and recipe.pairs is None:
        return [(("job",), "says nothing of what to read. Wanted one of: obelics, pairs.")]
    if recipe.obelics is not None and recipe.pairs is not None:
        return [(("pairs",), "obelics is given too. Wanted one of them: each set has documents of its own.")]
    return []


def run(recipe: AdoptRecipe, runner: Runner) -> None:
    """Write `documents/`."""
    if mistakes := check(recipe):
        raise InputError("; ".join(f"{location[-1]}: {sentence}" for location, sentence in mistakes))
    kind: Kind = "pairs" if recipe.obelics is None else "obelics"
    patterns = recipe.obelics or recipe.pairs or ()
    files = find_files(patterns, example="*.tar" if kind == "pairs" else "*.parquet")
    taken_down = TakenDown.read([recipe.output])
    units = []
    for name, file, digest in zip(unit_names(files), files, outside_digests(files), strict=True):
        task = AdoptTask(kind=kind, file=file, limit=recipe.limit, taken_down=taken_down)
        units.append(STAGE.unit(name, task, settings={"kind": kind, "limit": recipe.limit}, inputs=[digest]))
    entries = runner.do(STAGE, units, recipe.output)
    # Images of pairs lie in the tars: the images job looks for them there.
    runner.publish(STAGE, recipe.output, entries, {"kind": kind}, {kind: [absolute(file) for file in files]})
    if not runner.changes_nothing:
        keep_recipe(recipe, recipe.output)


def adopt_file(unit: Unit, part: Part) -> None:
    """Write the documents of one file; a row without one is quarantined with its reason."""
    task: AdoptTask = unit.task
    if task.kind == "pairs":
        _adopt_pairs(task, part)
        return
    for number, row in enumerate(_rows(task.file)):
        if number == task.limit:
            break
        part.count("records")
        document = part.attempt(f"{task.file.name}@{number}", obelics_document, row, task.file.name, number)
        if document is not LOST:
            write_document(part, document, taken_down=task.taken_down)


def _adopt_pairs(task: AdoptTask, part: Part) -> None:
    num_pairs = 0
    for pair in read_pairs(task.file, max_image_bytes=MAX_PAYLOAD_BYTES):
        name = f"{task.file.name}@{pair.offset}"
        if isinstance(pair, Damage):
            part.quarantine(name, pair.reason, pair.detail)
            continue
        if num_pairs == task.limit:
            break
        num_pairs += 1
        part.count("records")
        document = part.attempt(name, pair_document, pair, task.file.name)
        if document is not LOST:
            write_document(part, document, taken_down=task.taken_down)


def _rows(file: Place) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file in the OBELICS format. Raises InputError where it is none."""
    try:
        with open_binary(file) as stream, store_errors(file), pq.ParquetFile(stream) as table:
            names = [name for name in _COLUMNS if name in table.schema_arrow.names]
            missing = [name for name in ("texts", "images") if name not in names]
            if not {"general_metadata", "url"} & set(names):
                missing.append("general_metadata")
            if missing:
                raise InputError(f"{file}: no column {', '.join(missing)}. {_WANTED}")
            for group in range(table.num_row_groups):
                for batch in table.iter_batches(_BATCH_ROWS, row_groups=[group], columns=names, use_threads=False):
                    yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        kind = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise InputError(f"{file}: cannot be read ({kind}). {_WANTED}") from None


STAGE = Stage(name="documents", version=2, schema=DOCUMENTS, work=adopt_file)
