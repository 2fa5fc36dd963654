"""The bytes of a page -> its text, and the charset that was used.

Labels mean what browsers take them to mean (WHATWG Encoding Standard): "iso-8859-1" is windows-1252, "gb2312" is
gb18030, a `<meta>` that says utf-16 cannot be right. Only the codecs named here are ever used.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

from charset_normalizer import from_bytes

# Python codec: labels that mean it.
_LABELS = """
utf_8: utf-8 utf8 unicode-1-1-utf-8 x-unicode20utf8
utf_16_le: utf-16 utf-16le unicode ucs-2 iso-10646-ucs-2
utf_16_be: utf-16be unicodefffe
cp1252: windows-1252 cp1252 cp-1252 x-cp1252 iso-8859-1 iso8859-1 iso_8859-1 iso88591 latin1 latin-1 l1 ascii us-ascii
iso8859_2: iso-8859-2 iso8859-2 latin2 l2
iso8859_3: iso-8859-3 latin3
iso8859_4: iso-8859-4 latin4
iso8859_5: iso-8859-5 cyrillic
iso8859_6: iso-8859-6 arabic
iso8859_7: iso-8859-7 greek
iso8859_8: iso-8859-8 iso-8859-8-i hebrew
iso8859_10: iso-8859-10 latin6
iso8859_13: iso-8859-13
iso8859_14: iso-8859-14
iso8859_15: iso-8859-15 iso8859-15 iso_8859-15 latin-9 latin9 l9
iso8859_16: iso-8859-16
cp866: ibm866 cp866
koi8_r: koi8-r koi8 koi8_r koi
koi8_u: koi8-u koi8-ru
mac_roman: macintosh mac x-mac-roman
mac_cyrillic: x-mac-cyrillic
cp874: windows-874 tis-620 iso-8859-11
cp1250: windows-1250 cp1250 x-cp1250
cp1251: windows-1251 cp1251 x-cp1251 win-1251
cp1253: windows-1253 cp1253
cp1254: windows-1254 cp1254 iso-8859-9 latin5 l5
cp1255: windows-1255 cp1255
cp1256: windows-1256 cp1256
cp1257: windows-1257 cp1257
cp1258: windows-1258 cp1258
gb18030: gb18030 gbk gb2312 gb_2312-80 x-gbk chinese
big5hkscs: big5 big5-hkscs cn-big5 x-x-big5
euc_jp: euc-jp x-euc-jp
iso2022_jp: iso-2022-jp
cp932: shift_jis shift-jis sjis x-sjis ms_kanji windows-31j
cp949: euc-kr ks_c_5601-1987 korean windows-949 ksc5601
"""
CODECS: dict[str, str] = {
    label: codec
    for codec, _, labels in (line.partition(":") for line in _LABELS.strip().splitlines())
    for label in labels.split()
}
_MULTI_BYTE = {"utf_8", "utf_16_le", "utf_16_be", "gb18030", "big5hkscs", "euc_jp", "iso2022_jp", "cp932", "cp949"}
_BOMS = ((codecs.BOM_UTF8, "utf_8"), (codecs.BOM_UTF16_LE, "utf_16_le"), (codecs.BOM_UTF16_BE, "utf_16_be"))
_META = re.compile(rb"<meta[^>]{0,500}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
_XML = re.compile(rb"^\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([\w.:-]{1,40})", re.IGNORECASE)
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")
_CONTROLS = re.compile(rb"[\x80-\x9f]")
_LANG = re.compile(rb"<html[^>]{0,500}?\slang\s*=\s*[\"']?\s*([a-z]{2})\b", re.IGNORECASE)
# The HTML standard's defaults by locale (13.2.3.3).
_LANGUAGE_CODECS = {
    language: codec
    for codec, languages in {
        "cp1250": "cs sk hr",
        "iso8859_2": "pl hu sl",
        "cp1251": "ru bg be uk mk sr ky tg tt",
        "iso8859_7": "el",
        "cp1254": "tr ku az",
        "cp1255": "he",
        "cp1256": "ar fa ur",
        "cp1257": "et lt lv",
        "cp1258": "vi",
        "cp874": "th",
        "cp932": "ja",
        "cp949": "ko",
        "gb18030": "zh",
    }.items()
    for language in languages.split()
}
_META_BYTES = 4096  # browsers scan 1,024; pages with long heads put it later
_DETECT_BYTES = 16_384
_MAX_BAD_SHARE = 0.2  # broken characters per non-ASCII one that a UTF-8 page may hold: cut or patched pages


def decode_page(payload: bytes, declared: str | None) -> tuple[str, str]:
    """Return the page's text and the Python codec used; never raise.

    Candidates in order: byte order mark, `declared` (the HTTP header), `<meta>` or the XML declaration, UTF-8, the
    language of the page, detection. A candidate under which the bytes do not decode strictly is passed over. A
    declared single-byte charset yields to UTF-8 if the bytes are UTF-8 with characters beyond ASCII: any bytes decode
    under those charsets, and text in them is practically never UTF-8 by accident. A page that is UTF-8 but for a few
    broken characters stays UTF-8. The last resort replaces what does not decode.
    """
    for mark, codec in _BOMS:
        if payload.startswith(mark):
            return payload[len(mark) :].decode(codec, "replace"), codec
    utf_8 = _decode_strictly(payload, "utf_8")
    if utf_8 is not None and payload.isascii() and b"\0" not in payload and b"\x1b" not in payload:
        return utf_8, "utf_8"  # with these two, the text may be UTF-16 or ISO-2022-JP
    for codec in _declared_codecs(payload, declared):
        if utf_8 is not None and (codec == "utf_8" or codec not in _MULTI_BYTE):
            break
        text = _decode_strictly(payload, codec)
        if text is not None:
            return text, codec
    if utf_8 is not None:
        return utf_8, "utf_8"
    return _detect(payload)


def as_utf_8(payload: bytes, declared: str | None) -> bytes:
    """Return the page's text (see `decode_page`) as UTF-8, without byte order mark: for most pages, the bytes given.

    A parser of bytes spares the decoding of a page, a third of a parse, and the encoding, as much again.
    """
    if payload.isascii() and b"\0" not in payload and b"\x1b" not in payload:
        return payload
    text, codec = decode_page(payload, declared)
    if codec == "utf_8" and "\ufffd" not in text:
        return payload.removeprefix(codecs.BOM_UTF8)
    return text.encode("utf_8", "replace")


def _declared_codecs(payload: bytes, declared: str | None) -> Iterator[str]:
    if declared and (codec := CODECS.get(declared.strip().lower())):
        yield codec
    head = payload[:_META_BYTES]
    found = _META.search(head) or _XML.search(head)
    codec = CODECS.get(found[1].decode("ascii", "replace").lower()) if found else None
    if codec is not None:
        yield "utf_8" if codec.startswith("utf_16") else codec  # the declaration was readable as ASCII


def _decode_strictly(payload: bytes, codec: str) -> str | None:
    try:
        return payload.decode(codec)
    except UnicodeDecodeError:
        return None


def _detect(payload: bytes) -> tuple[str, str]:
    """Decode bytes of which no declaration holds, and which are not whole UTF-8."""
    text = payload.decode("utf_8", "replace")
    num_bad = text.count("\ufffd")
    if num_bad <= _MAX_BAD_SHARE * (len(text) - len(text.encode("ascii", "ignore"))):
        return text, "utf_8"
    codec = _hinted_codec(payload) or _guess(payload)
    return payload.decode(codec, "replace"), codec


def _hinted_codec(payload: bytes) -> str | None:
    """Return the charset that pages in the language of <html lang> had before UTF-8, if the bytes decode under it."""
    found = _LANG.search(payload[:_META_BYTES])
    codec = _LANGUAGE_CODECS.get(found[1].decode().lower()) if found else None
    if codec == "iso8859_2" and _CONTROLS.search(payload):
        codec = "cp1250"  # the Windows variant has letters where ISO has control characters
    return codec if codec is not None and _decode_strictly(payload, codec) is not None else None


def _guess(payload: bytes) -> str:
    """Detect from the bytes around the first beyond ASCII; for a Latin script, detectors are no better than cp1252."""
    found = _BEYOND_ASCII.search(payload)
    begin = max(0, found.start() - _DETECT_BYTES // 4) if found else 0
    best = from_bytes(payload[begin : begin + _DETECT_BYTES]).best()
    if best is None or all(character < "\u0250" or character > "\ufff0" for character in str(best)):
        return "cp1252"
    codec = CODECS.get(best.encoding.replace("_", "-"), best.encoding)
    return codec if codec in CODECS.values() else "cp1252"


def mend(text: str | None) -> str | None:
    """Return text in which characters that were decoded under a wrong charset and stored so are what they were."""
    if text is None or text.isascii():
        return text
    import ftfy

    return ftfy.fix_encoding(text)
