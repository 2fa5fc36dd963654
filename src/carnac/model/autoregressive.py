"""The fully autoregressive family: image tokens take places in the sequence (LLaVA, Idefics2).

A picture of several tiles is several squares, each with places of its own. Legend of shapes: R rows, T tokens of a row,
N squares (whole pictures or tiles), P tokens of a square, S its side, D width of the language model.
"""

from __future__ import annotations

from typing import Any

import torch

from carnac.model.multimodal import MultimodalModel
from carnac.model.tensors import BatchTensors


class AutoregressiveModel(MultimodalModel):
    """What the connector makes of a square stands in the row, a token of the language model's width each."""

    @property
    def tokens_per_image(self) -> int:
        """P, the places that one square (a whole picture or a tile) takes in a row."""
        tokens: int = self.connector.tokens
        return tokens

    def inputs_of(self, batch: BatchTensors) -> dict[str, Any]:
        """Return the embedded tokens of a batch, pictures at their places."""
        return {"inputs_embeds": self.embed(batch.input_ids, batch.image_places, batch.pixels)}

    def embed(self, input_ids: torch.Tensor, image_places: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """Return [R, T, D]: ids [R, T] embedded, with squares [N, 3, S, S] at their places [N, P].

        Without pictures a blank one is run and counts for nothing (`see`). Raises InputError where places and squares
        are not as many, or squares of another size.
        """
        self.check_squares(image_places, pixels)
        embedded: torch.Tensor = self.language.get_input_embeddings()(input_ids)
        image_tokens = self.see(pixels if len(pixels) else pixels.to(embedded.dtype))
        if not len(pixels):
            return embedded + 0.0 * image_tokens.sum()
        flat = embedded.flatten(0, 1)
        image_tokens = image_tokens.flatten(0, 1).to(flat.dtype)
        return flat.index_copy(0, image_places.flatten(), image_tokens).view_as(embedded)
