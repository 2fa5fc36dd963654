"""The fully autoregressive family: image tokens take places in the sequence (LLaVA, Idefics2).

A picture of several tiles is several squares, each with places of its own. Legend of shapes: R rows, T tokens of a row,
N squares (whole pictures or tiles), P tokens of a square, S its side, D width of the language model, K vocabulary,
L positions that carry loss.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from carnac.core.batch import IGNORED, Batch
from carnac.core.errors import InputError
from carnac.core.seeds import seed_of
from carnac.model.adapters import add_adapters
from carnac.model.added_tokens import add_tokens, added_parameters
from carnac.model.connectors import build_connector
from carnac.model.language import Vocabulary, build_language, language_config, language_from_config
from carnac.model.packed_attention import use_packed_attention
from carnac.model.settings import PARTS, ModelSettings, Part
from carnac.model.tensors import BatchTensors, to_tensors
from carnac.model.towers import vision_config
from carnac.model.vision import build_vision, features, num_features, square_px, vision_from_config


class AutoregressiveModel(nn.Module):
    """A vision tower, a connector and a causal language model."""

    def __init__(self, settings: ModelSettings, vision: Any, language: Any) -> None:
        super().__init__()
        self.settings = settings
        self.vision = vision
        sizes = (vision.config.hidden_size, language.config.hidden_size, num_features(vision.config, settings.vision))
        self.connector: Any = build_connector(settings.connector, *sizes)
        self.language = language
        use_packed_attention(language)

    @property
    def tokens_per_image(self) -> int:
        """P, the places that one square (a whole picture or a tile) takes in a row."""
        tokens: int = self.connector.tokens
        return tokens

    @property
    def image_size_px(self) -> int:
        """S, the side of the squares that the tower takes."""
        return square_px(self.vision.config)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def forward(self, batch: BatchTensors) -> torch.Tensor:
        """Return logits [R, T, K] of a packed batch."""
        logits: torch.Tensor = self._run(batch).logits
        return logits

    def loss(self, batch: Batch, label_tokens: int, z_loss: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (total, per token) of a batch or of some of its rows.

        `total` is the sum of the cross entropy over the labels, divided by `label_tokens`, the labels of the *global*
        batch: totals of parts add up to the total of the whole. It includes `z_loss` times the mean square of the
        logits' log-sum-exp (PaLM, Chowdhery et al. 2022, arXiv 2204.02311). `per_token` float32 [R, T] is the cross
        entropy alone, without gradient, 0 where there is no label.
        """
        tensors = to_tensors(batch, self.tokens_per_image, self.device)
        labelled = tensors.labels != IGNORED
        # The head is the widest layer: at the labels alone it saves what images, prompts and padding would cost.
        logits = self._run(tensors, logits_to_keep=labelled).logits.float()  # [L, K]
        labels = tensors.labels[labelled]
        entropies = nn.functional.cross_entropy(logits, labels, reduction="none")
        total = entropies.sum()
        if z_loss:
            # log-sum-exp = label's logit + cross entropy: a second pass over the logits took 20 % of a step.
            log_sums = logits.gather(1, labels[:, None])[:, 0] + entropies
            total = total + z_loss * log_sums.square().sum()
        per_token = torch.zeros(labelled.shape, device=self.device)
        per_token[labelled] = entropies.detach()
        return total / max(label_tokens, 1), per_token

    def embed(self, input_ids: torch.Tensor, image_places: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """Return [R, T, D]: ids [R, T] embedded, with squares [N, 3, S, S] at their places [N, P].

        Without pictures a blank one is run and counts for nothing, so that every process of a group has the same
        gradients to share: one that skips the tower hangs the others. Raises InputError where places and squares are
        not as many, or squares of another size.
        """
        _check_squares(image_places, pixels, self.tokens_per_image, self.image_size_px)
        embedded: torch.Tensor = self.language.get_input_embeddings()(input_ids)
        blank = len(pixels) == 0
        if blank:
            pixels = embedded.new_zeros((1, 3, self.image_size_px, self.image_size_px))
        image_tokens: torch.Tensor = self.connector(features(self.vision, pixels, self.settings.vision))
        if blank:
            return embedded + 0.0 * image_tokens.sum()
        flat = embedded.flatten(0, 1)
        image_tokens = image_tokens.flatten(0, 1).to(flat.dtype)
        return flat.index_copy(0, image_places.flatten(), image_tokens).view_as(embedded)

    def _run(self, batch: BatchTensors, **keywords: Any) -> Any:
        # No mask and no cache: transformers then builds each family's own packed mask from the restarting positions.
        return self.language(
            inputs_embeds=self.embed(batch.input_ids, batch.image_places, batch.pixels),
            position_ids=batch.positions,
            attention_mask=None,
            use_cache=False,
            **keywords,
        )


def build_model(settings: ModelSettings, vocabulary: Vocabulary, image_size_px: int, seed: int) -> AutoregressiveModel:
    """Return a model whose random weights depend on `seed` alone, frozen as the settings say.

    The global generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "model") % 2**63)
        language = build_language(settings.language, vocabulary)
        model = AutoregressiveModel(settings, build_vision(settings.vision, image_size_px), language)
        freeze(model, settings.trained)
        add_adapters(model)
    return model


def build_skeleton(settings: ModelSettings, vocabulary: Vocabulary, image_size_px: int) -> AutoregressiveModel:
    """Return a model on the meta device: names, shapes and what is trained, but no weights and no memory.

    Of trained backbones only the configurations are read.
    """
    with torch.device("meta"):
        language = language_from_config(language_config(settings.language, vocabulary))
        add_tokens(language, vocabulary.added_ids)
        vision = vision_from_config(vision_config(settings.vision, image_size_px))
        model = AutoregressiveModel(settings, vision, language)
        freeze(model, settings.trained)
        add_adapters(model)
    return model


def freeze(model: AutoregressiveModel, trained: Collection[Part]) -> None:
    """Let gradients reach the parts in `trained` only; a frozen part computes as before."""
    added = {id(parameter) for parameter in added_parameters(model.language)}
    for part in PARTS[:3]:
        for parameter in getattr(model, part).parameters():
            parameter.requires_grad_(("added_tokens" if id(parameter) in added else part) in trained)


def _check_squares(image_places: torch.Tensor, pixels: torch.Tensor, tokens: int, side: int) -> None:
    """Raise InputError where the pictures are not those that the ids have places for."""
    if len(image_places) != len(pixels):
        raise InputError(
            f"places for {len(image_places)} pictures or tiles, but {len(pixels)} are there; wanted as many"
        )
    if len(pixels) and (pixels.shape[1:] != (3, side, side) or image_places.shape[1] != tokens):
        got = (*pixels.shape[1:], image_places.shape[1])
        raise InputError(
            f"pictures of {got[0]} x {got[1]} x {got[2]} values in places of {got[3]} tokens; this model takes "
            f"3 x {side} x {side} and {tokens}"
        )
