"""Small crawls for the search for repeats: their stored columns on disk, and the search restated as a plain scan."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from urllib.parse import urlsplit

import pyarrow as pa
from hypothesis import strategies as st

from carnac.core.document import KINDS
from carnac.core.places import Place
from carnac.core.schema import MASKS
from carnac.curate.masks import Reasons
from carnac.curate.repeats.settings import DOCUMENT_KINDS, Keep, RepeatKind, RepeatsPass
from carnac.engine.manifest import Manifest, PartEntry, collect_parts, find_done, manifest_of
from carnac.engine.part import Part
from carnac.engine.progress import TerminalReporter
from carnac.engine.run import Runner
from carnac.engine.storage import list_files, make_folder
from carnac.engine.tables import read_table
from carnac.engine.unit import Stage, Unit
from carnac.jobs.curate_judge import Sources, judge
from carnac.jobs.repeats import RepeatSources, SearchLimits, search_repeats

MAX_COPIES = 2
TIMES = (None, "long ago", "2023-03-01T00:00:00Z", "2023-03-01T00:00:00.5Z", "2024-01-01T00:00:00Z")
EARLIER = Reasons(("document.num_words < 9", "text.num_words < 3"))


@dataclass(frozen=True, slots=True)
class Page:
    """A page: a block is a text, or a pair of an image's URL and what its file holds (None without a file).

    `kept` tells of the document and then of each block what the passes before left.
    """

    url: str
    blocks: tuple[str | tuple[str, str | None], ...]
    fetched_at: str | None = None
    kept: tuple[bool, ...] = ()
    failed: bool = False

    def keeps(self, block: int | None = None) -> bool:
        """Whether the document, or one of its blocks, is kept before the search."""
        place = 0 if block is None else block + 1
        return place >= len(self.kept) or self.kept[place]


Crawl = dict[str, list[Page]]
Found = tuple[str, str, int, int | None, str | None]  # kind, unit, row, block, root
Row = dict[str, object]
Place_ = tuple[str, int, int | None]

_TEXTS = st.sampled_from(["one", "two words", "three words now", "Share this"])
_IMAGES = st.tuples(st.sampled_from("ijkl"), st.sampled_from([None, "x", "y"]))
_URLS = st.sampled_from(["http://a.example/1", "https://A.example:8080/2", "http://b.example/1", "http://b.example/2"])
PAGES = st.builds(
    Page,
    url=_URLS,
    blocks=st.lists(_TEXTS | _IMAGES, max_size=5).map(tuple),
    fetched_at=st.sampled_from(TIMES),
    kept=st.lists(st.sampled_from([True, True, True, False]), max_size=6).map(tuple),
    failed=st.sampled_from([False] * 9 + [True]),
)
CRAWLS = st.dictionaries(st.sampled_from(["a", "B", "a~2", "z-9", "10"]), st.lists(PAGES, max_size=6), max_size=3)


class RunnerHere(Runner):
    """Does units in this process: a process per unit of a hundred small searches would take minutes."""

    def do(self, stage: Stage, units: Sequence[Unit], folder: Place) -> tuple[PartEntry, ...]:
        make_folder(folder)
        found = find_done(folder, units, list_files(folder))
        for unit in (unit for unit in units if found[unit.name] is None):
            assert stage.work is not None
            with Part(stage, unit, folder) as part:
                stage.work(unit, part)
        return collect_parts(folder, units)


HERE = RunnerHere(reporter=TerminalReporter(io.StringIO()))


def _stage(name: str, columns: Mapping[str, pa.DataType], rows_per_group: int) -> Stage:
    schema = pa.schema([("id", pa.string()), *columns.items()])
    return Stage(name=name, version=1, schema=schema, work=None, rows_per_group=rows_per_group)


# The columns that the search reads, in row groups of different sizes.
_DOCUMENTS = _stage("documents", {"url": pa.string(), "fetched_at": pa.string()}, 3)
_SIGNALS = _stage(
    "signals",
    {
        "failed": pa.string(),
        "block_kind": pa.list_(pa.int8()),
        "url_digest": pa.uint64(),
        "text_digest": pa.uint64(),
        "block_num_words": pa.list_(pa.int32()),
        "block_text_digest": pa.list_(pa.uint64()),
        "block_image_digest": pa.list_(pa.uint64()),
    },
    4,
)
_IMAGE_SIGNALS = _stage("image_signals", {"block_sha256": pa.list_(pa.string())}, 2)


def digest(text: str) -> int:
    """Return a hash of 64 bits."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def name_of(unit: str, row: int) -> str:
    """Return the id of a document."""
    return f"{unit}:{row}"


def _rows_of(page: Page, name: str) -> tuple[Row, ...]:
    """Return a page's rows of documents, signals, image_signals and masks."""
    texts = [block if isinstance(block, str) else None for block in page.blocks]
    pairs = [block if isinstance(block, tuple) else (None, None) for block in page.blocks]
    known = not page.failed
    page_text = " ".join(text for text in texts if text is not None)
    signals: Row = {
        "id": name,
        "failed": None if known else "not_measured",
        "block_kind": [KINDS.index("image" if text is None else "paragraph") for text in texts],
        "url_digest": digest(page.url) if known else None,
        "text_digest": digest(page_text) if known and page_text else None,
        "block_num_words": [len(text.split()) if known and text else None for text in texts],
        "block_text_digest": [digest(text) if known and text else None for text in texts],
        "block_image_digest": [digest(url) if known and url else None for url, _ in pairs],
    }
    sha256 = [None if content is None else hashlib.sha256(content.encode()).hexdigest() for _, content in pairs]
    keep, kept = page.keeps(), [page.keeps(block) for block in range(len(texts))]
    masks: Row = {
        "id": name,
        "keep": keep,
        "reason": None if keep else 0,
        "keep_block": kept,
        "block_reason": [None if each else 1 for each in kept],
    }
    documents: Row = {"id": name, "url": page.url, "fetched_at": page.fetched_at}
    return documents, signals, {"id": name, "block_sha256": sha256}, masks


def written(folder: Place, stage: Stage, rows: Mapping[str, Sequence[Mapping[str, object]]]) -> Manifest:
    """Write a stage's folder of these rows."""
    folder = folder / stage.name
    make_folder(folder)
    units = [stage.unit(name, None, settings={}, inputs=[str(rows[name])]) for name in rows]
    for unit in units:
        with Part(stage, unit, folder) as part:
            for row in rows[unit.name]:
                part.write(dict(row))
    return manifest_of(stage, folder, collect_parts(folder, units), {}, {})


def sources(folder: Place, crawl: Crawl, *, images: bool = True) -> RepeatSources:
    """Write what the search reads of a crawl. Where all is kept there is no mask: it must be as before any pass."""
    rows = {unit: [_rows_of(page, name_of(unit, n)) for n, page in enumerate(pages)] for unit, pages in crawl.items()}
    masks = Stage(name="masks", version=1, schema=MASKS.with_metadata(EARLIER.to_metadata()), work=None)
    documents, signals, image_signals, last = (
        written(folder, stage, {unit: [row[place] for row in rows[unit]] for unit in rows})
        for place, stage in enumerate((_DOCUMENTS, _SIGNALS, _IMAGE_SIGNALS, masks))
    )
    is_masked = any(not all(page.kept) for pages in crawl.values() for page in pages)
    return RepeatSources(
        documents=documents,
        signals=signals,
        images=image_signals if images else None,
        last=last if is_masked else None,
    )


def repeats_pass(by: Sequence[RepeatKind], keep: Keep = "first") -> RepeatsPass:
    """Return a pass that takes what occurs more than `MAX_COPIES` times."""
    copies = {"max_paragraph_copies": MAX_COPIES, "max_image_copies": MAX_COPIES}
    return RepeatsPass(name="repeats", kind="repeats", by=tuple(by), keep=keep, **copies)


def search(
    folder: Place,
    crawl: Crawl,
    by: Sequence[RepeatKind],
    keep: Keep = "first",
    rows_per_bucket: int = 1000,
    here: Runner = HERE,
) -> Manifest:
    """Write what the search reads and search it."""
    limits = SearchLimits(max_memory_mb=100, rows_per_bucket=rows_per_bucket)
    return search_repeats(here, repeats_pass(by, keep), sources(folder, crawl), folder / "repeats", limits)


def rows_of_parts(manifest: Manifest) -> list[dict[str, object]]:
    """Return the rows of all parts."""
    return [row for entry in manifest.parts for row in read_table(entry.path).to_pylist()]


def found_in(manifest: Manifest) -> list[Found]:
    """Return what a search found."""
    rows = rows_of_parts(manifest)
    return [tuple(row[name] for name in ("kind", "unit", "row", "block", "root")) for row in rows]  # type: ignore[misc]


def masks_after(
    folder: Place, crawl: Crawl, by: Sequence[RepeatKind], keep: Keep, rows_per_bucket: int = 1000
) -> Crawl:
    """Search, judge, and return the crawl with what is kept then."""
    read = sources(folder, crawl)
    limits = SearchLimits(max_memory_mb=100, rows_per_bucket=rows_per_bucket)
    step = repeats_pass(by, keep)
    hits = search_repeats(HERE, step, read, folder / "repeats", limits)
    judged = Sources(signals=read.signals, images=None, kept=None, last=read.last, hits=hits)
    masks = judge(HERE, judged, step, Reasons((*EARLIER.names, *step.reasons())), folder / "judged")
    after: Crawl = {}
    for unit, pages in crawl.items():
        rows = read_table(masks.part(unit).path).to_pylist()
        after[unit] = [
            replace(page, kept=(row["keep"], *row["keep_block"])) for page, row in zip(pages, rows, strict=True)
        ]
    return after


class Scan:
    """The search as a scan in the order of units and rows, kind after kind: what it is held to."""

    def __init__(self, crawl: Crawl) -> None:
        self.crawl = crawl
        self.gone: set[Place_] = set()
        self.found: list[Found] = []

    def search(self, by: Sequence[RepeatKind], keep: Keep) -> set[Found]:
        """Search kind after kind; return all that is found."""
        for kind in by:
            if kind in DOCUMENT_KINDS:
                taken = list(self._documents(kind, keep))
            elif kind == "image_in_document":
                taken = list(self._within())
            else:
                taken = list(self._frequent(kind))
            self.found += taken
            self.gone |= {(unit, row, block) for _, unit, row, block, _ in taken}
        assert len(set(self.found)) == len(self.found)
        return set(self.found)

    def _alive(self) -> Iterator[tuple[str, int, Page, list[int]]]:
        """Yield unit, row, page and kept blocks of what is still kept."""
        for unit in sorted(self.crawl):
            for row, page in enumerate(self.crawl[unit]):
                blocks = [
                    block
                    for block in range(len(page.blocks))
                    if page.keeps(block) and (unit, row, block) not in self.gone
                ]
                if page.keeps() and not page.failed and blocks and (unit, row, None) not in self.gone:
                    yield unit, row, page, blocks

    def _documents(self, kind: str, keep: Keep) -> Iterator[Found]:
        sets: dict[object, list[tuple[object, str, int]]] = {}
        for unit, row, page, blocks in self._alive():
            key = self._key(kind, page, blocks)
            if key is not None:
                sets.setdefault(key, []).append((_rank(page, blocks, keep), unit, row))
        for members in sets.values():
            _, unit, row = min(members, key=lambda member: (member[0], member[1], member[2]))
            for _, other, number in members:
                if (other, number) != (unit, row):
                    yield kind, other, number, None, name_of(unit, row)

    @staticmethod
    def _key(kind: str, page: Page, blocks: list[int]) -> object:
        if kind == "url":
            return page.url
        if kind == "text":
            return " ".join(block for block in page.blocks if isinstance(block, str) and block) or None
        return frozenset(page.blocks[block][0] for block in blocks if isinstance(page.blocks[block], tuple)) or None

    def _frequent(self, kind: str) -> Iterator[Found]:
        keys: dict[Place_, object] = {}
        for unit, row, page, blocks in self._alive():
            for block in blocks:
                key = _shared(kind, page, block)
                if key is not None:
                    keys[unit, row, block] = key
        copies = Counter(keys.values())
        for (unit, row, place), key in keys.items():
            if copies[key] > MAX_COPIES:
                yield kind, unit, row, place, None

    def _within(self) -> Iterator[Found]:
        for unit, row, page, blocks in self._alive():
            urls: set[str] = set()
            contents: set[str] = set()
            for block in blocks:
                each = page.blocks[block]
                if isinstance(each, tuple):
                    if each[0] in urls or each[1] in contents:
                        yield "image_in_document", unit, row, block, name_of(unit, row)
                    urls.add(each[0])
                    contents |= set() if each[1] is None else {each[1]}


def _shared(kind: str, page: Page, block: int) -> object:
    """Return what a block shares with its copies, None where it is none of the kind."""
    each = page.blocks[block]
    if isinstance(each, str):
        return (urlsplit(page.url).hostname, each) if kind == "paragraph" and each else None
    return {"image_url": each[0], "image_sha256": each[1]}.get(kind)


def _rank(page: Page, blocks: list[int], keep: Keep) -> float:
    """Return what is smallest for the page that is to stay."""
    if keep == "longest":
        return -sum(len(text.split()) for text in (page.blocks[block] for block in blocks) if isinstance(text, str))
    if keep == "latest" and page.fetched_at not in (None, "long ago"):
        return -datetime.fromisoformat(str(page.fetched_at)).timestamp()
    return 0
