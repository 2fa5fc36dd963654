"""Settings of the samples."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from carnac.recipe.settings import Settings


class SplitSettings(Settings):
    """The held-out split."""

    held_out: float = Field(default=0.05, ge=0, lt=1, description="share of documents kept apart for evaluation")
    seed: int = Field(default=0, description="another seed gives another split")


class GatherSettings(Settings):
    """How images come from packs to shards. Nothing here changes the samples."""

    group_mb: int = Field(
        default=1000,
        ge=1,
        description="packs are read in groups of about this size, one group at a time per worker; at most 64 groups, "
        "which are then larger",
    )
    buffer_mb: int = Field(
        default=64, ge=1, description="memory of a worker for reading ahead in the files of all groups together"
    )


class QuestionListSettings(Settings):
    """How a list of single questions becomes conversations."""

    questions_per_conversation: int | None = Field(
        default=None,
        ge=1,
        description="questions about one picture that share a conversation, which shows it once; default: all of them",
    )
    picture_name: str = Field(
        default="images/{id}.png", description="the file of a picture; {id} stands for what the list calls it"
    )
    seed: int = Field(default=0, ge=0, description="draws the order of the questions about a picture")

    @model_validator(mode="after")
    def _names_the_picture(self) -> Self:
        if "{id}" not in self.picture_name:
            raise ValueError(f"picture_name = {self.picture_name!r} has no {{id}}: every picture would be one file.")
        return self
