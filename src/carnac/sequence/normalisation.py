"""How each vision tower wants its pictures normalised: from its own preprocessor file, else by its family."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from carnac.core.errors import InputError
from carnac.sequence.settings import PictureSettings

Channels = tuple[float, float, float]
RESAMPLES = {1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers, which the files hold
FILES = ("preprocessor_config.json", "processor_config.json")  # the second since transformers 5, nested


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalisation:
    """What is taken from red, green and blue in [0, 1], what they are divided by then, and the filter if known."""

    mean: Channels
    std: Channels
    resample: str | None = None


HALF = Normalisation(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))  # SigLIP, plain ViT, Idefics2 and 3
CLIP = Normalisation(mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711))
IMAGENET = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

# By the beginning of transformers' model_type; what is not named here is normalised by halves.
FAMILIES = {
    "aimv2": CLIP,
    "chinese_clip": CLIP,
    "clip": CLIP,
    "metaclip_2": CLIP,
    "deit": IMAGENET,
    "dinov2": IMAGENET,
    "dinov3": IMAGENET,
    "vit_mae": IMAGENET,
    "vit_msn": IMAGENET,
}


def normalisation_of(model_type: str) -> Normalisation:
    """Return what the towers of a family were trained with."""
    return next((found for name, found in FAMILIES.items() if model_type.startswith(name)), HALF)


def fit_pictures(
    pictures: PictureSettings, *, model_type: str | None = None, folder: Path | None = None
) -> PictureSettings:
    """Return `pictures` with the mean and standard deviation of the tower written out, where they are left to it.

    They are those of the preprocessor file in its `folder`, else the constants of its `model_type` (the folder's own
    where that is None). The file's filter is taken too unless the settings ask for another than the default.
    Raises InputError where a file of the folder cannot be read.
    """
    if pictures.normalisation == "given":
        return pictures
    if model_type is None and folder is not None:
        model_type = _read(folder / "config.json").get("model_type")
    found = HALF if model_type is None else normalisation_of(model_type)
    if folder is not None:
        found = _of_folder(folder) or found
    changes = {"normalisation": "given", "mean": found.mean, "std": found.std}
    if found.resample and pictures.resample == PictureSettings().resample:
        changes["resample"] = found.resample
    return pictures.model_copy(update=changes)


def _of_folder(folder: Path) -> Normalisation | None:
    """Return what the folder's preprocessor file says; None where there is none, or it says nothing."""
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        return None
    found = _read(path)
    nested = found.get("image_processor")
    found = nested if isinstance(nested, dict) else found
    if found.get("image_mean") is None or found.get("image_std") is None:
        return None
    try:
        read = PictureSettings.model_validate_json(json.dumps({"mean": found["image_mean"], "std": found["image_std"]}))
    except ValidationError as error:
        raise InputError(
            f"{path}: image_mean and image_std cannot be used ({error.errors()[0]['msg']}). Wanted three numbers each."
        ) from None
    resample = found.get("resample")
    return Normalisation(mean=read.mean, std=read.std, resample=RESAMPLES.get(resample if type(resample) is int else 0))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({reason}). Wanted a folder as transformers saves it.") from None
    return found if isinstance(found, dict) else {}
