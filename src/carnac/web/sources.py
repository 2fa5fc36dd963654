"""The attributes of an image element -> the one absolute URL to fetch it from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from urllib.parse import urljoin, urlsplit

from carnac.core.document import ImageNode

Attributes = Mapping[str, str | None]

# Where scripts that load images late keep the URL (OBELICS's list and what its issues add).
LAZY_ATTRIBUTES = (
    "data-src",
    "data-original",
    "data-lazy-src",
    "data-lazy",
    "data-original-src",
    "data-img-src",
    "data-src-fg",
    "data-lateloadsrc",
    "data-gt-lazy-src",
    "data-scroll-image",
    "data-hi-res-src",
    "lazy-src",
    "nitro-lazy-src",
)
SET_ATTRIBUTES = ("srcset", "data-srcset", "data-lazy-srcset")
_SPACE = " \t\n\f\r"
_REMOVED = str.maketrans("", "", "\t\r\n")  # browsers drop these anywhere in a URL
_PIXELS = re.compile(r"\s*(\d{1,7})(?:\.\d*)?\s*(?:px)?\s*", re.IGNORECASE)


def resolve(base: str, link: str) -> str | None:
    """Return `link` as an absolute http(s) URL without fragment, or None if it is none."""
    link = link.strip(_SPACE).translate(_REMOVED)
    if not link or link.startswith(("data:", "#")):
        return None
    try:
        url = urljoin(base, link).partition("#")[0]
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port  # raises if it is no number
    except ValueError:
        return None
    return url.replace(" ", "%20") if usable else None


def image_source(attributes: Attributes, base: str) -> tuple[str, str] | None:
    """Return the image's URL and the attribute it came from: src, else a lazy attribute, else the largest of a srcset.

    A `data:` URI or an empty src is a placeholder.
    """
    for name in ("src", *LAZY_ATTRIBUTES):
        url = resolve(base, attributes.get(name) or "")
        if url is not None:
            return url, name
    for name in SET_ATTRIBUTES:
        best = max(parse_srcset(attributes.get(name) or ""), key=lambda pair: pair[1], default=None)
        url = resolve(base, best[0]) if best is not None else None
        if url is not None:
            return url, name
    return None


def parse_srcset(srcset: str) -> Iterator[tuple[str, float]]:
    """Yield the candidates of a `srcset` with their width or density (1 if none is given); URLs may hold commas."""
    place, end = 0, len(srcset)
    while place < end:
        while place < end and srcset[place] in _SPACE + ",":
            place += 1
        start = place
        while place < end and srcset[place] not in _SPACE:
            place += 1
        link = srcset[start:place]
        size = ""
        if not link.endswith(","):
            start = place
            place = srcset.find(",", place)
            place = end if place < 0 else place
            size = srcset[start:place]
        link = link.rstrip(",")
        if link and not link.startswith("data:"):
            yield link, _size(size)


def _size(descriptor: str) -> float:
    found = re.search(r"(\d{1,9}(?:\.\d{1,9})?)[wx]\b", descriptor)
    return float(found[1]) if found else 1.0


def describe_image(attributes: Attributes, source_attribute: str, caption: str | None) -> ImageNode:
    """Return what the page says about an image; lengths other than pixels are left out."""
    return ImageNode(
        alt=" ".join((attributes.get("alt") or "").split()) or None,
        caption=caption,
        declared_width=_pixels(attributes.get("width")),
        declared_height=_pixels(attributes.get("height")),
        source_attribute=source_attribute,
    )


def _pixels(value: str | None) -> int | None:
    found = _PIXELS.fullmatch(value or "")
    return int(found[1]) if found else None
