"""The cost of all signals of texts beside a plain restatement: wanted at most 1/8; and of a block 100 times as large.

    scripts/bench signals                   pages of the tiny recipe
    python bench/signals.py WARC ...        other pages, from WARC files

What is timed of carnac is more than what is timed of the restatement (`signals_plain.py`): keys of repeats and what
pages tell of their images are in it too. Both have the same common words; neither has a language model, whose library
takes the same time for both. Values are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from signals_plain import Lists, measure_page
from turns import in_turns, machine, report

from carnac.archive.records import Response, read_responses
from carnac.core.document import Document
from carnac.core.errors import RecordError
from carnac.core.seeds import generator
from carnac.curate.signals.measure import measure, signals_table
from carnac.curate.texts.batch import TextBatch
from carnac.curate.texts.lexicon import Lexicon
from carnac.curate.texts.split import split_words
from carnac.curate.texts.word_lists import languages_with, read_words
from carnac.curate.texts.words import WordTable
from carnac.web.extract import extract_document, is_page
from carnac.web.settings import ExtractSettings

DATA = sorted((Path(__file__).parents[1] / "recipes" / "tiny" / "data").glob("*.warc.gz"))
MAX_PAYLOAD_BYTES = 10_000_000
SMALL, LARGE = 10_000, 1_000_000  # characters of a block


def read_pages(archives: Sequence[Path]) -> list[Document]:
    """Return the documents of all pages of WARC files."""
    found = []
    for archive in archives:
        for record in read_responses(archive, max_payload_bytes=MAX_PAYLOAD_BYTES):
            if isinstance(record, Response) and is_page(record):
                try:
                    found.append(extract_document(record, archive.name, ExtractSettings()))
                except RecordError:
                    continue
    return found


def texts_of(document: Document) -> list[str]:
    """Return the texts of a document."""
    return [text for text in document.texts if text is not None]


def lists_of(language: str, common: Sequence[str]) -> Lists:
    """Return the lists that carnac takes for a language, as sets."""
    stop, flagged, spam = (
        frozenset(read_words(kind, language if language in languages_with(kind) else "en"))
        for kind in ("stop", "flagged", "spam")
    )
    return Lists(stop=stop, flagged=flagged, spam=spam, common=frozenset(common))


def largest_difference(document: Document, lexicon: Lexicon, lists: Lists) -> float:
    """Return by how much any value of a document differs from the restatement."""
    measured = measure(document, lexicon)
    blocks, page = measure_page(texts_of(document), lists)
    differences = [abs(measured.plain[name] - value) for name, value in page.items()]
    for place, block in enumerate(blocks):
        differences += [abs(float(measured.blocks[f"block_{name}"][place]) - value) for name, value in block.items()]
    return float(max(differences))


def all_signals_of_each(texts: Sequence[str], lexicon: Lexicon) -> None:
    """Measure each text as a document of one block, without keys and images."""
    for text in texts:
        batch = TextBatch.of([text])
        batch.word_counts(lexicon, "en")
        batch.common_counts(lexicon)
        batch.character_counts()
        batch.boilerplate_counts()
        batch.repetition_of_blocks()
        batch.repetition_of_page()


def compare_sizes(name: str, text: str, lexicon: Lexicon, rounds: int) -> None:
    """Print the time of one block of `LARGE` characters, in times of one of `SMALL`: the mean over the same text."""
    small = [text[start : start + SMALL] for start in range(0, LARGE, SMALL)]
    functions: dict[str, Callable[[], object]] = {
        "small": lambda: all_signals_of_each(small, lexicon),
        "large": lambda: all_signals_of_each([text], lexicon),
    }
    seconds = in_turns(functions, rounds=rounds)
    ratios = [len(small) * large / each for large, each in zip(seconds["large"], seconds["small"], strict=True)]
    print(
        f"{name:32} {statistics.median(seconds['large']) * 1e3:8.1f} ms for {LARGE:,} characters, "
        f"{statistics.median(ratios):.0f} x {SMALL:,} ({min(ratios):.0f} to {max(ratios):.0f})"
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archives", nargs="*", type=Path, default=DATA)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    documents = read_pages(arguments.archives)
    met = Counter(word for document in documents for text in texts_of(document) for word in split_words(text))
    common = [word for word, count in met.items() if count > 1]
    lexicon = Lexicon(common=WordTable.of(dict.fromkeys(common, 1)))
    lists = {language: lists_of(language, common) for language in {each.language or "en" for each in documents}}
    blocks = sum(len(texts_of(document)) for document in documents)
    characters = sum(len(text) for document in documents for text in texts_of(document))
    print(f"{machine()}, load {os.getloadavg()[0]:.1f}")
    print(f"{len(documents):,} pages, {blocks:,} text blocks, {characters:,} characters")
    worst = max(largest_difference(each, lexicon, lists[each.language or "en"]) for each in documents)
    print(f"largest difference of a value: {worst:.1e}")
    assert worst <= 1e-6
    functions: dict[str, Callable[[], object]] = {
        "carnac": lambda: [measure(each, lexicon) for each in documents],
        "carnac, rows of signals/": lambda: signals_table([measure(each, lexicon) for each in documents]),
        "plain Python": lambda: [measure_page(texts_of(each), lists[each.language or "en"]) for each in documents],
    }
    report(in_turns(functions, rounds=arguments.rounds), "carnac")
    words = " ".join(text for document in documents for text in texts_of(document)).split(" ")
    drawn = generator(0, "bench signals").choice(words, LARGE // 2)
    compare_sizes("block of real text", " ".join(words * (1 + LARGE // characters))[:LARGE], lexicon, arguments.rounds)
    compare_sizes("block of random words", " ".join(drawn)[:LARGE], lexicon, arguments.rounds)


if __name__ == "__main__":
    main()
