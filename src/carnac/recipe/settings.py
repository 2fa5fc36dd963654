"""The base of all settings: frozen, strict, no unknown keys. Each stage owns its own settings built on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from carnac.core.places import Folder, Place


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


DocumentsFolder = Annotated[Folder, Reads("documents")]
ImagesFolder = Annotated[Folder, Reads("images")]
MasksFolder = Annotated[Folder, Reads("masks")]
ShardsFolder = Annotated[Folder, Reads("shards")]
ModelFolder = Annotated[Path, Reads("model")]


MAX_SECONDS = 366 * 24 * 3600  # a kernel timer takes no more than its calendar


class Limits(Settings):
    """What one record, one worker and one run may cost; none of it changes what a sound record gives.

    A run stops when `min_lost` records or more, and more than `max_lost_share` of those tried, were lost.
    """

    cpu_seconds: float = Field(
        default=60, gt=0, le=MAX_SECONDS, description="CPU time that one record may take before it is lost"
    )
    wait_seconds: float = Field(
        default=600,
        gt=0,
        le=MAX_SECONDS,
        description="time that one record may take in all, waits included, before it is lost",
    )
    silent_seconds: float = Field(
        default=3600,
        gt=0,
        le=MAX_SECONDS,
        description="time in which a unit must begin a record or write rows, or it is stuck",
    )
    memory_mb: int | None = Field(
        default=None, ge=100, description="memory of one worker; default: its share of 80 % of the machine's"
    )
    max_lost_share: float = Field(
        default=0.5, ge=0, le=1, description="a run stops when more than this share of its records is lost"
    )
    min_lost: int = Field(default=30, ge=1, description="so many lost records are no reason yet to stop a run")


class Recipe(Settings):
    """What every recipe has. A job adds its own fields."""

    job: str = Field(description="the job that this recipe describes")
    limit: int | None = Field(
        default=None, ge=1, description="look at the first so many records only (of training: steps), for a quick try"
    )
    limits: Limits = Field(default=Limits(), description="what a bad record may cost")

    def folders_read(self) -> Iterator[tuple[str, str, Place]]:
        """Yield (field, stage, folder) of all that this recipe reads from other stages.

        A field of a table is named with its way there, counted from 0: `source.1.shards`.
        """
        yield from _marked(self, Reads)

    def folders_written(self) -> Iterator[tuple[str, str, Place]]:
        """Yield (field, stage, folder) of all that this recipe writes."""
        yield from _marked(self, Writes)


def _marked(table: Settings, kind: type[Reads] | type[Writes], way: str = "") -> Iterator[tuple[str, str, Place]]:
    for name, field in type(table).model_fields.items():
        value, key = getattr(table, name), f"{way}{field.alias or name}"
        for mark in field.metadata:
            if isinstance(mark, kind) and isinstance(value, Place):
                yield key, mark.stage, value
        inside = enumerate(value) if isinstance(value, tuple) else ()
        tables = {key: value} if isinstance(value, Settings) else {f"{key}.{number}": each for number, each in inside}
        for place, each in tables.items():
            if isinstance(each, Settings):
                yield from _marked(each, kind, f"{place}.")
