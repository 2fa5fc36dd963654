"""A model's folder: weights, tokenizer, and how its inputs are made. The one place that opens it for use."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, ValidationError

from carnac.core.errors import InputError
from carnac.engine.manifest import read_manifest
from carnac.engine.storage import write_file
from carnac.recipe.settings import Settings
from carnac.sequence.normalisation import fit_pictures
from carnac.sequence.settings import PictureSettings
from carnac.sequence.tokenizer import FILE_NAME as TOKENIZER_FILE
from carnac.sequence.tokenizer import LoadedTokenizer, load_tokenizer

if TYPE_CHECKING:
    from carnac.model.multimodal import MultimodalModel
    from carnac.model.settings import ModelSettings

INPUTS_FILE = "inputs.json"


class InputSettings(Settings):
    """How a model's inputs are made."""

    pictures: PictureSettings = Field(description="what the vision tower is shown")
    row_tokens: int = Field(ge=2, description="positions of a training row: the longest context it was trained on")
    conversations: bool = Field(
        default=False,
        description="whether it was trained on conversations: then it is asked in turns, as its chat template writes "
        "them; else it goes on from documents",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenModel:
    """A model ready for use."""

    model: MultimodalModel
    tokenizer: LoadedTokenizer
    inputs: InputSettings


def open_same_model(folder: Path, digest: str) -> OpenModel:
    """Load the model of a folder. Raises InputError where it is not that of `digest`: it was trained again."""
    if read_manifest(folder, "model").digest != digest:
        raise InputError(f"{folder}: another model than when this run began. Run the recipe again.")
    return open_model(folder)


def open_model(folder: Path) -> OpenModel:
    """Load a finished model. Raises InputError with a sentence for anything missing or wrong in `folder`."""
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{folder}: no model here (config.json is missing). Wanted the output folder of a train recipe."
        )
    inputs = _read_inputs(folder / INPUTS_FILE)
    from carnac.model.weights import load_model

    opened = OpenModel(model=load_model(folder), tokenizer=load_tokenizer(folder), inputs=inputs)
    _check_fit(folder, opened)
    return opened


def _read_inputs(path: Path) -> InputSettings:
    try:
        return InputSettings.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}). Wanted the output folder of a train recipe, or one "
            "of its checkpoints."
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {f'{place}: ' if place else ''}{first['msg']}. Train the model again.") from None


def _check_fit(folder: Path, opened: OpenModel) -> None:
    """Raise InputError when the files of `folder` are of different models."""
    model, pictures = opened.model, opened.inputs.pictures
    rows, wanted = opened.tokenizer.vocabulary_size, model.language.config.vocab_size
    if rows > wanted:
        raise InputError(
            f"{folder / TOKENIZER_FILE}: has {rows} tokens, the model knows {wanted}: the tokenizer of another model. "
            "Train the model again."
        )
    tokens = pictures.square_tokens
    if (pictures.size_px, tokens) != (model.image_size_px, model.tokens_per_image):
        raise InputError(
            f"{folder / INPUTS_FILE}: pictures of {pictures.size_px} px and {tokens} tokens, the model takes "
            f"{model.image_size_px} px and {model.tokens_per_image} tokens. Train the model again."
        )
    _check_aspect(folder, opened)


def _check_aspect(folder: Path, opened: OpenModel) -> None:
    from carnac.model.towers import NATIVE

    wanted = "native" if opened.model.vision.config.model_type == NATIVE else "square"
    if opened.inputs.pictures.aspect != wanted:
        raise InputError(
            f"{folder / INPUTS_FILE}: pictures of aspect = {opened.inputs.pictures.aspect}, the model takes {wanted} "
            "ones. Train the model again."
        )


def fitted_pictures(pictures: PictureSettings, model: ModelSettings) -> PictureSettings:
    """Return the picture settings as the model's tower and connector want them.

    With the normalisation that the tower was trained with, and the number of image tokens that the connector makes of
    one square. What the settings come to by themselves is not written: a plan made before is still good. Asks the hub
    where the tower is a hub name. Raises InputError where the connector cannot join the tower's patches.
    """
    from carnac.model.check import num_features_of, square_places
    from carnac.model.towers import known_config

    tower = known_config("vision", model.vision, ask_hub=True)
    if tower is None:
        return pictures
    fitted = fit_pictures(pictures, model_type=tower.model_type, folder=model.vision.folder)
    if any(getattr(fitted, name) != getattr(pictures, name) for name in ("mean", "std", "resample")):
        pictures = fitted
    features = num_features_of(model.vision, pictures.size_px, ask_hub=True)
    if features is None:
        return pictures  # what is wrong with the tower is said where it is built
    try:
        tokens = square_places(model, features)
    except ValueError as error:
        raise InputError(f"model.connector: {error}") from error
    return pictures if tokens == pictures.square_tokens else pictures.model_copy(update={"tokens": tokens})


def backbone_files(model: ModelSettings) -> list[Path]:
    """Return the files of trained backbones in folders: what a trained model depends on besides its recipe."""
    folders = [tower.folder for tower in (model.vision, model.language) if tower.folder is not None]
    return [
        path for folder in folders for name in ("config.json", "*.safetensors") for path in sorted(folder.glob(name))
    ]


def write_inputs(folder: Path, tokenizer_file: Path, inputs: InputSettings) -> None:
    """Write beside the weights what `open_model` needs with them."""
    write_file(folder / TOKENIZER_FILE, tokenizer_file.read_bytes())
    write_file(folder / INPUTS_FILE, (json.dumps(inputs.model_dump(mode="json"), indent=2) + "\n").encode())
