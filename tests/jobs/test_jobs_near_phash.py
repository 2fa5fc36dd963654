"""The search for frequent pictures as the job wires it: real pictures, scaled and recompressed, and made hashes."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

from fastwarc.warc import ArchiveIterator, WarcRecordType
from jobs_near import Crawl, Page, here, rows_of, sources
from PIL import Image

from carnac.core.seeds import generator
from carnac.curate.repeats.settings import RepeatsPass
from carnac.engine.run import Runner
from carnac.images.phash import perceptual_hash
from carnac.jobs.repeats import search_repeats
from carnac.jobs.repeats_phash import search_phash
from carnac.jobs.repeats_sources import SearchLimits

DATA = Path(__file__).parents[2] / "recipes" / "tiny" / "data"
MAX_COPIES = 3
Row = dict[str, object]


def step(max_distance: int = 4) -> RepeatsPass:
    return RepeatsPass(
        name="repeats",
        kind="repeats",
        by=("image_phash",),
        max_image_copies=MAX_COPIES,
        max_phash_distance=max_distance,
    )


def search(
    folder: Path,
    crawl: Crawl,
    *,
    max_distance: int = 4,
    runner: Runner | None = None,
    rows_per_bucket: int = 1000,
    max_memory_mb: int = 100,
) -> list[Row]:
    limits = SearchLimits(max_memory_mb=max_memory_mb, rows_per_bucket=rows_per_bucket)
    read = sources(folder, crawl, with_images=True)
    entries = search_phash(runner or here(), step(max_distance), read, (), folder / "repeats", limits)
    return sorted(rows_of(entries), key=lambda row: (str(row["unit"]), int(str(row["row"])), int(str(row["block"]))))


def blocks(rows: list[Row]) -> list[tuple[object, object, object]]:
    return [(row["unit"], row["row"], row["block"]) for row in rows]


def pictures(number: int) -> list[Image.Image]:
    found = []
    for path in sorted(DATA.glob("*.warc.gz")):
        with path.open("rb") as file:
            for record in ArchiveIterator(file, record_types=WarcRecordType.response):
                if (record.http_content_type or "").startswith("image/"):
                    try:
                        image = Image.open(io.BytesIO(record.reader.read())).convert("RGB")
                    except OSError:
                        continue
                    if min(image.size) >= 200:
                        found.append(image)
                if len(found) == number:
                    return found
    return found


def changed(image: Image.Image, scale: float, quality: int) -> int:
    """Return the hash of a picture after scaling and recompression."""
    buffer = io.BytesIO()
    image.resize((int(image.width * scale), int(image.height * scale))).save(buffer, "JPEG", quality=quality)
    return perceptual_hash(Image.open(buffer))


def test_a_picture_that_is_everywhere_goes_however_it_was_scaled_or_recompressed(tmp_path: Path) -> None:
    found = pictures(12)
    assert len(found) == 12
    often, seldom = found[:6], found[6:]
    versions = ((1.0, 90), (0.5, 85), (0.7, 60), (1.3, 75))
    pages = [Page(pictures=[changed(image, *version) for image in often]) for version in versions]
    pages.append(Page(texts=("a page",), pictures=[changed(image, 1.0, 90) for image in seldom]))
    rows = search(tmp_path, {"a": pages[::2], "b": pages[1::2]})
    gone = {(row["unit"], row["row"], row["block"]) for row in rows}
    assert gone == {(unit, row, block) for unit in "ab" for row in (0, 1) for block in range(6)}
    assert all((row["reason"], row["kind"], row["root"]) == ("repeat.image_phash", "image_phash", None) for row in rows)
    assert len({row["key"] for row in rows}) == 6


def test_copies_are_counted_over_a_set_and_all_go_or_none(tmp_path: Path) -> None:
    at_limit, over = 0x0F0F, 0xFFFF_0000_0000_0000
    pages = [
        Page(pictures=[at_limit, at_limit ^ 1, over]),
        Page(texts=("text",), pictures=[over ^ 2, None, over ^ 4]),
        Page(pictures=[at_limit, over]),
    ]
    rows = search(tmp_path, {"a": pages})
    assert blocks(rows) == [("a", 0, 2), ("a", 1, 1), ("a", 1, 3), ("a", 2, 1)]
    assert {row["key"] for row in rows} == {f"{over:016x}"}


def test_a_single_hash_that_is_too_frequent_goes_without_a_neighbour_and_at_distance_nought(tmp_path: Path) -> None:
    pages = [Page(pictures=[7, 0xFF00])] * (MAX_COPIES + 1)
    for max_distance in (0, 1):
        rows = search(
            tmp_path / str(max_distance), {"a": [*pages, Page(pictures=[1 << 60])]}, max_distance=max_distance
        )
        assert {row["key"] for row in rows} == {f"{7:016x}", f"{0xFF00:016x}"}
        assert len(rows) == 2 * (MAX_COPIES + 1)


def test_only_kept_images_of_kept_documents_are_counted(tmp_path: Path) -> None:
    page = Page(pictures=[5, 5])
    pages = [
        page,
        dataclasses.replace(page, keep=False),
        dataclasses.replace(page, dropped_blocks=frozenset({0})),
        dataclasses.replace(page, failed="not_measured"),
    ]
    assert search(tmp_path / "three", {"a": pages}) == []
    rows = search(tmp_path / "four", {"a": [*pages, Page(pictures=[4])]})
    assert blocks(rows) == [("a", 0, 0), ("a", 0, 1), ("a", 2, 1), ("a", 4, 0)]


def test_no_order_no_bucket_and_no_memory_changes_what_goes_and_done_twice_is_done_once(tmp_path: Path) -> None:
    random = generator(0, "test frequent pictures")
    base = random.integers(1 << 63, size=170)
    drawn = [
        [
            int(base[place]) ^ int(bits)
            for place, bits in zip(random.integers(170, size=6), 1 << random.integers(60, size=6), strict=True)
        ]
        for _ in range(90)
    ]
    pages = [Page(texts=("t",), pictures=each) for each in drawn]
    crawl = {"a": pages[:30], "b": pages[30:60], "c": pages[60:]}
    rows = search(tmp_path / "first", crawl)
    assert 100 < len(rows) < 540
    for number, (buckets, memory) in enumerate(((1000, 1), (60, 100))):
        again = search(
            tmp_path / str(number),
            dict(sorted(crawl.items(), reverse=True)),
            runner=here(backwards=True),
            rows_per_bucket=buckets,
            max_memory_mb=memory,
        )
        assert again == rows
    gone = set(blocks(rows))
    left = {
        unit: [
            dataclasses.replace(page, dropped_blocks=frozenset(n for n in range(7) if (unit, row, n) in gone))
            for row, page in enumerate(pages)
        ]
        for unit, pages in crawl.items()
    }
    assert search(tmp_path / "twice", left) == []


def test_without_images_there_is_nothing_and_with_them_the_search_for_all_repeats_takes_them(tmp_path: Path) -> None:
    crawl = {"a": [Page(pictures=[3])] * (MAX_COPIES + 1)}
    limits = SearchLimits(max_memory_mb=100, rows_per_bucket=1000)
    read = sources(tmp_path, crawl, with_images=True)
    without = dataclasses.replace(read, images=None)
    assert search_phash(here(), step(), without, (), tmp_path / "none", limits) == ()
    manifest = search_repeats(here(), step(), read, tmp_path / "repeats", limits)
    assert len(rows_of(manifest.parts)) == MAX_COPIES + 1
