"""Ten losses of a tiny training, pinned: what changes them changes every training."""

from __future__ import annotations

from pathlib import Path

import pytest
from train_run import SETTINGS, run

from carnac.train.settings import ScheduleSettings

# Of a model of 100,000 random weights on random ids: fp32, one thread. Kernels of another CPU move the last bits, which
# ten steps amplify to about 1e-6; another order of data, loss, schedule or optimizer moves the first digits.
LOSSES = [4.8612784, 4.8499083, 4.8701387, 4.8608529, 4.8493078, 4.835539, 4.8919656, 4.8677292, 4.8637809, 4.8532783]
NORMS = [1.283407, 1.251514, 1.247829, 1.222511, 1.230131, 1.167605, 1.181897, 1.072741, 1.305433, 1.15813]


def test_ten_losses_are_those_that_were_pinned(tmp_path: Path) -> None:
    wanted = SETTINGS.model_copy(update={"steps": 10, "schedule": ScheduleSettings(warmup_steps=2)})
    records = run(tmp_path, wanted).records
    assert [record.loss for record in records] == pytest.approx(LOSSES, rel=1e-5)
    assert [record.gradient_norm for record in records] == pytest.approx(NORMS, rel=1e-4)
