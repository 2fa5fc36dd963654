"""A vision tower, a connector and a causal language model: what the families share. How they are fused is their own.

Legend of shapes: R rows, T tokens of a row, N squares (whole pictures or tiles), P places of a square in a row, S its
side, K latents or image tokens of a square, W their width, D width of the language model, V vocabulary, L positions
that carry loss.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from carnac.core.batch import IGNORED, Batch
from carnac.core.errors import InputError
from carnac.model.added_tokens import added_parameters
from carnac.model.connectors import build_connector
from carnac.model.packed_attention import use_packed_attention
from carnac.model.settings import PARTS, ModelSettings, Part
from carnac.model.tensors import BatchTensors, to_tensors
from carnac.model.towers import NATIVE
from carnac.model.vision import blank_square, features, num_features, square_px


class MultimodalModel(nn.Module):
    """The parts and the loss. A family says how many places a square takes and what its language model is told."""

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
        raise NotImplementedError

    @property
    def image_size_px(self) -> int:
        """S, the side of the squares that the tower takes."""
        return square_px(self.vision.config)

    @property
    def native_aspect(self) -> bool:
        """Whether pictures of any shape stand in those squares, NaN beyond them."""
        return bool(self.vision.config.model_type == NATIVE)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def forward(self, batch: BatchTensors) -> torch.Tensor:
        """Return logits [R, T, V] of a packed batch."""
        logits: torch.Tensor = self._run(batch).logits
        return logits

    def loss(self, batch: Batch, label_tokens: int, z_loss: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (total, per token) of a batch or of some of its rows.

        `total` is the sum of the cross entropy over the labels, divided by `label_tokens`, the labels of the *global*
        batch: totals of parts add up to the total of the whole. It includes `z_loss` times the mean square of the
        logits' log-sum-exp (PaLM, Chowdhery et al. 2022, arXiv 2204.02311). `per_token` float32 [R, T] is the cross
        entropy alone, without gradient, 0 where there is no label.
        """
        tensors = self.tensors_of(batch)
        labelled = tensors.labels != IGNORED
        # The head is the widest layer: at the labels alone it saves what images, prompts and padding would cost.
        logits = self._run(tensors, logits_to_keep=labelled).logits.float()  # [L, V]
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

    def tensors_of(self, batch: Batch) -> BatchTensors:
        """Return `batch` as the tensors that this model reads, on its device."""
        return to_tensors(batch, self.tokens_per_image, self.device)

    def see(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return what the connector makes of squares [N, 3, S, S]: [N, K, W].

        Without squares a blank one is run, so that every process of a group has the same gradients to share: one that
        skips the tower hangs the others. The caller lets it count for nothing.
        """
        if not len(pixels):
            pixels = blank_square(self.vision.config).to(pixels)
        patches, mask = features(self.vision, pixels, self.settings.vision)
        seen: torch.Tensor = self.connector(patches) if mask is None else self.connector(patches, mask)
        return seen

    def inputs_of(self, batch: BatchTensors) -> dict[str, Any]:
        """Return the keywords with which the language model is called for a batch, positions and masks left out.

        Raises InputError where places and squares are not as many, or squares of another size.
        """
        raise NotImplementedError

    def _run(self, batch: BatchTensors, **keywords: Any) -> Any:
        # No mask and no cache: transformers then builds each family's own packed mask from the restarting positions.
        return self.language(
            **self.inputs_of(batch), position_ids=batch.positions, attention_mask=None, use_cache=False, **keywords
        )

    def check_squares(self, image_places: torch.Tensor, pixels: torch.Tensor) -> None:
        """Raise InputError where the pictures [N, 3, S, S] are not those that the ids have places [N, P] for."""
        tokens, side = self.tokens_per_image, self.image_size_px
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


def freeze(model: MultimodalModel, trained: Collection[Part]) -> None:
    """Let gradients reach the parts in `trained` only; a frozen part computes as before.

    What a family puts between the layers of the language model belongs to the connector: both join the backbones.
    """
    added = {id(parameter) for parameter in added_parameters(model.language)}
    for part in PARTS[:3]:
        for parameter in getattr(model, part).parameters():
            parameter.requires_grad_(("added_tokens" if id(parameter) in added else part) in trained)
    fusion = getattr(model, "fusion", None)
    if fusion is not None:
        fusion.requires_grad_("connector" in trained)
