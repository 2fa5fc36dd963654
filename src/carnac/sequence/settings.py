"""How samples become sequences: the tokenizer's size and what the vision tower is shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from carnac.recipe.settings import Settings

MarkNames = Literal["none", "idefics", "idefics2", "idefics3"]
Positive = Annotated[float, Field(gt=0)]

# Idefics3's processor shrinks a longer side to this before it cuts tiles: beyond it, its counts would not be ours.
MAX_SIDE_PX = 4096


class TokenizerSettings(Settings):
    """A byte-level BPE trained on the project's own texts, or the tokenizer of another model."""

    vocabulary_size: int = Field(
        default=4096, ge=260, description="tokens in all: 4 special ones, 256 bytes, the rest learned merges"
    )
    min_frequency: int = Field(default=2, ge=1, description="a pair that occurs less often is never merged")
    template: Literal["plain", "tokens"] = Field(
        default="plain",
        description="how conversations are written: plain: `User: ...`, `Assistant: ...`; tokens: with a special token "
        "for each role, which is shorter and which no text can forge",
    )
    folder: Path | None = Field(
        default=None,
        description="nothing is trained: the tokenizer of another model, a folder with tokenizer.json and "
        "tokenizer_config.json; the special tokens that it lacks are added, its chat template is used",
    )

    @model_validator(mode="after")
    def _trained_or_given(self) -> Self:
        # A kept recipe spells out every default: those are no contradiction.
        fields = type(self).model_fields
        names = ("vocabulary_size", "min_frequency", "template")
        changed = [name for name in names if getattr(self, name) != fields[name].default]
        if self.folder is not None and changed:
            raise ValueError(
                f"{' and '.join(changed)}: only for a tokenizer that is trained; folder brings its own. Leave one out."
            )
        return self


class PictureSettings(Settings):
    """Pictures as squares of patches: one square each, or tiles and the whole. `mean` and `std` default to SigLIP's."""

    size_px: int = Field(
        default=96,
        ge=1,
        description="side of a square that the vision tower is shown; with aspect = native the longest side of a "
        "picture",
    )
    patch_px: int = Field(default=16, ge=1, description="side of a patch")
    tokens: int | None = Field(
        default=None, ge=1, description="image tokens of one square; left out, what the connector makes of its patches"
    )
    aspect: Literal["square", "native"] = Field(
        default="square",
        description="square: a picture is pressed into a square; native: it keeps its own shape (Idefics2, a tower of "
        "SigLIP's kind)",
    )
    shortest_px: int | None = Field(
        default=None,
        ge=1,
        description="of native pictures: a shorter side is stretched to this (Idefics2: 378); left out, to one patch",
    )
    max_tiles: int = Field(
        default=1,
        ge=1,
        le=6,
        description="1: a picture is one square; more: it is cut into tiles, so many along its longest side, and shown "
        "whole after them (Idefics3: 4); with aspect = native or marks = idefics2, 2 is Idefics2's split: its four "
        "quarters and the whole",
    )
    marks: MarkNames = Field(
        default="none",
        description="none: image tokens alone; idefics and idefics2: with a mark before and after each square, shared "
        "by neighbours; idefics3: with Idefics3's tokens around each square, which say its row and column",
    )
    resample: Literal["bilinear", "bicubic", "lanczos"] = Field(
        default="bicubic",
        description="the filter that pictures are resized with; left at bicubic, that of the tower's "
        "preprocessor_config.json (Idefics3: lanczos)",
    )
    normalisation: Literal["tower", "given"] = Field(
        default="tower",
        description="tower: mean and std are those that the vision tower was trained with (of its "
        "preprocessor_config.json, else of its family); given: as written here, which is so as soon as one of them is",
    )
    mean: tuple[float, float, float] = Field(
        default=(0.5, 0.5, 0.5), description="taken from red, green and blue in [0, 1]"
    )
    std: tuple[Positive, Positive, Positive] = Field(
        default=(0.5, 0.5, 0.5), description="what red, green and blue are then divided by"
    )

    @property
    def square_tokens(self) -> int:
        """Image tokens of one square; one per patch as long as no connector has said otherwise."""
        return self.tokens or (self.size_px // self.patch_px) ** 2

    @property
    def shortest_side_px(self) -> int:
        """Length that each side of a native picture has at least: one patch where nothing is asked for."""
        return self.shortest_px or self.patch_px

    @property
    def quartered(self) -> bool:
        """Whether tiles are a picture's four quarters (Idefics2), whatever its size, and not a grid (Idefics3)."""
        return self.max_tiles > 1 and (self.aspect == "native" or self.marks == "idefics2")

    def changed(self, changes: Mapping[str, object]) -> Self:
        """Return these settings with `changes`. Raises ValueError with a sentence where the sizes do not fit."""
        found = self.model_copy(update=changes)
        sizes = found.model_dump(include={"size_px", "patch_px", "aspect", "shortest_px", "max_tiles", "marks"})
        try:  # a copy is not validated, and all of it again would take the tower's mean for one that was written
            PictureSettings(**sizes)
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
        return found

    @model_validator(mode="after")
    def _one_normalisation(self) -> Self:
        if "normalisation" not in self.model_fields_set and {"mean", "std"} & self.model_fields_set:
            object.__setattr__(self, "normalisation", "given")  # the one field that depends on what is written
        # A kept recipe spells out every default: the same numbers beside "tower" are no contradiction.
        fields = type(self).model_fields
        written = [name for name in ("mean", "std") if getattr(self, name) != fields[name].default]
        if self.normalisation == "tower" and written:
            raise ValueError(
                f"normalisation = tower takes mean and std from the vision tower, but {' and '.join(written)} is "
                "written here; leave it out, or set normalisation = given."
            )
        return self

    @model_validator(mode="after")
    def _whole_patches(self) -> Self:
        if self.size_px % self.patch_px:
            raise ValueError(
                f"size_px = {self.size_px} is not a multiple of patch_px = {self.patch_px}; "
                f"try size_px = {max(1, self.size_px // self.patch_px) * self.patch_px}."
            )
        return self

    @model_validator(mode="after")
    def _native_sizes(self) -> Self:
        if self.shortest_px is None:
            return self
        if self.aspect != "native":
            raise ValueError(
                f"shortest_px = {self.shortest_px} is for aspect = native only, got aspect = {self.aspect}: a square "
                "has one side, size_px. Leave shortest_px out, or set aspect = native."
            )
        if not self.patch_px <= self.shortest_px <= self.size_px:
            raise ValueError(
                f"shortest_px = {self.shortest_px} is not between patch_px = {self.patch_px} and size_px = "
                f"{self.size_px}: a side has at least one patch and at most size_px. Change shortest_px or size_px."
            )
        return self

    @model_validator(mode="after")
    def _tiles_of_marks(self) -> Self:
        if self.quartered and self.max_tiles > 2:
            cause = "aspect = native" if self.aspect == "native" else "marks = idefics2"
            raise ValueError(
                f"{cause} shows a picture whole (max_tiles = 1), or its four quarters and the whole (max_tiles = 2); "
                f"got max_tiles = {self.max_tiles}."
            )
        if self.marks == "idefics" and self.max_tiles > 1:
            raise ValueError(
                f"marks = idefics stand around whole pictures, got max_tiles = {self.max_tiles}; set max_tiles = 1, "
                "or marks = idefics2 (quarters) or idefics3 (tiles)."
            )
        return self

    @model_validator(mode="after")
    def _tiles_within_bounds(self) -> Self:
        if self.quartered:
            return self  # of a picture of any size: no grid to be even, nothing shrunk to MAX_SIDE_PX first
        side_px = self.size_px * self.max_tiles
        if self.max_tiles > 1 and self.size_px % 2:
            # Idefics3 makes the shorter side even: of an odd square it would cut one tile more than max_tiles.
            raise ValueError(
                f"tiles (max_tiles = {self.max_tiles}) need an even size_px, got {self.size_px}; "
                f"try size_px = {self.size_px + self.patch_px}."
            )
        if self.max_tiles > 1 and side_px > MAX_SIDE_PX:
            raise ValueError(
                f"max_tiles = {self.max_tiles} tiles of {self.size_px} px are {side_px} px, wanted at most "
                f"{MAX_SIDE_PX}; try max_tiles = {max(1, MAX_SIDE_PX // self.size_px)}."
            )
        return self
