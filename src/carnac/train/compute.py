"""Where and in which precision a run computes, and what its device could do at best."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from carnac.core.errors import InputError
from carnac.train.settings import ComputeSettings


def choose_device(settings: ComputeSettings) -> torch.device:
    """Return the device that the settings name; raise InputError where it is not there."""
    has_gpu = torch.cuda.is_available()
    if settings.device == "cuda" and not has_gpu:
        raise InputError(
            'training.compute.device: "cuda", but torch finds no GPU here. Set it to "cpu" or "auto", or install a '
            "torch that is built for this machine's driver."
        )
    if settings.device == "cpu" or not has_gpu:
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def arithmetic(settings: ComputeSettings, device: torch.device) -> AbstractContextManager[object]:
    """Return what the forward pass is to be computed under: matrix products in bfloat16 where the settings say bf16.

    Norms, softmax and the loss stay in float32, as torch's autocast sets it. The backward pass goes outside.
    """
    if settings.precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
