"""What `X-Robots-Tag` headers and `<meta name="robots">` say: words, each for everyone or for one robot.

Google's syntax (Robots meta tag specification), with the words of others in it: `noindex, ourbot: noai nofollow`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

EVERYONE = frozenset(("", "robots", "*"))
# Directives that carry a value behind a colon: what stands before it is no robot's name.
_VALUED = frozenset(("max-snippet", "max-image-preview", "max-video-preview", "unavailable_after"))
_ROBOT = re.compile(r"[\w.+*/-]{1,60}", re.ASCII)


def directives(text: str, robot: str = "") -> Iterator[tuple[str, str]]:
    """Yield (robot, word), both in lower case, of a value addressed to `robot`.

    A robot's name holds up to the next one; its version (`ourbot/1.0`) is left out.
    """
    for part in text.lower().replace(";", ",").split(","):
        name, colon, words = part.partition(":")
        name = name.strip()
        if colon and name in _VALUED:
            continue
        if colon and _ROBOT.fullmatch(name):
            robot = name.partition("/")[0]
        for word in (words if colon else part).split():
            yield robot, word
