"""The data chain of the tiny recipes on pages chosen to show what its stages do: from archives to the plan.

The pages are real: the first of one shipped archive, and a second crawl made from it, in which some pages come again
under their address (repeats by URL), some under another (repeats by text), one image is damaged and the end is cut off.
What a model computes is not here: its floats depend on the processor.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from story_runs import DATA, RECIPES, carnac, overrides, run_recipes

OUTPUTS = Path("out", "tiny")
ROOT = Path(__file__).parents[2]
LIMIT = 40  # pages per archive: enough for every stage to have something to do, at a second per stage
ARCHIVE = RECIPES / "data" / "skimage-00001.warc.gz"
# Bytes of the archive unpacked: 28 pages and the start of a record; those from MOVED_FROM on move to another host.
MIRROR_BYTES, MOVED_FROM = 2_600_000, 1_000_000
# Rows that hold several pieces, over more than one epoch: with rows as short as in the story a plan packs nothing.
PLAN = ("--set=mix.row_tokens=2048", "--set=training.steps=8")
# Questions about the pictures of the documentation, one of which is not there: another job that writes shards.
CONVERSATIONS = f"""job = "conversations"
format = "questions"
train = ["questions.json"]
output = "{OUTPUTS / "conversations"}"
source = "asked"

[questions]
questions_per_conversation = 1
"""
PICTURES = ("document", "loss", "shapes", "missing")
# Pages are few; even so the search for repeats is to have more than one bucket.
CURATE = ("--set=rows_per_bucket=20",)

# A second curation of the same pages, with every kind of pass and of repeat that the tiny recipe leaves out.
MORE = f"""job = "curate"
documents = "{OUTPUTS / "documents"}"
images = "{OUTPUTS / "images"}"
output = "{OUTPUTS / "more"}"
rows_per_bucket = 20

[[pass]]
name = "blocks"
kind = "rules"
rules = [{{ on = "text", signal = "num_words", min = 3 }}]

[[pass]]
name = "repeats"
kind = "repeats"
by = ["image_in_document", "image_set", "paragraph", "image_phash", "image_url", "image_sha256", "near"]
keep = "longest"
max_image_copies = 1

[[pass]]
name = "lists"
kind = "lists"
domains = ["domains.txt"]
urls = ["urls.txt"]

[[pass]]
name = "sets"
kind = "decontaminate"
set = [{{ name = "asked", texts = "asked.txt" }}]

[[pass]]
name = "documents"
kind = "rules"
rules = [{{ on = "document", signal = "word_repetition", max = 0.2 }}]
"""
LISTS = {
    "domains.txt": "example.net\nmirror.example\n",
    "urls.txt": "https://scikit-image.org/docs/0.19.x/api/skimage.html\n",
    "asked.txt": "The watershed is a classical algorithm used for segmentation, that is, for separating different "
    "objects in an image.\n"
    "In this example, we use phase cross-correlation to identify the relative shift between two similar-sized images.\n"
    "This example constructs a Region Adjacency Graph (RAG) and draws it with the rag_draw method.\n",
}

_CURATED_MASKS = tuple(f"curated/masks/{name}" for name in ("blocks", "documents", "repeats"))
_MORE_MASKS = ("repeats", "lists", "sets", "documents")
_IN_BUCKETS = ("paragraph", "image_url", "image_sha256", "image_set")
_KEPT = ("documents", "more/signals", "more/masks/blocks")
NEAR = ("sketches", "bands", "groups", "edges", "pairs", "wanted", "compared", "sets")
PHASH = ("pictures", "distinct", "joined", "frequent")


def _steps(place: str, names: tuple[str, ...], first: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return inner steps in a row: each reads what was there at first and all before it."""
    return {f"{place}/{name}": (*first, *(f"{place}/{each}" for each in names[:i])) for i, name in enumerate(names)}


# The folders that the chain writes, in order, and those each one reads: that one of these changed is no reason to
# raise the reader's version. Of a folder whose parts are written in turns, `#url` means the units named `url-...`, and
# `#steps` those that its manifest lists as such.
REPEATS = "curated/repeats/repeats"
MANY = "more/repeats/repeats"
MANY_KINDS = ("image_in_document", "image_set", "paragraph", "image_phash", "image_url", "image_sha256", "near")
READS: dict[str, tuple[str, ...]] = {
    "documents": (),
    "images/wanted": ("documents",),
    "images/urls": ("images/wanted",),
    "images#steps": ("images/urls",),
    "images": ("images/urls", "images#steps"),
    "images/joined": ("images/wanted", "images"),
    "images/found": ("images/joined",),
    "curated/signals": ("documents",),
    "curated/image_signals": ("documents", "images/found"),
    "curated/masks/blocks": ("curated/signals", "curated/image_signals"),
    "curated/kept_signals/documents": ("documents", "curated/signals", "curated/masks/blocks"),
    "curated/masks/documents/values": ("curated/signals", "curated/kept_signals/documents", "curated/masks/blocks"),
    "curated/masks/documents": ("curated/masks/documents/values", "curated/masks/blocks"),
    f"{REPEATS}/keys/url": ("curated/signals", "curated/masks/documents"),
    f"{REPEATS}#url": (f"{REPEATS}/keys/url",),
    f"{REPEATS}/keys/text": ("curated/signals", "curated/masks/documents", f"{REPEATS}#url"),
    f"{REPEATS}#text": (f"{REPEATS}/keys/text",),
    "curated/masks/repeats": ("curated/signals", "curated/masks/documents", f"{REPEATS}#url", f"{REPEATS}#text"),
    "curated/funnel/parts": ("curated/signals", "curated/image_signals", *_CURATED_MASKS),
    "curated/funnel": ("curated/funnel/parts",),
    "curated/funnel/excerpts": ("curated/funnel", "documents"),
    "more/signals": ("documents",),
    "more/image_signals": ("documents", "images/found"),
    "more/masks/blocks": ("more/signals", "more/image_signals"),
    **{f"{MANY}/keys/{kind}": (*_KEPT, "more/image_signals") for kind in MANY_KINDS if kind in _IN_BUCKETS},
    **_steps(f"{MANY}/near", NEAR, _KEPT),
    **_steps(f"{MANY}/phash", PHASH, (*_KEPT, "more/image_signals")),
    **{f"{MANY}#{kind}": (*_KEPT, "more/image_signals") for kind in MANY_KINDS},
    "more/masks/repeats": ("more/signals", "more/masks/blocks", *(f"{MANY}#{kind}" for kind in MANY_KINDS)),
    "more/listed/lists/entries": (),
    "more/listed/lists": ("documents", "more/listed/lists/entries", "more/masks/repeats"),
    "more/contaminated/sets/sets": (),
    "more/masks/lists": ("more/signals", "more/listed/lists", "more/masks/repeats"),
    "more/contaminated/sets": ("documents", "more/contaminated/sets/sets", "more/masks/lists"),
    "more/masks/sets": ("more/signals", "more/contaminated/sets", "more/masks/lists"),
    "more/kept_signals/documents": ("documents", "more/signals", "more/masks/sets"),
    "more/masks/documents/values": ("more/signals", "more/kept_signals/documents", "more/masks/sets"),
    "more/masks/documents": ("more/masks/documents/values", "more/masks/sets"),
    "more/funnel/parts": (*_KEPT, "more/image_signals", *(f"more/masks/{name}" for name in _MORE_MASKS)),
    "more/funnel": ("more/funnel/parts",),
    "more/funnel/excerpts": ("more/funnel", "documents"),
    "shards/card/parts": ("documents", "curated/masks/repeats"),
    "shards/card": ("shards/card/parts",),
    "shards/train": ("documents", "images/found", "curated/masks/repeats", f"{REPEATS}#url", f"{REPEATS}#text"),
    "shards/heldout": ("documents", "images/found", "curated/masks/repeats", f"{REPEATS}#url", f"{REPEATS}#text"),
    "plan/tokenizer": ("shards/train",),
    "plan/pieces": ("shards/train", "plan/tokenizer"),
    "plan/rows": ("plan/pieces",),
    "conversations/train": (),
    "conversations/heldout": (),
}
# The folders whose stages read the archives.
READS_PAGES = ("documents", "images#steps")


def run_chain(folder: Path) -> None:
    """Run the chain in an empty `folder`; its outputs lie under `OUTPUTS`."""
    warcs = ", ".join(f'"{path.name}"' for path in write_pages(folder))
    carnac(folder, "run", str(RECIPES / "01-crawl.toml"), f"--set=warcs=[{warcs}]", f"--limit={LIMIT}")
    run_recipes(folder, DATA[1:], *CURATE)
    for name, text in {**LISTS, "more.toml": MORE}.items():
        (folder / name).write_text(text)
    carnac(folder, "run", "more.toml")
    plan = [sys.executable, str(Path(__file__).with_name("golden_plan.py")), str(RECIPES / "05-train.toml")]
    done = subprocess.run(
        [*plan, *overrides(["05-train.toml"]), *PLAN],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    carnac(folder, "run", str(write_questions(folder)), "--set=split.held_out=0.4")


def write_questions(folder: Path) -> Path:
    """Write the questions, their pictures and the recipe that takes them."""
    (folder / "images").mkdir()
    asked = []
    for name in PICTURES:
        if (picture := ROOT / "docs" / "pictures" / f"{name}.png").is_file():
            shutil.copyfile(picture, folder / "images" / picture.name)
        asked += [[f"is this a {other}?", "yes" if other == name else "no", name] for other in PICTURES]
    (folder / "questions.json").write_text(json.dumps(asked))
    recipe = folder / "conversations.toml"
    recipe.write_text(CONVERSATIONS)
    return recipe


def write_pages(folder: Path) -> tuple[Path, ...]:
    """Write the two archives, with new modification times: no output may depend on them."""
    whole, mirror = folder / "pages.warc.gz", folder / "mirror.warc"
    shutil.copyfile(ARCHIVE, whole)
    records = gzip.decompress(ARCHIVE.read_bytes())[:MIRROR_BYTES]
    place = b"WARC-Target-URI: https://"
    moved = records[MOVED_FROM:].replace(place + b"scikit-image.org/", place + b"mirror.example/")
    mirror.write_bytes(records[:MOVED_FROM] + moved.replace(b"\x89PNG", b"\x89BAD", 1))
    return whole, mirror


def given(folder: Path) -> dict[str, str]:
    """Return what the chain in `folder` was given beside its settings, for comparison."""
    files = [*sorted(folder.glob("*.warc*")), *sorted(folder.glob("images/*"))]
    pages = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return {**pages, "limit": str(LIMIT)}
