"""The learning rate of a step: a pure function, so that a resumed run cannot lose it."""

from __future__ import annotations

import math

from carnac.train.settings import ScheduleSettings, TrainSettings


def learning_rate(step: int, settings: TrainSettings, peak: float | None = None) -> float:
    """Return the rate of step 0, 1, ... under the schedule; `peak` is its highest value, by default the optimizer's.

    A linear warm-up, whose step 0 is not zero, then down to `final_ratio` of the peak at the last step: half a cosine
    (Loshchilov and Hutter 2016, arXiv 1608.03983), a straight line, or a plateau and then a straight line over the last
    `decay_steps` (MiniCPM, Hu et al. 2024, arXiv 2404.06395). Rates of two peaks stay in proportion at every step.
    """
    highest = settings.optimizer.learning_rate if peak is None else peak
    schedule = settings.schedule
    if step < schedule.warmup_steps:
        return highest * (step + 1) / (schedule.warmup_steps + 1)
    left = _share_left(min(step, settings.steps - 1), settings.steps, schedule)
    return highest * (schedule.final_ratio + (1 - schedule.final_ratio) * left)


def _share_left(step: int, steps: int, schedule: ScheduleSettings) -> float:
    """Return how much of the way down lies ahead of a step after the warm-up: 1 at the top, 0 at the last step."""
    way = steps - 1 - schedule.warmup_steps
    if way < 1:
        return 1.0
    if schedule.kind == "stable_decay":
        # A way down longer than what the warm-up leaves would begin below the peak: a jump.
        way = min(way, schedule.decay_steps or max(1, steps // 5))
        return min(1.0, (steps - 1 - step) / way)
    progress = (step - schedule.warmup_steps) / way
    return 1 - progress if schedule.kind == "linear" else (1 + math.cos(math.pi * progress)) / 2
