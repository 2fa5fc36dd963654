"""Cut the shipped sample from a crawl of the scikit-image 0.19 documentation.

    python cut_sample.py CRAWL.warc.gz [--max-bytes 7800000]

Every page is kept. Images are added page by page, the page with the cheapest images first, while they fit; the rest of
the links stay without their image, as in a crawl that ran out of time. Records are copied as stored, byte for byte, in
the order of the crawl: the first half of the pages to `skimage-00000.warc.gz`, the second to `skimage-00001.warc.gz`.
"""

import argparse
import re
from pathlib import Path
from urllib.parse import urljoin

from fastwarc.warc import ArchiveIterator, WarcRecordType

IMAGE = re.compile(rb'<img[^>]+src="([^"]+)"')


def main() -> None:
    """Cut the sample."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crawl", type=Path)
    parser.add_argument("--max-bytes", type=int, default=7_800_000)
    arguments = parser.parse_args()
    stored = arguments.crawl.read_bytes()

    starts, records = [], []
    with arguments.crawl.open("rb") as stream:
        for record in ArchiveIterator(stream, record_types=WarcRecordType.response):
            starts.append(record.stream_pos)
            records.append((record.headers["WARC-Target-URI"], record.http_content_type, record.reader.read()))
    members = [stored[start:stop] for start, stop in zip(starts, [*starts[1:], len(stored)], strict=True)]
    place = {url: index for index, (url, _, _) in enumerate(records)}
    pages = [index for index, (_, media_type, _) in enumerate(records) if media_type == "text/html"]

    def images_of(page: int) -> set[int]:
        url, _, payload = records[page]
        links = (urljoin(url, link.decode()) for link in IMAGE.findall(payload))
        return {place[link] for link in links if link in place}

    chosen: set[int] = set(pages)
    left = arguments.max_bytes - sum(len(members[page]) for page in pages)
    waiting = {page: images_of(page) for page in pages}
    while waiting:
        page = min(waiting, key=lambda page: (sum(len(members[i]) for i in waiting[page] - chosen), page))
        new = waiting.pop(page) - chosen
        cost = sum(len(members[i]) for i in new)
        if cost <= left:
            chosen |= new
            left -= cost

    half = pages[len(pages) // 2]
    folder = Path(__file__).parent
    for number, part in enumerate((range(half), range(half, len(records)))):
        kept = [index for index in part if index in chosen]
        out = folder / f"skimage-{number:05d}.warc.gz"
        out.write_bytes(b"".join(members[index] for index in kept))
        num_pages = sum(index in pages for index in kept)
        print(f"{out.name}: {num_pages} pages, {len(kept) - num_pages} images, {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
