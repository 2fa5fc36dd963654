"""Which weights AdamW decays."""

from __future__ import annotations

import torch
from torch import nn

from carnac.train.settings import OptimizerSettings


def make_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.AdamW:
    """Return AdamW over the trainable parameters in two groups: decayed matrices, and all the rest undecayed."""
    undecayed = undecayed_names(model)
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[name not in undecayed].append(parameter)
    return torch.optim.AdamW(
        [
            {"params": groups[True], "weight_decay": settings.weight_decay},
            {"params": groups[False], "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.epsilon,
        fused=True,
    )


def undecayed_names(model: nn.Module) -> set[str]:
    """Return the names of norms, biases and other vectors, and of embeddings (a head tied to one goes with it)."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return {name for name, parameter in model.named_parameters() if parameter.ndim < 2 or id(parameter) in tables}
