"""AdamW over what is trained: which weights it decays, and how fast each part learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from carnac.core.errors import InputError
from carnac.train.schedule import learning_rate
from carnac.train.settings import OptimizerSettings, TrainSettings

# Parts of the names of tables and tokens that a module holds itself instead of in an `nn.Embedding`: DINOv2's
# position_embeddings and cls_token, a perceiver's latents.
TABLES = ("embed", "token", "latents")


def make_optimizer(
    model: nn.Module, settings: OptimizerSettings, part_of: Callable[[str], str] | None = None
) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov and Hutter 2017, arXiv 1711.05101) over the trainable parameters of `model`.

    `part_of` maps a parameter's name to the part whose rate it has in `settings.rates`; without it all are one part,
    `model`. Each part has up to two groups, decayed and undecayed, in the order of the parameters. A group carries
    `part` and `peak`, its highest learning rate. Raises InputError where nothing is trained.
    """
    undecayed = undecayed_names(model)
    members: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = "model" if part_of is None else part_of(name)
            members.setdefault((part, name not in undecayed), []).append(parameter)
    if not members:
        raise InputError("nothing would be trained: every weight is frozen. Name a part in `trained`, or add adapters.")
    groups: list[dict[str, Any]] = []
    rates: Mapping[str, float] = {str(part): rate for part, rate in settings.rates.items()}
    for (part, decayed), parameters in members.items():
        peak = rates.get(part, settings.learning_rate)
        decay = settings.weight_decay if decayed else 0.0
        groups.append({"params": parameters, "lr": peak, "peak": peak, "part": part, "weight_decay": decay})
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.epsilon, fused=True)


def rates_at(optimizer: torch.optim.Optimizer, step: int, settings: TrainSettings) -> dict[str, float]:
    """Return the learning rate that each part is to have at `step`."""
    return {group["part"]: learning_rate(step, settings, group["peak"]) for group in optimizer.param_groups}


def rates_now(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Return the learning rate that each part has: after a step, the one it was made with."""
    return {group["part"]: float(group["lr"]) for group in optimizer.param_groups}


def set_rates(optimizer: torch.optim.Optimizer, step: int, settings: TrainSettings) -> None:
    """Give every group its learning rate of `step`."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, settings, group["peak"])


def undecayed_names(model: nn.Module) -> set[str]:
    """Return the names of norms, biases, gates and other vectors, and of embeddings (a head tied to one goes with it).

    Decay pulls towards zero what multiplies; for a norm, a gate or the place of a token zero is no simpler than another
    value (M4's training of Idefics leaves out the same, and the whole perceiver).
    """
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim < 2 or id(parameter) in tables or _is_table(name.rpartition(".")[2], parameter)
    }


def _is_table(last: str, parameter: nn.Parameter) -> bool:
    """Say whether a parameter that is no `weight` of a module is a vector ([1, 1, D]) or a table."""
    if last == "weight":
        return False
    return sum(size > 1 for size in parameter.shape) < 2 or any(word in last for word in TABLES)
