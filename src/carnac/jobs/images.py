"""Image URLs of documents to packs: first from the crawl's own records, the rest over HTTP if the recipe says so.

find_wanted        which images documents want, by host                      images_wanted.py
take_from_archives what the crawl's own archives hold of them                images_archives.py
Rounds             what is left, asked of the web in rounds                  images_rounds.py, _plan.py, _fetch.py
score_images       what the bytes that are kept score, pack by pack          images_scores.py
settle_states      one final state per URL: the table                        images_found.py
find_images        and, beside every documents part, the images of its rows  images_found.py
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from carnac.core.places import Folder
from carnac.core.taken_down import TakenDown
from carnac.engine.manifest import PartEntry, read_manifest
from carnac.engine.run import Runner
from carnac.images.settings import FetchSettings, ImageSettings, ScoreSettings
from carnac.jobs.images_archives import take_from_archives
from carnac.jobs.images_found import IMAGES_STAGE, States, find_images, settle_states
from carnac.jobs.images_rounds import Rounds
from carnac.jobs.images_scores import check_scorers, score_images
from carnac.jobs.images_wanted import find_wanted
from carnac.jobs.recipes import keep_recipe
from carnac.recipe.settings import DocumentsFolder, Reads, Recipe, Writes


class ImagesRecipe(Recipe):
    """Settings of the job `images`."""

    job: Literal["images"] = Field(description="the job that this recipe describes")
    documents: DocumentsFolder = Field(description="folder of the documents whose images are wanted")
    masks: Annotated[Folder | None, Reads("masks")] = Field(
        default=None, description="folder of a pass's masks: only images that it keeps are wanted"
    )
    output: Annotated[Folder, Writes("images")] = Field(description="folder for the table of images and their packs")
    fetch: bool = Field(default=False, description="fetch over HTTP what the archives do not hold")
    inspect: ImageSettings = Field(default=ImageSettings(), description="which images are taken")
    http: FetchSettings = Field(default=FetchSettings(), description="how images are fetched")
    scores: ScoreSettings = Field(default=ScoreSettings(), description="what kept pictures are scored by")


RECIPE = ImagesRecipe


def preload(recipe: ImagesRecipe) -> tuple[str, ...]:
    """Return modules that every unit needs: imported once, not by each child (0.2 s of CPU for the HTTP client)."""
    formats = tuple(f"PIL.{name}ImagePlugin" for name in ("Jpeg", "Png", "WebP", "Gif"))
    return (*formats, "carnac.images.fetch") if recipe.fetch else formats


def run(recipe: ImagesRecipe, runner: Runner) -> None:
    """Write `images/`: one row per wanted URL with its final state, bytes in `packs/`, and `found/` for documents."""
    check_scorers(recipe.scores)
    documents = read_manifest(recipe.documents, "documents")
    masks = None if recipe.masks is None else read_manifest(recipe.masks, "masks")
    taken_down = TakenDown.read([recipe.output, recipe.documents])
    wanted = find_wanted(runner, recipe.output, documents, masks, recipe.limit, taken_down)
    archived = take_from_archives(runner, recipe.output, documents, wanted, recipe.inspect, taken_down)
    fetched: list[PartEntry] = []
    settled: list[tuple[PartEntry, ...]] = []
    if recipe.fetch:
        rounds = Rounds(
            runner=runner,
            folder=recipe.output,
            wanted=wanted,
            archived=archived,
            inspect=recipe.inspect,
            http=recipe.http,
            taken_down=taken_down,
        )
        fetched, settled = rounds.run()
    scores = score_images(runner, recipe.output, [*archived, *fetched], wanted.num_partitions, recipe.scores)
    states = States(archived=archived, settled=settled, scores=scores)
    nobody = ("deferred", "not_asked") if recipe.fetch else ("dropped", "not_in_archive")
    entries = settle_states(runner, recipe.output, wanted, states, nobody)
    shown: dict[str, Any] = {"inspect": recipe.inspect.model_dump(mode="json"), "limit": recipe.limit}
    shown |= {"fetch": recipe.fetch, **({"http": recipe.http.model_dump(mode="json")} if recipe.fetch else {})}
    shown |= {"scores": recipe.scores.model_dump(mode="json")} if recipe.scores else {}
    find_images(runner, recipe.output, wanted, entries)
    inputs = {"documents": str(recipe.documents)}
    runner.publish(IMAGES_STAGE, recipe.output, entries, shown, inputs, steps=[*archived, *fetched])
    if not runner.changes_nothing:
        keep_recipe(recipe, recipe.output)
