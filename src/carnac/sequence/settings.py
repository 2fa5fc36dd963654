"""How samples become sequences: the tokenizer's size and what the vision tower is shown."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from carnac.recipe.settings import Settings

Positive = Annotated[float, Field(gt=0)]


class TokenizerSettings(Settings):
    """A byte-level BPE trained on the project's own texts."""

    vocabulary_size: int = Field(
        default=4096, ge=260, description="tokens in all: 4 special ones, 256 bytes, the rest learned merges"
    )
    min_frequency: int = Field(default=2, ge=1, description="a pair that occurs less often is never merged")


class PictureSettings(Settings):
    """Pictures as square grids of patches. The defaults of `mean` and `std` are SigLIP's."""

    size_px: int = Field(default=96, ge=1, description="side of the square that every picture is resized to")
    patch_px: int = Field(default=16, ge=1, description="side of a patch; one patch is one image token")
    mean: tuple[float, float, float] = Field(
        default=(0.5, 0.5, 0.5), description="taken from red, green and blue in [0, 1]"
    )
    std: tuple[Positive, Positive, Positive] = Field(
        default=(0.5, 0.5, 0.5), description="what red, green and blue are then divided by"
    )

    @model_validator(mode="after")
    def _whole_patches(self) -> Self:
        if self.size_px % self.patch_px:
            raise ValueError(
                f"size_px = {self.size_px} is not a multiple of patch_px = {self.patch_px}; "
                f"try size_px = {max(1, self.size_px // self.patch_px) * self.patch_px}."
            )
        return self
