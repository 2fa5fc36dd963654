from __future__ import annotations

import hashlib
import io
import struct
import warnings
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from images_samples import encoded, exif_notes, png_chunk, save, small_picture, warc_images
from PIL import Image, ImageFile

from carnac.core.errors import RecordError
from carnac.images.decode import MAX_JPEG_SCANS
from carnac.images.inspect import ImageFacts, sniff_media_type, take_image
from carnac.images.settings import MEDIA_TYPES, ImageSettings, Store

SETTINGS = ImageSettings()
SMALL = ImageSettings(max_pixels=1_000_000)  # keeps mutated headers from costing seconds
KINDS = ["png", "jpeg", "jpeg progressive", "jpeg grey", "jpeg cmyk", "jpeg several", "webp", "webp lossless"]
KINDS += ["webp moving", "gif", "gif moving"]
fuzz = settings(max_examples=150, deadline=None)


def facts_of(payload: bytes, limits: ImageSettings = SETTINGS) -> ImageFacts:
    return take_image(payload, limits).facts


def reason_of(payload: bytes, limits: ImageSettings = SETTINGS) -> tuple[str, str]:
    with pytest.raises(RecordError) as caught:
        take_image(payload, limits)
    return caught.value.reason, caught.value.detail


def outcome(payload: bytes, limits: ImageSettings) -> ImageFacts | RecordError:
    try:
        return facts_of(payload, limits)
    except RecordError as error:
        return error


def png_header(width: int, height: int, data: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


def test_every_image_of_the_sample_passes() -> None:
    assert len(warc_images()) == 106
    for payload in warc_images().values():
        facts = facts_of(payload, SETTINGS)
        assert facts.media_type == "image/png"
        assert facts.received_sha256 == hashlib.sha256(payload).hexdigest()
        assert (facts.width, facts.height) == Image.open(io.BytesIO(payload)).size


@pytest.mark.parametrize("kind", KINDS)
def test_facts_of_every_encoding(kind: str) -> None:
    facts = facts_of(encoded()[kind], SETTINGS)
    width, height = Image.open(io.BytesIO(encoded()["png"])).size
    digest = hashlib.sha256(encoded()[kind]).hexdigest()
    assert facts.received_sha256 == digest
    assert facts.media_type == next(name for name in MEDIA_TYPES if name == f"image/{kind.split(maxsplit=1)[0]}")
    assert (facts.width, facts.height) == (width, height)


def test_a_file_without_notes_is_stored_as_it_came() -> None:
    payload = encoded()["jpeg progressive"]
    taken = take_image(payload, SETTINGS)
    assert taken.payload is payload
    assert taken.facts.sha256 == taken.facts.received_sha256 == hashlib.sha256(payload).hexdigest()


@pytest.mark.parametrize(
    ("payload", "reason", "detail"),
    [
        (b"", "empty", ""),
        (b"<!doctype html><html><svg></svg></html>", "not_an_image", "doctype"),
        (b"\x00" * 100, "not_an_image", ""),
        (b"RIFF\x10\x00\x00\x00WAVEfmt ", "not_an_image", "RIFF"),
        (b'<?xml version="1.0"?>\n<!-- drawn -->\n<SVG xmlns="x"/>', "unsupported_type", "image/svg+xml"),
        (b"II*\x00" + bytes(20), "unsupported_type", "image/tiff"),
        (b"BM\x36\x00\x00\x00\x00\x00\x00\x00\x36", "unsupported_type", "image/bmp"),
        (b"\x00\x00\x00\x20ftypavif" + bytes(20), "unsupported_type", "image/avif"),
        (b"\x00\x00\x01\x00\x01\x00", "unsupported_type", "image/x-icon"),
        (b"\xff\xd8\xff", "truncated_image", "image/jpeg"),
        (b"\x89PNG\r\n\x1a\n", "truncated_image", "image/png"),
        (b"RIFF\x10\x00\x00\x00WEBP", "truncated_image", "image/webp"),
        (b"GIF89a", "truncated_image", "image/gif"),
        (png_header(10, 10, b"not deflated"), "undecodable", "image/png"),
        (png_header(0, 10), "undecodable", ""),
    ],
)
def test_reasons(payload: bytes, reason: str, detail: str) -> None:
    got, text = reason_of(payload)
    assert got == reason
    assert detail in text


def test_a_type_that_the_recipe_leaves_out_is_unsupported() -> None:
    only_png = ImageSettings(media_types=("image/png",))
    assert reason_of(encoded()["gif"], only_png) == ("unsupported_type", "image/gif")
    assert facts_of(encoded()["png"], only_png).media_type == "image/png"


def test_bytes_are_counted_before_anything_else() -> None:
    length = len(encoded()["jpeg"])
    assert facts_of(encoded()["jpeg"], ImageSettings(max_image_bytes=length))
    assert reason_of(encoded()["jpeg"], ImageSettings(max_image_bytes=length - 1))[0] == "too_many_bytes"


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif"])
def test_a_bomb_is_refused_before_any_decode(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> None:
        raise AssertionError("decoded")

    width, height = Image.open(io.BytesIO(encoded()["png"])).size
    assert facts_of(encoded()[kind], ImageSettings(max_pixels=width * height))
    monkeypatch.setattr(ImageFile.ImageFile, "load", explode)
    assert reason_of(encoded()[kind], ImageSettings(max_pixels=width * height - 1))[0] == "too_many_pixels"


@pytest.mark.parametrize("side", [7_072, 10_000, 30_000, 2**31 - 1])
def test_bombs_below_and_beyond_the_guards_of_pillow(side: int) -> None:
    """Pillow warns above 89 M pixels and raises above 179 M; ours is the first of the three."""
    assert reason_of(png_header(side, side))[0] == "too_many_pixels"


def test_a_first_gif_frame_larger_than_the_declared_screen_is_counted() -> None:
    frame = struct.pack("<BHHHHB", 0x2C, 0, 0, 20_000, 20_000, 0) + b"\x02\x02\x44\x01\x00"
    gif = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6) + frame + b";"
    assert reason_of(gif)[0] == "too_many_pixels"


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    payload = encoded()["jpeg progressive"]
    last = payload.rindex(b"\xff\xda")
    scan = payload[last:-2]
    reason, detail = reason_of(payload[:last] + scan * MAX_JPEG_SCANS + payload[-2:])
    assert reason == "undecodable"
    assert f"at most {MAX_JPEG_SCANS}" in detail
    assert facts_of(payload[:last] + scan * 20 + payload[-2:], SETTINGS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_file_is_found(kind: str) -> None:
    """A cut is accepted only where every pixel of the first frame is there (the tail of a PNG, of a GIF, later frames).

    In particular the scaled decode of JPEG finds what a full decode finds.
    """
    payload = encoded()[kind]
    whole = facts_of(payload, SETTINGS)
    pixels = Image.open(io.BytesIO(payload)).convert("RGB").tobytes()
    for end in [*range(12, len(payload), len(payload) // 40), *range(len(payload) - 25, len(payload))]:
        facts = outcome(payload[:end], SETTINGS)
        if isinstance(facts, RecordError):
            assert facts.reason == "truncated_image", (end, facts)
        else:
            assert kind in ("png", "gif", "gif moving", "jpeg several")
            assert (facts.width, facts.height) == (whole.width, whole.height)
            assert Image.open(io.BytesIO(payload[:end])).convert("RGB").tobytes() == pixels


@pytest.mark.parametrize("kind", ["baseline", "progressive", "grey", "restarts"])
@pytest.mark.parametrize("side", [800, 400])
def test_a_small_scale_without_colours_finds_the_cuts_that_a_full_decode_finds(kind: str, side: int) -> None:
    """At an eighth and at a quarter; above it is a half."""
    (picture,) = (
        payload for url, payload in warc_images().items() if url.endswith("plot_structuring_elements_001.png")
    )
    shown = Image.open(io.BytesIO(picture)).convert("L" if kind == "grey" else "RGB").resize((side, side))
    options = {"progressive": kind == "progressive", "restart_marker_blocks": 7 if kind == "restarts" else 0}
    payload = save(shown, "JPEG", quality=80, **options)
    found = 0
    for end in [*range(700, len(payload), len(payload) // 30), *range(len(payload) - 8, len(payload) + 1)]:
        try:
            Image.open(io.BytesIO(payload[:end])).load()
        except OSError:
            found += 1
            assert reason_of(payload[:end])[0] == "truncated_image", end
        else:
            assert facts_of(payload[:end])
    assert found >= 30


def test_warnings_of_bombs_are_errors_and_filters_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = encoded()["png"]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # the picture has 30 times as many
    assert reason_of(payload)[0] == "too_many_pixels"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 70_000)  # between the warning and the error
    before = list(warnings.filters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert reason_of(payload)[0] == "too_many_pixels"
    assert warnings.filters == before


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("store", ["original", "clean", "reencoded"])
def test_width_and_height_are_those_of_the_picture_as_it_is_shown(kind: str, store: Store) -> None:
    payload = save(small_picture(), kind.upper(), exif=exif_notes(6))
    facts = facts_of(payload, ImageSettings(store=store))
    assert (facts.width, facts.height) == (72, 96)


def test_damaged_exif_costs_no_picture() -> None:
    exif = bytearray(exif_notes(6))
    exif[14:16] = b"\xff\xff"  # so many entries
    payload = save(small_picture(), "JPEG", exif=bytes(exif))
    taken = take_image(payload, SETTINGS)
    assert (taken.facts.width, taken.facts.height) in ((96, 72), (72, 96))
    assert b"Exif" not in taken.payload


def test_without_decode_only_the_header_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> None:
        raise AssertionError("decoded")

    header_only = ImageSettings(decode=False, store="original")
    whole = save(small_picture(), "JPEG", exif=exif_notes(8))
    monkeypatch.setattr(ImageFile.ImageFile, "load", explode)
    cut = take_image(whole[:-500], header_only)
    assert (cut.facts.width, cut.facts.height, cut.facts.phash) == (72, 96, None)
    assert cut.payload == whole[:-500]
    assert reason_of(png_header(30_000, 30_000), header_only)[0] == "too_many_pixels"


@pytest.mark.parametrize(
    ("mistaken", "word"),
    [
        ({"decode": False}, "set store = 'original'"),
        ({"decode": False, "store": "reencoded"}, "set store = 'original'"),
        ({"max_side_px": 512}, "set store = 'reencoded'"),
        ({"max_side_px": 512, "store": "original"}, "set store = 'reencoded'"),
    ],
)
def test_settings_that_would_have_no_effect_are_refused_with_a_way_out(mistaken: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        ImageSettings(**mistaken)


def looks_sound(payload: bytes) -> None:
    """Any bytes end in facts or in a `RecordError`, nothing else."""
    facts = outcome(payload, SMALL)
    if isinstance(facts, ImageFacts):
        assert facts.phash is not None
        assert 0 <= facts.phash < 1 << 64
        assert facts.width * facts.height <= SMALL.max_pixels
        assert facts.media_type == sniff_media_type(payload)


@fuzz
@given(payload=st.binary(max_size=2000))
def test_any_bytes(payload: bytes) -> None:
    looks_sound(payload)


@fuzz
@given(data=st.data())
def test_mutated_images(data: st.DataObject) -> None:
    payload = bytearray(encoded()[data.draw(st.sampled_from(KINDS))])
    for _ in range(data.draw(st.integers(1, 6))):
        # Headers are short and worth most of the blows.
        end = data.draw(st.sampled_from([64, 700, len(payload)]))
        payload[data.draw(st.integers(0, min(end, len(payload)) - 1))] = data.draw(st.integers(0, 255))
    looks_sound(bytes(payload))


@fuzz
@given(data=st.data())
def test_chimeras(data: st.DataObject) -> None:
    """The head of one file on the tail of another, and pieces taken out or doubled."""
    first, second = (encoded()[data.draw(st.sampled_from(KINDS))] for _ in range(2))
    cut, start = data.draw(st.integers(8, len(first))), data.draw(st.integers(0, len(second)))
    looks_sound(first[:cut] + second[start:])
