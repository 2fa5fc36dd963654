"""One record of a crawl as one page: its HTML, what was read from it, its document, and what was dropped and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from carnac import __version__
from carnac.archive.records import Response
from carnac.core.document import Document
from carnac.core.errors import RecordError
from carnac.engine.manifest import Manifest
from carnac.report.fate_text import dropped_blocks, fate_rows
from carnac.report.page_tree import PageTree, page_tree
from carnac.report.record import Found, facts
from carnac.report.stored_pages import stored_page
from carnac.report.template import render_template, write_html
from carnac.web.blocks import Block
from carnac.web.charset import as_utf_8
from carnac.web.extract import parse_page, read_tree
from carnac.web.settings import ExtractSettings

MAX_HTML = 300_000  # characters of a page shown
MAX_BLOCKS = 2_000


def write_looking(found: Found, out: Path) -> None:
    """Write the page of a record whole or not at all. Raises InputError where the crawl's input is not there."""
    write_html(render_looking(found, stored_page(found.manifest, found.sought)), out)


def render_looking(found: Found, response: Response) -> str:
    """Return the page of a record as HTML that loads nothing. Everything that came from the web is escaped."""
    settings, notes = _settings(found.manifest)
    read = _read(response, settings)
    if read.why is None and found.document is not None and not _is_same(found.document, read.blocks):
        notes.append(
            f"carnac {__version__} reads the page otherwise than the version that wrote the document: the document is "
            "as written, the tree as it is read now."
        )
    if found.lost is not None and read.why is None:
        notes.append(f"The page was lost when it was crawled ({found.lost.reason}), but is read now.")
    html = as_utf_8(response.payload, response.charset).decode(errors="replace")
    blocks = _blocks(found.document, dropped_blocks(found.fate)) if found.document is not None else []
    return render_template(
        "looking.html.j2",
        version=__version__,
        title=(found.document.title if found.document is not None else None) or response.url,
        facts=facts(found),
        fate=fate_rows(found.fate),
        notes=notes,
        why=read.why,
        html=html[:MAX_HTML],
        num_characters=len(html),
        tree=read.tree,
        has_document=found.document is not None,
        blocks=blocks[:MAX_BLOCKS],
        num_more_blocks=max(0, len(blocks) - MAX_BLOCKS),
        dropped=[(why.replace("_", " "), block.kind, block.text or block.url) for why, block in read.dropped],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """What is read of a page now; `why` it gives no document."""

    tree: PageTree | None = None
    blocks: Sequence[Block] = ()
    dropped: Sequence[tuple[str, Block]] = ()
    why: str | None = None


def _read(response: Response, settings: ExtractSettings) -> _Read:
    try:
        parser = parse_page(response.payload, response.charset, settings)
        reading = read_tree(parser, response.url, settings)
        tree = page_tree(parser, response.url, reading, settings)
    except RecordError as error:
        return _Read(why=str(error))
    why = None if reading.blocks else "no_content: no text and no picture is left"
    return _Read(tree=tree, blocks=reading.blocks, dropped=reading.dropped, why=why)


def _is_same(document: Document, blocks: Sequence[Block]) -> bool:
    return [block.text for block in blocks] == list(document.texts) and [block.url for block in blocks] == list(
        document.images
    )


def _settings(manifest: Manifest) -> tuple[ExtractSettings, list[str]]:
    try:
        return ExtractSettings.model_validate(manifest.settings), []
    except ValidationError:
        note = "The settings of the crawl are of another version of carnac: the page is read by the defaults."
        return ExtractSettings(), [note]


def _blocks(document: Document, gone: Mapping[int, str]) -> list[dict[str, str]]:
    shown = []
    columns = (document.kinds, document.texts, document.images, document.image_nodes)
    for number, (kind, text, url, node) in enumerate(zip(*columns, strict=True)):
        said = {} if node is None else {"alt": node.alt, "caption": node.caption, "taken from": node.source_attribute}
        if node is not None and (node.declared_width or node.declared_height):
            said["declared"] = f"{node.declared_width or '?'} x {node.declared_height or '?'} px"
        told = ", ".join(f"{name}: {value}" for name, value in said.items() if value)
        shown.append({"kind": kind, "text": text or "", "url": url or "", "told": told, "gone": gone.get(number, "")})
    return shown
