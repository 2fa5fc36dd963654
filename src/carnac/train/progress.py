"""Steps -> what stands beside the bar: loss, speed, how well the device is used, how long data was waited for."""

from __future__ import annotations

from collections import deque

from carnac.train.metrics import StepRecord

STEPS = 20  # one step's speed is mostly chance


class Speed:
    """Sums over the last steps."""

    def __init__(self) -> None:
        self._steps: deque[StepRecord] = deque(maxlen=STEPS)

    def note(self, record: StepRecord) -> str:
        """Return what to say after `record`: its loss, and means over the last steps."""
        self._steps.append(record)
        seconds = max(sum(each.seconds for each in self._steps), 1e-9)
        labels = sum(each.label_tokens for each in self._steps)
        loss = sum(each.loss * each.label_tokens for each in self._steps) / max(labels, 1)
        tokens = sum(each.tokens for each in self._steps) / seconds
        images = sum(each.images for each in self._steps) / seconds
        waiting = sum(each.waiting_seconds for each in self._steps) / seconds
        words = [f"loss {loss:.3f}", f"{tokens:,.0f} tokens/s", f"{images:,.1f} images/s"]
        return "  ".join([*words, *self._utilisation(seconds), f"waiting {waiting:.0%}"])

    def _utilisation(self, seconds: float) -> list[str]:
        """Return the share of the device's peak, or the rate where its peak is not known."""
        if self._steps[-1].mfu is not None:
            share = sum((each.mfu or 0.0) * each.seconds for each in self._steps) / seconds
            return [f"MFU {share:.0%}"]
        flops = sum(each.flops for each in self._steps) / seconds
        return [f"{flops / 1e12:.3g} TFLOP/s"] if flops else []
