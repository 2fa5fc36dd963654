"""The floating point operations that a training step needs, from the shapes of one forward pass.

A multiplication and an addition are two. Legend of shapes: N squares, T tokens of a row, P tokens of a square.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from carnac.core.batch import Batch
from carnac.model.cross_attention.blocks import GatedCrossAttention
from carnac.model.cross_attention.model import CrossAttentionModel
from carnac.model.cross_attention.reading import Attend, next_image_of, read_images
from carnac.model.multimodal import MultimodalModel
from carnac.model.tensors import BatchTensors
from carnac.model.towers import NATIVE

MORE_TOKENS = 3  # of text, beside the square of the traced row


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchCost:
    """What a picture of p patches costs in tower and connector: `fixed` + `patch` p + `pair` p^2."""

    patch_px: int
    fixed: float
    patch: float
    pair: float

    def __call__(self, patches: float) -> float:
        """Return the operations of a picture of so many patches."""
        return self.fixed + self.patch * patches + self.pair * patches**2


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingCost:
    """What the blocks of cross-attention cost: per token that reads an image, and per image that a token reads."""

    token: float
    image: float
    attend: Attend
    p_next: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FlopCount:
    """What a step costs, forward and backward: call it with a batch.

    A product of `n` tokens with a matrix of M weights takes 2 n M operations, 2 n M more where the weights are trained
    (their gradient) and 2 n M more where anything before them is (the gradient of the tokens): 6 M per token where all
    is trained, 4 M in a frozen layer above something trained, 2 M in a frozen tower. Attention over pieces of n tokens
    takes 4 n^2 A in a layer whose heads have A numbers together, and 8 n^2 A more in the backward pass. With everything
    trained that is the 6 N + 12 L H Q T per token of PaLM (Chowdhery et al. 2022, arXiv 2204.02311, appendix B), here
    with the tokens of a square and of a piece instead of T; like there, the half that a causal mask hides is counted.

    Not counted, since a model does not need it: padding of rows, of pictures to the largest of the batch and of groups
    to the longest, attention across pieces, activations computed a second time, the blank square of a batch without
    pictures; and what is no product of matrices (1 % in models of usual size).

    `square` is per square, through tower and connector, with the keys and values that blocks make of it; `token` per
    token of a piece; `label` per label, in the head; `pairs` maps the longest reach of attention (inf: all of the
    piece) to the cost of one token reading another. `patches` says what smaller pictures cost where the tower takes
    any shape (`square`: the largest); `reading` what reading costs where blocks read the squares.
    """

    square: float
    token: float
    label: float
    pairs: Mapping[float, float]
    patches: PatchCost | None = None
    reading: ReadingCost | None = None

    def __call__(self, batch: Batch) -> float:
        """Return the operations of one step on `batch`."""
        lengths = np.array([piece.tokens for piece in batch.provenance], dtype=np.float64)
        linear = self.square * len(batch.pixels) + self.token * lengths.sum() + self.label * batch.label_tokens
        read = sum(cost * (lengths * np.minimum(lengths, reach)).sum() for reach, cost in self.pairs.items())
        return float(linear + read + self._smaller(batch) + self._reading(batch))

    def _smaller(self, batch: Batch) -> float:
        """Return what the pictures of `batch` cost more than whole squares: nothing, or less than nothing."""
        if self.patches is None or not len(batch.pixels):
            return 0.0
        cut = self.patches.patch_px
        found = np.isfinite(batch.pixels[:, 0, ::cut, ::cut])
        whole = self.patches(float(found[0].size))
        return sum(self.patches(float(patches)) - whole for patches in found.sum((1, 2)))

    def _reading(self, batch: Batch) -> float:
        if self.reading is None or not len(batch.pixels):
            return 0.0
        places = batch.image_slots[:, 0] * batch.positions.shape[1] + batch.image_slots[:, 1]
        told = next_image_of(batch, self.reading.p_next)
        read = read_images(batch.positions, places, self.reading.attend, told)
        # Without a mask, every token reads the one image of its group.
        images = len(read.tokens) if read.mask is None else read.mask.reshape(-1, read.mask.shape[2])[read.slots].sum()
        return self.reading.token * len(read.tokens) + self.reading.image * float(images)


def count_flops(model: MultimodalModel) -> FlopCount:
    """Return the count for a model that is built and frozen, from one blank square and a few tokens shown to it.

    Call it before `precision.prepare_model`: what is stored in bfloat16 does not compute by itself.
    """
    was_training = model.training
    model.eval()
    with torch.enable_grad():
        square, patches = _square_cost(model)
        trace, length = _language_trace(model)
    model.train(was_training)
    head = {id(parameter) for parameter in model.language.get_output_embeddings().parameters()}
    once, readers = _weights_of_blocks(model)
    outside = [each for each in trace.products if not each.in_block]
    inside = [each for each in trace.products if each.in_block]
    linear = [each for each in outside if not each.attention]
    in_all = [each for each in inside if each.weight is not None and each.weight not in once | readers]
    reading = None
    if isinstance(model, CrossAttentionModel):
        blocks = model.settings.blocks
        reading = ReadingCost(
            token=_sum(each for each in inside if each.weight in readers) / length,
            image=_sum(each for each in inside if each.attention) / length,
            attend=blocks.attend,
            p_next=blocks.p_next,
        )
    return FlopCount(
        square=square + _sum(each for each in inside if each.weight in once),
        token=_sum(each for each in linear + in_all if each.weight not in head) / length,
        label=_sum(each for each in linear if each.weight in head) / length,
        pairs=_by_reach(model.language.config, [each.flops / length**2 for each in outside if each.attention]),
        patches=patches,
        reading=reading,
    )


def _square_cost(model: MultimodalModel) -> tuple[float, PatchCost | None]:
    """Return what a whole square costs in tower and connector, and what smaller pictures do where they may be."""
    side, config = model.image_size_px, model.vision.config
    if config.model_type != NATIVE:
        return _seeing(model, side, side), None
    cut = int(config.patch_size)
    grid = side // cut
    # Costs are a parabola of the patches: three small pictures tell it, where a whole one may have 4,900 patches.
    shapes = [shape for shape in ((1, 1), (1, 2), (1, 3) if grid > 2 else (2, 2)) if max(shape) <= grid]
    counts = np.array([rows * columns for rows, columns in shapes], dtype=np.float64)
    costs = [_seeing(model, rows * cut, columns * cut) for rows, columns in shapes]
    found = np.linalg.solve(np.vander(counts, increasing=True), np.array(costs))
    fixed, patch, pair = (round(float(each), 3) for each in (*found, 0.0, 0.0)[:3])
    patches = PatchCost(patch_px=cut, fixed=fixed, patch=patch, pair=pair)
    return float(patches(float(grid * grid))), patches


def _seeing(model: MultimodalModel, height_px: int, width_px: int) -> float:
    """Return what one blank picture costs in tower and connector."""
    with _Trace() as seen:
        model.see(_blank(model, height_px, width_px))
    return _sum(seen.products)


def _blank(model: MultimodalModel, height_px: int, width_px: int) -> torch.Tensor:
    side = model.image_size_px
    pixels = torch.full((1, 3, side, side), math.nan, device=model.device)
    pixels[..., :height_px, :width_px] = 0.0
    return pixels


def _language_trace(model: MultimodalModel) -> tuple[_Trace, int]:
    """Return the products of a row with one small square, all of whose tokens read it, and the length of the row.

    Those of tower and connector are left out.
    """
    tokens, side = model.tokens_per_image, model.image_size_px
    length = tokens + MORE_TOKENS
    if model.vision.config.model_type == NATIVE:
        side = int(model.vision.config.patch_size)
    is_last = isinstance(model, CrossAttentionModel) and model.settings.blocks.attend == "next"
    places = torch.arange(tokens, device=model.device)[None] + (MORE_TOKENS if is_last else 0)
    ids = torch.zeros(1, length, dtype=torch.long, device=model.device)
    positions = torch.arange(length, device=model.device)[None]
    told = model.inputs_of(
        BatchTensors(
            input_ids=ids,
            labels=ids,
            positions=positions,
            image_places=places,
            pixels=_blank(model, side, side),
        )
    )
    trace = _Trace()
    with _inside_of_blocks(model, trace), trace:
        model.language(**told, position_ids=positions, attention_mask=None, use_cache=False)
    return trace, length


@contextmanager
def _inside_of_blocks(model: MultimodalModel, trace: _Trace) -> Iterator[None]:
    """Let `trace` know which products are those of cross-attention blocks."""
    if not isinstance(model, CrossAttentionModel):
        yield
        return
    mine = {id(each) for each in model.fusion.parameters()}
    trace.block_weights |= mine

    def enter(*_: Any) -> None:
        trace.in_block = True

    def leave(*_: Any) -> None:
        trace.in_block = False

    hooks = [
        each
        for block in model.fusion
        for each in (block.register_forward_pre_hook(enter), block.register_forward_hook(leave))
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _weights_of_blocks(model: MultimodalModel) -> tuple[set[int], set[int]]:
    """Return ids of the weights that meet a square once, and of those that meet the tokens that read one.

    What is in neither meets every token.
    """
    once: set[int] = set()
    readers: set[int] = set()
    if isinstance(model, CrossAttentionModel):
        for block in model.fusion:
            assert isinstance(block, GatedCrossAttention)
            attention = block.attention
            once |= {id(attention.key.weight), id(attention.value.weight)}
            readers |= {id(attention.query.weight), id(attention.output.weight)}
            if not block.is_for_text:
                readers |= {id(each) for each in block.mlp.parameters()}
    return once, readers


def _sum(products: Iterable[_Product]) -> float:
    return sum((each.flops for each in products), 0.0)


def _by_reach(config: Any, costs: Sequence[float]) -> dict[float, float]:
    """Sum the costs of a pair in all attention products by how far their layer lets a token look."""
    layers = int(getattr(config, "num_hidden_layers", 0) or len(costs) or 1)
    window = getattr(config, "sliding_window", None) or math.inf
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * layers
    found: dict[float, float] = {}
    for number, cost in enumerate(costs):
        reach = window if kinds[number * layers // len(costs)] == "sliding_attention" else math.inf
        found[reach] = found.get(reach, 0.0) + cost
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Product:
    """A product of matrices: its cost with the backward pass, and the id of the weight that took part, if one did."""

    flops: float
    weight: int | None = None
    attention: bool = False
    in_block: bool = False


@dataclass
class _Trace(TorchFunctionMode):
    """Notes the products of matrices that are computed while it is entered."""

    products: list[_Product] = field(default_factory=list)
    block_weights: set[int] = field(default_factory=set)
    in_block: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        count = _COUNTED.get(func)
        if count is not None:
            product = count(found, *args)
            if product is not None:
                inside = self.in_block or product.weight in self.block_weights
                self.products.append(replace(product, in_block=inside))
        return found


def _linear(found: torch.Tensor, tokens: torch.Tensor, weight: torch.Tensor, *_: Any) -> _Product:
    # Numbers of the output times the weights behind each: right for a convolution over patches too.
    flops = 2.0 * found.numel() * math.prod(weight.shape[1:])
    return _Product(flops=flops * (1 + tokens.requires_grad + weight.requires_grad), weight=id(weight))


def _addmm(found: torch.Tensor, _bias: torch.Tensor, tokens: torch.Tensor, weight: torch.Tensor) -> _Product:
    flops = 2.0 * found.numel() * weight.shape[0]
    return _Product(flops=flops * (1 + tokens.requires_grad + weight.requires_grad), weight=id(weight))


def _grouped(found: torch.Tensor, tokens: torch.Tensor, weight: torch.Tensor, *_: Any) -> _Product:
    flops = 2.0 * found.numel() * tokens.shape[-1]  # experts: each token meets the few that it is sent to
    return _Product(flops=flops * (1 + tokens.requires_grad + weight.requires_grad), weight=id(weight))


def _matmul(found: torch.Tensor, one: torch.Tensor, other: torch.Tensor, *_: Any) -> _Product | None:
    if found.ndim != 4:
        return None  # rotary frequencies times positions
    flops = 2.0 * found.numel() * one.shape[-1]
    return _Product(flops=flops * (1 + one.requires_grad + other.requires_grad), attention=True)


def _attention(_found: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any) -> _Product:
    scores = 2.0 * query.numel() * key.shape[-2]
    scored = query.requires_grad or key.requires_grad
    # Forward: scores and their use. Backward: of the values, of the scores, of queries and keys.
    passes = 2 + value.requires_grad + scored + query.requires_grad + key.requires_grad
    return _Product(flops=scores * passes, attention=True)


_COUNTED: dict[Any, Callable[..., _Product | None]] = {
    functional.linear: _linear,
    functional.conv2d: _linear,
    torch.conv2d: _linear,
    torch.addmm: _addmm,
    getattr(torch, "_grouped_mm", None): _grouped,
    torch.matmul: _matmul,
    torch.Tensor.matmul: _matmul,
    torch.Tensor.__matmul__: _matmul,
    functional.scaled_dot_product_attention: _attention,
}
