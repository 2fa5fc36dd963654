"""What transformers' class of a format is told of pictures, beside the ids: pixels, masks, who reads which image.

Legend of shapes: R rows, T tokens of a row, N pictures of a row, S side of a square.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

NONE = -1  # reads no image


def picture_keywords(
    model: Any, rows: Sequence[torch.Tensor], reads: Sequence[torch.Tensor] | None, length: int
) -> dict[str, torch.Tensor]:
    """Return the keywords for the pictures of each row, float32 [N, 3, S, S] each with NaN beyond a picture's edge.

    `reads` int64 [T] of each row say which image a token reads, `NONE` for none; rows are filled up to `length`.
    """
    import torch

    kind, most = model.config.model_type, max(len(row) for row in rows)
    if kind == "llava":  # all pictures in one list
        return {"pixel_values": torch.cat(list(rows))} if most else {}
    if kind == "idefics":  # wants pictures always, and a mask that says who reads them
        assert reads is not None
        return {"pixel_values": _filled(rows, max(most, 1)), "image_attention_mask": image_mask(reads, most, length)}
    if not most:
        return {}
    pixels = _filled(rows, most)
    if kind == "idefics2":
        return {"pixel_values": pixels.nan_to_num(), "pixel_attention_mask": pixels[:, :, 0].isfinite()}
    return {"pixel_values": pixels}


def image_mask(reads: Sequence[torch.Tensor], most: int, length: int) -> torch.Tensor:
    """Return bool [R, length, max(most, 1)]: which images of its row a token reads."""
    import torch

    found = torch.zeros(len(reads), length, max(most, 1), dtype=torch.bool)
    for row, read in enumerate(reads):
        tokens = torch.nonzero(read != NONE)[:, 0]
        found[row, tokens, read[tokens]] = True
    return found


def packed_mask(model: Any, positions: torch.Tensor) -> torch.Tensor | None:
    """Return bool [1, 1, T, T] for a row of pieces whose positions [1, T] begin again; None where those are enough.

    transformers' Idefics takes its row for one piece whatever the positions: without this mask logits differ by 0.6.
    """
    if model.config.model_type != "idefics":
        return None
    pieces = (positions[0] == 0).cumsum(0)
    together: torch.Tensor = (pieces[:, None] == pieces[None]).tril()
    return together[None, None]


def _whole_patches(mask: torch.Tensor, patch_px: int) -> torch.Tensor:
    """Return bool [N, S, S]: the pixels of `mask` in patches of which all pixels are in it."""
    count, side = len(mask), mask.shape[-1] // patch_px
    whole = mask.view(count, side, patch_px, side, patch_px).all(dim=4).all(dim=2)
    spread: torch.Tensor = whole.repeat_interleave(patch_px, dim=1).repeat_interleave(patch_px, dim=2)
    return spread


def _filled(rows: Sequence[torch.Tensor], most: int) -> torch.Tensor:
    """Return [R, most, 3, S, S]: the pictures of each row, then black ones."""
    filled = rows[0].new_zeros(len(rows), most, *rows[0].shape[1:])
    for number, row in enumerate(rows):
        filled[number, : len(row)] = row
    return filled


def compare_pixels(made: Any, ours: torch.Tensor, patch_px: int) -> dict[str, Any]:
    """Return how far the processor's pixels are from ours [N, 3, S, S], and whether they are cut and masked alike.

    Of pictures of any shape whole patches count: the class drops the others, which ours never have.
    """
    from torch.nn.functional import pad

    theirs, wanted = made["pixel_values"].flatten(0, -4), ours.isfinite()[:, 0]
    mask = made.get("pixel_attention_mask")
    missing = [ours.shape[side] - theirs.shape[side] for side in (-1, -2)]
    same = len(theirs) == len(ours) and theirs.shape[1] == 3 and min(missing) >= 0
    if same and mask is not None:
        edges = (0, missing[0], 0, missing[1])
        theirs, mask = pad(theirs, edges), _whole_patches(pad(mask.flatten(0, 1).bool(), edges), patch_px)
        same = bool((mask == wanted).all())
    if not same or theirs.shape != ours.shape:
        return {"pixels_same_shape": False}
    difference = (theirs - ours).abs()[wanted[:, None].expand_as(ours)]
    return {
        "pixels_same_shape": True,
        "pixels_max_difference": float(difference.max()),
        "pixels_mean_difference": float(difference.mean()),
    }
