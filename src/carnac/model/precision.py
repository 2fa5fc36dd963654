"""How a model computes while it is trained: where, in which precision, and what it keeps for the backward pass."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from carnac.core.errors import InputError
from carnac.model.adapters import BACKBONES
from carnac.model.cross_attention.model import CrossAttentionModel
from carnac.model.multimodal import MultimodalModel


def prepare_model(
    model: MultimodalModel,
    *,
    device: torch.device,
    bf16: bool = False,
    activation_checkpointing: bool = False,
    compile_layers: bool = False,
) -> None:
    """Move a model that is built and frozen to `device` and let it compute there as the arguments say.

    Call it before the optimizer is made, and compute the loss under `train.compute.arithmetic` of the same settings.
    Raises InputError where the device or the family cannot do what is asked.
    """
    model.to(device)
    if bf16:
        halve_frozen(model)
    if activation_checkpointing:
        checkpoint_activations(model)
    if compile_layers:
        _compile_layers(model, device)


def halve_frozen(model: MultimodalModel) -> None:
    """Store what is not trained in bfloat16; what is trained stays in float32, and so do its moments.

    An update of 1e-3 of a weight is lost in the 8 bits of bfloat16 (Micikevicius et al. 2017, arXiv 1710.03740, keep
    float32 copies), and frozen weights get none. They keep their rounded values from here on, in checkpoints too.
    Buffers (rotary frequencies) stay as they are: positions beyond 256 are no numbers of bfloat16.
    """
    for parameter in model.parameters():
        if not parameter.requires_grad and parameter.dtype == torch.float32:
            parameter.data = parameter.data.bfloat16()
    # A trained norm over activations in bfloat16: right, but without torch's fused kernel, which it says at every use.
    warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")


def checkpoint_activations(model: MultimodalModel) -> None:
    """Let the layers of both backbones compute their activations again in the backward pass instead of keeping them.

    About a third more computation for memory that no longer grows with the layers (Chen et al. 2016, arXiv 1604.06174);
    the gradients are the same. A tower in which nothing is trained keeps no activations anyway and is left as it is.
    Raises InputError for a family that transformers cannot do it for.
    """
    for part in BACKBONES:
        backbone: Any = getattr(model, part)
        if part == "vision" and not any(parameter.requires_grad for parameter in backbone.parameters()):
            continue
        try:
            backbone.activation_checkpointing_enable()
        except ValueError as error:
            raise InputError(
                f"training.compute.activation_checkpointing: transformers' {backbone.config.model_type} ({part}) "
                f"cannot do it ({error}). Set it to false, or choose fewer micro_rows instead."
            ) from error
        # transformers lets the embeddings' output ask for a gradient, which only its older way of checkpointing needs.
        backbone.disable_input_require_grads()
    if isinstance(model, CrossAttentionModel):
        model.recompute = True


def _compile_layers(model: MultimodalModel, device: torch.device) -> None:
    """Compile the repeated layers one by one: they share one compilation, the whole model would take minutes."""
    if device.type != "cuda":
        raise InputError(
            f"training.compute.compile: is for a GPU, and this run computes on {device.type}. Set it to false."
        )
    from transformers.modeling_layers import GradientCheckpointingLayer

    for part in BACKBONES:
        for module in getattr(model, part).modules():
            if isinstance(module, GradientCheckpointingLayer):
                module.compile()
