"""Signals of safety: what the scores of image files say of an image, and of a document's kept images together.

Scores are taken while images are got, where `[scores]` asks for them. A picture that has none counts as unsafe: what a
rule on safety cannot judge is not kept.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from carnac.curate.signals.frame import Array, Frame
from carnac.curate.signals.signal import Column, Signal

_OPEN_NSFW = "open_nsfw (Yahoo 2016), in place of the classifier of OBELICS (arXiv 2306.16527)"

# Compared with lists alone, `block_pdq` is no signal. A list of sha256 may mean the file as it was received, and what
# is stored of it has another where notes were taken out.
SAFETY_COLUMNS = (
    Column(name="block_nsfw_score", type=pa.float32(), table="image_signals"),
    Column(name="block_pdq", type=pa.binary(32), table="image_signals"),
    Column(name="block_received_sha256", type=pa.string(), table="image_signals"),
)

UNSAFE = 1.0  # of a kept file without a score: it was lost while it was scored, or never was


def _nsfw_score(frame: Frame) -> Array:
    score = frame.block("block_nsfw_score")
    return np.where(frame.flags("block_has_image") & np.isnan(score), UNSAFE, score)


SAFETY_SIGNALS = (
    Signal(
        name="nsfw_score",
        level="image",
        unit="probability",
        description="how sure open_nsfw is that the picture is not safe for work, 0 to 1; 1 without a score",
        source=_OPEN_NSFW,
        columns=("block_nsfw_score", "block_has_image"),
        value=_nsfw_score,
        needs_file=True,
    ),
    Signal(
        name="max_nsfw_score",
        level="document",
        unit="probability",
        description="largest nsfw_score of its images",
        source=_OPEN_NSFW,
        columns=("block_nsfw_score", "block_has_image"),
        value=lambda frame: frame.largest(_nsfw_score(frame)),
        over="kept",
    ),
)
