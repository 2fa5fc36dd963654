"""Settings of a pass that drops documents which hold items of evaluation sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from carnac.curate.masks import NO_BLOCKS_LEFT, SIGNALS_FAILED
from carnac.curate.settings import PassName, not_empty
from carnac.recipe.settings import Settings


class EvaluationSet(Settings):
    """An evaluation set whose items must not be trained on."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$", description="Name of the set, as removals are listed under it.")
    texts: Path | None = Field(
        default=None,
        description="File of its texts: JSON (`.jsonl`, `.ndjson`, `.json`: lines or one array) or Parquet "
        "(`.parquet`), else plain text, an item a line. A name that ends in `.gz` is unpacked.",
    )
    fields: tuple[str, ...] = Field(
        default=(), description="Fields of JSON lines or Parquet that hold texts; without it every string counts."
    )
    images: Path | None = Field(default=None, description="Folder of its pictures; those in folders below count too.")

    @model_validator(mode="after")
    def _holds_something(self) -> Self:
        if self.texts is None and self.images is None:
            raise ValueError(f"the set {self.name!r} is empty: give texts, images or both")
        return self


class DecontaminatePass(Settings):
    """Drop documents that share a long run of words, or a picture, with an evaluation set."""

    name: PassName
    kind: Literal["decontaminate"] = Field(description="This pass drops what evaluation sets hold.")
    sets: Annotated[tuple[EvaluationSet, ...], AfterValidator(not_empty)] = Field(
        alias="set", description="The evaluation sets."
    )
    ngram: int = Field(
        default=13,
        ge=3,
        description="A document is contaminated when it shares so many words in a row with an item, or all of a "
        "shorter item of 8 words or more.",
    )
    max_phash_distance: int = Field(
        default=4, ge=0, le=32, description="A picture is one of a set at so many differing bits or fewer."
    )
    drop_images: Literal["image", "document"] = Field(
        default="document", description="What goes when a picture is one of a set: it, or its whole document."
    )

    def reasons(self) -> tuple[str, ...]:
        """Return the names of the reasons: text and pictures of each set."""
        names = [reason_of(each.name) for each in self.sets]
        return (SIGNALS_FAILED, *dict.fromkeys(names), NO_BLOCKS_LEFT)


def reason_of(name: str) -> str:
    """Return the reason that masks give for what the set of that name holds."""
    return f"contaminated.{name}"
