"""What does not fit between the tables of a curate recipe, found before any work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from carnac.curate.contamination.settings import DecontaminatePass
from carnac.curate.lists.settings import ListsPass
from carnac.curate.repeats.settings import RepeatsPass
from carnac.curate.settings import Rule, RulesPass
from carnac.curate.signals.catalogue import column_named, signals_on
from carnac.jobs.curate_passes import AnyPass, FetchPass
from carnac.recipe.source import Location

if TYPE_CHECKING:
    from carnac.jobs.curate import CurateRecipe

# Of a worker that searches a bucket, beside DuckDB's buffers: up to 225 MB (bench/memory.py).
BESIDE_DATABASE_MB = 300
TWICE = "the images are known before this pass: leave out `images` of the recipe, or this pass."
TOO_EARLY = (
    "needs image files, and none are known here: give `images` (a folder that the job images wrote), or put a pass of "
    'kind = "fetch" before this one.'
)
NOT_SCORED = (
    "{0} drops pictures that were not scored, and none are: set scores = {{ {1} = true }} in the pass {2!r}, or leave "
    "it out."
)
Mistakes = Iterator[tuple[Location, str]]


def mistakes_of(recipe: CurateRecipe) -> list[tuple[Location, str]]:
    """Return (location, sentence) of each."""
    return [*_files(recipe), *_caps(recipe), *_images(recipe), *_scores(recipe), *_remeasured(recipe)]


def _files(recipe: CurateRecipe) -> Mistakes:
    """Lists and sets that are named and not there: found now, not after everything was measured.

    What `measure` names may be written by a recipe before this one.
    """
    for number, step in enumerate(recipe.passes):
        if isinstance(step, ListsPass):
            for name in ("urls", "domains", "image_sha256", "image_pdq", "image_phash"):
                for place, path in enumerate(getattr(step, name)):
                    yield from _missing(("pass", number, name, place), path)
        elif isinstance(step, DecontaminatePass):
            for place, each in enumerate(step.sets):
                yield from _missing(("pass", number, "set", place, "texts"), each.texts)
                yield from _missing(("pass", number, "set", place, "images"), each.images)


def _missing(location: Location, path: Path | None) -> Mistakes:
    if path is not None and not path.exists():
        yield location, f"{path} is not there. Wanted a file that can be read; paths are those of the current folder."


def _caps(recipe: CurateRecipe) -> Mistakes:
    """A cap on a database above the cap on its process."""
    allowed, wanted = recipe.limits.memory_mb, recipe.max_memory_mb + BESIDE_DATABASE_MB
    if allowed is not None and allowed < wanted and any(isinstance(step, RepeatsPass) for step in recipe.passes):
        message = (
            f"a worker may take {allowed} MB, but the search for repeats takes max_memory_mb ({recipe.max_memory_mb}) "
            f"and {BESIDE_DATABASE_MB} MB more; wanted {wanted} or more here, or a lower max_memory_mb."
        )
        yield ("limits", "memory_mb"), message


def _images(recipe: CurateRecipe) -> Mistakes:
    """Images got twice, or judged before they are there."""
    known = recipe.images is not None
    for number, step in enumerate(recipe.passes):
        if isinstance(step, FetchPass):
            if known:
                yield ("pass", number, "kind"), TWICE
            known = True
        elif not known:
            for place, what in _wants_files(step):
                yield ("pass", number, *place), f"{what} {TOO_EARLY}"


def _wants_files(step: AnyPass) -> Iterator[tuple[Location, str]]:
    """Yield the places of a pass that ask for image files, and what asks."""
    if isinstance(step, RulesPass):
        for number, rule in enumerate(step.rules):
            if any(column_named(name).table == "image_signals" for name in _columns(rule)):
                yield ("rules", number, "signal"), f"the rule on {rule.on}.{rule.signal}"
    elif isinstance(step, RepeatsPass):
        kinds = [(number, kind) for number, kind in enumerate(step.by) if kind in ("image_sha256", "image_phash")]
        yield from ((("by", number), f"the search by {kind}") for number, kind in kinds)
    elif isinstance(step, ListsPass):
        names = [name for name in ("image_sha256", "image_pdq", "image_phash") if getattr(step, name)]
        yield from (((name,), f"the list of {name}") for name in names)
    elif isinstance(step, DecontaminatePass):
        sets = [(number, each.name) for number, each in enumerate(step.sets) if each.images is not None]
        yield from ((("set", number, "images"), f"the search for pictures of {name}") for number, name in sets)


def _scores(recipe: CurateRecipe) -> Mistakes:
    """A rule on scores, or a list of hashes, that the recipe's own images are not given: it would drop them all."""
    fetched = next((step for step in recipe.passes if isinstance(step, FetchPass)), None)
    if fetched is None:
        return
    for number, step in enumerate(recipe.passes):
        if isinstance(step, ListsPass) and step.image_pdq and not fetched.scores.pdq:
            yield ("pass", number, "image_pdq"), NOT_SCORED.format("this list", "pdq", fetched.name)
        for place, rule in enumerate(step.rules if isinstance(step, RulesPass) else ()):
            if "block_nsfw_score" in _columns(rule) and not fetched.scores.nsfw:
                message = NOT_SCORED.format(f"{rule.on}.{rule.signal}", "nsfw", fetched.name)
                yield ("pass", number, "rules", place, "signal"), message


def _columns(rule: Rule) -> Sequence[str]:
    names = [rule.signal, *([] if rule.when is None else [rule.when.signal])]
    return [column for name in names for column in signals_on(rule.on)[name].columns]


def _remeasured(recipe: CurateRecipe) -> Mistakes:
    """A rule on what must be measured over the blocks that are kept, in a pass that still drops blocks."""
    for number, step in enumerate(recipe.passes):
        if not isinstance(step, RulesPass) or not any(rule.on == "text" for rule in step.rules):
            continue
        for place, rule in enumerate(step.rules):
            if rule.on == "document" and any(column_named(name).remeasured for name in _columns(rule)):
                message = (
                    f"document.{rule.signal} is measured over the texts that are kept, and this pass drops some: put "
                    "this rule into a pass of its own after it."
                )
                yield ("pass", number, "rules", place, "signal"), message
