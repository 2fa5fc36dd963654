"""Texts and pictures of real pages, and a tokenizer trained on them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from fastwarc.warc import ArchiveIterator, WarcRecordType
from selectolax.lexbor import LexborHTMLParser

from carnac.sequence.settings import TokenizerSettings
from carnac.sequence.tokenizer import LoadedTokenizer, ready, train_tokenizer

ARCHIVE = Path(__file__).parents[2] / "recipes" / "tiny" / "data" / "skimage-00001.warc.gz"


def _payloads(media_type: str) -> list[bytes]:
    with ARCHIVE.open("rb") as file:
        records = ArchiveIterator(file, record_types=WarcRecordType.response)
        return [record.reader.read() for record in records if (record.http_content_type or "").startswith(media_type)]


@cache
def real_texts() -> list[str]:
    return [node.text() for page in _payloads("text/html") for node in LexborHTMLParser(page).css("p, pre, h1")]


@cache
def real_images() -> list[bytes]:
    return _payloads("image/")


@cache
def real_tokenizer() -> LoadedTokenizer:
    return ready(train_tokenizer(real_texts(), TokenizerSettings(vocabulary_size=1000)))
