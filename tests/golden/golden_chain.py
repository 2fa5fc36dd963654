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

# The folders that the chain writes, in order, and those each one reads: that one of these changed is no reason to
# raise the reader's version. Of a folder whose parts are written in turns, `#url` means the units named `url-...`, and
# `#steps` those that its manifest lists as such.
REPEATS = "curated/repeats/repeats"
READS: dict[str, tuple[str, ...]] = {
    "documents": (),
    "images/wanted": ("documents",),
    "images/urls": ("images/wanted",),
    "images#steps": ("images/urls",),
    "images": ("images/urls", "images#steps"),
    "images/joined": ("images/wanted", "images"),
    "images/found": ("images/joined",),
    "curated/signals": ("documents", "images/found"),
    "curated/masks/blocks": ("documents", "curated/signals"),
    "curated/masks/documents": ("documents", "curated/signals", "curated/masks/blocks"),
    f"{REPEATS}/keys/url": ("curated/signals", "curated/masks/documents"),
    f"{REPEATS}#url": (f"{REPEATS}/keys/url",),
    f"{REPEATS}/keys/text": ("curated/signals", "curated/masks/documents", f"{REPEATS}#url"),
    f"{REPEATS}#text": (f"{REPEATS}/keys/text",),
    "curated/masks/repeats": ("documents", "curated/masks/documents", f"{REPEATS}#url", f"{REPEATS}#text"),
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
