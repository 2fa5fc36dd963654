"""Pictures for a page that needs no other file: thumbnails as data URIs, a loss curve as SVG points."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from carnac.sequence.pixels import FORMATS, MAX_PIXELS


def thumbnail(payload: bytes, side_px: int) -> str | None:
    """Return a data URI of a picture that fits a square, or None when it does not decode."""
    try:
        with Image.open(io.BytesIO(payload), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                return None
            image.draft("RGB", (side_px, side_px))
            small = image.convert("RGBA" if image.has_transparency_data else "RGB")
            small.thumbnail((side_px, side_px))
            flat = Image.new("RGB", small.size, "white")
            flat.paste(small, mask=small if small.mode == "RGBA" else None)
    except Exception:  # noqa: BLE001 - the edge of a record: Pillow's decoders raise a dozen types on damaged files
        return None
    out = io.BytesIO()
    flat.save(out, "WEBP", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A curve in the units of an SVG view box: `raw` and `smooth` are the points of polylines."""

    width: float
    height: float
    raw: str
    smooth: str
    y_ticks: tuple[tuple[float, str], ...]
    x_ticks: tuple[tuple[float, str], ...]


def curve(steps: Sequence[int], losses: Sequence[float], *, width: float = 860, height: float = 260) -> Curve:
    """Scale losses over steps; the smooth line is an exponential mean over about a twentieth of the run."""
    low, high = min(losses), max(losses)
    span, length = max(high - low, 1e-9), max(steps[-1] - steps[0], 1)

    def x(step: float) -> float:
        return round(width * (step - steps[0]) / length, 1)

    def y(loss: float) -> float:
        return round(height * (high - loss) / span, 1)

    keep = 1 - 1 / max(1.0, len(losses) / 20)
    mean, weight, means = 0.0, 0.0, []
    for loss in losses:
        mean, weight = keep * mean + (1 - keep) * loss, keep * weight + (1 - keep)
        means.append(mean / weight)
    return Curve(
        width=width,
        height=height,
        raw=" ".join(f"{x(step)},{y(loss)}" for step, loss in zip(steps, losses, strict=True)),
        smooth=" ".join(f"{x(step)},{y(loss)}" for step, loss in zip(steps, means, strict=True)),
        y_ticks=tuple((y(low + span * part / 4), f"{low + span * part / 4:.2f}") for part in range(5)),
        x_ticks=tuple((x(step), f"{step}") for step in sorted({steps[0] + length * part // 4 for part in range(5)})),
    )
