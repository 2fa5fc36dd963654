"""Encodings of HTTP bodies, sound and not."""

from __future__ import annotations

import gzip
import zlib

import brotli as brotli_module  # type: ignore[import-untyped]  # comes with fastwarc
import pytest

from carnac.archive.bodies import decode_body
from carnac.core.errors import RecordError

PAGE = b"<html><p>some text that is long enough to compress, some text that is long enough</p></html>"


def squeeze(body: bytes) -> bytes:
    return gzip.compress(body, mtime=0)


def brotli(body: bytes) -> bytes:
    return bytes(brotli_module.compress(body))


def raw_deflate(body: bytes) -> bytes:
    encoder = zlib.compressobj(9, zlib.DEFLATED, -15)
    return encoder.compress(body) + encoder.flush()


def decode(raw: bytes, encodings: str = "", transfer: str = "", max_bytes: int = 10_000) -> bytes:
    return decode_body(raw, transfer=transfer, encodings=encodings.split(","), max_bytes=max_bytes)


@pytest.mark.parametrize(
    ("raw", "encodings"),
    [
        (PAGE, ""),
        (PAGE, "identity"),
        (squeeze(PAGE), "gzip"),
        (squeeze(PAGE), "X-GZIP"),
        (zlib.compress(PAGE), "deflate"),
        (raw_deflate(PAGE), "deflate"),
        (brotli(PAGE), "br"),
        (brotli(squeeze(PAGE)), "gzip, br"),
    ],
)
def test_encodings_are_undone(raw: bytes, encodings: str) -> None:
    assert decode(raw, encodings) == PAGE
    chunked = b"%x;name=value\r\n%s\r\n0\r\n\r\n" % (len(raw), raw)
    assert decode(chunked, encodings, "chunked") == PAGE


@pytest.mark.parametrize("encodings", ["gzip", "deflate", "br", "zstd", "unheard-of"])
def test_bodies_stored_decoded_are_kept(encodings: str) -> None:
    assert decode(PAGE, encodings, "chunked") == PAGE


@pytest.mark.parametrize(
    ("raw", "encodings", "transfer"),
    [
        (squeeze(PAGE)[:30], "gzip", ""),
        (squeeze(PAGE)[:20] + b"????" + squeeze(PAGE)[24:], "gzip", ""),
        (b"\x78\x9c????", "deflate", ""),
        (brotli(PAGE)[:20], "br", ""),
        (b"\x8b??\xff\xff\xff\xff", "br", ""),
        (b"\x28\xb5\x2f\xfd....", "zstd", ""),
        (b"5\r\nhello\r\nzz\r\nworld", "", "chunked"),
    ],
)
def test_broken_bodies_are_refused(raw: bytes, encodings: str, transfer: str) -> None:
    with pytest.raises(RecordError) as caught:
        decode(raw, encodings, transfer)
    assert caught.value.reason == "undecodable_payload"


@pytest.mark.parametrize("encodings", ["gzip", "deflate", "br"])
def test_bound_holds_for_what_is_decoded(encodings: str) -> None:
    body = b"a" * 5000
    raw = {"gzip": squeeze(body), "deflate": zlib.compress(body), "br": brotli(body)}[encodings]
    assert decode(raw, encodings, max_bytes=5000) == body
    with pytest.raises(RecordError) as caught:
        decode(raw, encodings, max_bytes=4999)
    assert caught.value.reason == "payload_too_large"
