"""The base of all settings: frozen, strict, no unknown keys. Each stage owns its own settings built on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """A table of a recipe.

    Every field has a description (`Field(description=...)`): the documentation of recipes is checked against it.
    Units go in the name: `min_width_px`, `timeout_seconds`, `max_bytes`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, populate_by_name=True)


@dataclass(frozen=True)
class Reads:
    """Marks a path field: the folder of a stage that this recipe reads."""

    stage: str


@dataclass(frozen=True)
class Writes:
    """Marks a path field: the folder of a stage that this recipe writes."""

    stage: str


DocumentsFolder = Annotated[Path, Reads("documents")]
ImagesFolder = Annotated[Path, Reads("images")]
MasksFolder = Annotated[Path, Reads("masks")]
ShardsFolder = Annotated[Path, Reads("shards")]
ModelFolder = Annotated[Path, Reads("model")]


class Recipe(Settings):
    """What every recipe has. A job adds its own fields."""

    job: str = Field(description="the job that this recipe describes")
    limit: int | None = Field(
        default=None, ge=1, description="look at the first so many records only (of training: steps), for a quick try"
    )

    def folders_read(self) -> Iterator[tuple[str, str, Path]]:
        """Yield (field, stage, folder) of all that this recipe reads from other stages."""
        yield from self._marked(Reads)

    def folders_written(self) -> Iterator[tuple[str, str, Path]]:
        """Yield (field, stage, folder) of all that this recipe writes."""
        yield from self._marked(Writes)

    def _marked(self, kind: type[Reads] | type[Writes]) -> Iterator[tuple[str, str, Path]]:
        for name, field in type(self).model_fields.items():
            folder = getattr(self, name)
            for mark in field.metadata:
                if isinstance(mark, kind) and isinstance(folder, Path):
                    yield field.alias or name, mark.stage, folder
