"""The learning rate of a step: a pure function, so that a resumed run cannot lose it."""

from __future__ import annotations

import math

from carnac.train.settings import TrainSettings


def learning_rate(step: int, settings: TrainSettings) -> float:
    """Return the rate of step 0, 1, ...: linear warm-up (step 0 is not zero), then half a cosine to the last step."""
    peak, warmup = settings.optimizer.learning_rate, settings.schedule.warmup_steps
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1, settings.steps - 1 - warmup))
    final = settings.schedule.final_ratio
    return peak * (final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2)
