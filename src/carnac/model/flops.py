"""The floating point operations that a training step needs, from the shapes of one forward pass.

A multiplication and an addition are two. Legend of shapes: N squares, T tokens of a row, P tokens of a square.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from carnac.core.batch import Batch
from carnac.model.multimodal import MultimodalModel
from carnac.model.tensors import BatchTensors

MORE_TOKENS = 3  # of text, behind the square of the traced row


@dataclass(frozen=True, slots=True, kw_only=True)
class FlopCount:
    """What a step costs, forward and backward: call it with a batch.

    A product of `n` tokens with a matrix of M weights takes 2 n M operations, 2 n M more where the weights are trained
    (their gradient) and 2 n M more where anything before them is (the gradient of the tokens): 6 M per token where all
    is trained, 4 M in a frozen layer above something trained, 2 M in a frozen tower. Attention over pieces of n tokens
    takes 4 n^2 A in a layer whose heads have A numbers together, and 8 n^2 A more in the backward pass. With everything
    trained that is the 6 N + 12 L H Q T per token of PaLM (Chowdhery et al. 2022, arXiv 2204.02311, appendix B), here
    with the tokens of a square and of a piece instead of T; like there, the half that a causal mask hides is counted.

    Not counted, since a model does not need it: padding, attention across pieces, activations computed a second time,
    the blank square of a batch without pictures; and what is no product of matrices (1 % in models of usual size).

    `square` is per square, through tower and connector; `token` per token of a piece; `label` per label, in the head;
    `pairs` maps the longest reach of attention (inf: all of the piece) to the cost of one token reading another.
    """

    square: float
    token: float
    label: float
    pairs: Mapping[float, float]

    def __call__(self, batch: Batch) -> float:
        """Return the operations of one step on `batch`."""
        lengths = np.array([piece.tokens for piece in batch.provenance], dtype=np.float64)
        linear = self.square * len(batch.pixels) + self.token * lengths.sum() + self.label * batch.label_tokens
        read = sum(cost * (lengths * np.minimum(lengths, reach)).sum() for reach, cost in self.pairs.items())
        return float(linear + read)


def count_flops(model: MultimodalModel) -> FlopCount:
    """Return the count for a model that is built and frozen, from one blank square and a few tokens shown to it.

    Call it before `precision.prepare_model`: what is stored in bfloat16 does not compute by itself.
    """
    was_training, tokens = model.training, model.tokens_per_image
    model.eval()
    side, length = model.image_size_px, tokens + MORE_TOKENS
    pixels = torch.zeros(1, 3, side, side, device=model.device)
    ids = torch.zeros(1, length, dtype=torch.long, device=model.device)
    places = torch.arange(tokens, device=model.device)[None]
    with torch.enable_grad():
        with _Trace() as seen:
            model.see(pixels)
        with _Trace() as whole:
            model(
                BatchTensors(
                    input_ids=ids,
                    labels=ids,
                    positions=torch.arange(length, device=model.device)[None],
                    image_places=places,
                    pixels=pixels,
                )
            )
    model.train(was_training)
    # The second pass begins with the first one's products.
    language = whole.products[len(seen.products) :]
    head = {id(parameter) for parameter in model.language.get_output_embeddings().parameters()}
    linear = [each for each in language if not each.attention]
    return FlopCount(
        square=sum(each.flops for each in seen.products),
        token=sum(each.flops for each in linear if each.weight not in head) / length,
        label=sum(each.flops for each in linear if each.weight in head) / length,
        pairs=_by_reach(model.language.config, [each.flops / length**2 for each in language if each.attention]),
    )


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


@dataclass
class _Trace(TorchFunctionMode):
    """Notes the products of matrices that are computed while it is entered."""

    products: list[_Product] = field(default_factory=list)

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
                self.products.append(product)
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
