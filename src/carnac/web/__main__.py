"""Print what the extraction makes of pages on disk, as JSON.

Each item is `["text", TEXT]` or `["image", URL]`, in reading order; of several pages, an object by path. So anyone can
score it against other extractors.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from pathlib import Path

from carnac.core.errors import RecordError
from carnac.web.extract import read_page
from carnac.web.settings import ExtractSettings
from carnac.web.sources import resolve


def main() -> int:
    """Run the command; return its exit code: 1 if a page could not be read."""
    parser = argparse.ArgumentParser(prog="python -m carnac.web", description=(__doc__ or "").replace("`", ""))
    parser.add_argument("pages", nargs="+", metavar="PAGE.html", help="page to read")
    parser.add_argument("--url", default="http://localhost/", help="address of the pages, to resolve their links")
    parser.add_argument(
        "--scope", choices=("main", "page"), default="main", help="the article, or all by OBELICS's rules"
    )
    parser.add_argument("--comments", action="store_true", help="keep the comments of readers")
    options = parser.parse_args()
    if resolve(options.url, options.url) is None:
        parser.error(f"--url: got {options.url!r}, wanted an address such as https://example.org/page.html")
    settings = ExtractSettings(scope=options.scope, comments=options.comments)
    items, failed = {}, False
    for name in options.pages:
        try:
            blocks = read_page(Path(name).read_bytes(), options.url, None, settings)
        except RecordError as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed, blocks = True, []
        except OSError as error:
            print(f"{name}: cannot be read ({error.strerror}); wanted a file that holds HTML.", file=sys.stderr)
            failed, blocks = True, []
        items[name] = [["image", block.url] if block.url else ["text", block.text] for block in blocks]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="replace")
    try:
        print(json.dumps(items if len(options.pages) > 1 else items[options.pages[0]], ensure_ascii=False), flush=True)
    except BrokenPipeError:  # who read it has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
