"""Small recipes with every kind of setting that real ones have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from carnac.recipe.load import LoadedRecipe, load_recipes, parse_overrides
from carnac.recipe.settings import Reads, Recipe, Settings, Writes


class RuleSettings(Settings):
    """A threshold."""

    signal: Literal["num_words", "num_images"] = Field(description="what is measured")
    min: float | None = Field(default=None, description="smallest value kept")
    max: float | None = Field(default=None, description="largest value kept")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is larger than max {self.max:g}.")
        return self


class RulesPass(Settings):
    """A pass of rules."""

    kind: Literal["rules"] = Field(description="rules")
    name: Annotated[str, Field(pattern="^[a-z]+$", max_length=9)] = Field(description="name of the pass")
    rules: tuple[RuleSettings, ...] = Field(default=(), description="the rules")


class RepeatsPass(Settings):
    """A pass of repeats."""

    kind: Literal["repeats"] = Field(description="repeats")
    by: str = Field(default="url", description="what is equal")


class TrainingSettings(Settings):
    """The loop."""

    steps: int = Field(ge=1, description="number of steps")
    learning_rate: float = Field(default=1e-3, gt=0, description="peak learning rate")
    resume: bool = Field(default=True, description="go on from a checkpoint")
    schedule: RuleSettings | None = Field(default=None, description="a nested table")


class ToyRecipe(Recipe):
    """Reads documents, writes toys."""

    job: Literal["toy"] = Field(description="the job that this recipe describes")
    documents: Annotated[Path | None, Reads("documents")] = Field(default=None, description="folder of the documents")
    output: Annotated[Path, Writes("toys")] = Field(description="folder for the toys")
    scraps: Annotated[Path | None, Writes("scraps")] = Field(default=None, description="folder for what is left over")
    warcs: tuple[str, ...] = Field(default=("a",), min_length=1, description="input files")
    training: TrainingSettings = Field(default=TrainingSettings(steps=1), description="the loop")
    passes: tuple[Annotated[RulesPass | RepeatsPass, Field(discriminator="kind")], ...] = Field(
        default=(), alias="pass", description="the passes"
    )
    config: dict[str, int | float | bool | str] = Field(default_factory=dict, description="a free table")


class SourceRecipe(Recipe):
    """Writes documents."""

    job: Literal["source"] = Field(description="the job that this recipe describes")
    output: Annotated[Path, Writes("documents")] = Field(description="folder for the documents")


class ReaderRecipe(Recipe):
    """Reads toys."""

    job: Literal["reader"] = Field(description="the job that this recipe describes")
    toys: Annotated[Path, Reads("toys")] = Field(description="folder of the toys")


class ToysTable(Settings):
    """One of several folders of toys."""

    name: str = Field(description="what it is called")
    toys: Annotated[Path, Reads("toys")] = Field(description="folder of the toys")


class MixedRecipe(Recipe):
    """Reads toys of several folders."""

    job: Literal["mixed"] = Field(description="the job that this recipe describes")
    sources: tuple[ToysTable, ...] = Field(alias="source", description="the folders")


MODELS: dict[str, type[Recipe]] = {
    "toy": ToyRecipe,
    "source": SourceRecipe,
    "reader": ReaderRecipe,
    "mixed": MixedRecipe,
}
HEAD = 'job = "toy"\noutput = "out/toys"\n'


def load(paths: Sequence[Path], *overrides: str) -> tuple[list[LoadedRecipe], list[str]]:
    """Load recipes; return the good ones and the mistakes as printed."""
    loaded, mistakes = load_recipes(paths, MODELS, parse_overrides(overrides))
    return loaded, [str(mistake) for mistake in mistakes]


def complaints(folder: Path, text: str, *overrides: str) -> list[str]:
    """Return the mistakes of one recipe as printed, without the folder of the file."""
    path = folder / "toy.toml"
    path.write_text(text)
    return [line.replace(f"{folder}/", "") for line in load([path], *overrides)[1]]


def settings_of(folder: Path, text: str, *overrides: str) -> Any:
    """Return the settings of a recipe without a mistake."""
    path = folder / "toy.toml"
    path.write_text(text)
    loaded, mistakes = load([path], *overrides)
    assert mistakes == []
    return loaded[0].settings
