"""Steps -> TensorBoard's event files, for those who watch many runs at once. An extra: `carnac[tensorboard]`."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from carnac.core.errors import InputError
from carnac.train.metrics import StepRecord

MISSING = "tensorboard is not installed; pip install 'carnac[tensorboard]', or leave tensorboard out."


def is_installed() -> bool:
    """Say whether event files can be written."""
    return importlib.util.find_spec("tensorboard") is not None


class TensorBoard:
    """Writes scalars into `folder`; what an earlier process wrote of steps from `start` on is hidden.

    Raises InputError where tensorboard is not installed.
    """

    def __init__(self, folder: Path, start: int) -> None:
        if not is_installed():
            raise InputError(f"training.monitor.tensorboard: {MISSING}")
        from torch.utils.tensorboard import SummaryWriter

        writer: Any = SummaryWriter  # torch types none of it
        self._writer = writer(log_dir=str(folder), purge_step=start)

    def append(self, record: StepRecord) -> None:
        """Write a step."""
        for name, value in scalars(record):
            self._writer.add_scalar(name, value, record.step)

    def __enter__(self) -> TensorBoard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()


def scalars(record: StepRecord) -> Iterator[tuple[str, float]]:
    """Yield (tag, value) of all that a step measured."""
    if record.label_tokens:  # without labels there is no loss
        yield "loss", record.loss
        yield "z_loss", record.z_loss
    for name in ("learning_rate", "gradient_norm", "label_tokens", "tokens", "images", "stand_ins", "seconds"):
        yield name, float(getattr(record, name))
    yield "speed/tokens_per_second", record.tokens / max(record.seconds, 1e-9)
    yield "speed/waiting", record.waiting_seconds / max(record.seconds, 1e-9)
    if record.mfu is not None:
        yield "speed/mfu", record.mfu
    for source, found in record.sources.items():
        if found.loss is not None:
            yield f"loss_of/{source}", found.loss
    if record.grounding is not None:
        yield "grounding/right", record.grounding.right
        yield "grounding/other", record.grounding.other
        yield "grounding/gap", record.grounding.other - record.grounding.right
    for name, value in (record.evaluation or {}).items():
        yield f"evaluation/{name}", value
