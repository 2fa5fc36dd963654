"""A parsed page, its address and HTTP headers -> what the page says of itself: title, date, author, licence, consent.

Only what is written for machines is read: elements of the head, JSON-LD, microdata, links to licences. Nothing is told
from prose, nothing raises, whatever the page holds. The head is walked once, the rest of the tree is queried once.
"""

from __future__ import annotations

import html
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

from selectolax.lexbor import LexborCSSSelector, LexborHTMLParser, LexborNode

from carnac.web.dates import parse_date
from carnac.web.licences import choose_licence, find_deed
from carnac.web.linked_data import LinkedData, read_linked_data
from carnac.web.microdata import Item, nearest, page_item
from carnac.web.reservations import is_robot, read_reservations
from carnac.web.sources import Attributes, resolve
from carnac.web.titles import TitleSources, choose_title

# Names of <meta> in lower case, the best first.
_TITLES = ("citation_title", "dc.title", "dcterms.title", "og:title", "twitter:title")
_SITES = ("og:site_name", "application-name", "citation_journal_title", "dc.publisher")
_PUBLISHED = ("article:published_time", "og:article:published_time", "article:published")
_DATES = (
    *("datepublished", "citation_publication_date", "citation_online_date", "citation_date", "dc.date.issued"),
    *("dcterms.issued", "dcterms.created", "dc.date.created", "dc.date", "dcterms.date", "parsely-pub-date"),
    *("sailthru.date", "pubdate", "publishdate", "publish-date", "publish_date", "publication_date", "date"),
)
_AUTHORS = ("citation_author", "dc.creator", "dcterms.creator", "author")  # of one kind all are taken
_AUTHORS_LAST = ("parsely-author", "sailthru.author", "byl", "article:author")
_RIGHTS = ("dcterms.license", "dc.rights.license", "dc.rights", "dcterms.rights", "rights", "copyright", "license")
_WANTED = frozenset(
    (
        *_TITLES,
        *_SITES,
        *_PUBLISHED,
        *_DATES,
        *_AUTHORS,
        *_AUTHORS_LAST,
        *_RIGHTS,
        "og:url",
        "tdm-reservation",
        "tdm-policy",
    )
)

_CREATIVE_COMMONS = "creativecommons.org/"
# Links of rel=author cost another 0.05 of a parse, and tell the author of 4 of 65 articles.
_SELECTORS = (
    (b"<h1", "h1"),
    (b"datetime", "time[datetime]"),
    (b"creativecommons", f'a[href*="{_CREATIVE_COMMONS}"]'),
    (b"json", 'script[type="application/ld+json" i]'),  # some write its + as an entity
    (b"itemprop", "[itemprop]"),
)
_BODY_ELEMENTS = 100  # a picture in the <noscript> of a head ends it: the rest of the head then begins the body
_HEADINGS = 3
_LINKS = 50  # from either end of a page: a footer's are the last
_MAX_NAME = 150  # characters of an author's or a site's name
_MAX_AUTHORS = 20
_MAX_URL = 4000
_MARKED_TIME = frozenset(["published", "dt-published", "entry-date", "pubdate", "post-date", "date-published"])
_OF_A_PART = re.compile(r"caption|credit|comment|gallery|thumb", re.IGNORECASE)
_NOTICE = re.compile(r"footer|licen[cs]|copyright|colophon", re.IGNORECASE)
_UNSTORABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # JSON can spell them, a table cannot hold all of them
_BYLINE = re.compile(r"(?:written\s+)?by:?\s+", re.IGNORECASE)


class _Selector(threading.local):
    """A selector for all pages of a thread: to make one for a page, as `parser.css` does, costs 50 microseconds."""

    def __init__(self) -> None:
        self.one = LexborCSSSelector()  # type: ignore[no-untyped-call] # its stub gives no type of None


_SELECTOR = _Selector()


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What a page says of itself: fields of `Document`, and the URL that the page's relative ones are resolved with."""

    title: str | None = None
    canonical_url: str | None = None
    published_at: str | None = None
    author: str | None = None
    site: str | None = None
    licence: str | None = None
    licence_url: str | None = None
    reservations: tuple[str, ...] = ()
    base_url: str


@dataclass(slots=True)
class _Head:
    """What the head says, as it stands."""

    base: str | None = None
    title: str | None = None
    canonical: list[str] = field(default_factory=list)
    licences: list[str] = field(default_factory=list)
    metas: dict[str, list[str]] = field(default_factory=dict)

    def all_of(self, names: Iterable[str]) -> list[str]:
        metas = self.metas
        return [content for name in names if name in metas for content in metas[name]]


@dataclass(slots=True)
class _Body:
    """What the query found, as it stands."""

    headings: list[str] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    times: list[tuple[LexborNode, Attributes]] = field(default_factory=list)
    links: list[tuple[LexborNode, Attributes]] = field(default_factory=list)
    properties: list[tuple[LexborNode, Attributes]] = field(default_factory=list)


def read_metadata(
    parser: LexborHTMLParser, url: str, headers: Mapping[str, str], payload: bytes | None = None
) -> Metadata:
    """Return what the page at `url` says of itself; `headers` are those of HTTP, by name in lower case.

    `payload`, the page's bytes, saves looking for what they do not spell: a query for all costs 0.25 to 0.4 of a parse.
    Several headers of one name are joined by line breaks. Never raises; what is missing or malformed is None.
    """
    head = _read_head(parser)
    body = _read_body(_query(parser, payload))
    base = (resolve(url, head.base) if head.base else None) or url
    canonical = next(_addresses([*head.canonical, *head.all_of(("og:url",))], base), None)
    linked = read_linked_data(body.scripts, {url.partition("#")[0], *([canonical] if canonical else ())})
    item = page_item(body.properties)
    sites = [*head.all_of(_SITES[:1]), linked.site, *head.all_of(_SITES[1:]), linked.publisher]
    site = next(_clean_names(sites), None)
    licence, licence_url = _licence(head, body, linked, item, base)
    titles = [linked.headline, *head.all_of(_TITLES), item.headline]
    return Metadata(
        title=choose_title(
            TitleSources(
                title=_clean(head.title),
                metadata=[text for title in titles if (text := _clean(title))],
                headings=[text for heading in body.headings if (text := _clean(heading))],
                site=site,
            ),
            url,
        ),
        canonical_url=canonical,
        published_at=_published(head, body, linked, item),
        author="; ".join(_authors(head, linked, item)) or None,
        site=site,
        licence=licence,
        licence_url=licence_url,
        reservations=read_reservations(head.metas, headers, base),
        base_url=base,
    )


def _read_head(parser: LexborHTMLParser) -> _Head:
    read = _Head()
    for node in _head_elements(parser):
        tag = node.tag
        if tag == "meta":
            _read_meta(node.attributes, read.metas)
        elif tag == "link":
            _read_link(node.attributes, read)
        elif tag == "title" and read.title is None:
            read.title = node.text()
        elif tag == "base" and read.base is None:
            read.base = node.attributes.get("href")
    return read


def _head_elements(parser: LexborHTMLParser) -> Iterator[LexborNode]:
    """Return the elements of the head, and the first of the body."""
    head = parser.head.iter() if parser.head is not None else ()
    body = parser.body.iter() if parser.body is not None else ()
    return chain(head, islice(body, _BODY_ELEMENTS))


def _read_meta(attributes: Attributes, metas: dict[str, list[str]]) -> None:
    content = attributes.get("content")
    if not content:
        return
    for key in ("property", "name", "itemprop"):
        for word in (attributes.get(key) or "").lower().split():
            name = word.replace("dc:", "dc.").replace("dcterms:", "dcterms.")
            if name in _WANTED or is_robot(name):
                metas.setdefault(name, []).append(content)


def _read_link(attributes: Attributes, read: _Head) -> None:
    relation, href = (attributes.get("rel") or "").lower(), attributes.get("href")
    if not href:
        return
    if "canonical" in relation:
        read.canonical.append(href)
    elif "license" in relation or (_CREATIVE_COMMONS in href and find_deed(href) is not None):
        read.licences.append(href)


def _query(parser: LexborHTMLParser, payload: bytes | None) -> list[LexborNode]:
    spelled = (
        None if payload is None or b"\0" in payload else payload.lower()
    )  # a zero byte: UTF-16, which spells otherwise
    query = ", ".join(selector for word, selector in _SELECTORS if spelled is None or word in spelled)
    return [] if parser.root is None or not query else _SELECTOR.one.find(query, parser.root)


def _read_body(elements: Iterable[LexborNode]) -> _Body:
    read = _Body()
    last = 0
    for node in elements:
        tag, last, is_again = node.tag, node.mem_id, node.mem_id == last
        if is_again:  # an element that two of the selectors match comes twice
            continue
        if tag == "h1":
            if len(read.headings) < _HEADINGS:
                read.headings.append(node.text())
            continue
        attributes = node.attributes
        if tag == "script":
            if (attributes.get("type") or "").lower() == "application/ld+json":
                read.scripts.append(node.text())
        elif tag == "time" and attributes.get("datetime"):
            read.times.append((node, attributes))
        elif tag == "a" and _CREATIVE_COMMONS in (attributes.get("href") or ""):
            read.links.append((node, attributes))
        if "itemprop" in attributes:
            read.properties.append((node, attributes))
    return read


def _addresses(links: Iterable[str], base: str) -> Iterator[str]:
    for given in links:
        link = given.strip()
        if len(link) <= _MAX_URL and link.isprintable() and (url := resolve(base, link)) is not None:
            yield url


def _published(head: _Head, body: _Body, linked: LinkedData, item: Item) -> str | None:
    stated = (*head.all_of(_PUBLISHED), *linked.published, *item.published, *head.all_of(_DATES))
    dates = (parse_date(text) for text in (*stated, *_marked_times(body.times)))
    return next((date for date in dates if date is not None), None)


def _marked_times(times: Sequence[tuple[LexborNode, Attributes]]) -> list[str]:
    """Return the <time> marked as that of publication, or the only one of the page, in an article or its header.

    Of several different ones none: they are those of a list of articles.
    """
    marked = [
        attributes.get("datetime") or ""
        for _, attributes in times
        if "pubdate" in attributes or not _MARKED_TIME.isdisjoint((attributes.get("class") or "").lower().split())
    ]
    if not marked and len(times) == 1 and nearest(times[0][0], lambda above: above.tag in ("article", "header")):
        marked = [times[0][1].get("datetime") or ""]
    return marked[:1] if len(set(marked)) == 1 else []


def _authors(head: _Head, linked: LinkedData, item: Item) -> list[str]:
    for names in (linked.authors, *(head.metas.get(name, ()) for name in _AUTHORS), item.authors):
        if names and (found := list(dict.fromkeys(_clean_names(names)))):
            return found[:_MAX_AUTHORS]
    return list(_clean_names(head.all_of(_AUTHORS_LAST)))[:1]


def _licence(head: _Head, body: _Body, linked: LinkedData, item: Item, base: str) -> tuple[str | None, str | None]:
    """Return licence and URL; see `choose_licence`."""
    declared = [*head.licences, *linked.licences, *item.licences]
    declared += [deed for text in head.all_of(_RIGHTS) if (deed := find_deed(text)) is not None]
    mentioned: list[str] = []
    links = body.links if len(body.links) <= 2 * _LINKS else [*body.links[:_LINKS], *body.links[-_LINKS:]]
    for node, attributes in links:
        of_page = _is_of_page(node, attributes)
        (declared if of_page else mentioned).append(attributes.get("href") or "")
    return choose_licence(list(_addresses(declared, base)), list(_addresses(mentioned, base)))


def _is_of_page(node: LexborNode, attributes: Attributes) -> bool:
    """Say whether a link to a licence is the page's: it says so, or stands in a footer or notice, but in no caption."""
    around = nearest(node, lambda above: _says(above, _OF_A_PART) or _says(above, _NOTICE))
    if "license" in (attributes.get("rel") or "").lower().split():
        return around is None or not _says(around, _OF_A_PART)
    return around is not None and not _says(around, _OF_A_PART)


def _says(node: LexborNode, words: re.Pattern[str]) -> bool:
    """Say whether the name, id or classes of an element hold one of `words`; a figure is a caption's."""
    attributes = node.attributes
    names = f"{node.tag} {attributes.get('id') or ''} {attributes.get('class') or ''}"
    return words.search(names) is not None or (words is _OF_A_PART and node.tag == "figure")


def _clean(text: str | None) -> str | None:
    """Return a text as one line that can be stored; HTML that was escaped once too often is read again."""
    if not text:
        return None
    if "&" in text:
        text = html.unescape(text)
    text = " ".join(text.split())
    if not text.isprintable():
        text = " ".join(_UNSTORABLE.sub(" ", text).split())
    return text or None


def _clean_names(names: Iterable[str | None]) -> Iterator[str]:
    """Yield names of people or sites; addresses, and what is too long for a name, are none."""
    for name in names:
        text = _clean(name)
        text = _BYLINE.sub("", text, count=1) if text and _BYLINE.match(text) else text
        if text and len(text) <= _MAX_NAME and "://" not in text:
            yield text
