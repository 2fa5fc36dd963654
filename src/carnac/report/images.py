"""What became of the images: a headline from the counts alone, or all there is to say of one folder.

Flow in: the folder of `images/`. Flow out: an `Images`: the table's states, hosts and sizes, the rounds of fetching,
what `--retry` would ask for again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from carnac.core.places import is_local
from carnac.engine.manifest import Manifest
from carnac.images.retries import RETRIES, Retry, is_chosen
from carnac.report.folders import StageFolder
from carnac.report.images_rounds import Fetching, read_fetching
from carnac.report.images_table import ImageTable, State, read_image_table
from carnac.report.layout import percent, shell_word
from carnac.report.lost import recipe_of

NUM_REASONS = 4  # in a headline


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """One folder of images. `retries` is how many URLs each `--retry` would ask for, none where nobody was asked.

    `command` is how they are asked for, but for the last word: one of `RETRIES`.
    """

    folder: StageFolder
    table: ImageTable
    fetching: Fetching | None
    retries: dict[Retry, int]
    command: str


def read_images(folder: StageFolder) -> Images:
    """Read a folder of images. Raises InputError for a damaged part."""
    table = read_image_table(folder.content)
    recipe = recipe_of(folder.content)
    name = shell_word(str(recipe)) if recipe is not None and is_local(recipe) else "RECIPE"
    asked = any(state.asked for state in table.states)
    return Images(
        folder=folder,
        table=table,
        fetching=read_fetching(folder),
        retries={retry: _num_again(table, retry) for retry in RETRIES} if asked else {},
        command=f"carnac run {name} --retry",
    )


def _num_again(table: ImageTable, retry: Retry) -> int:
    return sum(state.asked for state in table.states if is_chosen(state.status, state.reason, retry))


def retries_of(state: State) -> str:
    """Return which `--retry`, but for `all`, ask again for the URLs in a state."""
    return ", ".join(
        retry for retry in RETRIES if retry != "all" and state.asked and is_chosen(state.status, state.reason, retry)
    )


def ends_of(manifest: Manifest) -> Counter[str]:
    """Return how many URLs ended as what (`kept`, `dropped.REASON`, `deferred.REASON`), as the ledgers count them."""
    begins = ("dropped.", "deferred.")
    counts = manifest.counts.items()
    return Counter({name: number for name, number in counts if name == "kept" or name.startswith(begins)})


def headline(manifest: Manifest) -> str:
    """Return a line on what became of the URLs; "" where there are none."""
    ends = ends_of(manifest)
    whole = ends.total()
    if not whole:
        return ""
    told = [f"{whole:,} URLs: {ends['kept']:,} kept ({percent(ends['kept'] / whole)})"]
    for status in ("dropped", "deferred"):
        mine = {name.partition(".")[2]: number for name, number in ends.items() if name.startswith(f"{status}.")}
        reasons = Counter(mine)
        some = [f"{number:,} {reason}" for reason, number in reasons.most_common(NUM_REASONS)]
        more = ", ..." if len(reasons) > NUM_REASONS else ""
        told += [f"{reasons.total():,} {status} ({', '.join(some)}{more})"] if reasons else []
    return ", ".join(told)
