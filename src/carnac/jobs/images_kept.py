"""Bytes that came from anywhere -> a kept image in a pack and what its row says, or the reason why not."""

from __future__ import annotations

from typing import Any

from carnac.core.errors import RecordError
from carnac.core.taken_down import TakenDown
from carnac.engine.part import LOST, Part
from carnac.images.inspect import TakenImage, take_image
from carnac.images.pack import PackWriter
from carnac.images.settings import ImageSettings


class ImageKeeper:
    """Tries images one by one, under the eyes of the unit's guard, and puts the good ones into the unit's pack."""

    def __init__(
        self, part: Part, pack: PackWriter, pack_name: str, settings: ImageSettings, taken_down: TakenDown
    ) -> None:
        self._part, self._pack, self._pack_name = part, pack, pack_name
        self._settings, self._taken_down = settings, taken_down

    def keep(self, record: str, payload: bytes) -> dict[str, Any]:
        """Return the columns of a row from `status` on: those of a kept image, or a dropped one's reason."""
        taken = self._part.attempt(record, _take, payload, self._settings)
        if taken is LOST:
            return {"status": "dropped", "reason": "not_inspected"}
        if isinstance(taken, RecordError):
            return {"status": "dropped", "reason": taken.reason, "detail": taken.detail[:200] or None}
        facts = taken.facts
        if self._taken_down.has_image(facts.sha256) or self._taken_down.has_image(facts.received_sha256):
            return {"status": "dropped", "reason": "taken_down"}
        offset, length = self._pack.add(facts.sha256, facts.media_type, taken.payload)
        return {
            "status": "kept",
            "sha256": facts.sha256,
            "received_sha256": facts.received_sha256,
            "media_type": facts.media_type,
            "width": facts.width,
            "height": facts.height,
            "phash": facts.phash,
            "pack": self._pack_name,
            "offset": offset,
            "length": length,
        }


def _take(payload: bytes, settings: ImageSettings) -> TakenImage | RecordError:
    """Return an image, or why it is refused: that is no loss but a state of its URL."""
    try:
        return take_image(payload, settings)
    except RecordError as error:
        return error
