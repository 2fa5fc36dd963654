"""The search for near-duplicates as the job wires it: real pages with planted edits, and pages made for a case."""

from __future__ import annotations

import dataclasses
import io
import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from jobs_near import Crawl, Page, RunnerHere, here, near, rows_of, sources

from carnac.core.schema import REPEATS
from carnac.core.seeds import generator
from carnac.curate.repeats.settings import RepeatsPass
from carnac.curate.texts.split import split_words
from carnac.engine.part import Part
from carnac.engine.progress import TerminalReporter
from carnac.engine.run import Runner
from carnac.engine.tables import read_batches, read_table
from carnac.engine.unit import Stage, Unit
from carnac.jobs import crawl
from carnac.jobs.repeats import search_repeats
from carnac.jobs.repeats_near import search_near
from carnac.jobs.repeats_sources import SearchLimits

Spot = tuple[str, int]  # unit and row
DATA = Path(__file__).parents[2] / "recipes" / "tiny" / "data"
NEAR = RepeatsPass(name="repeats", kind="repeats", by=("near",))
COMPILED = ("carnac.jobs.repeats_near", "carnac.curate.near.kernels", "carnac.curate.near.link")
LIMITS = SearchLimits(max_memory_mb=100, rows_per_bucket=1000)


def text(seed: int, num_words: int = 60) -> list[str]:
    """Return different words for a page, and for each seed others."""
    letters = str.maketrans("0123456789", "abcdefghij")
    return [f"word{seed}x{number}".translate(letters) for number in range(num_words)]


def edited(words: Sequence[str], *places: int) -> str:
    """Return a text with other words at some places; far from others and the ends each costs three shingles."""
    return " ".join("edited" + "abcdefghij"[at % 10] if at in places else word for at, word in enumerate(words))


def page(words: Sequence[str], *places: int, fetched_at: str | None = None) -> Page:
    return Page(texts=(edited(words, *places),), fetched_at=fetched_at)


@pytest.fixture(scope="module")
def real_pages(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """Return the texts of the tiny recipe's 198 pages and of their longer paragraphs, each once."""
    folder = tmp_path_factory.mktemp("near") / "documents"
    warcs = tuple(map(str, sorted(DATA.glob("*.warc.gz"))))
    crawl.run(crawl.CrawlRecipe(job="crawl", warcs=warcs, output=folder), here())
    pages = [
        [text for text in texts if text]
        for part in sorted(folder.glob("*.parquet"))
        for batch in read_batches(part, ["texts"])
        for texts in batch.column("texts").to_pylist()
    ]
    found = {
        " ".join(split_words(" ".join(each))): each for each in [*pages, *([text] for each in pages for text in each)]
    }
    return [each for words, each in found.items() if words.count(" ") >= 25]


def planted(pages: list[list[str]]) -> Crawl:
    """Return pages and, of half of them, a copy with a share of 0 to 8 % of its words replaced, in four units."""
    random = generator(0, "test planted edits")
    all_pages = list(pages)
    for each in pages[::2]:
        share = random.uniform(0, 0.08)
        all_pages.append(
            [" ".join("edited" if random.random() < share else word for word in text.split()) for text in each]
        )
    order = random.permutation(len(all_pages))
    shuffled = [Page(texts=all_pages[place]) for place in order]
    return {f"unit-{number}": shuffled[number::4] for number in range(4)}


def similarities(pages: dict[Spot, Page]) -> dict[tuple[Spot, Spot], float]:
    """Return the Jaccard similarity of the word 3-shingles of all pairs of 0.5 or more, by brute force."""
    sizes, having = dict[Spot, int](), defaultdict[tuple[str, ...], list[Spot]](list)
    found: dict[tuple[Spot, Spot], float] = {}
    for place, each in sorted(pages.items()):
        words = [word for text in each.texts for word in split_words(text)]
        shingles = set(zip(words, words[1:], words[2:], strict=False))
        sizes[place] = len(shingles)
        common = Counter(other for shingle in shingles for other in having[shingle])
        for other, number in common.items():
            similarity = number / (len(shingles) + sizes[other] - number)
            if similarity >= 0.5:
                found[other, place] = similarity
        for shingle in shingles:
            having[shingle].append(place)
    return found


def test_near_duplicates_of_real_pages_are_found_and_hardly_anything_else(
    tmp_path: Path, real_pages: list[list[str]]
) -> None:
    """Recall of pairs of 0.8 or more >= 0.98, precision >= 0.99 where pairs in sets of 0.7 or more are right."""
    crawl_of = planted(real_pages)
    pages = {(unit, row): page for unit, pages in crawl_of.items() for row, page in enumerate(pages)}
    exact = similarities(pages)
    assert len(pages) > 1000
    sets: dict[str, set[tuple[str, int]]] = {}
    for row in near(tmp_path, crawl_of, masked=False):
        unit, _, number = str(row["key"]).partition("~")[0].partition("@")
        sets.setdefault(str(row["key"]), {(unit, int(number))}).add((str(row["unit"]), int(str(row["row"]))))
    together = {pair for members in sets.values() for pair in combinations(sorted(members), 2)}
    alike = [pair for pair, similarity in exact.items() if similarity >= 0.8]
    assert len(alike) > 200
    assert sum(pair in together for pair in alike) / len(alike) >= 0.98
    assert sum(exact.get(pair, 0.0) >= 0.7 for pair in together) / len(together) >= 0.99


def test_no_order_of_units_no_bucket_and_no_memory_changes_what_is_found_and_done_twice_is_done_once(
    tmp_path: Path, real_pages: list[list[str]]
) -> None:
    crawl_of = planted(real_pages[::4])
    rows = near(tmp_path / "first", crawl_of)
    assert len(rows) > 50
    turned = {unit: crawl_of[unit] for unit in reversed(list(crawl_of))}
    for number, (buckets, memory) in enumerate(((1000, 1), (100, 100))):
        folder = tmp_path / f"again-{number}"
        found = near(folder, turned, runner=here(backwards=True), rows_per_bucket=buckets, max_memory_mb=memory)
        assert found == rows
        shutil.rmtree(folder)
    gone = {(row["unit"], row["row"]) for row in rows}
    left = {
        unit: [dataclasses.replace(page, keep=(unit, row) not in gone) for row, page in enumerate(pages)]
        for unit, pages in crawl_of.items()
    }
    assert near(tmp_path / "twice", left) == []


def test_as_many_workers_as_may_be_find_the_same(tmp_path: Path) -> None:
    """In processes of their own, as a run does it."""
    words = [text(seed) for seed in range(3)]
    crawl_of = {"b": [page(words[0]), page(words[1])], "a": [page(words[0], 20), page(words[2]), page(words[1], 30)]}
    found = []
    for workers in (1, 2):
        runner = Runner(reporter=TerminalReporter(io.StringIO()), workers=workers, preload=COMPILED)
        found.append(near(tmp_path / str(workers), crawl_of, runner=runner))
    assert found[0] == found[1] == near(tmp_path / "here", crawl_of)
    assert [(row["unit"], row["row"], row["root"], row["key"]) for row in found[0]] == [
        ("b", 0, "a:0", "a@0~1"),
        ("b", 1, "a:2", "a@2~1"),
    ]


@pytest.mark.parametrize(("keep", "stays"), [("first", "a:0"), ("latest", "a:1"), ("longest", "b:0")])
def test_of_a_set_the_one_stays_that_the_recipe_says(tmp_path: Path, keep: str, stays: str) -> None:
    words = text(1)
    crawl_of = {
        "a": [
            page(words, fetched_at="2025-01-01T00:00:00Z"),
            page(words, 20, fetched_at="2026-01-01T00:00:00+01:00"),
            page(words, 20, fetched_at=None),
        ],
        "b": [page([*words, "more"], fetched_at="2025-12-31T22:59:59Z")],
    }
    rows = near(tmp_path, crawl_of, keep=keep)
    assert {row["root"] for row in rows} == {stays}
    names = {"a:0", "a:1", "a:2", "b:0"}
    assert {row["id"] for row in rows} == names - {stays}
    assert all((row["reason"], row["kind"], row["block"]) == ("repeat.near", "near", None) for row in rows)


def test_only_what_is_kept_competes_and_only_by_its_kept_texts(tmp_path: Path) -> None:
    words, other = text(1), " ".join(text(2))
    whole = Page(texts=(" ".join(words), other))
    crawl_of = {
        "a": [
            dataclasses.replace(whole, keep=False),
            dataclasses.replace(whole, failed="not_measured"),
            dataclasses.replace(whole, dropped_blocks=frozenset({1})),
            Page(texts=("two words",)),
            Page(texts=("two words",)),
            page(words, 20),
        ],
    }
    assert [(row["row"], row["root"]) for row in near(tmp_path / "masked", crawl_of)] == [(5, "a:2")]
    # Before the first pass nothing is dropped, and what could not be measured is known by its signals.
    assert [(row["row"], row["root"]) for row in near(tmp_path / "first", crawl_of, masked=False)] == [(2, "a:0")]


def write_rows(unit: Unit, part: Part) -> None:
    for row in unit.task:
        part.write(row)


def test_what_an_earlier_kind_took_does_not_compete_and_its_blocks_are_not_read(tmp_path: Path) -> None:
    words, footer = text(1), " ".join(text(7, 200))
    read = sources(tmp_path, {"a": [page(words), page(words, 20), Page(texts=(edited(words, 30), footer))]})
    runner, place = here(), tmp_path / "found"
    earlier = [
        {"id": "a:0", "row": 0, "block": None, "reason": "repeat.url", "unit": "a", "kind": "url"},
        {"id": "a:2", "row": 2, "block": 1, "reason": "repeat.paragraph", "unit": "a", "kind": "paragraph"},
    ]
    stage = Stage(name="repeats", version=1, schema=REPEATS, work=write_rows)
    found = runner.do(stage, [stage.unit("url-00000", earlier, settings={}, inputs=[])], place)
    rows = rows_of(search_near(runner, NEAR, read, found, tmp_path / "repeats", LIMITS))
    assert [(row["row"], row["root"]) for row in rows] == [(2, "a:1")]
    rows = rows_of(search_near(runner, NEAR, read, (), tmp_path / "all", LIMITS))
    assert [(row["row"], row["root"]) for row in rows] == [(1, "a:0")]


def test_documents_in_a_chain_are_no_set_but_none_that_is_near_a_kept_one_stays(tmp_path: Path) -> None:
    """Each step of the chain replaces two words of 60: 0.81 to the next, 0.66 two steps on, 0.54 three steps on."""
    words = text(1)
    steps = [
        page(words, *(place for step in range(number) for place in (4 + 10 * step, 9 + 10 * step)))
        for number in range(6)
    ]
    exact = similarities({("a", number): each for number, each in enumerate(steps)})
    near_by = [similarity for (one, other), similarity in exact.items() if other[1] - one[1] == 1]
    assert len(near_by) == 5
    assert min(near_by) >= 0.75
    assert all(similarity < 0.7 for (one, other), similarity in exact.items() if other[1] - one[1] == 2)
    rows = near(tmp_path, {"a": steps})
    kept = sorted(set(range(6)) - {int(str(row["row"])) for row in rows})
    assert len(kept) >= 2
    assert all(exact.get((("a", one), ("a", other)), 0.0) < 0.75 for one, other in combinations(kept, 2))


def test_many_copies_cost_few_comparisons_and_one_stays(tmp_path: Path) -> None:
    words, number = text(1, 300), 400
    random = generator(0, "test many copies")
    pages = [page(words, *random.integers(300, size=2).tolist()) for _ in range(number)]
    runner = here()
    rows = near(tmp_path, {"a": pages[::2], "b": pages[1::2]}, runner=runner)
    assert len(rows) == number - 1
    assert {row["root"] for row in rows} == {"a:0"}
    compared = (
        sum(read_table(path, ["place"]).num_rows for path in (tmp_path / "repeats/near/pairs").glob("*.parquet")) / 2
    )
    assert compared < number * (number - 1) / 2 / 4


def test_nothing_is_found_among_no_documents(tmp_path: Path) -> None:
    assert near(tmp_path / "none", {}) == []
    assert near(tmp_path / "empty", {"a": [], "b": [Page()]}) == []


def test_only_what_depends_on_a_change_is_done_again(tmp_path: Path) -> None:
    words = text(1)
    read = sources(tmp_path, {"a": [page(words)], "b": [page(words, 20)]})

    def units_done(step: RepeatsPass, limits: SearchLimits = LIMITS) -> set[str]:
        runner: RunnerHere = here()
        search_near(runner, step, read, (), tmp_path / "repeats", limits)
        return {name.partition("/")[0] for name in runner.done}

    assert "near_sketches" in units_done(NEAR)
    assert units_done(NEAR) == set()
    assert units_done(NEAR, dataclasses.replace(LIMITS, max_memory_mb=200)) == set()
    other = RepeatsPass(name="repeats", kind="repeats", by=("near",), near_similarity=0.95)
    assert units_done(other) == {"near_compared", "near_sets", "repeats"}
    latest = RepeatsPass(name="repeats", kind="repeats", by=("near",), keep="latest")
    assert units_done(latest) >= {"near_wanted", "near_compared"}
    assert not units_done(latest)


def test_the_search_for_all_repeats_takes_near_ones_too(tmp_path: Path) -> None:
    words = text(1)
    read = sources(tmp_path, {"a": [page(words)], "b": [page(words, 20)]})
    manifest = search_repeats(here(), NEAR, read, tmp_path / "repeats", LIMITS)
    assert [row["root"] for row in rows_of(manifest.parts)] == ["a:0"]
    assert np.array_equal([entry.unit for entry in manifest.parts], ["near-00000"])
