"""Pictures -> features: any vision tower of transformers that cuts a fixed square into square patches.

Towers of SigLIP's kind also take pictures of any shape: such a picture stands at the top left of its square, and beyond
it every value is NaN. Legend of shapes: N squares (whole pictures or tiles), C channels, S side, G patches of a side,
P features of a square, V width of the tower.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from carnac.core.errors import InputError
from carnac.model.settings import VisionSettings
from carnac.model.towers import CUT_BEFORE, NATIVE, of_aspect, side_of, sized, trained_config, vision_config
from carnac.model.trained import load_trained

# How families interpolate their position tables in transformers; the others: bicubic.
INTERPOLATIONS: dict[str, dict[str, Any]] = {
    "siglip2_vision_model": {"mode": "bilinear", "antialias": True},
    "dinov2_with_registers": {"mode": "bicubic", "antialias": True},
}


def build_vision(settings: VisionSettings, image_size_px: int, *, native_aspect: bool = False) -> Any:
    """Return a vision tower, random or trained as the settings say, for squares of `image_size_px`.

    With `native_aspect`: for pictures of any shape within those squares. Raises InputError where it cannot be built or
    does not give the features that the settings name.
    """
    if settings.type is None:
        tower = load_trained("vision", settings, trained_config("vision", settings))
        tower = at_size(tower, image_size_px, native_aspect=native_aspect)
    else:
        tower = vision_from_config(vision_config(settings, image_size_px, native_aspect=native_aspect))
    prove_features(tower, settings)
    return tower


def vision_from_config(config: Any) -> Any:
    """Return a vision tower with random weights for a whole configuration."""
    from transformers import AutoModel

    try:
        if config.model_type == NATIVE:  # the Auto classes do not know a class that is only part of a model
            from transformers.models.idefics2 import modeling_idefics2

            native: Any = modeling_idefics2.Idefics2VisionTransformer  # transformers is untyped
            return native(config)
        return AutoModel.from_config(config)  # type: ignore[no-untyped-call]
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"model.vision: transformers cannot build this {config.model_type}: {error}") from error


def square_px(config: Any) -> int:
    """Return S, the side of the squares that a tower takes; raise InputError where it takes none."""
    if config.model_type == CUT_BEFORE:
        return math.isqrt(config.num_patches) * int(config.patch_size)
    side = side_of(config.image_size)
    if side is None or side_of(config.patch_size) is None:
        raise InputError(f"model.vision: this {config.model_type} takes no squares of square patches")
    return side


def num_patches(config: Any) -> int:
    """Return the patches of one square."""
    return (square_px(config) // (side_of(config.patch_size) or 1)) ** 2


def num_features(config: Any, settings: VisionSettings) -> int:
    """Return P, the features of one square that the connector reads: its patches, and the class token where kept."""
    return num_patches(config) + int(settings.class_token)


def features(tower: Any, pixels: torch.Tensor, settings: VisionSettings) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Map pixels [N, C, S, S] to features [N, P, V] of the layer that `settings` name, and which of them are picture.

    Register tokens are left out. The mask, bool [N, P], is None where all are: in squares. Of pictures of any shape P
    is the smallest rectangle of patches that holds each of them; what the tower makes of patches beyond a picture is
    without meaning.
    """
    if tower.config.model_type == NATIVE:
        pixels, mask = cut_pictures(pixels, tower.config.patch_size)
        return _all_features(tower, pixels, settings.feature_layer, patch_attention_mask=mask), mask.flatten(1)
    found = _all_features(tower, pixels, settings.feature_layer)
    patches = found[:, -num_patches(tower.config) :]
    return (torch.cat([found[:, :1], patches], dim=1) if settings.class_token else patches), None


def cut_pictures(pixels: torch.Tensor, patch_px: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut squares [N, C, S, S] to the rectangle that holds all pictures; return it and the mask of their patches.

    The rectangle [N, C, H, W] has zeros beyond a picture instead of NaN; the mask is bool [N, H / patch, W / patch].
    """
    mask = pixels[:, 0, ::patch_px, ::patch_px].isfinite()
    rows, columns = int(mask.any(2).sum(1).max()), int(mask.any(1).sum(1).max())
    held = pixels[:, :, : rows * patch_px, : columns * patch_px]
    return torch.where(held.isnan(), 0.0, held), mask[:, :rows, :columns].contiguous()


def blank_square(config: Any) -> torch.Tensor:
    """Return pixels [1, 3, S, S] that are cheap to run, for a batch without pictures: a native one is one patch."""
    side = square_px(config)
    if config.model_type != NATIVE:
        return torch.zeros(1, 3, side, side)
    # A whole square of Idefics2's 980 px would be 4,900 patches.
    blank = torch.full((1, 3, side, side), math.nan)
    blank[..., : config.patch_size, : config.patch_size] = 0.0
    return blank


def prove_features(tower: Any, settings: VisionSettings) -> None:
    """Raise InputError unless two blank squares give the features that `settings` name: one forward pass tells."""
    config = tower.config
    if tower.device.type == "meta":
        return  # a skeleton: nothing to compute with
    layers = getattr(config, "num_hidden_layers", None)
    if layers is not None and not -layers - 1 <= settings.feature_layer <= layers:
        raise InputError(
            f"model.vision.feature_layer: {settings.feature_layer}, but this {config.model_type} has {layers} layers"
        )
    was_training = tower.training
    tower.eval()
    side = square_px(config)
    try:
        with torch.no_grad():
            found = _all_features(tower, torch.zeros(2, 3, side, side, device=tower.device), settings.feature_layer)
    except (RuntimeError, IndexError, TypeError, ValueError) as error:
        detail = " ".join(str(error).split())[:300]
        raise InputError(f"model.vision: this {config.model_type} cannot take a picture: {detail}") from error
    tower.train(was_training)
    others = found.shape[1] - num_patches(config) if found.ndim == 3 else -1
    if others < 0 or len(found) != 2 or found.shape[-1] != config.hidden_size:
        raise InputError(
            f"model.vision: {config.model_type} gives features of shape {tuple(found.shape)} for two pictures; wanted "
            f"2 x {num_patches(config)} patches of {config.hidden_size} numbers"
        )
    if settings.class_token and not others:
        raise InputError(f"model.vision.class_token: {config.model_type} has no class token; leave it false")


def at_size(
    tower: Any,
    image_size_px: int,
    prepare: Callable[[Any], object] = lambda _: None,
    *,
    native_aspect: bool | None = None,
) -> Any:
    """Return `tower` for squares of another size: itself, or one with position tables interpolated, once and for all.

    The tables become what the family's own forward pass would make of them. `prepare` gives a new tower what `tower`
    has beside its family's own modules (adapters). `native_aspect` says whether it is to take pictures of any shape,
    None: as it does. Raises InputError for a tower whose tables are not grids, or that cannot take such pictures.
    """
    native = tower.config.model_type == NATIVE
    config = of_aspect(tower.config, native_aspect=native if native_aspect is None else native_aspect)
    if square_px(config) == image_size_px and config is tower.config:
        return tower
    resized = vision_from_config(sized(config, image_size_px))
    prepare(resized)
    grids = (num_patches(tower.config), num_patches(resized.config))
    # A head that pools is read by nothing here, and only the towers of squares may have one.
    tensors = {
        name: tensor for name, tensor in tower.state_dict().items() if config is tower.config or "head." not in name
    }
    for name, wanted in resized.state_dict().items():
        if tensors[name].shape != wanted.shape:
            tensors[name] = _interpolated(tensors[name], wanted.shape, grids, resized.config.model_type)
    resized.load_state_dict(tensors)
    return resized.train(tower.training)


def _interpolated(table: torch.Tensor, shape: torch.Size, grids: tuple[int, int], kind: str) -> torch.Tensor:
    """Interpolate a table [..., others + P, V] to another grid; what stands before the patches is kept."""
    before, after = grids
    others = table.shape[-2] - before
    if others < 0 or tuple(shape[-2:]) != (others + after, table.shape[-1]):
        raise InputError(f"model.vision: {kind} cannot be shown pictures of another size than it was trained with")
    sides = math.isqrt(before), math.isqrt(after)
    grid = table[..., others:, :].reshape(1, sides[0], sides[0], -1).permute(0, 3, 1, 2).float()
    how = INTERPOLATIONS.get(kind, {"mode": "bicubic"})
    grid = nn.functional.interpolate(grid, size=(sides[1], sides[1]), align_corners=False, **how)
    patches = grid.permute(0, 2, 3, 1).reshape(*table.shape[:-2], after, -1).to(table.dtype)
    return torch.cat([table[..., :others, :], patches], dim=-2)


def _all_features(tower: Any, pixels: torch.Tensor, layer: int, **masks: torch.Tensor) -> torch.Tensor:
    inputs = {"pixel_values": pixels, **masks}
    if tower.config.model_type == CUT_BEFORE:
        inputs = _cut(pixels, tower.config.patch_size)
    if layer == -1:
        last: torch.Tensor = tower(**inputs).last_hidden_state
        return last
    # The layer's number instead of True: transformers then keeps no other layer's output.
    found: torch.Tensor = tower(**inputs, output_hidden_states=[layer]).hidden_states[layer]
    return found


def _cut(pixels: torch.Tensor, patch_px: int) -> dict[str, torch.Tensor]:
    count, channels, side, _ = pixels.shape
    grid = side // patch_px
    cut = pixels.reshape(count, channels, grid, patch_px, grid, patch_px).permute(0, 2, 4, 3, 5, 1)
    return {
        "pixel_values": cut.reshape(count, grid * grid, patch_px * patch_px * channels),
        "pixel_attention_mask": torch.ones((count, grid * grid), dtype=torch.long, device=pixels.device),
        "spatial_shapes": torch.full((count, 2), grid),
    }
