"""A corpus to a language model in ARPA form, and to a list of its common words: a unit each.

sentences --perplexity--> facts of each order, and beside them the model          one unit
words --common_words--> common words with their counts, and beside them the list  one unit
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from carnac.core.errors import InputError
from carnac.core.places import Place
from carnac.curate.perplexity.arpa import write_arpa
from carnac.curate.perplexity.ngrams import BEGIN, END, SPECIAL, Numbers, count_ngrams
from carnac.curate.perplexity.training import train_model
from carnac.engine.manifest import PartEntry
from carnac.engine.part import Part
from carnac.engine.run import Runner
from carnac.engine.tables import read_batches, read_table
from carnac.engine.unit import Stage, Unit
from carnac.jobs.perplexity_corpus import WORDS

MODEL_SUFFIX = ".arpa"
COMMON_WORDS_SUFFIX = ".txt"
# Of a worker that trains, per token of the corpus, by order, and beside that: on text in which hardly an n-gram stands
# twice 117, 155 and 179 were measured, on text like ours half of it (docs/03-perplexity.md).
BYTES_PER_TOKEN = {3: 130, 4: 170, 5: 200}
BESIDE_MB = 200
MAX_TOKENS = 1 << 32  # n-grams are numbered by 32 bits

# A row per order: the n-grams of the model, and what was taken off counts of 1, 2 and 3 or more. `is_fallback`: the
# corpus is too small to tell, these are fixed numbers.
ORDERS = pa.schema(
    [
        ("order", pa.int32()),
        ("num_ngrams", pa.int64()),
        *((f"discount_{count}", pa.float64()) for count in (1, 2, 3)),
        ("is_fallback", pa.bool_()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTask:
    """What a worker needs to train the model."""

    sentences: tuple[Place, ...]
    folder: Path
    order: int
    min_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonWordsTask:
    """What a worker needs to find the common words."""

    words: tuple[Place, ...]
    folder: Path
    min_count: int


def refuse_large(num_tokens: int, num_sentences: int, order: int, max_memory_mb: int) -> None:
    """Raise InputError for an empty corpus, and for one that takes more memory than is allowed."""
    if not num_tokens:
        raise InputError("the corpus holds no word. Wanted documents, or lines of text, to learn from.")
    num_places = num_tokens + 2 * num_sentences
    wanted_mb = BESIDE_MB + num_places * BYTES_PER_TOKEN[order] // 1_000_000
    if wanted_mb > max_memory_mb or num_places >= MAX_TOKENS:
        share = min((max_memory_mb - BESIDE_MB) / (wanted_mb - BESIDE_MB), MAX_TOKENS / num_places)
        raise InputError(
            f"training on {num_tokens:,} tokens at order {order} takes up to {wanted_mb:,} MB, and max_memory_mb "
            f"allows {max_memory_mb:,}. Raise it, take a lower order, or learn from less: {share:.0%} of the corpus "
            "fits (`limit`, fewer files, masks that keep less)."
        )


def train(runner: Runner, sentences: Sequence[PartEntry], folder: Path, order: int, min_count: int) -> PartEntry:
    """Write the model."""
    task = ModelTask(
        sentences=tuple(entry.path for entry in sentences), folder=folder, order=order, min_count=min_count
    )
    inputs = [entry.digest for entry in sentences]
    unit = MODEL_STAGE.unit("model", task, settings={"order": order, "min_count": min_count}, inputs=inputs)
    return runner.do(MODEL_STAGE, [unit], folder)[0]


def find_common_words(runner: Runner, words: Sequence[PartEntry], folder: Path, min_count: int) -> PartEntry:
    """Write the list of words that stand at least `min_count` times in the corpus."""
    task = CommonWordsTask(words=tuple(entry.path for entry in words), folder=folder, min_count=min_count)
    inputs = [entry.digest for entry in words]
    unit = COMMON_WORDS_STAGE.unit("common_words", task, settings={"min_count": min_count}, inputs=inputs)
    return runner.do(COMMON_WORDS_STAGE, [unit], folder)[0]


def write_model(unit: Unit, part: Part) -> None:
    """Train a model of all sentences."""
    task: ModelTask = unit.task
    tokens, vocabulary = read_tokens(task.sentences)
    part.count("tokens", len(tokens))
    orders = []
    for ngrams in count_ngrams(tokens, len(vocabulary), task.order):
        orders.append(ngrams)
        part.count("ngrams", len(ngrams))
    models = train_model(orders, task.min_count)
    with part.beside(task.folder, MODEL_SUFFIX).open("wb") as file:
        write_arpa(file, vocabulary, orders, models)
    for order, model in enumerate(models, 1):
        taken = {f"discount_{count}": value for count, value in enumerate(model.discounts, 1)}
        part.write({"order": order, "num_ngrams": model.num_ngrams, **taken, "is_fallback": model.is_fallback})


def read_tokens(parts: Sequence[Place]) -> tuple[Numbers, pa.Array]:
    """Return all sentences as numbers (`count_ngrams` wants them so), and the words by number, in order of coming."""
    numbers: dict[str, int] = {name: number for number, name in enumerate(SPECIAL)}
    held: list[Numbers] = []
    for part in parts:
        for batch in read_batches(part, ["tokens"]):
            words = pc.split_pattern(batch.column("tokens"), " ")
            lengths = pc.list_value_length(words).to_numpy()
            encoded = words.flatten().dictionary_encode()
            known = [numbers.setdefault(word, len(numbers)) for word in encoded.dictionary.to_pylist()]
            held.append(_between_marks(np.array(known, np.uint32)[encoded.indices.to_numpy()], lengths))
    tokens = np.concatenate(held)
    return tokens, pa.array(numbers, pa.string())


def _between_marks(words: Numbers, lengths: np.ndarray[tuple[int], np.dtype[np.int32]]) -> Numbers:
    """Return sentences of `lengths` words, each from `BEGIN` to `END`."""
    stops = np.cumsum(lengths + 2)
    tokens = np.empty(int(stops[-1]) if len(stops) else 0, np.uint32)
    is_word = np.ones(len(tokens), np.bool_)
    is_word[stops - 1] = is_word[stops - lengths - 2] = False
    tokens[is_word] = words
    tokens[stops - 1], tokens[stops - lengths - 2] = END, BEGIN
    return tokens


def write_common_words(unit: Unit, part: Part) -> None:
    """Write the words that stand often enough, the commonest first, and of equally common ones by their letters."""
    task: CommonWordsTask = unit.task
    words = pa.concat_tables([WORDS.empty_table(), *(read_table(place) for place in task.words)])
    counted = words.group_by("word").aggregate([("count", "sum")]).rename_columns({"count_sum": "count"})
    common = counted.filter(pc.greater_equal(counted.column("count"), task.min_count))
    common = common.sort_by([("count", "descending"), ("word", "ascending")]).select(WORDS.names)
    part.count("words", counted.num_rows)
    lines = "".join(f"{word}\n" for word in common.column("word").to_pylist())
    part.beside(task.folder, COMMON_WORDS_SUFFIX).write_text(lines, encoding="utf-8")
    part.write_table(common)


MODEL_STAGE = Stage(name="perplexity", version=1, schema=ORDERS, work=write_model)
COMMON_WORDS_STAGE = Stage(
    name="common_words", version=1, schema=WORDS, work=write_common_words, rows_per_group=100_000, is_step=True
)
