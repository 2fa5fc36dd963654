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

# What transformers' processors do where their files say nothing.
RESAMPLES: dict[FormatName, Image.Resampling] = {
    "idefics": Image.Resampling.BICUBIC,
    "idefics2": Image.Resampling.BILINEAR,
    "idefics3": Image.Resampling.LANCZOS,
    "llava": Image.Resampling.BICUBIC,
}
IDEFICS3_SIDE_PX, IDEFICS3_TILES = 364, 4
IDEFICS2_SHORTEST_PX, IDEFICS2_LONGEST_PX = 378, 980


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
    number = found.get("resample", RESAMPLES[name])
    fields["resample"] = {int(each): each.name.lower() for each in Image.Resampling}.get(int(number), "bicubic")
    if name != "llava":
        fields["marks"] = name
    if name == "idefics3":
        fields["max_tiles"] = _max_tiles(found, size_px, notes)
    elif name == "idefics2":
        fields |= _native(found, size_px, patch_px, notes)
    elif found.get("do_center_crop"):
        notes.append("transformers cuts the middle square out of a picture; carnac presses the whole of it into one.")
    try:
        pictures = PictureSettings(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{folder}: its pictures cannot be shown here: {first['msg']}") from None
    return fit_pictures(pictures, model_type=model_type, folder=folder), notes


def shows_squares(folder: Path) -> bool:
    """Say whether the processor's file of an Idefics2 folder presses pictures into squares: it names both sides then.

    Raises InputError where the file cannot be read.
    """
    size = _read(folder).get("size")
    return isinstance(size, dict) and bool(size.get("height"))


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


def _native(found: dict[str, Any], size_px: int, patch_px: int, notes: list[str]) -> dict[str, Any]:
    """Return the fields of pictures of any shape, or of squares, as Idefics2's processor shows them."""
    tiles = {"max_tiles": 2 if found.get("do_image_splitting", False) else 1}
    size = found.get("size")
    size = size if isinstance(size, dict) else {}
    if size.get("height"):  # `shows_squares`
        if size["height"] != size_px or size.get("width") != size_px:
            sides = f"{size['height']} x {size.get('width')}"
            notes.append(f"transformers shows pictures of {sides} px; carnac's are {size_px} x {size_px} px.")
        return tiles
    longest = _edge(size, IDEFICS2_LONGEST_PX)
    if longest != size_px:
        notes.append(
            f"transformers shrinks pictures to {longest} px; carnac's fill the tower's positions, {size_px} px."
        )
    shortest = size.get("shortest_edge", IDEFICS2_SHORTEST_PX)
    shortest = min(shortest, size_px) if isinstance(shortest, int) and shortest > patch_px else None
    return {**tiles, "aspect": "native", "shortest_px": shortest}


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
