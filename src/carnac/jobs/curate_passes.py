"""The passes that a curate recipe may have, in any order."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from carnac.core.places import Folder
from carnac.curate.contamination.settings import DecontaminatePass
from carnac.curate.lists.settings import ListsPass
from carnac.curate.masks import IMAGE_MISSING, NO_BLOCKS_LEFT, SIGNALS_FAILED
from carnac.curate.repeats.settings import RepeatsPass
from carnac.curate.settings import PassName, RulesPass, not_empty
from carnac.images.settings import FetchSettings, ImageSettings, ScoreSettings
from carnac.recipe.settings import Settings


class FetchPass(Settings):
    """Get the images of what is kept so far, as the job `images` does, and drop those that could not be had."""

    name: PassName
    kind: Literal["fetch"] = Field(description="This pass gets images.")
    images: Folder = Field(description="Folder for the table of images and their packs.")
    fetch: bool = Field(default=False, description="Fetch over HTTP what the archives do not hold.")
    inspect: ImageSettings = Field(default=ImageSettings(), description="Which images are taken.")
    http: FetchSettings = Field(default=FetchSettings(), description="How images are fetched.")
    scores: ScoreSettings = Field(default=ScoreSettings(), description="What kept pictures are scored by.")

    def reasons(self) -> tuple[str, ...]:
        """Return the names of the reasons."""
        return (SIGNALS_FAILED, IMAGE_MISSING, NO_BLOCKS_LEFT)


AnyPass = RulesPass | RepeatsPass | FetchPass | ListsPass | DecontaminatePass
Pass = Annotated[AnyPass, Field(discriminator="kind")]


def _names_differ(passes: tuple[AnyPass, ...]) -> tuple[AnyPass, ...]:
    """Refuse a second pass of the same name, pointing at the second one's name."""
    seen: set[str] = set()
    mistakes: list[InitErrorDetails] = []
    for place, pass_ in enumerate(passes):
        if pass_.name in seen:
            twice = PydanticCustomError("name_twice", "two passes are named '{name}'", {"name": pass_.name})
            mistakes.append(InitErrorDetails(type=twice, loc=(place, "name"), input=pass_.name))
        seen.add(pass_.name)
    if mistakes:
        raise ValidationError.from_exception_data("passes", mistakes)
    return passes


Passes = Annotated[tuple[Pass, ...], AfterValidator(not_empty), AfterValidator(_names_differ)]
