"""`scripts/bench extraction [--pages FOLDER] [--rounds 5]`: CPU per page and quality, beside other extractors.

Pages are those of the tiny recipe's archives, or FOLDER/NAME/source.html with FOLDER/NAME/expected.html, their main
content, against which all methods are then scored. Results go to bench/results/extraction.json, .md and .png.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from random import Random

from turns import machine

from extraction.adversarial import adversarial_pages
from extraction.archives import measure_archives
from extraction.methods import DOCUMENT, FLOOR, READ_PAGE, RESILIPARSE, Method, other_methods, own_methods
from extraction.outcome import (
    Facts,
    adversarial_facts,
    archive_facts,
    beside,
    draw,
    method_facts,
    versions,
    write_outcome,
)
from extraction.pages import Page, pages_of_archives, pages_of_folder
from extraction.quality import score
from extraction.timing import measure, measure_apart

BENCH = Path(__file__).parents[1]
DATA = BENCH.parent / "recipes" / "tiny" / "data"
UNSCORED = (
    "Quality is not scored: the main content of these pages is not known. Give a folder with --pages in which "
    "each page has source.html and expected.html."
)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="extraction", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pages", type=Path, metavar="FOLDER", help="pages NAME/source.html, with NAME/expected.html")
    parser.add_argument("--url", default="http://fakehost/test/page.html", help="address of the pages in FOLDER")
    parser.add_argument(
        "--warcs", type=Path, nargs="+", default=sorted(DATA.glob("*.warc.gz")), help="archives to read"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="the order of the turns is drawn from it")
    parser.add_argument("--skip", nargs="+", choices=("others", "archives", "adversarial"), default=[])
    parser.add_argument("--results", type=Path, default=BENCH / "results", help="folder to write to")
    parser.add_argument("--draft", action="store_true", help="write nothing, print only")
    asked = parser.parse_args()
    of_archives = pages_of_archives(asked.warcs)
    pages = pages_of_folder(asked.pages, asked.url) if asked.pages else of_archives
    if not pages:
        where = f"{asked.pages}: holds no page" if asked.pages else "the archives hold no page"
        parser.error(f"{where}; wanted FOLDER/NAME/source.html, or WARC files with HTML in them")
    others, notes = other_methods() if "others" not in asked.skip else ([], [])
    methods = [*own_methods(), *others]
    print(f"{len(pages)} pages, {len(methods)} methods, {asked.rounds} rounds", flush=True)
    facts: Facts = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": versions(),
        "rounds": asked.rounds,
        "seed": asked.seed,
        "pages": {
            "name": asked.pages.absolute().name if asked.pages else ", ".join(path.name for path in asked.warcs),
            "number": len(pages),
            "bytes": sum(len(page.payload) for page in pages),
        },
        "notes": notes + ([] if any(page.expected is not None for page in pages) else [UNSCORED]),
    }
    timings = measure(methods, pages, asked.rounds, Random(asked.seed))  # noqa: S311 -- no secret
    facts["methods"] = {method.name: method_facts(method, timings, pages, score(method, pages)) for method in methods}
    facts["beside"] = beside(READ_PAGE, RESILIPARSE, timings) if RESILIPARSE in timings.seconds else None
    skips_archives = "archives" in asked.skip
    facts["archives"] = (
        None if skips_archives else archive_facts(measure_archives(asked.warcs, of_archives, asked.rounds))
    )
    facts["adversarial"] = {} if "adversarial" in asked.skip else _adversarial(methods, facts["methods"], asked.rounds)
    facts["load"] = " ".join(f"{load:.1f}" for load in os.getloadavg())
    print(draw(facts), end="")
    if not asked.draft:
        for sentence in write_outcome(facts, asked.results):
            print(sentence)


def _adversarial(methods: list[Method], measured: dict[str, Facts], rounds: int) -> dict[str, Facts]:
    """Time the floor and carnac on the pages made to cost much; those of others may not end."""
    ours = [method for method in methods if method.name in (FLOOR, READ_PAGE, DOCUMENT)]
    names = [method.name for method in ours]

    def facts_of(page: Page) -> Facts:
        print(f"  {page.name}", flush=True)
        return adversarial_facts(page, measure_apart(ours, page, min(rounds, 3)), names, measured)

    return {page.name: facts_of(page) for page in adversarial_pages()}


if __name__ == "__main__":
    main()
