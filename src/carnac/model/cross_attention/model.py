"""The cross-attention family: a picture takes one place in the row, and blocks between the layers read its latents.

Legend of shapes: R rows, T tokens of a row, N squares, K latents of a square, W their width, D width of the language
model.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from carnac.core.batch import Batch
from carnac.core.errors import InputError
from carnac.model.connectors import output_size
from carnac.model.cross_attention.blocks import GatedCrossAttention, Groups, Sizes, groups_of
from carnac.model.cross_attention.insertion import KEYWORD, ImagesRead, count_blocks, decoder_layers, insert_blocks
from carnac.model.cross_attention.reading import next_image_of, read_images
from carnac.model.multimodal import MultimodalModel
from carnac.model.settings import ModelSettings
from carnac.model.tensors import BatchTensors

NORM_EPSILON = 1e-6  # where the language model's configuration names none


class CrossAttentionModel(MultimodalModel):
    """What the connector makes of a square is read by gated cross-attention (Flamingo, Idefics)."""

    def __init__(self, settings: ModelSettings, vision: Any, language: Any) -> None:
        super().__init__(settings, vision, language)
        blocks = settings.blocks
        sizes = block_sizes(settings, vision.config.hidden_size, language.config)
        count = count_blocks(language, blocks.every)
        made = [GatedCrossAttention(blocks, sizes) for _ in range(count)]
        self.fusion = nn.ModuleList(made)
        self.recompute = False  # activation checkpointing
        insert_blocks(language, made, blocks.every)
        prove_insertion(language, sizes)

    @property
    def tokens_per_image(self) -> int:
        """P: one place in the row, whose own embedding says that a picture stands here."""
        return 1

    def tensors_of(self, batch: Batch) -> BatchTensors:
        """Return `batch` as tensors; while training, some pieces read the next image (`p_next`)."""
        tensors = super().tensors_of(batch)
        chosen = next_image_of(batch, self.settings.blocks.p_next if self.training else 0.0)
        if chosen is None:
            return tensors
        return BatchTensors(
            input_ids=tensors.input_ids,
            labels=tensors.labels,
            positions=tensors.positions,
            image_places=tensors.image_places,
            pixels=tensors.pixels,
            next_image=torch.from_numpy(chosen),
        )

    def inputs_of(self, batch: BatchTensors) -> dict[str, Any]:
        """Return the embedded ids of a batch, and what the blocks are to read of its pictures."""
        self.check_squares(batch.image_places, batch.pixels)
        embedded: torch.Tensor = self.language.get_input_embeddings()(batch.input_ids)
        pixels = batch.pixels if len(batch.pixels) else batch.pixels.to(embedded.dtype)
        read = ImagesRead(
            groups=self.groups(batch), memory=self.see(pixels), recompute=self.recompute and self.training
        )
        return {"inputs_embeds": embedded, KEYWORD: read}

    def groups(self, batch: BatchTensors) -> Groups:
        """Return which tokens of a batch read which of its squares."""
        reading = read_images(
            batch.positions.cpu().numpy(),
            batch.image_places[:, 0].cpu().numpy(),
            self.settings.blocks.attend,
            None if batch.next_image is None else batch.next_image.cpu().numpy(),
        )
        return groups_of(reading, self.device)


def block_sizes(settings: ModelSettings, vision_size: int, language: Any) -> Sizes:
    """Return the sizes of the blocks over a language model of configuration `language`.

    Raises InputError where its width cannot be shared out among the heads.
    """
    width = int(language.hidden_size)
    heads = settings.blocks.heads or int(language.num_attention_heads)
    if width % heads:
        raise InputError(f"model.cross_attention.heads: {heads} does not divide the language model's width, {width}")
    return Sizes(
        width=width,
        heads=heads,
        head_size=width // heads,
        memory=output_size(settings.connector, vision_size, width),
        hidden=settings.blocks.hidden_size or int(getattr(language, "intermediate_size", None) or 4 * width),
        epsilon=float(getattr(language, "rms_norm_eps", None) or NORM_EPSILON),
    )


def prove_insertion(language: Any, sizes: Sizes) -> None:
    """Raise InputError unless what the blocks are to read reaches every layer: one short forward pass tells."""
    if language.device.type == "meta":
        return  # a skeleton: nothing to compute with
    reached: list[bool] = []

    def note(_layer: nn.Module, _args: Any, keywords: dict[str, Any]) -> None:
        reached.append(KEYWORD in keywords)

    layers = decoder_layers(language)
    hooks = [layer.register_forward_pre_hook(note, with_kwargs=True, prepend=True) for layer in layers]
    positions = torch.arange(2, device=language.device)[None]
    empty = torch.zeros(0, dtype=torch.long, device=language.device)
    groups = groups_of(read_images(positions.cpu().numpy(), empty.cpu().numpy(), "previous"), language.device)
    memory = torch.zeros(1, 1, sizes.memory, device=language.device)
    was_training = language.training
    language.eval()
    kind = language.config.model_type
    try:
        with torch.no_grad():
            embedded = language.get_input_embeddings()(positions)
            told = {KEYWORD: ImagesRead(groups=groups, memory=memory)}
            language(inputs_embeds=embedded, position_ids=positions, use_cache=False, **told)
    except TypeError as error:
        raise InputError(f"model.language: {kind} takes no images between its layers: {error}") from error
    finally:
        for hook in hooks:
            hook.remove()
        language.train(was_training)
    if reached != [True] * len(layers):
        raise InputError(
            f"model.language: {kind} hands images to {sum(reached)} of its {len(layers)} layers; wanted all of them. "
            'Choose another family, or family = "autoregressive".'
        )
