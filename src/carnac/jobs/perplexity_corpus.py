"""Texts to a corpus of a language model: sentences of tokens, and how often each word stands in them.

documents (and masks), or files of plain text --sentences--> tokens, a row per sentence    one unit per part or file
documents (and masks), or files of plain text --words--> words with their counts           one unit per part or file
"""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa

from carnac.core.errors import InputError
from carnac.core.places import Place, open_binary
from carnac.core.stores import store_errors
from carnac.curate.masks import Masks, check_same_rows
from carnac.curate.perplexity.tokens import split_sentences
from carnac.curate.texts.split import split_words
from carnac.engine.aligned import read_aligned_tables
from carnac.engine.manifest import Manifest, PartEntry
from carnac.engine.part import LOST, Part
from carnac.engine.run import Runner
from carnac.engine.unit import Stage, Unit, outside_digests, unit_names

SENTENCES = pa.schema([("tokens", pa.string())])
WORDS = pa.schema([("word", pa.string()), ("count", pa.int64())])
SENTENCES_AT_ONCE = 10_000
LINES_AT_ONCE = 1_000  # of a file of plain text: a record


@dataclass(frozen=True, slots=True, kw_only=True)
class TextsTask:
    """What a worker needs to read one slice of a corpus: a part of documents with its masks, or a file of text."""

    documents: Place | None = None
    masks: Place | None = None
    file: Place | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One slice of a corpus, with the digests of what it is read from."""

    name: str
    task: TextsTask
    digests: tuple[str, ...]


def sources_of_documents(documents: Manifest, masks: Manifest | None, limit: int | None) -> list[Source]:
    """Return the parts of `documents`, with what `masks` keep of them."""
    sources = []
    for entry in documents.parts:
        kept = None if masks is None else masks.part(entry.unit)
        task = TextsTask(documents=entry.path, masks=None if kept is None else kept.path, limit=limit)
        sources.append(
            Source(name=entry.unit, task=task, digests=(entry.digest, "" if kept is None else kept.rows_digest))
        )
    return sources


def sources_of_files(files: Sequence[Place], limit: int | None) -> list[Source]:
    """Return files of plain text."""
    named = zip(unit_names([file.with_suffix("") for file in files]), files, outside_digests(files), strict=True)
    return [
        Source(name=name, task=TextsTask(file=file, limit=limit), digests=(digest,)) for name, file, digest in named
    ]


def write_corpus(runner: Runner, stage: Stage, sources: Sequence[Source], folder: Place) -> tuple[PartEntry, ...]:
    """Write a part per source: `SENTENCES_STAGE` or `WORDS_STAGE`."""
    units = [
        stage.unit(each.name, each.task, settings={"limit": each.task.limit}, inputs=each.digests) for each in sources
    ]
    entries = runner.do(stage, units, folder)
    runner.publish(stage, folder, entries, {}, {})
    return entries


def write_sentences(unit: Unit, part: Part) -> None:
    """Write the sentences of one source; counts them and their tokens."""
    sentences = _each_of(unit.task, part, lambda texts: [line for text in texts for line in split_sentences(text)])
    while held := list(islice(sentences, SENTENCES_AT_ONCE)):
        part.count("sentences", len(held))
        part.count("tokens", sum(sentence.count(" ") + 1 for sentence in held))
        part.write_table(pa.table([pa.array(held, pa.string())], schema=SENTENCES))


def write_words(unit: Unit, part: Part) -> None:
    """Write the words of one source with their counts, in the order of the words."""
    words = Counter(_each_of(unit.task, part, lambda texts: [word for text in texts for word in split_words(text)]))
    ordered = sorted(words)
    counts = pa.array([words[word] for word in ordered], pa.int64())
    part.write_table(pa.table([pa.array(ordered, pa.string()), counts], schema=WORDS))


def _each_of(task: TextsTask, part: Part, split: Callable[[Sequence[str]], list[str]]) -> Iterator[str]:
    """Yield what `split` makes of each record of a source; a record that it raises on is lost."""
    for name, texts in _texts_of(task):
        found = part.attempt(name, split, texts)
        if found is not LOST:
            yield from found


def _texts_of(task: TextsTask) -> Iterator[tuple[str, list[str]]]:
    """Yield (name of the record, texts)."""
    if task.file is not None:
        yield from _of_file(task.file, task.limit)
        return
    assert task.documents is not None, "a source is a file or a part of documents"
    parts: dict[str, tuple[Place, Sequence[str] | None]] = {"documents": (task.documents, ["id", "texts"])}
    if task.masks is not None:
        parts["masks"] = (task.masks, ["id", "reason", "block_reason"])
    for first, tables in read_aligned_tables(parts):
        check_same_rows(*tables.values())
        masks = Masks.from_table(tables["masks"]) if "masks" in tables else None
        columns = (tables["documents"].column(name).to_pylist() for name in ("id", "texts"))
        for row, (name, texts) in enumerate(zip(*columns, strict=True)):
            if first + row == task.limit:
                return
            kept = None if masks is None else masks.is_alive[masks.starts[row] : masks.starts[row + 1]]
            there = [text for block, text in enumerate(texts) if text is not None and (kept is None or kept[block])]
            if there:
                yield f"{name}@{first + row}", there


def _of_file(file: Place, limit: int | None) -> Iterator[tuple[str, list[str]]]:
    """Yield the lines of a file in pieces. Raises InputError."""
    try:
        with store_errors(file), contextlib.ExitStack() as stack:
            raw = stack.enter_context(open_binary(file))
            lines = islice(stack.enter_context(gzip.open(raw)) if file.suffix == ".gz" else raw, limit)
            number = 0
            while held := [line.decode("utf-8", "replace") for line in islice(lines, LINES_AT_ONCE)]:
                yield f"{file.name}@{number}", held
                number += len(held)
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{file}: cannot be read ({why}). Wanted plain text, which may be packed (.gz).") from None


SENTENCES_STAGE = Stage(
    name="sentences", version=1, schema=SENTENCES, work=write_sentences, rows_per_group=SENTENCES_AT_ONCE
)
WORDS_STAGE = Stage(name="words", version=1, schema=WORDS, work=write_words, rows_per_group=100_000, is_step=True)
