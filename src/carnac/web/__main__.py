"""Print what the extraction makes of pages on disk, as JSON: `python -m carnac.web PAGE.html ... --url URL`.

Each item is `["text", TEXT]` or `["image", URL]`, in reading order; of several pages, an object by path. So anyone can
score it against other extractors.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from carnac.core.errors import RecordError
from carnac.web.extract import read_page
from carnac.web.settings import ExtractSettings


def main() -> int:
    """Run the command; return its exit code: 1 if a page could not be read."""
    parser = argparse.ArgumentParser(prog="python -m carnac.web", description=__doc__.partition("\n\n")[0])
    parser.add_argument("pages", nargs="+", type=Path, metavar="PAGE.html", help="page to read")
    parser.add_argument("--url", default="http://localhost/", help="address of the pages, to resolve their links")
    options = parser.parse_args()
    items, failed = {}, False
    for path in options.pages:
        try:
            blocks = read_page(path.read_bytes(), options.url, None, ExtractSettings())
        except (RecordError, OSError) as error:
            print(f"{path}: {error}", file=sys.stderr)
            failed, blocks = True, []
        items[str(path)] = [["image", block.url] if block.url else ["text", block.text] for block in blocks]
    print(json.dumps(items if len(items) > 1 else next(iter(items.values())), ensure_ascii=False))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
