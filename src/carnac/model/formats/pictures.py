"""How pictures were shown to a model of another library: its processor's file -> our settings, and what they leave out.

No torch here. The file is `preprocessor_config.json`, or since transformers 5 a table in `processor_config.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import ValidationError

from carnac.core.errors import InputError
from carnac.model.formats import FormatName
from carnac.sequence.normalisation import FILES, fit_pictures
from carnac.sequence.settings import PictureSettings

IDEFICS3_SIDE_PX, IDEFICS3_TILES = 364, 4  # what Idefics3's processor does where its file says nothing


def read_pictures(
    folder: Path, name: FormatName, *, size_px: int, patch_px: int, tokens: int, model_type: str
) -> tuple[PictureSettings, list[str]]:
    """Return the picture settings of a model's folder and a sentence for each thing that they say otherwise.

    `size_px` and `patch_px` are the tower's, `tokens` what its connector makes of a square. Raises InputError where the
    processor's file cannot be read or used.
    """
    found = _read(folder)
    notes: list[str] = []
    fields: dict[str, Any] = {"size_px": size_px, "patch_px": patch_px, "tokens": tokens}
    # The file holds Pillow's number, or nothing where it is the one of the processor's class.
    number = found.get("resample", Image.Resampling.LANCZOS if name == "idefics3" else Image.Resampling.BICUBIC)
    fields["resample"] = {int(each): each.name.lower() for each in Image.Resampling}.get(int(number), "bicubic")
    if name == "idefics3":
        fields |= {"marks": "idefics3", "max_tiles": _max_tiles(found, size_px, notes)}
    elif found.get("do_center_crop"):
        notes.append("transformers cuts the middle square out of a picture; carnac presses the whole of it into one.")
    try:
        pictures = PictureSettings(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{folder}: its pictures cannot be shown here: {first['msg']}") from None
    return fit_pictures(pictures, model_type=model_type, folder=folder), notes


def _max_tiles(found: dict[str, Any], size_px: int, notes: list[str]) -> int:
    if not found.get("do_image_splitting", True):
        return 1
    side = _edge(found.get("max_image_size"), IDEFICS3_SIDE_PX)
    longest = _edge(found.get("size"), IDEFICS3_TILES * IDEFICS3_SIDE_PX)
    tiles = max(1, -(-longest // side))
    if longest % side or side != size_px:
        notes.append(
            f"transformers cuts tiles of {side} px from pictures of {longest} px; carnac's are {tiles} x {size_px} px."
        )
    return tiles


def _edge(table: Any, default: int) -> int:
    edge = table.get("longest_edge") if isinstance(table, dict) else None
    return edge if isinstance(edge, int) and edge > 0 else default


def _read(folder: Path) -> dict[str, Any]:
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        return {}
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({reason}). Wanted a folder as transformers saves it.") from None
    found = found if isinstance(found, dict) else {}
    nested = found.get("image_processor")
    return nested if isinstance(nested, dict) else found
