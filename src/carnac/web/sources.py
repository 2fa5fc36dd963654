"""The attributes of an image element -> the one absolute URL to fetch it from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from urllib.parse import urljoin, urlsplit

from selectolax.lexbor import LexborNode

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
# Pictures that stand in for one that is loaded late, by their names; and what is a picture by its name.
_PLACEHOLDER = re.compile(
    r"(?:[\w-]{0,60}(?:placeholder|lazy[-_]?load(?:ing|er)?|spacer|fallback-image)"
    r"|1x1|blank|clear|dot|dummy|empty|grey|gray|lazy|loader|loading|pixel|transparent|trans)"
    r"(?:[-_.]?(?:gif|img|image|placeholder|\d{1,4}(?:x\d{1,4})?)){0,4}\.(?:gif|jpe?g|png|svg|webp)",
    re.IGNORECASE,
)
_PICTURE_NAMES = (".avif", ".gif", ".jpg", ".jpeg", ".png", ".webp")
_MAX_URL = 2000
_OTHER_ATTRIBUTES = frozenset(("src", "srcset", "alt", "title", "class", "id", "style", "onerror", "onload", "usemap"))
SET_ATTRIBUTES = ("srcset", "data-srcset", "data-lazy-srcset")
_SPACE = " \t\n\f\r"
_PLAIN_URL = re.compile(r"https?://[A-Za-z0-9.-]*[A-Za-z0-9](?::[1-9][0-9]{0,3})?/(?!\.)[^\s\x00-\x1f\x7f#\[\]\\]*")
_PLAIN_PATH = re.compile(r"/(?![/.])(?:[^\s\x00-\x1f\x7f#.?\[\]\\]|\.(?![./]))*(?:\?[^\s\x00-\x1f\x7f#\[\]\\]*)?")
_SITE = re.compile(r"https?://[A-Za-z0-9.-]*[A-Za-z0-9](?::[1-9][0-9]{0,3})?(?=/)")
_REMOVED = str.maketrans("", "", "\t\r\n")  # browsers drop these anywhere in a URL
_MAX_PIXEL = 3  # CSS pixels: what counts visitors, or a spacer
_MAX_ICON = 32
_MIN_PICTURE = 150  # OBELICS keeps nothing smaller
_MARK = re.compile(r"(?:^|[\W_])(logos?|icons?|favicon|sprite|emoji)(?:[\W_]|$)", re.IGNORECASE)
_HOST = re.compile(r"[^\s%<>\"\\^`{|}\x00-\x20\x7f]+")
_UNWRITTEN = re.compile(r"[\x00-\x20\x7f]")  # in no URL, and browsers write them so
_MAX_OFFERS = 20  # nodes, white space included
_PIXELS = re.compile(r"\s*(\d{1,7})(?:\.\d*)?\s*(?:px)?\s*", re.IGNORECASE)


def resolve(base: str, link: str) -> str | None:
    """Return `link` as an absolute http(s) URL without fragment, or None if it is none."""
    link = link.strip(_SPACE)
    if _PLAIN_URL.fullmatch(link) is not None:
        return link  # as nearly all are: the general way takes ten times as long
    if link[:1] == "/" and _PLAIN_PATH.fullmatch(link) is not None:
        site = _SITE.match(base)
        if site is not None:
            return site[0] + link
    link = link.translate(_REMOVED)
    if not link or link.startswith(("data:", "#")):
        return None
    try:
        url = urljoin(base, link).partition("#")[0]
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and _HOST.fullmatch(parts.hostname or "") is not None
        _ = parts.port  # raises if it is no number
    except ValueError:
        return None
    return _UNWRITTEN.sub(lambda found: f"%{ord(found[0]):02X}", url) if usable else None


def image_source(attributes: Attributes, base: str) -> tuple[str, str] | None:
    """Return the image's URL and the attribute it came from.

    `src`, unless it is a placeholder (a `data:` URI, a blank picture by its name, or any on an element that says it is
    loaded late); then a lazy-load attribute, the largest candidate of a srcset, any other attribute that names a
    picture, and `src` at last. A placeholder alone is no image.
    """
    source = attributes.get("src")
    url = resolve(base, source) if source else None
    is_late = "lazy" in (attributes.get("class") or "")
    if url is not None and not is_late and not _is_placeholder(url):
        return url, "src"
    found = _late_source(attributes, base)
    if found is None and url is not None and not _is_placeholder(url):
        return url, "src"
    return found


def _is_placeholder(url: str) -> bool:
    return _PLACEHOLDER.fullmatch(url.partition("?")[0].rpartition("/")[2]) is not None


def _late_source(attributes: Attributes, base: str) -> tuple[str, str] | None:
    for name in LAZY_ATTRIBUTES:
        if (value := attributes.get(name)) and (url := resolve(base, value)) is not None:
            return url, name
    for name in SET_ATTRIBUTES:
        best = max(parse_srcset(attributes.get(name) or ""), key=lambda pair: pair[1], default=None)
        url = resolve(base, best[0]) if best is not None else None
        if url is not None:
            return url, name
    for name, value in attributes.items():
        if value and name not in _OTHER_ATTRIBUTES and is_named_as_picture(value):
            url = resolve(base, value)
            if url is not None:
                return url, name
    return None


def is_named_as_picture(value: str) -> bool:
    """Say whether a text is the name of a picture, by its ending."""
    if len(value) > _MAX_URL or len(value.split()) != 1:
        return False
    return value.partition("?")[0].strip().lower().endswith(_PICTURE_NAMES)


def figure_source(attributes: Attributes, base: str) -> tuple[str, str] | None:
    """Return the picture that a `<figure>` names whose image a script adds (schema.org's ImageObject, `data-src`)."""
    return _late_source(attributes, base) if attributes.get("itemid") or attributes.get("data-src") else None


def node_source(node: LexborNode, attributes: Attributes, base: str, max_width: int | None) -> tuple[str, str] | None:
    """Return an image's URL and the attribute it came from: its own, else what the `<picture>` around it offers.

    With `max_width` (pixels) the widest candidate of all srcsets that is no wider, or the narrowest if all are. Only
    widths (`480w`) tell: densities (`2x`) are of a size that is not known.
    """
    if max_width is not None and (widest := _widest(node, attributes, base, max_width)) is not None:
        return widest
    return image_source(attributes, base) or picture_source(node, base)


def _widest(node: LexborNode, attributes: Attributes, base: str, max_width: int) -> tuple[str, str] | None:
    offers = [attributes, *(source.attributes for source in _offers(node))]
    candidates = [
        (width, link, name)
        for offer in offers
        for name in SET_ATTRIBUTES
        for link, width, unit in parse_srcset(offer.get(name) or "")
        if unit == "w"
    ]
    within = [candidate for candidate in candidates if candidate[0] <= max_width]
    # Sorted by width alone: of equally wide ones the first, which is the image's own before what stands around it.
    chosen = sorted(within, key=lambda one: -one[0]) or sorted(candidates, key=lambda one: one[0])
    return next(((url, name) for _, link, name in chosen if (url := resolve(base, link)) is not None), None)


def _offers(node: LexborNode) -> Iterator[LexborNode]:
    """Yield the `<source>`s before an image, the nearest first."""
    at = node.prev
    for _ in range(_MAX_OFFERS):
        if at is None:
            return
        if at.tag == "source":
            yield at
        at = at.prev


def picture_source(node: LexborNode, base: str) -> tuple[str, str] | None:
    """Return what a `<picture>` around an image offers before it, if the image itself names no file."""
    found = (image_source(offer.attributes, base) for offer in _offers(node))
    return next((source for source in found if source is not None), None)


def parse_srcset(srcset: str) -> Iterator[tuple[str, float, str]]:
    """Yield the candidates of a `srcset`: URL (it may hold commas), width or density, and `w` or `x` (1 x if none)."""
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
            yield link, *_size(size)


def _size(descriptor: str) -> tuple[float, str]:
    found = re.search(r"(\d{1,9}(?:\.\d{1,9})?)([wx])\b", descriptor)
    return (float(found[1]), found[2]) if found else (1.0, "x")


def image_flaw(attributes: Attributes, url: str) -> str | None:
    """Return why an image is none of the article's: `tracking_pixel`, `icon` or `logo`; None for all others.

    By its declared size, or by a word in its file's name or its class, unless its declared size is that of a picture.
    """
    width, height = _pixels(attributes.get("width")), _pixels(attributes.get("height"))
    sizes = [size for size in (width, height) if size is not None]
    if sizes and max(sizes) <= _MAX_PIXEL:  # a height of 0 beside a width is a script's
        return "tracking_pixel"
    if len(sizes) == 2 and max(sizes) <= _MAX_ICON:
        return "icon"
    if sizes and max(sizes) >= _MIN_PICTURE:
        return None
    word = _MARK.search(f"{attributes.get('class') or ''} {url.partition('?')[0].rpartition('/')[2]}")
    return None if word is None else "logo" if word[1].lower().startswith("logo") else "icon"


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
