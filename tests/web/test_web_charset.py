"""Bytes to text."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carnac.web.charset import CODECS, decode_page

RUSSIAN = (
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440. "
    "\u042d\u0442\u043e \u043e\u0431\u044b\u0447\u043d\u044b\u0439 \u0442\u0435\u043a\u0441\u0442. "
) * 20
JAPANESE = "\u3053\u308c\u306f\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3067\u3059\u3002" * 20


@pytest.mark.parametrize(
    ("payload", "declared", "expected"),
    [
        ("caf\u00e9".encode(), None, ("caf\u00e9", "utf_8")),
        ("caf\u00e9".encode("latin-1"), "iso-8859-1", ("caf\u00e9", "cp1252")),
        (b"\x93quoted\x94", "ISO-8859-1", ("\u201cquoted\u201d", "cp1252")),
        (b"\x93quoted\x94", "us-ascii", ("\u201cquoted\u201d", "cp1252")),
        (codecs.BOM_UTF8 + "\u00e9".encode(), "windows-1251", ("\u00e9", "utf_8")),
        (codecs.BOM_UTF16_LE + "h\u00e9".encode("utf-16-le"), "utf-8", ("h\u00e9", "utf_16_le")),
        ("h\u00e9".encode("utf-16-be"), "utf-16be", ("h\u00e9", "utf_16_be")),
        (b"plain", "no-such-charset", ("plain", "utf_8")),
        (b"plain", "utf-7", ("plain", "utf_8")),
        ("\u4e2d\u6587".encode("gb18030"), "gb2312", ("\u4e2d\u6587", "gb18030")),
        (JAPANESE.encode("cp932"), "Shift_JIS", (JAPANESE, "cp932")),
        (JAPANESE.encode("iso2022_jp"), "iso-2022-jp", (JAPANESE, "iso2022_jp")),
        (b"", None, ("", "utf_8")),
    ],
)
def test_declared(payload: bytes, declared: str | None, expected: tuple[str, str]) -> None:
    assert decode_page(payload, declared) == expected


@pytest.mark.parametrize(
    "head",
    [
        '<meta charset="windows-1251">',
        "<META http-equiv=Content-Type content='text/html; charset=windows-1251'>",
        "<?xml version='1.0' encoding='windows-1251'?>",
    ],
)
def test_declared_in_the_page(head: str) -> None:
    page = head + RUSSIAN
    assert decode_page(page.encode("cp1251"), None) == (page, "cp1251")
    assert decode_page(page.encode("cp1251"), "utf-8") == (page, "cp1251"), "a header that does not hold is passed over"


def test_meta_cannot_say_utf_16() -> None:
    page = "<meta charset=utf-16>\u00e9"
    assert decode_page(page.encode(), None) == (page, "utf_8")


def test_utf_8_beats_a_single_byte_charset() -> None:
    assert decode_page(RUSSIAN.encode(), "iso-8859-1") == (RUSSIAN, "utf_8")
    assert decode_page(JAPANESE.encode("cp932"), "utf-8")[0] == JAPANESE


def test_detection_when_nothing_is_declared() -> None:
    assert decode_page(RUSSIAN.encode("cp1251"), None)[0] == RUSSIAN
    text, codec = decode_page(RUSSIAN.encode("koi8_r"), "utf-8")
    assert (text, codec) == (RUSSIAN, "koi8_r")


FRENCH = "Caf\u00e9s d\u00e9j\u00e0 ferm\u00e9s en \u00e9t\u00e9. "
TURKISH = "B\u00fct\u00fcn insanlar h\u00fcr, e\u015fit do\u011farlar. "
POLISH = "Za\u017c\u00f3\u0142\u0107 g\u0119\u015bl\u0105 ja\u017a\u0144. "


@pytest.mark.parametrize(
    ("text", "head", "charset", "codec"),
    [
        (FRENCH, "", "cp1252", "cp1252"),
        (FRENCH, "<html lang=fr>", "cp1252", "cp1252"),
        (TURKISH, "<html class=x lang='tr-TR'>", "cp1254", "cp1254"),
        (POLISH, "<html lang=pl>", "iso8859_2", "iso8859_2"),
        (POLISH, "<html lang=pl>", "cp1250", "cp1250"),
        (RUSSIAN, "<html lang=ru>", "cp1251", "cp1251"),
    ],
)
def test_undeclared_pages_go_by_their_language(text: str, head: str, charset: str, codec: str) -> None:
    page = head + text * 4
    assert decode_page(page.encode(charset), None) == (page, codec)


def test_cut_or_patched_utf_8_stays_utf_8() -> None:
    payload = RUSSIAN.encode()
    assert decode_page(payload[:-3], "utf-8")[0].startswith(RUSSIAN[:-3])
    assert decode_page(payload[:100] + b"\xff" + payload[100:], None)[1] == "utf_8"


def test_every_label_names_a_codec() -> None:
    assert all(codecs.lookup(codec) for codec in CODECS.values())
    assert len(CODECS) > 100


@given(st.binary(max_size=300), st.one_of(st.none(), st.sampled_from(sorted(CODECS)), st.text(max_size=10)))
def test_never_raises(payload: bytes, declared: str | None) -> None:
    text, codec = decode_page(payload, declared)
    text.encode()  # no lone surrogates
    assert codecs.lookup(codec)
