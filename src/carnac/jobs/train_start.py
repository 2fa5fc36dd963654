"""The folder that a train recipe starts from -> how the inputs of its model are made. Its weights are not read here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from carnac.core.errors import InputError
from carnac.jobs.models import INPUTS_FILE, InputSettings
from carnac.model.settings import ModelSettings
from carnac.sequence.settings import PictureSettings
from carnac.sequence.tokenizer import FILE_NAME as TOKENIZER_FILE

CONFIG_FILE = "config.json"
OURS = ("carnac-model-1", "carnac-adapters-1")
WANTED = (
    "Wanted the output folder of a finished train recipe, one of its checkpoints, or an exported Idefics, Idefics2, "
    "Idefics3 or LLaVA folder"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A model that training starts from.

    `tokenizer_file` is None where the folder holds a tokenizer as transformers saves it; `longest` is the last position
    that the language model knows, where it says so.
    """

    folder: Path
    settings: ModelSettings
    pictures: PictureSettings
    tokenizer_file: Path | None
    longest: int | None

    def files(self) -> list[Path]:
        """Return the files that a model trained from here depends on."""
        names = (CONFIG_FILE, "*.safetensors", TOKENIZER_FILE, INPUTS_FILE, "tokenizer_config.json", "*.jinja")
        return [path for name in names for path in sorted(self.folder.glob(name))]

    def shown(self, asked: PictureSettings) -> PictureSettings:
        """Return the model's own picture settings with those changed that a recipe wrote down.

        Raises ValueError where they do not go together.
        """
        brought = ("tokens", "patch_px", "aspect")
        written = {name: getattr(asked, name) for name in asked.model_fields_set if name not in brought}
        if asked.normalisation == "tower":
            for name in ("mean", "std", "normalisation"):
                written.pop(name, None)
        return self.pictures.changed(written)


def read_start(folder: Path) -> Start:
    """Return what a folder says of its model's inputs. Raises InputError with a sentence where it is no model's."""
    path = folder / CONFIG_FILE
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{folder}: no model here ({CONFIG_FILE}: {error.strerror}). {WANTED}.") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}). {WANTED}.") from None
    if isinstance(content, dict) and content.get("format") in OURS:
        return _ours(folder, content)
    return _exported(folder)


def _ours(folder: Path, content: dict[str, Any]) -> Start:
    for name in (INPUTS_FILE, TOKENIZER_FILE):
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: missing; a model's folder holds it beside {CONFIG_FILE}. {WANTED}.")
    try:
        settings = ModelSettings.model_validate_json(json.dumps(content["settings"]))
        inputs = InputSettings.model_validate_json((folder / INPUTS_FILE).read_bytes())
    except (ValidationError, KeyError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else f"no {error}"
        raise InputError(f"{folder}: its settings cannot be read ({first}). Train the model again.") from None
    language = content.get("language")
    return Start(
        folder=folder,
        settings=settings,
        pictures=inputs.pictures,
        tokenizer_file=folder / TOKENIZER_FILE,
        longest=_longest(language if isinstance(language, dict) else {}),
    )


def _exported(folder: Path) -> Start:
    from carnac.model.check import square_places
    from carnac.model.formats.folders import language_of, read_settings
    from carnac.model.formats.pictures import read_pictures
    from carnac.model.vision import num_features, square_px

    settings, vision, config, name = read_settings(folder)
    pictures, _ = read_pictures(
        folder,
        name,
        size_px=square_px(vision),
        patch_px=vision.patch_size,
        tokens=square_places(settings, num_features(vision, settings.vision)),
        model_type=vision.model_type,
    )
    longest = _longest(language_of(config).to_dict())
    return Start(folder=folder, settings=settings, pictures=pictures, tokenizer_file=None, longest=longest)


def _longest(language: dict[str, Any]) -> int | None:
    found = next((language[name] for name in ("max_position_embeddings", "n_positions") if name in language), None)
    return found if isinstance(found, int) else None
