"""Which part of a model a parameter belongs to, by its name. No torch here."""

from __future__ import annotations

from typing import Literal

TrainedPart = Literal["vision", "connector", "language", "added_tokens", "adapters"]
TRAINED_PARTS: tuple[TrainedPart, ...] = ("vision", "connector", "language", "added_tokens", "adapters")


def part_of(name: str) -> TrainedPart:
    """Return the part of the parameter `name` of a model.

    Adapters and the rows of added tokens are parts of their own, wherever they lie. Raises KeyError for another name.
    """
    if ".lora_" in name:
        return "adapters"
    if name.endswith(".added.weight"):
        return "added_tokens"
    return _OWNERS[name.partition(".")[0]]


_OWNERS: dict[str, TrainedPart] = {
    "vision": "vision",
    "connector": "connector",
    "fusion": "connector",  # blocks between the layers: what joins the backbones, as the connector
    "language": "language",
}
