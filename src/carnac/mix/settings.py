"""What is mixed, how pieces are packed into rows and rows into batches."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from carnac.recipe.settings import Settings, ShardsFolder

Windows = Literal["all", "images"]

# Settings of a mixture that change no batch: who makes it, what is kept in memory, when bad samples stop the run.
OF_NO_BATCH = {"workers", "cache_mb", "max_bad_samples"}
# Those that change no row of a plan: also which rows make a batch.
OF_NO_ROW = {*OF_NO_BATCH, "rows_per_batch", "ramp"}


class SourceSettings(Settings):
    """One source of a mixture: a folder of shards, of documents or of conversations."""

    name: str = Field(min_length=1, description="what metrics and the plan call it")
    shards: ShardsFolder = Field(description="folder of its training shards")
    weight: float | None = Field(
        default=None,
        gt=0,
        description="its share of the text tokens, beside the other sources' weights; all sources have one or none has "
        "(then each counts as much as it holds)",
    )
    max_epochs: int | None = Field(
        default=None, ge=1, description="so often each piece may come; then the other sources share its place"
    )
    windows: Windows = Field(
        default="all",
        description="all: every token of a long document is in a window; images: windows begin shortly before an "
        "image, and long stretches without one are left out",
    )


class RampSettings(Settings):
    """A stretch of a batch-size ramp-up."""

    steps: int = Field(ge=1, description="steps that it lasts")
    rows_per_batch: int = Field(ge=1, description="rows of a global batch meanwhile")


class MixSettings(Settings):
    """The shape of a batch and the order of the data."""

    row_tokens: int = Field(
        default=512, ge=2, description="positions of a row: the model's context, image tokens included"
    )
    row_images: int = Field(
        default=8,
        ge=0,
        description="images of a row at most, a tile counting as one; bounds the work of the vision tower",
    )
    rows_per_batch: int = Field(default=8, ge=1, description="rows of a global batch, over all processes")
    ramp: tuple[RampSettings, ...] = Field(
        default=(), strict=False, description="smaller batches at the beginning: [[mix.ramp]] tables, one after another"
    )
    pieces_per_block: int = Field(
        default=4096,
        ge=1,
        description="pieces packed together: an epoch is shuffled, cut into blocks and packed block by block",
    )
    seed: int = Field(default=0, ge=0, description="draws the order of the pieces, anew for each epoch")
    workers: int = Field(
        default=1,
        ge=0,
        le=64,
        description="processes that make batches ahead of the step; 0: the training's own thread",
    )
    cache_mb: int = Field(
        default=1000,
        ge=1,
        description="memory of each worker for row groups of shards: where those of two blocks fit, each is read once",
    )
    max_bad_samples: int = Field(
        default=1000,
        ge=0,
        description="pieces with a picture that does not decode (it becomes grey, their labels are masked): more of "
        "them in a run stop it",
    )

    def affecting_rows(self) -> dict[str, Any]:
        """Return the settings that say what is in which row, as JSON."""
        return self.model_dump(mode="json", exclude=OF_NO_ROW)

    def affecting_batches(self) -> dict[str, Any]:
        """Return the settings that say what is in which batch, as JSON."""
        return self.model_dump(mode="json", exclude=OF_NO_BATCH)

    def rows_of(self, step: int) -> tuple[int, int]:
        """Return [first, stop) of the rows of global batch `step` among those of a plan."""
        first = 0
        for stretch in self.ramp:
            if step < stretch.steps:
                return first + step * stretch.rows_per_batch, first + (step + 1) * stretch.rows_per_batch
            first += stretch.steps * stretch.rows_per_batch
            step -= stretch.steps
        return first + step * self.rows_per_batch, first + (step + 1) * self.rows_per_batch

    def num_rows(self, steps: int) -> int:
        """Return the rows of the first `steps` batches."""
        return self.rows_of(steps - 1)[1] if steps else 0

    def step_of(self, row: int) -> int:
        """Return the batch that `row` is in: as many whole batches lie before it."""
        step = 0
        for stretch in self.ramp:
            if row < stretch.steps * stretch.rows_per_batch:
                return step + row // stretch.rows_per_batch
            row -= stretch.steps * stretch.rows_per_batch
            step += stretch.steps
        return step + row // self.rows_per_batch


class MixtureSettings(Settings):
    """The sources together."""

    sources: tuple[SourceSettings, ...] = Field(strict=False, min_length=1, description="what is mixed")

    @model_validator(mode="after")
    def _weights_and_names(self) -> Self:
        names = [source.name for source in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two sources are called {', '.join(twice)}; give each a name of its own.")
        without = [source.name for source in self.sources if source.weight is None]
        if 0 < len(without) < len(self.sources):
            raise ValueError(f"{', '.join(without)} has no weight but others have; give all sources a weight, or none.")
        return self
