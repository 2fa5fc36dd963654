"""Evaluation sets to what documents are compared with: n-grams of their texts, perceptual hashes of their pictures.

file of texts, folder of pictures --contamination_sets--> hashes with the items that they are of      one unit per set
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from carnac.core.errors import InputError, RecordError
from carnac.core.places import Place
from carnac.curate.contamination.ngrams import MIN_WHOLE_WORDS, Hashes, NgramIndex, ngrams_of_item, texts_in
from carnac.curate.contamination.pictures import FLAT
from carnac.curate.contamination.settings import DecontaminatePass, EvaluationSet
from carnac.curate.texts.split import split_words
from carnac.engine.manifest import Manifest
from carnac.engine.part import LOST, Part
from carnac.engine.run import Runner
from carnac.engine.tables import read_table
from carnac.engine.unit import Stage, Unit, digest_of, outside_digests
from carnac.images.settings import ImageSettings
from carnac.jobs.conversation_files import PICTURE_SUFFIXES, pictures_digest
from carnac.shards.json_records import form_of, parsed, raw_records

# A row per n-gram, ascending by its hash, then a row per picture. `num_words` is null for a picture. An item is
# FILE:NUMBER, counted from 1, or the picture's name below its folder.
SETS = pa.schema([("hash", pa.uint64()), ("num_words", pa.int32()), ("item", pa.string())])
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
# Whatever a set's pictures weigh: it is the user's own folder, and only Pillow's guard against bombs stays on.
PICTURES = ImageSettings(store="original", max_image_bytes=1 << 31, max_pixels=89_478_485)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTask:
    """What a worker needs to take an evaluation set."""

    evaluation_set: EvaluationSet
    ngram: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownSet:
    """An evaluation set to compare with: its texts, and its pictures (uint64[k]) with their items."""

    name: str
    texts: NgramIndex
    pictures: Hashes
    picture_items: pa.ChunkedArray


def write_sets(runner: Runner, step: DecontaminatePass, folder: Place) -> Manifest:
    """Write a part per set of the pass to `folder`. Raises InputError where a file or folder cannot be read."""
    units = []
    for each in step.sets:
        inputs = [] if each.texts is None else outside_digests([each.texts])
        inputs += [] if each.images is None else [_pictures_digest(each.images)]
        settings = {"set": each.model_dump(mode="json", include={"fields"}), "ngram": step.ngram, "name": each.name}
        units.append(
            SETS_STAGE.unit(each.name, SetTask(evaluation_set=each, ngram=step.ngram), settings=settings, inputs=inputs)
        )
    entries = runner.do(SETS_STAGE, units, folder)
    return runner.publish(SETS_STAGE, folder, entries, {"ngram": step.ngram}, {})


def _pictures_digest(folder: Path) -> str:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder. Wanted the folder of an evaluation set's pictures.")
    return digest_of([str(folder.name), pictures_digest(folder)])


def read_set(part: Place, name: str) -> KnownSet:
    """Return a set as its part holds it."""
    table = read_table(part)
    is_text = table.column("num_words").is_valid()
    texts, pictures = table.filter(is_text), table.filter(np.logical_not(is_text.to_numpy()))
    lengths = texts.column("num_words").unique().to_pylist()
    return KnownSet(
        name=name,
        texts=NgramIndex.of(texts.column("hash").to_numpy(), texts.column("item"), lengths),
        pictures=pictures.column("hash").to_numpy(),
        picture_items=pictures.column("item"),
    )


def write_set(unit: Unit, part: Part) -> None:
    """Write the n-grams and pictures of one set. Counts what says too little to be searched for."""
    task: SetTask = unit.task
    each = task.evaluation_set
    if each.texts is not None:
        _write_texts(each.texts, each.fields, task.ngram, part)
    if each.images is not None:
        _write_pictures(each.images, part)


def _write_texts(file: Path, fields: tuple[str, ...], ngram: int, part: Part) -> None:
    hashes: list[Hashes] = [np.zeros(0, np.uint64)]
    lengths: list[int] = [0]
    names = [""]
    num_lost = 0
    for name, record in _items(file, fields):
        part.count("items")
        ngrams = part.attempt(name, _ngrams_of, record, fields, ngram)
        if ngrams is LOST:
            num_lost += 1
            continue
        if not ngrams:
            part.count("too_short")
        for length, found in ngrams:
            hashes.append(found)
            lengths.append(length)
            names.append(name)
    kept, first = np.unique(np.concatenate(hashes), return_index=True)  # of items that share an n-gram, the first
    place = np.repeat(np.arange(len(hashes)), [len(each) for each in hashes])[first]
    if not len(kept):
        lost = f" ({num_lost} could not be read)" if num_lost else ""
        raise InputError(
            f"{file}: no item{lost} has {min(ngram, MIN_WHOLE_WORDS)} words or more{_in_fields(fields)}, so none can "
            "be searched for. Mend the file or `fields`, or leave the file out."
        )
    part.count("ngrams", len(kept))
    items = pa.array(names).take(pa.array(place))
    part.write_table(pa.table([kept, pa.array(np.array(lengths)[place], pa.int32()), items], schema=SETS))


def _in_fields(fields: tuple[str, ...]) -> str:
    """Return where was looked, for a sentence."""
    return f" in {', '.join(fields)}" if fields else ""


def _ngrams_of(record: Any, fields: tuple[str, ...], ngram: int) -> list[tuple[int, Hashes]]:
    """Return (words in a row, hashes) of each text of an item that has enough words. Raises RecordError."""
    if isinstance(record, RecordError):
        raise record
    if fields and not set(fields) & record.keys():
        raise RecordError("no_field", f"has {', '.join(map(repr, list(record)[:20]))}")
    values = [record[name] for name in fields if name in record] if fields else [record]
    found = (ngrams_of_item(split_words(text), ngram) for text in texts_in(values))
    return [each for each in found if each[0]]


def _items(file: Path, fields: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Yield (name, record) of a file: a record is a dictionary, or a RecordError. Raises InputError."""
    kind = (file.with_suffix("") if file.suffix == ".gz" else file).suffix
    if fields and kind not in (*JSON_SUFFIXES, ".parquet"):
        raise InputError(
            f"{file}: lines of plain text have no fields, and {', '.join(fields)} are asked for. Wanted a name that "
            f"ends in {', '.join(JSON_SUFFIXES)} or .parquet; or leave `fields` out."
        )
    records: Iterator[dict[str, Any] | RecordError]
    try:
        if kind == ".parquet":
            records = _rows(file, fields)
        elif kind in JSON_SUFFIXES:
            records = _records(file)
        else:
            records = _lines(file)
        for number, record in enumerate(records, 1):
            yield f"{file.name}:{number}", record
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        why = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise InputError(
            f"{file}: cannot be read ({why}). Wanted JSON lines, Parquet or lines of plain text."
        ) from None


def _open(file: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(file)) if file.suffix == ".gz" else file.open("rb")


def _lines(file: Path) -> Iterator[dict[str, Any] | RecordError]:
    """Yield the lines of plain text; blank ones are no items, but have a number."""
    with _open(file) as stream:
        for line in stream:
            yield {"text": line.decode("utf-8", "replace")}


def _records(file: Path) -> Iterator[dict[str, Any] | RecordError]:
    """Yield the objects of JSON lines, or of one array."""
    with _open(file) as stream:
        for raw in raw_records(stream, *form_of(stream)):
            try:
                record = parsed(raw)
            except RecordError as error:
                yield error
            else:
                is_object = isinstance(record, dict)
                yield record if is_object else RecordError("no_object", f"a {type(record).__name__}")


def _rows(file: Path, fields: tuple[str, ...]) -> Iterator[dict[str, Any] | RecordError]:
    with pq.ParquetFile(file) as table:
        names = table.schema_arrow.names
        missing = [name for name in fields if name not in names]
        if missing:
            raise InputError(f"{file}: no column {', '.join(missing)}. It has {', '.join(names)}; mend `fields`.")
        columns = list(fields) or [field.name for field in table.schema_arrow if _may_hold_text(field.type)]
        for batch in table.iter_batches(batch_size=1000, columns=columns, use_threads=False):
            yield from batch.to_pylist()


def _may_hold_text(kind: pa.DataType) -> bool:
    """Whether a column may hold strings: bytes of pictures, which a struct may hold too, are left where they are."""
    if pa.types.is_struct(kind):
        return not any(pa.types.is_binary(kind.field(place).type) for place in range(kind.num_fields))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _may_hold_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _write_pictures(folder: Path, part: Part) -> None:
    rows: dict[int, str] = {}
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file())
    for file in files:
        name = file.relative_to(folder).as_posix()
        part.count("pictures")
        phash = part.attempt(name, _phash_of, file)
        if phash is LOST:
            continue
        if phash == FLAT:
            part.count("flat")
            continue
        rows.setdefault(phash, name)
    hashes = pa.array(list(rows), pa.uint64())
    part.write_table(pa.table([hashes, pa.nulls(len(rows), pa.int32()), pa.array(rows.values(), pa.string())], SETS))


def _phash_of(file: Path) -> int:
    from carnac.images.inspect import take_image  # pictures need Pillow, texts do not

    phash = take_image(file.read_bytes(), PICTURES).facts.phash
    assert phash is not None, "PICTURES asks for a complete decode"
    return phash


SETS_STAGE = Stage(
    name="contamination_sets", version=2, schema=SETS, work=write_set, rows_per_group=100_000, is_step=True
)
