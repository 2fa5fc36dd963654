"""What a model is made of: its parts, how many parameters each has and trains, and what memory that takes.

Counted from names and shapes alone: those of a skeleton on torch's meta device, or those in the head of a weights file.
An 8 B model takes no memory. Importing this module is cheap: no torch, no transformers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carnac.core.errors import InputError
from carnac.model.parts import TRAINED_PARTS, part_of
from carnac.model.settings import ModelSettings
from carnac.model.towers import side_of

if TYPE_CHECKING:
    from carnac.model.multimodal import MultimodalModel

Shapes = Mapping[str, Sequence[int]]
WEIGHT_BYTES = 4  # fp32; where training computes in bf16, what is frozen takes half
TRAINED_BYTES = 3 * WEIGHT_BYTES  # a gradient and AdamW's two moments
# Configurations are stored under their family's own names: GPT-2's width is n_embd.
ALIASES = {
    "hidden_size": ("n_embd", "d_model"),
    "num_hidden_layers": ("n_layer", "num_layers"),
    "num_attention_heads": ("n_head", "num_heads"),
}
BLOCKS = "cross attention"  # trained with the connector, told apart from it
PARTS = tuple(part.replace("_", " ") for part in TRAINED_PARTS)
PARTS = (*PARTS[:2], BLOCKS, *PARTS[2:])


@dataclass(frozen=True, slots=True, kw_only=True)
class PartSize:
    """One part: what it is in words, its parameters (tied ones once), and how many of them are trained."""

    name: str
    kind: str
    parameters: int
    trained: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """A model's parts in the order of `PARTS`, its squares, and what a token of context takes in generation.

    `image_size_px` is the side of a square (whole picture or tile), `tokens_per_image` the places that it takes;
    `cache_bytes` the keys and values of one token.
    """

    parts: tuple[PartSize, ...]
    image_size_px: int
    tokens_per_image: int
    cache_bytes: int

    @property
    def parameters(self) -> int:
        """All parameters, tied ones once."""
        return sum(part.parameters for part in self.parts)

    @property
    def trained(self) -> int:
        """The parameters that training changes."""
        return sum(part.trained for part in self.parts)

    @property
    def weight_bytes(self) -> int:
        """Memory of the weights."""
        return WEIGHT_BYTES * self.parameters

    @property
    def training_bytes(self) -> int:
        """Memory of weights, gradients and AdamW's moments; what the layers compute comes on top."""
        return self.weight_bytes + TRAINED_BYTES * self.trained


def measure_model(model: MultimodalModel) -> ModelSize:
    """Return the sizes of a model on any device, the meta device too."""
    from carnac.model.weights import stored_tensors

    return measure_shapes(
        {name: tuple(tensor.shape) for name, tensor in stored_tensors(model).items()},
        model.settings,
        {"vision": model.vision.config.to_dict(), "language": model.language.config.to_dict()},
        model.tokens_per_image,
    )


def measure_folder(folder: Path) -> ModelSize:
    """Return the sizes of the model in `folder`, of which only the configuration and the weights' head are read.

    Raises InputError naming the file that is missing or wrong.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        settings = ModelSettings.model_validate_json(json.dumps(config["settings"]))
        towers = {part: dict(config[part]) for part in ("vision", "language")}
        return measure_shapes(read_shapes(folder / "model.safetensors"), settings, towers, config["tokens_per_image"])
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Wanted a folder with a model.") from error
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a model that carnac wrote: {' '.join(str(error).split())}") from error


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a safetensors file by name, from its head. Raises InputError where it is none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 -- no mapping
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: missing, damaged or not a safetensors file ({error})") from error


def measure_shapes(
    shapes: Shapes, settings: ModelSettings, towers: Mapping[str, Mapping[str, Any]], tokens_per_image: int
) -> ModelSize:
    """Return the sizes of a model whose weights have `shapes`; `towers` are its two backbones' configurations."""
    counts = dict.fromkeys(PARTS, 0)
    rows = 0
    for name, shape in shapes.items():
        part = BLOCKS if name.startswith("fusion.") else part_of(name).replace("_", " ")
        counts[part] += math.prod(shape)
        rows = shape[0] if part == "added tokens" else rows
    adapters = settings.adapters
    kinds = {
        "vision": _backbone_kind(towers["vision"]),
        "connector": settings.connector.type,
        BLOCKS: f"gated blocks, one for every {settings.blocks.every} layers",
        "language": _backbone_kind(towers["language"]),
        "added tokens": f"{rows} rows",
        "adapters": "" if adapters is None else f"{'DoRA' if adapters.dora else 'LoRA'} of rank {adapters.rank}",
    }
    trained = {*(part.replace("_", " ") for part in settings.trained), "adapters"}
    trained |= {BLOCKS} if "connector" in trained else set()
    return ModelSize(
        parts=tuple(
            PartSize(name=name, kind=kinds[name], parameters=count, trained=count if name in trained else 0)
            for name, count in counts.items()
            if count or name in ("vision", "connector", "language")
        ),
        image_size_px=_square_px(towers["vision"]),
        tokens_per_image=tokens_per_image,
        cache_bytes=_cache_bytes(towers["language"]),
    )


def _backbone_kind(config: Mapping[str, Any]) -> str:
    layers, width = _field(config, "num_hidden_layers"), _field(config, "hidden_size")
    return f"{config['model_type']}, {layers} layers of width {width}"


def _field(config: Mapping[str, Any], name: str) -> Any:
    """Return a field under the name that its family gives it. Raises KeyError where it has none."""
    return next((config[each] for each in (name, *ALIASES[name]) if config.get(each) is not None), None) or config[name]


def _square_px(config: Mapping[str, Any]) -> int:
    side, patch = side_of(config.get("image_size")), side_of(config.get("patch_size"))
    return side if side is not None else math.isqrt(config["num_patches"]) * (patch or 1)


def _cache_bytes(config: Mapping[str, Any]) -> int:
    queries, width = _field(config, "num_attention_heads"), _field(config, "hidden_size")
    heads, size = config.get("num_key_value_heads") or queries, config.get("head_dim") or width // queries
    return int(2 * WEIGHT_BYTES * _field(config, "num_hidden_layers") * heads * size)
