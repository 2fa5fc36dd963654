"""Adapters on frozen backbones: small trained factors beside chosen linear layers, and their merge into the weights.

LoRA (Hu et al. 2021, arXiv 2106.09685) learns W + (alpha / rank) B A; DoRA (Liu et al. 2024, arXiv 2402.09353) learns
the lengths of W's rows apart from their directions. The layers are peft's. Idefics2 (Laurencon et al. 2024, arXiv
2405.02246) found that backbones trained whole diverge where adapters do not. Importing this module is cheap.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from carnac.core.errors import InputError
from carnac.model.settings import AdapterSettings

if TYPE_CHECKING:
    import torch
    from torch import nn

    from carnac.model.multimodal import MultimodalModel

Backbone = Literal["vision", "language"]
BACKBONES: tuple[Backbone, ...] = ("vision", "language")


def add_adapters(model: MultimodalModel) -> None:
    """Put trainable adapters beside the linear layers that the model's settings name; none named, nothing is done.

    They change no output yet (B is zero), and which other parameters are trained stays as it was: call it after
    `freeze`. Random numbers come from torch's global generator. Raises InputError for a name that no linear layer of
    the backbone ends with.
    """
    settings = model.settings.adapters
    for part in BACKBONES:
        if settings is not None:
            adapt_backbone(getattr(model, part), part, settings)


def adapt_backbone(backbone: Any, part: Backbone, settings: AdapterSettings) -> None:
    """Put trainable adapters into one backbone, as `add_adapters` does into both."""
    from peft import inject_adapter_in_model

    targets = _targets(part, backbone, getattr(settings, part))
    if not targets:
        return
    trained = {id(parameter) for parameter in backbone.parameters() if parameter.requires_grad}
    inject_adapter_in_model(_peft_config(settings, targets), backbone)
    # peft freezes all that is not its own, added tokens and whatever else is trained beside it.
    for parameter in backbone.parameters():
        parameter.requires_grad_(parameter.requires_grad or id(parameter) in trained)


def adapted_layers(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield (name, layer) of every layer of `module` that has an adapter."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return ((name, each) for name, each in module.named_modules() if isinstance(each, BaseTunerLayer))


def adapter_parameters(model: MultimodalModel) -> list[torch.nn.Parameter]:
    """Return the adapters' own parameters; none where the model has no adapters."""
    if model.settings.adapters is None:
        return []
    found: list[torch.nn.Parameter] = []
    for part in BACKBONES:
        for _, layer in adapted_layers(getattr(model, part)):
            own = {id(parameter) for parameter in layer.get_base_layer().parameters()}
            found += [parameter for parameter in layer.parameters() if id(parameter) not in own]
    return found


def merge_adapters(model: MultimodalModel) -> None:
    """Add every adapter to the weights beside it and take it away: the same function with the base's own layers.

    Differences are those of rounding (1e-6 of the logits' scale in fp32). The settings of `model` then name no
    adapters. Raises InputError where an adapter holds numbers that are not finite.
    """
    for part in BACKBONES:
        backbone = getattr(model, part)
        for name, layer in list(adapted_layers(backbone)):
            try:
                layer.merge(safe_merge=True)
            except ValueError as error:
                raise InputError(f"model.{part}.{name}: the adapter cannot be merged: {error}") from error
            parent, _, last = name.rpartition(".")
            setattr(backbone.get_submodule(parent), last, layer.get_base_layer())
        for leftover in ("peft_config", "active_adapter"):
            if leftover in vars(backbone):
                delattr(backbone, leftover)
    model.settings = model.settings.model_copy(update={"adapters": None})


def _peft_config(settings: AdapterSettings, targets: list[str]) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type] # peft divides: a fraction is as good
        lora_dropout=settings.dropout,
        use_dora=settings.dora,
        target_modules=targets,
        bias="none",
    )


def _targets(part: Backbone, backbone: Any, ends: tuple[str, ...]) -> list[str]:
    """Return the full names of the linear layers whose names end with one of `ends`."""
    from torch import nn

    # Heads and the tables of added tokens are not layers that repeat; attention modules of torch itself hold a special
    # kind of linear layer whose forward is never called.
    head = backbone.get_output_embeddings() if part == "language" else None
    inside = {id(each) for each in head.modules()} if head is not None else set()
    linear = [name for name, each in backbone.named_modules() if type(each) is nn.Linear and id(each) not in inside]
    targets: list[str] = []
    for end in ends:
        found = [name for name in linear if name == end or name.endswith(f".{end}")]
        if not found:
            known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
            raise InputError(
                f"model.adapters.{part}: no linear layer of this {backbone.config.model_type} ends with {end!r}; "
                f"it has {known or 'none'}."
            )
        targets += [name for name in found if name not in targets]
    return targets
