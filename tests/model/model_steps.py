"""A packed batch with pictures, some steps on it, and what a model makes of it."""

from __future__ import annotations

import torch
from model_builder import make_batch

from carnac.model.multimodal import MultimodalModel
from carnac.model.tensors import to_tensors

BATCH = make_batch([[(24, 2), (12, 0), (9, 1)], [(30, 3)]])


def train(model: MultimodalModel, steps: int) -> None:
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(BATCH, BATCH.label_tokens)[0].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    model.eval()


def logits(model: MultimodalModel) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(to_tensors(BATCH, model.tokens_per_image, model.device))
    return found
