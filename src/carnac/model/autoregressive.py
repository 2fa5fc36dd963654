"""The fully autoregressive family: image tokens take places in the sequence (LLaVA, Idefics2).

Legend of shapes: R rows, T tokens of a row, N images, P tokens of an image, S image side, D width of the language
model, K vocabulary, L positions that carry loss.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from carnac.core.batch import IGNORED, Batch
from carnac.core.seeds import seed_of
from carnac.model.connector import MlpConnector
from carnac.model.language import Vocabulary, build_language
from carnac.model.settings import ModelSettings
from carnac.model.tensors import BatchTensors, to_tensors
from carnac.model.vision import build_vision, num_patches, patches


class AutoregressiveModel(nn.Module):
    """A vision tower, a connector and a causal language model."""

    def __init__(self, settings: ModelSettings, vision: Any, language: Any) -> None:
        super().__init__()
        self.settings = settings
        self.vision = vision
        self.connector = MlpConnector(settings.connector, vision.config.hidden_size, language.config.hidden_size)
        self.language = language

    @property
    def tokens_per_image(self) -> int:
        """P, the places that each picture takes in a row."""
        return num_patches(self.vision.config)

    @property
    def image_size_px(self) -> int:
        """S, the side of the square pictures that the tower takes."""
        return int(self.vision.config.image_size)

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
        """Return [R, T, D]: ids [R, T] embedded, with pictures [N, 3, S, S] at their places [N, P].

        Without pictures a blank one is run and counts for nothing, so that every process of a group has the same
        gradients to share: one that skips the tower hangs the others.
        """
        embedded: torch.Tensor = self.language.get_input_embeddings()(input_ids)
        blank = len(pixels) == 0
        if blank:
            pixels = embedded.new_zeros((1, 3, self.image_size_px, self.image_size_px))
        image_tokens: torch.Tensor = self.connector(patches(self.vision, pixels))
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
    """Return a model with random weights that depend on `seed` alone; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "model") % 2**63)
        language = build_language(settings.language, vocabulary)
        return AutoregressiveModel(settings, build_vision(settings.vision, image_size_px), language)
