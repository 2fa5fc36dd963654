"""The job that trains a language model: what it learns from, what it writes, what it refuses."""

from __future__ import annotations

import dataclasses
import gzip
import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from jobs_model import DoneHere, runner
from jobs_shards_inputs import write_parts

from carnac.core.document import Document, document_id
from carnac.core.errors import InputError
from carnac.core.schema import DOCUMENTS, MASKS, document_to_row
from carnac.curate.perplexity.arpa import write_arpa
from carnac.curate.perplexity.model import PerplexityModel
from carnac.curate.perplexity.ngrams import BEGIN, END, SPECIAL, count_ngrams
from carnac.curate.perplexity.tokens import split_sentences
from carnac.curate.perplexity.training import train_model
from carnac.curate.texts.split import split_words
from carnac.engine.manifest import read_manifest
from carnac.engine.run import EarlyEnd
from carnac.engine.tables import read_rows
from carnac.jobs.perplexity import PerplexityRecipe, check, run
from carnac.recipe.settings import Limits

ROOT = Path(__file__).parents[2]
LICENCE = (ROOT / "LICENSE").read_text()
PARAGRAPHS = tuple(text for text in LICENCE.split("\n\n") if text.strip())


def recipe_for(folder: Path, **settings: Any) -> PerplexityRecipe:
    given = {"job": "perplexity", "output": folder / "perplexity", "order": 3, **settings}
    return PerplexityRecipe.model_validate(given)


def expected_model(texts: list[str], order: int = 3) -> bytes:
    """Return the model of texts, made in one go."""
    numbers = {name: number for number, name in enumerate(SPECIAL)}
    tokens: list[int] = []
    for sentence in (line for text in texts for line in split_sentences(text)):
        tokens += [BEGIN, *(numbers.setdefault(word, len(numbers)) for word in sentence.split()), END]
    orders = list(count_ngrams(np.array(tokens, np.uint32), len(numbers), order))
    write_arpa(file := io.BytesIO(), pa.array(numbers), orders, train_model(orders))
    return file.getvalue()


def lines_of(arpa: bytes) -> set[bytes]:
    """Return the n-grams: their order hangs on that in which words came."""
    return set(arpa.splitlines())


def write_documents(folder: Path, rows_per_part: int) -> Path:
    """Write documents of two paragraphs and an image each."""
    rows = []
    for number in range(0, len(PARAGRAPHS), 2):
        texts = (*PARAGRAPHS[number : number + 2], None)
        made = Document(
            id=document_id(f"http://stones.example/{number}", b""),
            url=f"http://stones.example/{number}",
            warc_file="a.warc.gz",
            warc_offset=0,
            fetched_at=None,
            title=None,
            language=None,
            language_score=None,
            texts=texts,
            images=tuple("http://stones.example/a.png" if text is None else None for text in texts),
            kinds=tuple("image" if text is None else "paragraph" for text in texts),
            image_nodes=(None,) * len(texts),
        )
        rows.append(document_to_row(made))
    starts = range(0, len(rows), rows_per_part)
    parts = {f"p{start:03}": rows[start : start + rows_per_part] for start in starts}
    write_parts(folder / "documents", "documents", DOCUMENTS, parts)
    return folder / "documents"


def write_masks(folder: Path, rows_per_part: int) -> tuple[Path, list[str]]:
    """Write masks that keep the first paragraph of two documents in three; return the texts kept too."""
    starts = range(0, len(PARAGRAPHS), 2)
    rows = [
        {
            "id": document_id(f"http://stones.example/{start}", b""),
            "keep": start % 3 > 0,
            "reason": None if start % 3 else 0,
            "keep_block": [True, *([False] * (len(PARAGRAPHS[start : start + 2]) - 1)), True],
            "block_reason": [None, *([0] * (len(PARAGRAPHS[start : start + 2]) - 1)), None],
        }
        for start in starts
    ]
    firsts = range(0, len(rows), rows_per_part)
    parts = {f"p{first:03}": rows[first : first + rows_per_part] for first in firsts}
    write_parts(folder / "masks", "masks", MASKS, parts)
    return folder / "masks", [PARAGRAPHS[start] for start in starts if start % 3]


def test_a_model_of_documents_is_that_of_their_texts(tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, documents=write_documents(tmp_path, 7))
    run(recipe, dataclasses.replace(runner()[0], workers=2))
    arpa = (tmp_path / "perplexity/model.arpa").read_bytes()
    assert arpa == expected_model(list(PARAGRAPHS))
    probability, tokens = PerplexityModel.load(tmp_path / "perplexity/model.arpa").score("this License")
    assert tokens == 3
    assert -6 < probability < 0
    rows = list(read_rows(read_manifest(tmp_path / "perplexity", "perplexity").parts[0].path))
    assert [(row["order"], row["num_ngrams"]) for row in rows] == [
        (number, int(line.partition(b"=")[2])) for number, line in enumerate(arpa.splitlines()[1:4], 1)
    ]


def test_common_words_are_those_seen_twice_or_more_the_commonest_first(tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, documents=write_documents(tmp_path, 7))
    run(recipe, runner()[0])
    counts = Counter(word for text in PARAGRAPHS for word in split_words(text))
    expected = sorted((word for word in counts if counts[word] >= 2), key=lambda word: (-counts[word], word))
    assert (tmp_path / "perplexity/common_words.txt").read_text().splitlines() == expected
    run(recipe_for(tmp_path, documents=tmp_path / "documents", min_common_count=9), runner()[0])
    fewer = (tmp_path / "perplexity/common_words.txt").read_text().splitlines()
    assert fewer == [word for word in expected if counts[word] >= 9]


def test_only_what_masks_keep_is_learned_from(tmp_path: Path) -> None:
    documents = write_documents(tmp_path, 7)
    masks, kept = write_masks(tmp_path, 7)
    run(recipe_for(tmp_path, documents=documents, masks=masks), runner()[0])
    assert (tmp_path / "perplexity/model.arpa").read_bytes() == expected_model(kept)


def test_parts_and_workers_do_not_change_the_model(tmp_path: Path, done: DoneHere) -> None:
    models = []
    for rows in (3, 40):
        folder = tmp_path / str(rows)
        run(recipe_for(folder, documents=write_documents(folder, rows)), runner()[0])
        models.append((folder / "perplexity/model.arpa").read_bytes())
    assert models[0] == models[1]


def test_plain_text_is_read_a_sentence_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n\n".join(PARAGRAPHS[:20]))
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress("\n\n".join(PARAGRAPHS[20:]).encode()))
    run(recipe_for(tmp_path, texts=(str(tmp_path / "*.txt"), str(tmp_path / "b.txt.gz"))), runner()[0])
    assert (tmp_path / "perplexity/model.arpa").read_bytes() == expected_model(list(PARAGRAPHS))
    run(recipe_for(tmp_path, texts=(str(tmp_path / "a.txt"),), limit=5), runner()[0])
    five = LICENCE_LINES[:5]
    assert lines_of((tmp_path / "perplexity/model.arpa").read_bytes()) == lines_of(expected_model(five))


LICENCE_LINES = "\n\n".join(PARAGRAPHS).split("\n")


def test_a_second_run_does_nothing_and_another_order_only_trains(tmp_path: Path, done: DoneHere) -> None:
    documents = write_documents(tmp_path, 40)
    run(recipe_for(tmp_path, documents=documents), runner()[0])
    first = len(done.units)
    run(recipe_for(tmp_path, documents=documents), runner()[0])
    assert len(done.units) == first
    run(recipe_for(tmp_path, documents=documents, order=4), runner()[0])
    assert len(done.units) == first + 1
    assert (tmp_path / "perplexity/model.arpa").read_bytes() == expected_model(list(PARAGRAPHS), 4)


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    documents = write_documents(tmp_path, 40)
    with pytest.raises(EarlyEnd):
        run(recipe_for(tmp_path, documents=documents), runner(dry_run=True)[0])
    assert not (tmp_path / "perplexity").exists()


def test_a_corpus_that_takes_too_much_memory_is_refused_before_it_is_trained_on(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the old mill by the river\n" * 200_000)
    recipe = recipe_for(tmp_path, texts=(str(tmp_path / "a.txt"),), max_memory_mb=300)
    with pytest.raises(
        InputError, match=r"1,200,000 tokens at order 3 takes up to 408 MB, and .* allows 300. .* 48% of"
    ):
        run(recipe, runner()[0])
    assert not (tmp_path / "perplexity/model.arpa").exists()


def test_a_corpus_without_words_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n \n")
    with pytest.raises(InputError, match=r"the corpus holds no word. Wanted documents, or lines of text"):
        run(recipe_for(tmp_path, texts=(str(tmp_path / "a.txt"),)), runner()[0])


def test_settings_that_do_not_go_together_are_told(tmp_path: Path) -> None:
    documents, masks = tmp_path / "documents", tmp_path / "masks"
    assert "Wanted one of: documents, texts" in check(recipe_for(tmp_path))[0][1]
    both = check(recipe_for(tmp_path, documents=documents, texts=("a.txt",)))
    assert [location for location, _ in both] == [("texts",)]
    alone = check(recipe_for(tmp_path, texts=("a.txt",), masks=masks))
    assert [location for location, _ in alone] == [("masks",)]
    tight = check(recipe_for(tmp_path, documents=documents, limits=Limits(memory_mb=1000)))
    assert [location for location, _ in tight] == [("limits", "memory_mb")]
    assert check(recipe_for(tmp_path, documents=documents, masks=masks)) == []
