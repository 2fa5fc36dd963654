"""Documents, or plain text, to a language model of n-grams (`model.arpa`) and a list of common words.

sources --sentences, words--> a corpus                              jobs/perplexity_corpus.py
sentences --perplexity--> model.arpa                                jobs/perplexity_model.py
words --common_words--> common_words.txt

The signal `perplexity` queries the model; `common_word_ratio` counts words of the list.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from carnac.core.errors import InputError
from carnac.core.places import absolute
from carnac.engine.manifest import PartEntry, read_manifest
from carnac.engine.run import Runner
from carnac.engine.storage import commit, sha256_of, temporary_path
from carnac.jobs.inputs import find_files
from carnac.jobs.perplexity_corpus import (
    SENTENCES_STAGE,
    WORDS_STAGE,
    sources_of_documents,
    sources_of_files,
    write_corpus,
)
from carnac.jobs.perplexity_model import (
    COMMON_WORDS_SUFFIX,
    MODEL_STAGE,
    MODEL_SUFFIX,
    find_common_words,
    refuse_large,
    train,
)
from carnac.jobs.recipes import keep_recipe
from carnac.recipe.settings import DocumentsFolder, MasksFolder, Recipe, Writes
from carnac.recipe.source import Location

MODEL_FILE = "model.arpa"
COMMON_WORDS_FILE = "common_words.txt"


class PerplexityRecipe(Recipe):
    """Settings of the job `perplexity`. Exactly one of `documents` and `texts` is given."""

    job: Literal["perplexity"] = Field(description="the job that this recipe describes")
    documents: DocumentsFolder | None = Field(default=None, description="folder of the documents to learn from")
    masks: MasksFolder | None = Field(
        default=None, description="folder of a pass's masks: only what it keeps of the documents is learned from"
    )
    texts: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="files of plain text to learn from; * and ** match as in a shell"
    )
    output: Annotated[Path, Writes("perplexity")] = Field(description=f"folder for {MODEL_FILE}, {COMMON_WORDS_FILE}")
    order: int = Field(default=5, ge=3, le=5, description="words of the longest n-grams")
    min_count: int = Field(
        default=1, ge=1, description="n-grams of three words and more that stand less often in the corpus are left out"
    )
    min_common_count: int = Field(default=2, ge=1, description="words that stand so often in the corpus are common")
    max_memory_mb: int = Field(
        default=4000, ge=300, description="memory of the worker that trains; a corpus that needs more is refused"
    )


RECIPE = PerplexityRecipe


def check(recipe: PerplexityRecipe) -> Sequence[tuple[Location, str]]:
    """Return what is wrong between settings: no source or two, masks of nothing, too little memory for the worker."""
    mistakes: list[tuple[Location, str]] = []
    if recipe.documents is None and recipe.texts is None:
        mistakes.append((("job",), "says nothing of what to learn from. Wanted one of: documents, texts."))
    if recipe.documents is not None and recipe.texts is not None:
        mistakes.append((("texts",), "documents are given too. Wanted one of them."))
    if recipe.masks is not None and recipe.documents is None:
        mistakes.append((("masks",), "tell what is kept of documents, and there are none. Leave them out."))
    allowed = recipe.limits.memory_mb
    if allowed is not None and allowed < recipe.max_memory_mb:
        message = f"a worker may take {allowed} MB, but training may take max_memory_mb ({recipe.max_memory_mb}) of it"
        mistakes.append((("limits", "memory_mb"), f"{message}; wanted as much here, or a lower max_memory_mb."))
    return mistakes


def run(recipe: PerplexityRecipe, runner: Runner) -> None:
    """Write the model and the list of common words."""
    if mistakes := check(recipe):
        raise InputError("; ".join(f"{location[-1]}: {sentence}" for location, sentence in mistakes))
    read: dict[str, str | list[str]]
    if recipe.documents is not None:
        documents = read_manifest(recipe.documents, "documents")
        masks = None if recipe.masks is None else read_manifest(recipe.masks, "masks")
        sources = sources_of_documents(documents, masks, recipe.limit)
        read = {"documents": str(recipe.documents)}
        if masks is not None:
            read["masks"] = str(masks.folder)
    else:
        files = find_files(recipe.texts or (), example="*.txt")
        sources = sources_of_files(files, recipe.limit)
        read = {"texts": [absolute(file) for file in files]}
    sentences = write_corpus(runner, SENTENCES_STAGE, sources, recipe.output / "sentences")
    words = write_corpus(runner, WORDS_STAGE, sources, recipe.output / "words")
    num_tokens, num_sentences = (
        sum(entry.counts.get(name, 0) for entry in sentences) for name in ("tokens", "sentences")
    )
    refuse_large(num_tokens, num_sentences, recipe.order, recipe.max_memory_mb)
    alone = dataclasses.replace(runner, workers=1)  # so that its share of the machine's memory is all of it
    model = train(alone, sentences, recipe.output, recipe.order, recipe.min_count)
    common = find_common_words(runner, words, recipe.output / "words", recipe.min_common_count)
    if not runner.changes_nothing:
        _put(recipe.output / _beside(model, MODEL_SUFFIX), recipe.output / MODEL_FILE)
        words_folder = recipe.output / "words"
        _put(words_folder / _beside(common, COMMON_WORDS_SUFFIX), recipe.output / COMMON_WORDS_FILE)
        keep_recipe(recipe, recipe.output)
    runner.publish(MODEL_STAGE, recipe.output, [model], {"order": recipe.order, "min_count": recipe.min_count}, read)


def _beside(entry: PartEntry, suffix: str) -> str:
    """Return the name of the file beside a part."""
    return entry.path.name.removesuffix(".parquet") + suffix


def _put(file: Path, final: Path) -> None:
    """Give a unit's file its name for others, as a second link where the disk allows, unless it has it already."""
    with contextlib.suppress(OSError):
        if final.samefile(file) or (
            final.stat().st_size == file.stat().st_size and sha256_of(final) == sha256_of(file)
        ):
            return
    temporary = temporary_path(final)
    try:
        os.link(file, temporary)
    except OSError:
        shutil.copyfile(file, temporary)
    commit(temporary, final)
