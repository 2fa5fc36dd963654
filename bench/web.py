"""CPU of a page from bytes to a document, against a bare lexbor parse of the same page (the floor).

The design asks for at most 5 parses and aims at 3.5; language identification is counted apart.
"""

from __future__ import annotations

from pathlib import Path

from selectolax.lexbor import LexborHTMLParser
from turns import in_turns, report

from carnac.archive.records import Response, read_responses
from carnac.web.charset import decode_page
from carnac.web.extract import extract_document, is_page
from carnac.web.settings import ExtractSettings

DATA = Path(__file__).parents[1] / "recipes" / "tiny" / "data"


def main() -> None:
    """Run the benchmark."""
    records = [
        record for path in sorted(DATA.glob("*.warc.gz")) for record in read_responses(path, max_payload_bytes=10**8)
    ]
    pages = [record for record in records if isinstance(record, Response) and is_page(record)]
    settings = ExtractSettings()

    def parse() -> None:
        for page in pages:
            LexborHTMLParser(decode_page(page.payload, page.charset)[0])

    def extract() -> None:
        for page in pages:
            extract_document(page, "bench", settings)

    print(f"{len(pages)} pages, {sum(len(page.payload) for page in pages) / 1e6:.1f} MB")
    report(in_turns({"decode and parse": parse, "extract, with language": extract}, rounds=7), "decode and parse")


if __name__ == "__main__":
    main()
