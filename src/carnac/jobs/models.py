"""A model's folder: weights, tokenizer, and how its inputs are made. The one place that opens it for use."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, ValidationError

from carnac.core.errors import InputError
from carnac.engine.part import write_file
from carnac.recipe.settings import Settings
from carnac.sequence.settings import PictureSettings
from carnac.sequence.tokenizer import FILE_NAME as TOKENIZER_FILE
from carnac.sequence.tokenizer import LoadedTokenizer, load_tokenizer

if TYPE_CHECKING:
    from carnac.model.autoregressive import AutoregressiveModel

INPUTS_FILE = "inputs.json"


class InputSettings(Settings):
    """How a model's inputs are made."""

    pictures: PictureSettings = Field(description="what the vision tower is shown")
    row_tokens: int = Field(ge=2, description="positions of a training row: the longest context it was trained on")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenModel:
    """A model ready for use."""

    model: AutoregressiveModel
    tokenizer: LoadedTokenizer
    inputs: InputSettings


def open_model(folder: Path) -> OpenModel:
    """Load a finished model. Raises InputError with a sentence for anything missing or wrong in `folder`."""
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{folder}: no model here (config.json is missing). Wanted the output folder of a train recipe."
        )
    path = folder / INPUTS_FILE
    try:
        inputs = InputSettings.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]}). Train the model again.") from None
    from carnac.model.weights import load_model

    return OpenModel(model=load_model(folder), tokenizer=load_tokenizer(folder), inputs=inputs)


def write_inputs(folder: Path, tokenizer_file: Path, inputs: InputSettings) -> None:
    """Write beside the weights what `open_model` needs with them."""
    write_file(folder / TOKENIZER_FILE, tokenizer_file.read_bytes())
    write_file(folder / INPUTS_FILE, (json.dumps(inputs.model_dump(mode="json"), indent=2) + "\n").encode())
